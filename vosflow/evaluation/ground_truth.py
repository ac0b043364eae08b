"""Ground truth on disk: checking that it is all there, and reading it with errors that name the file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.png import read_ids
from vosflow.manifest import LABEL_MAPS, ImageFolder, Manifest, VideoEntry

SHOWN = 8  # names listed in an error before it says "..."


def check_ground_truth(manifest: Manifest) -> None:
    """Check that every file of the ground truth exists; raises VosflowError naming the first that does not.

    In the per-object layout a frame without a mask of an object has no file, so only folders are checked.
    """
    for video in manifest.videos:
        truth = _ground_truth(video)
        folder = Path(manifest.root) / truth.folder
        names = (f"{name}{truth.suffix}" for name in truth.names)
        missing = missing_files(folder, names if manifest.layout == LABEL_MAPS else ()) if folder.is_dir() else [""]
        if missing:
            raise VosflowError(
                f"the ground truth of video {video.name} lacks {len(missing)} of {len(truth.names)} "
                f"frames: {some(missing)}",
                path=folder / missing[0],
                expected="the files that the manifest lists",
                remedy="restore them (extract the dataset's archive again), or write the manifest again",
            )


def read_ground_truth(video: VideoEntry, root: str | Path, frame: str) -> np.ndarray:
    """The ground truth of one frame, uint8 [H, W]; raises VosflowError if it is unreadable or of another size."""
    path = _ground_truth(video).path(root, frame)
    label_map = read_ids(path)
    if label_map.shape != (video.height, video.width):
        raise VosflowError(
            f"the ground truth is {label_map.shape[1]}x{label_map.shape[0]} pixels",
            path=path,
            expected=f"{video.width}x{video.height}, the size of video {video.name}",
            remedy="restore the original annotations; do not mix resolutions in one video",
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


def missing_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that `folder` does not hold."""
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    return [name for name in names if name not in present]


def some(names: list[str]) -> str:
    """A few names for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
