"""Scoring a run: all videos of a manifest, in as many processes as wanted."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import check_ground_truth
from vosflow.evaluation.predictions import Needs, Predictions
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.protocols.base import Protocol
from vosflow.evaluation.scores import Score, write_results
from vosflow.evaluation.statistics import Summary
from vosflow.manifest import Manifest, VideoEntry

Progress = Callable[[str, int, int], None]
"""Called after each video with its name, the number of finished videos and the number of all."""


@dataclass(frozen=True)
class Evaluation:
    """What scoring gave.

    Attributes:
        protocol: the rules.
        scores: rows in the manifest's video order, then object, then frame.
        summary: the publisher's statistics.
        missing: {video: number of missing predictions, counted as empty}; empty if scoring was strict.
    """

    protocol: Protocol
    scores: list[Score]
    summary: Summary
    missing: dict[str, int]


def evaluate_run(
    manifest: Manifest,
    predictions: str | Path,
    output: str | Path | None = None,
    *,
    protocol: str | None = None,
    strict: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a run and write its files (see `vosflow.evaluation.scores`) into the folder `output`, if one is given.

    Args:
        protocol: name of the rules; by default the manifest's.
        strict: missing predictions are an error; otherwise they count as empty masks.
        manifest, predictions, workers, progress: see `evaluate`.

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
    if output is not None and Path(output).resolve().is_relative_to(Path(predictions).resolve()):
        raise VosflowError(
            "the output folder lies in the folder of predictions",
            path=output,
            expected=f"a folder outside {predictions}",
            remedy="choose another --output: score files among label maps would end up in submissions",
        )
    folder = Predictions(Path(predictions), manifest.layout, strict)
    result = evaluate(manifest, folder, load_protocol(name), workers=workers, progress=progress)
    if output is not None:
        write_results(output, result.scores, result.summary, result.protocol.extra)
    return result


def evaluate(
    manifest: Manifest,
    predictions: Predictions,
    protocol: Protocol,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score masks on disk against the manifest's ground truth.

    Args:
        manifest: the dataset split; relative roots are relative to the working directory.
        protocol: the rules, see `vosflow.evaluation.protocols.load_protocol`.
        workers: number of processes; 1 scores in this one. The result does not depend on it.
        progress: see `Progress`.

    Raises:
        VosflowError: a file is missing (all are looked for before any is read), unreadable, of another size, or breaks
            the protocol's rules; in a worker process too. Videos that were not begun are then left alone.
    """
    protocol.check(manifest)
    needs = {video.name: protocol.needs(video, manifest.root) for video in manifest.videos}
    missing = predictions.check(manifest, needs)
    check_ground_truth(manifest)
    rows: dict[str, list[Score]] = {}
    for video, scores in _score_videos(manifest, needs, predictions, protocol, min(workers, len(manifest.videos))):
        rows[video] = scores
        if progress is not None:
            progress(video, len(rows), len(manifest.videos))
    scores = [score for video in manifest.videos for score in rows[video.name]]
    return Evaluation(protocol, scores, protocol.summarize(scores, manifest), missing)


def score_video(
    protocol: Protocol, video: VideoEntry, root: str | Path, needs: Needs, predictions: Predictions
) -> list[Score]:
    """Rows of one video, from its files; raises VosflowError as `evaluate` does."""
    scorer = protocol.scorer(video, root)
    for frame, objects in needs.items():
        scorer.add(frame, predictions.read(video, frame, objects), predictions.path(video, frame))
    return scorer.rows()


def _score_videos(
    manifest: Manifest, needs: Mapping[str, Needs], predictions: Predictions, protocol: Protocol, workers: int
) -> Iterator[tuple[str, list[Score]]]:
    """Yield (video, rows) as they are finished."""
    if workers <= 1:
        for video in manifest.videos:
            yield video.name, score_video(protocol, video, manifest.root, needs[video.name], predictions)
        return
    # Fresh processes, because a forked one inherits locked locks if this one has threads (OpenCV's, PyTorch's).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        largest_first = sorted(manifest.videos, key=lambda v: v.cost * v.height * v.width, reverse=True)
        futures = {
            pool.submit(_score_in_worker, protocol, video, manifest.root, needs[video.name], predictions): video.name
            for video in largest_first
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise VosflowError(
            "a worker process died while scoring (it was killed, perhaps for lack of memory)",
            path=predictions.folder,
            expected=f"room for {workers} processes of about 200 MB",
            remedy="evaluate again with fewer workers (--workers 1)",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and cancels what is waiting
    cv2.setNumThreads(1)  # one video per process is parallel enough


def _score_in_worker(
    protocol: Protocol, video: VideoEntry, root: str, needs: Needs, predictions: Predictions
) -> list[Score]:
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
