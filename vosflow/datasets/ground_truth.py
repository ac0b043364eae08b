"""The public ground truth of one video: which frames have it, whether it is sound, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vosflow.datasets.frames import numbered_files
from vosflow.datasets.prompts import object_folders, read_mask, values_above_zero
from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one video, as it enters the manifest, and what was seen in its masks.

    `object_frames` are the frames for which each object has a file (only where each has files of its own);
    `values` are the values above 0 in each file; `largest_value` is the largest that is an object.
    """

    images: ImageFolder
    content: str
    largest_value: int
    object_frames: Mapping[int, tuple[str, ...]]
    values: Mapping[Path, tuple[int, ...]]


def read_ground_truth(
    folder: Path,
    root: Path,
    frames: tuple[str, ...],
    height: int,
    width: int,
    video: str,
    *,
    per_object: bool = False,
    complete: bool = False,
    void: int | None = None,
) -> GroundTruth:
    """Read and check every ground-truth mask of a video once.

    The fingerprint covers names and full contents. Reading and decoding costs about 2 ms per 480p mask.

    Args:
        folder: holds `{frame}.png`, or `{object}/{frame}.png` if `per_object`.
        frames: names of the video's frames.
        complete: every frame must have a mask (DAVIS); otherwise some may have none (SA-V, LVOS).
        void: a value that is no object, left out of `largest_value`.

    Raises:
        VosflowError: missing folder, a mask without a frame, a frame without a mask if `complete`, or a mask that is
            damaged, coloured or of another size than its frame.
    """
    if not folder.is_dir():
        raise VosflowError(
            f"the ground truth of video {video} is missing",
            path=folder,
            expected="a folder with one PNG file per annotated frame",
            remedy="extract the dataset's archive again, or correct the folder of the annotations",
        )
    folders = object_folders(folder, video) if per_object else {None: folder}
    digest = hashlib.sha256()
    annotated: set[str] = set()
    values: dict[Path, tuple[int, ...]] = {}
    object_frames: dict[int, tuple[str, ...]] = {}
    for number, masks in folders.items():
        files = numbered_files(masks, (".png",))
        for path in files:
            digest.update(f"{path.relative_to(folder).as_posix()} ".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
            values[path] = tuple(values_above_zero(read_mask(path, height, width)))
        annotated.update(path.stem for path in files)
        if number is not None:
            object_frames[number] = tuple(path.stem for path in files)
    strangers = sorted(annotated.difference(frames))
    if strangers:
        raise VosflowError(
            f"the mask {strangers[0]}.png of video {video} has no frame",
            path=folder,
            expected="masks named like the frames",
            remedy=f"the frame {strangers[0]} is missing: extract the dataset's archive again",
        )
    names = tuple(frame for frame in frames if frame in annotated)
    if complete and len(names) < len(frames):
        missing = next(frame for frame in frames if frame not in annotated)
        raise VosflowError(
            f"the ground truth of frame {missing} of video {video} is missing",
            path=folder / f"{missing}.png",
            expected=f"one mask for each of {len(frames)} frames",
            remedy="the dataset is incomplete: extract its archive again",
        )
    if not names:
        raise VosflowError(
            f"video {video} has no ground-truth masks",
            path=folder,
            expected="masks as {object}/{frame}.png" if per_object else "masks as {frame}.png",
            remedy="correct the folder of the annotations, or leave it out if there is no public ground truth",
        )
    images = ImageFolder(folder.relative_to(root).as_posix(), ".png", names)
    largest_value = max((value for found in values.values() for value in found if value != void), default=0)
    return GroundTruth(images, digest.hexdigest(), largest_value, object_frames, values)
