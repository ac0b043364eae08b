"""run.json: what the numbers of one run came from (settings, weights, code, versions, machine) and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from vosflow.errors import VosflowError
from vosflow.manifest import Manifest
from vosflow.records import FORMAT, RunFolder
from vosflow.roles import by_role

NAMED_VIDEOS = 3  # in a note
VIDEO_FACTS = (
    "video",
    "frames",
    "objects",
    "seconds",
    "frames_per_second",
    "peak_memory_bytes",
    "device",
    "precision",
    "finished",
)


def describe_run(description: Mapping[str, object], manifest: Manifest, manifest_path: str, folder: str | Path) -> dict:
    """Join a run's plan with the records of its videos.

    Args:
        description: dataset, split, run, tracker, settings, swept, checkpoint, scored, notes.

    Returns:
        The content of run.json. Speed is total frames with masks by total seconds of tracking (decoding and writing
        included, loading of weights not); memory is the largest peak of any video.

    Raises:
        VosflowError: a video of the manifest has no record.
    """
    run = RunFolder(folder)
    records = []
    for video in manifest.videos:
        record = run.read_record(video.name)
        if record is None or "key" not in record:
            raise VosflowError(
                f"video {video.name} has no record",
                path=run.record_path(video.name),
                expected="a record beside the masks of every finished video",
                remedy="delete the shard records of this run and run snakemake again",
            )
        records.append(record)
    seconds = sum(record["seconds"] for record in records)
    given = sum(record.get("given", record["frames"]) for record in records)  # older records lack it
    provenance = _joined({**record["provenance"], **_weights(record["weights"])} for record in records)
    return {
        "format": FORMAT,
        **description,
        "checkpoint": _with_sha256(description["checkpoint"], provenance),
        "notes": [*description.get("notes", []), *manifest.notes, *_remarks(records)],
        "protocol": manifest.protocol,
        "agreement_with": manifest.agreement_with,
        "manifest": str(manifest_path),
        "folder": str(folder),
        "videos": [
            {
                **{fact: record[fact] for fact in VIDEO_FACTS},
                "load_seconds": record.get("load_seconds"),  # older records lack it
                "reused": count_reused(record),
            }
            for record in records
        ],
        "totals": {
            "videos": len(records),
            "frames": sum(record["frames"] for record in records),
            "objects": sum(record["objects"] + record.get("proposed", 0) for record in records),
            "seconds": seconds,
            "frames_per_second": given / seconds if seconds else None,
            "peak_memory_bytes": max((record["peak_memory_bytes"] for record in records), default=None),
            "artefacts": _counted(record.get("artefacts", {}) for record in records),
        },
        "provenance": {
            **provenance,
            "devices": sorted({record["device"] for record in records}),
            "threads": sorted({record["threads"] for record in records if record["threads"]}),
        },
    }


def count_reused(record: Mapping[str, object]) -> int:
    """How many costly arrays of a video were there already when it was tracked: with any, its seconds are too few."""
    return sum(counts["reused"] for counts in record.get("artefacts", {}).values())


def _weights(sha256: str | Mapping[str, str] | None) -> dict[str, str | None]:
    """The sha256 of a record's weights as facts of provenance: one, or one for each role."""
    if isinstance(sha256, Mapping):
        return {_weights_fact(role): one for role, one in sha256.items()}
    return {_weights_fact(""): sha256}


def _weights_fact(role: str) -> str:
    return f"weights of {role}" if role else "weights"


def _with_sha256(checkpoint: Mapping | None, provenance: Mapping[str, str | None]) -> Mapping | None:
    """The weights of the plan, of one role or several, with the sha256 of those that were used."""
    if checkpoint is None:
        return None
    used = {role: {**facts, "sha256": provenance[_weights_fact(role)]} for role, facts in by_role(checkpoint).items()}
    return used.get("", used)


def _counted(artefacts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """{kind: {"made", "reused"}} over all videos: how often a costly array was computed, and how often it was there."""
    total: dict[str, dict[str, int]] = {}
    for kinds in artefacts:
        for kind, counts in kinds.items():
            sums = total.setdefault(kind, dict.fromkeys(counts, 0))
            for what, count in counts.items():
                sums[what] += count
    return total


def _remarks(records: Iterable[Mapping]) -> list[str]:
    """What the tracker had to say of single videos, each remark once, with the videos."""
    videos: dict[str, list[str]] = {}
    for record in records:
        for remark in record["remarks"]:
            videos.setdefault(remark, []).append(record["video"])
    return [f"{remark} (video {_some(names)})" for remark, names in videos.items()]


def _some(names: list[str]) -> str:
    others = len(names) - NAMED_VIDEOS
    return ", ".join(names[:NAMED_VIDEOS]) + (f" and {others} more" if others > 0 else "")


def _joined(provenances: Iterable[Mapping[str, str | None]]) -> dict[str, str | None]:
    """Each fact as it was when the videos were tracked; where videos differ, all values, so that a mixture is seen."""
    found: dict[str, set[str]] = {}
    for provenance in provenances:
        for fact, value in provenance.items():
            found.setdefault(fact, set()).update([] if value is None else [value])
    return {fact: ", ".join(sorted(values)) or None for fact, values in sorted(found.items())}
