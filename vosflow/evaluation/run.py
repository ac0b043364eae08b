"""Scoring a run: all videos of a manifest, in as many processes as wanted."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.protocols.base import Protocol
from vosflow.evaluation.scores import Score, write_results
from vosflow.evaluation.statistics import Summary
from vosflow.manifest import Manifest, VideoEntry

Progress = Callable[[str, int, int], None]
"""Called after each video with its name, the number of finished videos and the number of all."""


def evaluate_run(
    manifest: Manifest,
    predictions: str | Path,
    output: str | Path,
    *,
    protocol: str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Summary:
    """Score a run and write its three files (see `vosflow.evaluation.scores`) into the folder `output`.

    Args:
        protocol: name of the rules; by default the manifest's.
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
    if Path(output).resolve().is_relative_to(Path(predictions).resolve()):
        raise VosflowError(
            "the output folder lies in the folder of predictions",
            path=output,
            expected=f"a folder outside {predictions}",
            remedy="choose another --output: score files among label maps would end up in submissions",
        )
    rules = load_protocol(name)
    scores = evaluate(manifest, predictions, rules, workers=workers, progress=progress)
    summary = rules.summarize(scores)
    write_results(output, scores, summary)
    return summary


def evaluate(
    manifest: Manifest,
    predictions: str | Path,
    protocol: Protocol,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[Score]:
    """Score the label maps below `predictions` against the manifest's ground truth.

    Args:
        manifest: the dataset split; relative roots are relative to the working directory.
        predictions: holds {video}/{frame}.png.
        protocol: the rules, see `vosflow.evaluation.protocols.load_protocol`.
        workers: number of processes; 1 scores in this one.
        progress: see `Progress`.

    Returns:
        Rows in the manifest's video order, then object, then frame; they do not depend on `workers`.

    Raises:
        VosflowError: a file is missing (all are looked for before any is read), unreadable, of another size, or breaks
            the protocol's rules; in a worker process too. Videos that were not begun are then left alone.
    """
    protocol.check(manifest, Path(predictions))
    rows: dict[str, list[Score]] = {}
    for video, scores in _score_videos(manifest, predictions, protocol, min(workers, len(manifest.videos))):
        rows[video] = scores
        if progress is not None:
            progress(video, len(rows), len(manifest.videos))
    return [score for video in manifest.videos for score in rows[video.name]]


def _score_videos(
    manifest: Manifest, predictions: str | Path, protocol: Protocol, workers: int
) -> Iterator[tuple[str, list[Score]]]:
    """Yield (video, rows) as they are finished."""
    if workers <= 1:
        for video in manifest.videos:
            yield video.name, protocol.score_video(video, manifest.root, predictions)
        return
    # Fresh processes, because a forked one inherits locked locks if this one has threads (OpenCV's, PyTorch's).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        largest_first = sorted(manifest.videos, key=lambda v: v.cost * v.height * v.width, reverse=True)
        futures = {
            pool.submit(_score_in_worker, protocol, video, manifest.root, predictions): video.name
            for video in largest_first
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise VosflowError(
            "a worker process died while scoring (it was killed, perhaps for lack of memory)",
            path=predictions,
            expected=f"room for {workers} processes of about 200 MB",
            remedy="evaluate again with fewer workers (--workers 1)",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and cancels what is waiting
    cv2.setNumThreads(1)  # one video per process is parallel enough


def _score_in_worker(protocol: Protocol, video: VideoEntry, root: str, predictions: str | Path) -> list[Score]:
    try:
        return protocol.score_video(video, root, predictions)
    except VosflowError:
        raise
    except Exception as error:  # any other may not survive the way to the parent process
        raise VosflowError(
            f"scoring video {video.name} failed:\n{traceback.format_exc()}",
            path=Path(predictions) / video.name,
            remedy="this is a fault of the protocol's code or of the installation: please report it",
        ) from error
