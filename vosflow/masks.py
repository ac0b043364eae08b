"""Label maps and object masks on disk: reading, merging, and writing a video's masks all at once or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS


class DiskError(VosflowError):
    """Masks cannot be written: no later video will fare better."""


def voc_palette() -> list[int]:
    """The 256-colour map of PASCAL VOC, which DAVIS uses: bit k of an id goes to bit 7-k//3 of channel k%3."""
    palette = []
    for index in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        palette += colour
    return palette


DAVIS_PALETTE = voc_palette()


def read_label_map(path: str | Path) -> tuple[np.ndarray, list[int] | None]:
    """Read a palette, grey or 1-bit image without touching its values.

    Returns:
        The pixel values, uint8 [H, W], and the RGB palette (flat list) or None.

    Raises:
        VosflowError: the file is missing, damaged, or has more than one channel or 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise VosflowError(
                    f"the mask is a {image.mode} image",
                    path=path,
                    expected="one channel of object ids: a palette (P) or grey (L) 8-bit PNG",
                    remedy="save the ids themselves, not their colours; a viewer's screenshot or a JPEG will not do",
                )
            values = np.array(image, dtype=np.uint8)
            palette = image.getpalette() if image.mode == "P" else None
    except FileNotFoundError as error:
        raise VosflowError(
            "the mask is missing",
            path=path,
            expected="a PNG with object ids",
            remedy="restore the file, or write the manifest again",
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise VosflowError(
            f"the mask is unreadable ({error})",
            path=path,
            expected="a complete PNG with object ids",
            remedy="the file is damaged (truncated?): restore or recompute it",
        ) from error
    return values, palette


def merge_objects(masks: Mapping[int, np.ndarray], height: int, width: int) -> np.ndarray:
    """Paint object masks into one label map, uint8 [H, W]; where masks overlap, the smallest id wins.

    The rule of `put_per_obj_mask` in facebookresearch/sam2 tools/vos_inference.py.
    """
    label_map = np.zeros((height, width), np.uint8)
    for object_id in sorted(masks, reverse=True):
        label_map[masks[object_id]] = object_id
    return label_map


def object_folder(object_id: int) -> str:
    """Folder name of one object in the per-object layout."""
    return f"{object_id:03d}"


class VideoMaskWriter:
    """Writes the masks of one video: aside first, then renamed, so that they appear at once or not at all.

    Use as a context manager; leaving it normally publishes `{folder}/{video}`, an exception leaves what was there.

    Args:
        folder: the run's mask folder.
        video: name of the video.
        layout: "label_maps" ({video}/{frame}.png) or "per_object" ({video}/{object:03d}/{frame}.png, values 0 and 1).
        palette: flat RGB palette of the PNG files.
    """

    def __init__(self, folder: str | Path, video: str, *, layout: str, palette: list[int] | None = None) -> None:
        self._final = Path(folder) / video
        self._aside = self._final.with_name(f".{video}.writing")
        self._layout = layout
        self._palette = palette or DAVIS_PALETTE

    def __enter__(self) -> VideoMaskWriter:
        shutil.rmtree(self._aside, ignore_errors=True)  # left by a killed job
        self._make_folder(self._aside)
        return self

    def write(self, frame: str, masks: np.ndarray | Mapping[int, np.ndarray]) -> None:
        """Write one frame: a label map uint8 [H, W], or {object id: bool [H, W]} in the per-object layout."""
        if self._layout == LABEL_MAPS:
            self._save(self._aside / f"{frame}.png", masks)
            return
        for object_id, mask in masks.items():
            folder = self._aside / object_folder(object_id)
            self._make_folder(folder)
            self._save(folder / f"{frame}.png", mask.astype(np.uint8))

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            shutil.rmtree(self._aside, ignore_errors=True)
            return
        old = self._final.with_name(f".{self._final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._final.exists():
            os.rename(self._final, old)
        os.rename(self._aside, self._final)
        shutil.rmtree(old, ignore_errors=True)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error

    def _save(self, path: Path, values: np.ndarray) -> None:
        image = Image.fromarray(values, mode="L")
        image.putpalette(self._palette)
        try:
            with open(path, "wb") as file:
                image.save(file, format="PNG")
        except OSError as error:
            raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> DiskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            "the disk (or your quota) is full",
            path=path,
            expected="room for one PNG per frame",
            remedy="free space or move `paths: results:` in the config, then run snakemake again: "
            "finished videos are kept, only unfinished ones run",
        )
    return DiskError(
        f"cannot be written ({error})",
        path=path,
        expected="a writable results folder",
        remedy="check permissions and the file system, then run snakemake again; finished videos are kept",
    )
