"""What a study will cost before it runs: what is done, what is to do, and how long that takes by earlier records."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosflow.digest import file_digest
from vosflow.errors import VosflowError
from vosflow.manifest import Manifest, load_manifest
from vosflow.method import Method, parse_settings
from vosflow.records import RunFolder, read_json
from vosflow.roles import all_ids, each_role
from vosflow.study import Run, Study
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.registry import load_tracker
from vosflow.weights import CheckpointSource

EXPECTED = "expected"  # the basis of an estimate that rests on no record


@dataclass(frozen=True)
class Forecast:
    """What is to do for one run.

    Attributes:
        videos: number of videos; None as long as nobody has counted them (there is no manifest yet).
        frames: number of frames; an estimate without manifest.
        jobs: tracking jobs that Snakemake would run; those that find all their videos finished take seconds.
        seconds: estimated tracking time of what is to do, on one device.
        basis: what the estimate was taken from.
    """

    run: Run
    videos: int | None
    frames: int
    videos_done: int
    frames_done: int
    jobs: int
    seconds: float
    basis: str

    @property
    def frames_to_do(self) -> int:
        """Frames that are not tracked yet."""
        return self.frames - self.frames_done


@dataclass(frozen=True)
class Measured:
    """How fast a run was: `seconds` for `work` = sum of frames x (1 + objects) over `videos` of `frames`."""

    tracker: str
    checkpoint: str | None  # ids of all its weights, see `vosflow.roles.all_ids`
    on_gpu: bool
    videos: int
    frames: int
    work: float
    seconds: float


def forecast_study(study: Study) -> list[Forecast]:
    """Forecast of each run, in the order of the study."""
    earlier = measure_results(study.config.paths.results)
    expected = study.config.execution.frames_per_second
    manifests: dict[str, Manifest | None] = {}
    forecasts = []
    for run in study.runs:
        if run.dataset.id not in manifests:
            manifests[run.dataset.id] = manifest_of(run)
        forecasts.append(_forecast(run, manifests[run.dataset.id], earlier, expected))
    return forecasts


def manifest_of(run: Run) -> Manifest | None:
    """The manifest of a run's dataset, or None if it is not written yet (or not readable: Snakemake will tell)."""
    try:
        return load_manifest(Path(run.folder).parent / "manifest.json")
    except VosflowError:
        return None


def finished_records(run: Run, manifest: Manifest) -> dict[str, dict]:
    """Records of those videos that the engine would skip: finished with the key that it would compute now."""
    try:
        method = Method(
            run.tracker,
            parse_settings(load_tracker(run.tracker), run.tracker, run.settings),
            each_role(_checkpoint, run.checkpoint),
        )
    except OSError:  # weights that are not fetched yet, and whose sha256 nobody knows
        return {}
    devices = ["cpu", "cuda"] if run.device == "auto" else [run.device]
    folder = RunFolder(run.folder)
    found = {}
    for video in manifest.videos:
        record = folder.read_record(video.name)
        if record is None or "key" not in record:
            continue
        view = manifest.tracking_view(video.name, full_frames=method.reads_full_frames)
        known = any(record["key"] == method.key(view, device, record.get("precision", "")) for device in devices)
        if known and folder.masks_are_complete(video.name, record):
            found[video.name] = record
    return found


def measure_results(results: str | Path) -> list[Measured]:
    """How fast the finished runs below a results folder were, also those of other studies."""
    measured = []
    for path in sorted(Path(results).glob("*/*/run.json")):
        with contextlib.suppress(VosflowError, KeyError, TypeError):  # a broken or old file is told by what needs it
            facts = read_json(path)
            measured.append(_measure(facts["tracker"], all_ids(facts["checkpoint"]), facts["videos"]))
    return [one for one in measured if one.videos]


def _forecast(run: Run, manifest: Manifest | None, earlier: Iterable[Measured], expected: float) -> Forecast:
    if manifest is None:
        jobs = sum(not Path(record).exists() for record in run.shard_records)
        seconds, basis = _estimate(run, run.dataset.frames, None, earlier, expected)
        return Forecast(run, None, run.dataset.frames, 0, 0, jobs, seconds, basis)
    done = finished_records(run, manifest)
    jobs = sum(not _holds(record, done) for record in run.shard_records)
    own = _measure(run.tracker, all_ids(run.checkpoint), done.values())
    left = [video for video in manifest.videos if video.name not in done]
    frames = sum(len(video.frames.names) for video in left)
    work = sum(video.cost for video in left)
    seconds, basis = _estimate(run, frames, work, [own] if own.videos else earlier, expected)
    total = sum(len(video.frames.names) for video in manifest.videos)
    return Forecast(run, len(manifest.videos), total, len(done), total - frames, jobs, seconds, basis)


def _holds(shard_record: str, done: Collection[str]) -> bool:
    """Whether a shard's record is there and true: else Snakemake runs the job."""
    try:
        return all(item["video"] in done for item in read_json(shard_record)["videos"])
    except (VosflowError, KeyError):
        return False


def _estimate(
    run: Run, frames: int, work: float | None, earlier: Iterable[Measured], expected: float
) -> tuple[float, str]:
    """(seconds, basis) for `frames` frames, from the runs that are most like this one."""
    like = [one for one in earlier if one.tracker == run.tracker and one.on_gpu == bool(run.gpus)]
    same = [one for one in like if one.checkpoint == all_ids(run.checkpoint)]
    like = same or like
    if not like:
        return frames / expected, EXPECTED
    seconds = sum(one.seconds for one in like)
    if work is None:  # nobody knows the number of objects
        estimate = frames * seconds / sum(one.frames for one in like)
    else:
        estimate = work * seconds / sum(one.work for one in like)
    videos = sum(one.videos for one in like)
    return estimate, f"{videos} video{'s' * (videos != 1)}"


def _measure(tracker: str, checkpoint: str | None, videos: Iterable[Mapping[str, Any]]) -> Measured:
    videos = list(videos)
    return Measured(
        tracker=tracker,
        checkpoint=checkpoint,
        on_gpu=any(video["device"] != "cpu" for video in videos),
        videos=len(videos),
        frames=sum(video["frames"] for video in videos),
        work=sum(video["frames"] * (1 + video["objects"]) for video in videos),
        seconds=sum(video["seconds"] for video in videos),
    )


def _checkpoint(source: CheckpointSource) -> Checkpoint:
    return Checkpoint(source.id, Path(source.path), source.sha256 or file_digest(source.path), source.config)
