"""Scoring a run: all videos of a manifest, in as many processes as wanted."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import check_ground_truth, read_ground_truth
from vosflow.evaluation.machine_code import prepare
from vosflow.evaluation.predictions import Needs, Predictions
from vosflow.evaluation.processes import WorkerDied, in_processes
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.protocols.base import InstanceProtocol, Protocol, Rules
from vosflow.evaluation.scores import Score, write_results
from vosflow.evaluation.statistics import Summary
from vosflow.manifest import LABEL_MAPS, Manifest, VideoEntry

Progress = Callable[[str, int, int], None]
"""Called after each video with its name, the number of finished videos and the number of all."""

PIXELS_PER_WORKER = 200_000_000  # 500 frames of 854x480: scoring them takes twice as long as starting a process


@dataclass(frozen=True)
class Evaluation:
    """What scoring gave.

    Attributes:
        protocol: the rules.
        scores: rows in the manifest's video order, then object, then frame.
        summary: the publisher's statistics.
        missing: {video: number of missing predictions, counted as empty}; empty if scoring was strict.
        strange: {video: predicted ids}, see `_strange_ids`: what was scored is hardly what was meant.
    """

    protocol: Rules
    scores: list[Score]
    summary: Summary
    missing: dict[str, int]
    strange: dict[str, tuple[int, ...]] = field(default_factory=dict)


def evaluate_run(
    manifest: Manifest,
    predictions: str | Path,
    output: str | Path | None = None,
    *,
    protocol: str | None = None,
    strict: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
    scored: Mapping[str, list[Score]] | None = None,
) -> Evaluation:
    """Score a run and write its files (see `vosflow.evaluation.scores`) into the folder `output`, if one is given.

    Args:
        protocol: name of the rules; by default the manifest's.
        strict: missing predictions are an error; otherwise they count as empty masks.
        manifest, predictions, workers, progress, scored: see `evaluate`.

    Raises:
        VosflowError: as `evaluate`; also if no protocol is known, or if `output` lies in the folder of predictions.
    """
    name = protocol or manifest.protocol
    if name is None:
        raise VosflowError(
            f"{manifest.dataset}/{manifest.split} has no protocol: its ground truth is not public",
            expected="a split whose ground truth is published",
            remedy="submit the label maps to the dataset's server; or name a protocol if you have the ground truth",
        )
    if output is not None:
        check_output(output, predictions)
    rules = load_protocol(name)
    if isinstance(rules, InstanceProtocol):
        rules.check(manifest)
        result = Evaluation(rules, *rules.evaluate(manifest, Path(predictions), strict=strict, progress=progress))
    else:
        folder = Predictions(Path(predictions), manifest.layout, strict)
        result = evaluate(manifest, folder, rules, workers=workers, progress=progress, scored=scored)
    if output is not None:
        write_results(output, result.scores, result.summary, result.protocol.extra)
    return result


def check_output(output: str | Path, predictions: str | Path) -> None:
    """Raise VosflowError if the folder for scores lies in the folder of predictions."""
    if Path(output).resolve().is_relative_to(Path(predictions).resolve()):
        raise VosflowError(
            "the output folder lies in the folder of predictions",
            path=output,
            expected=f"a folder outside {predictions}",
            remedy="choose another one: score files among label maps would end up in submissions",
        )


def evaluate(
    manifest: Manifest,
    predictions: Predictions,
    protocol: Protocol,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    scored: Mapping[str, list[Score]] | None = None,
) -> Evaluation:
    """Score masks on disk against the manifest's ground truth.

    Args:
        manifest: the dataset split; relative roots are relative to the working directory.
        protocol: the rules, see `vosflow.evaluation.protocols.load_protocol`.
        workers: largest number of processes; 1 scores in this one, and so is what is too little to be worth more. The
            result does not depend on it.
        progress: see `Progress`.
        scored: the rows of videos whose masks were scored while they were in memory (see `vosflow.evaluation.live`):
            their files are looked for, but not read.

    Raises:
        VosflowError: a file is missing (all are looked for before any is read), unreadable, of another size, or breaks
            the protocol's rules; in a worker process too. Videos that were not begun are then left alone.
    """
    protocol.check(manifest)
    needs = {video.name: protocol.needs(video, manifest.root) for video in manifest.videos}
    missing = predictions.check(manifest, needs)
    check_ground_truth(manifest)
    rows = {video.name: scored[video.name] for video in manifest.videos if scored and video.name in scored}
    unscored = [video for video in manifest.videos if video.name not in rows]
    strange = _strange_ids(unscored, manifest.root, needs, predictions) if protocol.ignores_ids else {}
    for video, scores in _score_videos(unscored, manifest.root, needs, predictions, protocol, workers):
        rows[video] = scores
        if progress is not None:
            progress(video, len(rows), len(manifest.videos))
    scores = [score for video in manifest.videos for score in rows[video.name]]
    return Evaluation(protocol, scores, protocol.summarize(scores, manifest), missing, strange)


def _strange_ids(
    videos: Sequence[VideoEntry], root: str, needs: Mapping[str, Needs], predictions: Predictions
) -> dict[str, tuple[int, ...]]:
    """{video: ids} where a label map has ids, and none is an object: masks of 0 and 255, for instance, or colours.

    Rules that ignore unknown ids score them as empty. The first scored frame of each video is looked at, no other: it
    shows the mistake, and costs nothing beside the scoring.
    """
    strange = {}
    for video in videos:
        frame = next(iter(needs[video.name]), None)
        if frame is None:
            continue
        objects = {object_id for on_frame in needs[video.name].values() for object_id in on_frame}
        objects = objects or set(np.unique(read_ground_truth(video, root, frame)).tolist()) - {0}
        found = set(np.unique(predictions.read(video, frame, ())).tolist()) - {0}
        if found and objects and not found & objects:
            strange[video.name] = tuple(sorted(found))
    return strange


def score_video(
    protocol: Protocol, video: VideoEntry, root: str | Path, needs: Needs, predictions: Predictions
) -> list[Score]:
    """Rows of one video, from its files; raises VosflowError as `evaluate` does."""
    scorer = protocol.scorer(video, root)
    for frame, objects in needs.items():
        scorer.add(frame, predictions.read(video, frame, objects), predictions.path(video, frame))
    return scorer.rows()


def _score_videos(
    videos: Sequence[VideoEntry],
    root: str,
    needs: Mapping[str, Needs],
    predictions: Predictions,
    protocol: Protocol,
    workers: int,
) -> Iterator[tuple[str, list[Score]]]:
    """Yield (video, rows) as they are finished."""
    pixels = {video.name: _pixels(video, needs[video.name], predictions.layout) for video in videos}
    workers = min(workers, len(videos), sum(pixels.values()) // PIXELS_PER_WORKER)
    if workers <= 1:
        for video in videos:
            yield video.name, score_video(protocol, video, root, needs[video.name], predictions)
        return
    prepare()  # compile once, not in each of the processes
    largest_first = sorted(videos, key=lambda video: pixels[video.name], reverse=True)
    tasks = {video.name: (video, needs[video.name]) for video in largest_first}
    try:
        yield from in_processes(functools.partial(_score_task, protocol, root, predictions), tasks, workers)
    except WorkerDied as death:
        began = f"while it scored video {death.task}" if death.task else "before it could score a video"
        raise VosflowError(
            f"a worker process {death.how} {began}",
            path=predictions.folder / (death.task or ""),
            expected=f"room in memory for {workers} processes of about 150 MB",
            remedy="evaluate again, with fewer workers if memory was short (--workers 1)",
        ) from death


def _pixels(video: VideoEntry, needs: Needs, layout: str) -> int:
    """How many predicted pixels must be read."""
    images = len(needs) if layout == LABEL_MAPS else sum(map(len, needs.values()))
    return images * video.height * video.width


def _score_task(protocol: Protocol, root: str, predictions: Predictions, task: tuple[VideoEntry, Needs]) -> list[Score]:
    video, needs = task
    try:
        return score_video(protocol, video, root, needs, predictions)
    except VosflowError:
        raise
    except Exception as error:  # any other may not survive the way to the parent process
        raise VosflowError(
            f"scoring video {video.name} failed:\n{traceback.format_exc()}",
            path=predictions.folder / video.name,
            remedy="this is a fault of the protocol's code or of the installation: please report it",
        ) from error
