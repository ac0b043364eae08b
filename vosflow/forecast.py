"""What a study will cost before it runs: what is done, what is to do, and how long that takes by earlier records."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosflow.describe import count_reused
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
        load_seconds: estimated time in which its jobs load networks, and compile them; 0 if no record tells.
        basis: what the estimate was taken from.
        sped_up: all that it was taken from was sped up by the cache: what is to do may take longer.
    """

    run: Run
    videos: int | None
    frames: int
    videos_done: int
    frames_done: int
    jobs: int
    seconds: float
    load_seconds: float
    basis: str
    sped_up: bool

    @property
    def frames_to_do(self) -> int:
        """Frames that are not tracked yet."""
        return self.frames - self.frames_done


@dataclass(frozen=True)
class Measured:
    """How fast videos of a run were: `seconds` for `work` = sum of frames x (1 + objects) over `videos` of `frames`.

    Attributes:
        checkpoint: ids of all its weights, see `vosflow.roles.all_ids`.
        sped_up: each of the videos reused something from the cache; else none did.
        load_seconds: one for each job that loaded its network, as far as records tell.
    """

    tracker: str
    checkpoint: str | None
    on_gpu: bool
    sped_up: bool
    videos: int
    frames: int
    work: float
    seconds: float
    load_seconds: tuple[float, ...]


@dataclass(frozen=True)
class _Estimate:
    """See `Forecast`; `load_seconds` is that of one job."""

    seconds: float
    load_seconds: float
    basis: str
    sped_up: bool


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
            reused = count_reused(facts.get("totals", {}))  # where videos do not tell: older files
            videos = [{"reused": reused, **video} for video in facts["videos"]]
            measured += _measure(facts["tracker"], all_ids(facts["checkpoint"]), videos)
    return measured


def _forecast(run: Run, manifest: Manifest | None, earlier: Sequence[Measured], expected: float) -> Forecast:
    if manifest is None:
        jobs = sum(not Path(record).exists() for record in run.shard_records)
        frames = run.dataset.frames
        given = _estimate(run, frames, None, [], earlier, expected)
        loading = jobs * given.load_seconds
        return Forecast(run, None, frames, 0, 0, jobs, given.seconds, loading, given.basis, given.sped_up)
    done = finished_records(run, manifest)
    jobs = sum(not _holds(record, done) for record in run.shard_records)
    videos = [{**record, "reused": count_reused(record)} for record in done.values()]
    own = _measure(run.tracker, all_ids(run.checkpoint), videos)
    left = [video for video in manifest.videos if video.name not in done]
    frames = sum(len(video.frames.names) for video in left)
    work = sum(video.cost for video in left)
    given = _estimate(run, frames, work, own, earlier, expected)
    total = sum(len(video.frames.names) for video in manifest.videos)
    return Forecast(
        run=run,
        videos=len(manifest.videos),
        frames=total,
        videos_done=len(done),
        frames_done=total - frames,
        jobs=jobs,
        seconds=given.seconds,
        load_seconds=min(jobs, len(left)) * given.load_seconds,  # a job without anything to do loads nothing
        basis=given.basis,
        sped_up=given.sped_up,
    )


def _holds(shard_record: str, done: Collection[str]) -> bool:
    """Whether a shard's record is there and true: else Snakemake runs the job."""
    try:
        return all(item["video"] in done for item in read_json(shard_record)["videos"])
    except (VosflowError, KeyError):
        return False


def _estimate(
    run: Run, frames: int, work: float | None, own: Sequence[Measured], earlier: Sequence[Measured], expected: float
) -> _Estimate:
    """Of `frames` frames, from what is most like this run: its `own` videos, or those of `earlier` runs."""
    like = _most_like(run, own, earlier)
    if not like:
        return _Estimate(frames / expected, 0.0, EXPECTED, sped_up=False)
    seconds = sum(one.seconds for one in like)
    if work is None:  # nobody knows the number of objects
        estimate = frames * seconds / sum(one.frames for one in like)
    else:
        estimate = work * seconds / sum(one.work for one in like)
    videos = sum(one.videos for one in like)
    loads = [load for one in like for load in one.load_seconds]
    basis = f"{videos} video{'s' * (videos != 1)}"
    return _Estimate(estimate, sum(loads) / max(1, len(loads)), basis, like[0].sped_up)


def _most_like(run: Run, own: Sequence[Measured], earlier: Sequence[Measured]) -> list[Measured]:
    """What an estimate rests on. What the cache sped up is taken only where there is nothing else of this tracker."""
    like = [one for one in earlier if one.tracker == run.tracker and one.on_gpu == bool(run.gpus)]
    same = [one for one in like if one.checkpoint == all_ids(run.checkpoint)]
    for sped_up in (False, True):
        for some in (own, same, like):
            if chosen := [one for one in some if one.sped_up == sped_up]:
                return chosen
    return []


def _measure(tracker: str, checkpoint: str | None, videos: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """Of the videos that were computed from scratch, and of those that reused something, as far as there are any."""
    parts = {sped_up: [video for video in videos if bool(video["reused"]) == sped_up] for sped_up in (False, True)}
    return [
        Measured(
            tracker=tracker,
            checkpoint=checkpoint,
            on_gpu=any(video["device"] != "cpu" for video in part),
            sped_up=sped_up,
            videos=len(part),
            frames=sum(video["frames"] for video in part),
            work=sum(video["frames"] * (1 + video["objects"]) for video in part),
            seconds=sum(video["seconds"] for video in part),
            load_seconds=tuple(load for video in part if (load := video.get("load_seconds")) is not None),
        )
        for sped_up, part in parts.items()
        if part
    ]


def _checkpoint(source: CheckpointSource) -> Checkpoint:
    return Checkpoint(source.id, Path(source.path), source.sha256 or file_digest(source.path), source.config)
