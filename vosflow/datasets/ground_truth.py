"""The public ground truth of one video: which frames have it, whether it is sound, and its fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vosflow.datasets.frames import numbered_files
from vosflow.datasets.prompts import read_mask
from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder


@dataclass(frozen=True)
class GroundTruth:
    """Ground truth of one video, as it enters the manifest, and the largest value in any of its masks."""

    images: ImageFolder
    content: str
    largest_value: int


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
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if per_object else [folder]
    digest = hashlib.sha256()
    annotated: set[str] = set()
    largest_value = 0
    for masks in folders:
        for path in numbered_files(masks, (".png",)):
            digest.update(f"{path.relative_to(folder).as_posix()} ".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
            values = read_mask(path, height, width)
            present = values[values != void] if void is not None else values
            largest_value = max(largest_value, int(present.max(initial=0)))
            annotated.add(path.stem)
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
    return GroundTruth(images, digest.hexdigest(), largest_value)
