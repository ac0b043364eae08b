"""From the masks of BDD100K MOTS 2020 to label maps, as SAM-PT's conversion does it (SysCV/sam-pt@874ff7e, scripts).

A mask is an RGBA image: R is the category, the lowest four bits of G say truncated (8), occluded (4), crowd (2) and
ignored (1), and B and A are the high and the low byte of the instance's id (doc.bdd100k.com, Label Format). Crowds and
ignored instances are background. The ids of a video, ascending, become 1, 2, 3, ...; from the 101st on, a further
video {video}-chunk2 has them, from 1 again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vosflow.datasets.layout import find_part
from vosflow.datasets.lists import folder_names
from vosflow.errors import VosflowError
from vosflow.masks import DAVIS_PALETTE

OBJECTS_PER_CHUNK = 100
LEFT_OUT = 0b0011  # crowd, ignored
FRAMES, MASKS = "images/seg_track_20", "labels/seg_track_20/bitmasks"
PLACES = (".", "bdd100k", "{part}", "{part}/bdd100k")


def convert_split(root: Path, split: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Write `{root}/vos/{split}`, video by video; a video that is there already is kept.

    Args:
        root: the folder with images/ and labels/, or the one in which their archives were extracted.

    Yields:
        (video, names of what it became): several where it has more than 100 objects, none where it has no object.

    Raises:
        VosflowError: files that are missing, damaged or no masks of this kind.
    """
    frames = _part(root, "images", f"{FRAMES}/{split}")
    masks = _part(root, "labels", f"{MASKS}/{split}")
    output = root / "vos" / split
    for video in folder_names(masks):
        yield video, convert_video(frames / video, masks / video, output, video)


def convert_video(frames: Path, masks: Path, output: Path, video: str) -> tuple[str, ...]:
    """Write the frames (as links) and label maps of one video below `output`; returns the names it has there."""
    numbers = _numbered(masks, video, ".png")
    images = _numbered(frames, video, ".jpg")
    if missing := sorted(set(numbers) ^ set(images)):
        raise VosflowError(
            f"frame {missing[0]} of video {video} has {'no mask' if missing[0] in images else 'no image'}",
            path=frames / video,
            expected="a mask for every frame",
            remedy="the dataset is incomplete: extract its archives again",
        )
    known = sorted({int(value) for path in numbers.values() for value in np.unique(read_ids(path)) if value})
    chunks = [known[start : start + OBJECTS_PER_CHUNK] for start in range(0, len(known), OBJECTS_PER_CHUNK)]
    names = tuple(video if place == 0 else f"{video}-chunk{place + 1}" for place in range(len(chunks)))
    for name, ids in zip(names, chunks, strict=True):
        if (output / "Annotations" / name).is_dir():  # it appears when it is complete
            continue
        _link_frames(images, output / "JPEGImages" / name)
        _write_label_maps(numbers, ids, output / "Annotations" / name)
    return names


def read_ids(path: Path) -> np.ndarray:
    """The instances of one mask, uint16 [H, W]; crowds and ignored ones are 0. Raises VosflowError."""
    try:
        with Image.open(path) as image:
            if image.mode != "RGBA":
                raise ValueError(f"its mode is {image.mode}")
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise VosflowError(
            f"not a mask of BDD100K ({error})",
            path=path,
            expected="an RGBA PNG file: category, attributes, and two bytes of the instance's id",
            remedy="use labels/seg_track_20/bitmasks, not colormaps; or extract the archive again",
        ) from error
    ids = (pixels[..., 2].astype(np.uint16) << 8) | pixels[..., 3]
    ids[pixels[..., 1] & LEFT_OUT != 0] = 0
    return ids


def _part(root: Path, part: str, folder: str) -> Path:
    """Where `folder` is: below the root, or below the extracted archive `part`."""
    return find_part(root, (place.format(part=part) for place in PLACES), (folder,)) / folder


def _numbered(folder: Path, video: str, suffix: str) -> dict[str, Path]:
    """{frame number as text: file} of a video's folder; files are called {video}-{number}."""
    if not folder.is_dir():
        raise VosflowError(
            f"video {video} has no folder of {suffix} files",
            path=folder,
            expected="images and masks of the same videos",
            remedy="the dataset is incomplete: extract its archives again",
        )
    found = {}
    for path in sorted(folder.glob(f"*{suffix}")):
        match = re.fullmatch(rf"{re.escape(video)}-(\d+)", path.stem)
        if match is None:
            raise VosflowError(
                f"the file does not belong to video {video}",
                path=path,
                expected=f"names like {video}-0000001{suffix}",
                remedy="remove the file, or extract the archive again",
            )
        found[match[1]] = path
    if not found:
        raise VosflowError(f"video {video} has no {suffix} files", path=folder, remedy="extract the archive again")
    return found


def _link_frames(images: dict[str, Path], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, path in images.items():
        (folder / f"{number}{path.suffix}").symlink_to(os.path.relpath(path.resolve(), folder.resolve()))


def _write_label_maps(masks: dict[str, Path], ids: Iterable[int], folder: Path) -> None:
    """Write all label maps aside, then rename the folder: it is there when it is complete."""
    table = np.zeros(1 << 16, np.uint8)
    for number, instance in enumerate(ids, 1):
        table[instance] = number
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for number, path in masks.items():
        image = Image.fromarray(table[read_ids(path)])
        image.putpalette(DAVIS_PALETTE)
        image.save(aside / f"{number}.png")
    os.replace(aside, folder)
