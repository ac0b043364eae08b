"""The label maps of a comparison: checking that they are all there, and reading them with errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder, Manifest, VideoEntry
from vosflow.masks import read_label_map

SHOWN = 8  # names listed in an error before it says "..."


def check_files(manifest: Manifest, predictions: str | Path, frames: dict[str, tuple[str, ...]]) -> None:
    """Check that every file to be compared exists, before any is read.

    Args:
        manifest: says where the ground truth is.
        predictions: holds {video}/{frame}.png.
        frames: names of the frames that must be predicted, per video.

    Raises:
        VosflowError: naming every video without a folder, or the first video with missing frames and which.
    """
    predictions = Path(predictions)
    _check_prediction_videos(manifest, predictions)
    for video in manifest.videos:
        folder = predictions / video.name
        missing = _missing(folder, (f"{frame}.png" for frame in frames[video.name]))
        if missing:
            raise VosflowError(
                f"the prediction of video {video.name} lacks {len(missing)} of {len(frames[video.name])} "
                f"scored frames: {_some(missing)}",
                path=folder / missing[0],
                expected="one label map {frame}.png for each ground-truth frame except the first and the last",
                remedy="run the tracker again on this video; label maps must be named like the frames",
            )
    for video in manifest.videos:
        truth = _ground_truth(video)
        folder = Path(manifest.root) / truth.folder
        missing = _missing(folder, (f"{name}{truth.suffix}" for name in truth.names))
        if missing:
            raise VosflowError(
                f"the ground truth of video {video.name} lacks {len(missing)} of {len(truth.names)} "
                f"frames: {_some(missing)}",
                path=folder / missing[0],
                expected="the files that the manifest lists",
                remedy="restore them (extract the dataset's archive again), or write the manifest again",
            )


def read_ground_truth(video: VideoEntry, root: str | Path, frame: str) -> np.ndarray:
    """The ground truth of one frame, uint8 [H, W]; raises VosflowError if it is unreadable or of another size."""
    path = _ground_truth(video).path(root, frame)
    label_map, _ = read_label_map(path)
    if label_map.shape != (video.height, video.width):
        raise VosflowError(
            f"the ground truth is {label_map.shape[1]}x{label_map.shape[0]} pixels",
            path=path,
            expected=f"{video.width}x{video.height}, the size of video {video.name}",
            remedy="restore the original annotations; do not mix resolutions in one video",
        )
    return label_map


def prediction_path(predictions: str | Path, video: VideoEntry, frame: str) -> Path:
    """File of the predicted label map of one frame."""
    return Path(predictions) / video.name / f"{frame}.png"


def read_prediction(predictions: str | Path, video: VideoEntry, frame: str) -> np.ndarray:
    """The predicted label map of one frame, uint8 [H, W]; raises VosflowError if unreadable or of another size."""
    path = prediction_path(predictions, video, frame)
    label_map, _ = read_label_map(path)
    if label_map.shape != (video.height, video.width):
        raise VosflowError(
            f"the prediction is {label_map.shape[1]}x{label_map.shape[0]} pixels",
            path=path,
            expected=f"{video.width}x{video.height}, the size of the ground truth of video {video.name}",
            remedy="save label maps at the ground truth's size; if you must resize ids, use nearest neighbour",
        )
    return label_map


def ground_truth_frames(video: VideoEntry) -> tuple[str, ...]:
    """Names of the frames with ground truth, in temporal order; raises VosflowError if the video has none."""
    return _ground_truth(video).names


def _ground_truth(video: VideoEntry) -> ImageFolder:
    if video.ground_truth is None:
        raise VosflowError(
            f"video {video.name} has no public ground truth",
            expected="a split whose ground truth is published",
            remedy="submit the label maps to the dataset's server instead",
        )
    return video.ground_truth


def _check_prediction_videos(manifest: Manifest, predictions: Path) -> None:
    if not predictions.is_dir():
        raise VosflowError(
            "the folder of predictions does not exist",
            path=predictions,
            expected="a folder with one sub-folder of label maps per video",
            remedy="check the path, or run the tracker first",
        )
    missing = [video.name for video in manifest.videos if not (predictions / video.name).is_dir()]
    if missing:
        raise VosflowError(
            f"{len(missing)} of {len(manifest.videos)} videos have no prediction: {_some(missing)}",
            path=predictions / missing[0],
            expected="a folder {video} with one label map {frame}.png per frame",
            remedy="run the tracker on these videos; if the videos lie in a sub-folder of "
            f"{predictions}, name that sub-folder",
        )


def _missing(folder: Path, names: Iterable[str]) -> list[str]:
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    return [name for name in names if name not in present]


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
