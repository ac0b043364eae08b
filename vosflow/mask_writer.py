"""Writing the masks of a video, all at once or not at all."""

from __future__ import annotations

import errno
import glob
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS
from vosflow.masks import DAVIS_PALETTE, object_folder


class DiskError(VosflowError):
    """Results cannot be written: no later video will fare better."""


class VideoMaskWriter:
    """Writes the masks of one video: aside first, then renamed, so that they appear at once or not at all.

    Use as a context manager; leaving it normally publishes `{folder}/{video}`, an exception leaves what was there.
    Only one process may write a video at a time: hold `RunFolder.lock`.

    Args:
        folder: the run's mask folder.
        video: name of the video.
        layout: "label_maps" ({video}/{frame}.png) or "per_object" ({video}/{object:03d}/{frame}.png, values 0 and 1).
        palette: flat RGB palette of the PNG files.
    """

    def __init__(self, folder: str | Path, video: str, *, layout: str, palette: list[int] | None = None) -> None:
        self._final = Path(folder) / video
        self._aside = self._final.with_name(f".{video}.{socket.gethostname()}.{os.getpid()}.writing")
        self._layout = layout
        self._palette = palette or DAVIS_PALETTE

    def __enter__(self) -> VideoMaskWriter:
        for left in self._final.parent.glob(f".{glob.escape(self._final.name)}.*.writing"):  # by killed jobs
            shutil.rmtree(left, ignore_errors=True)
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
            raise cannot_write(folder, error) from error

    def _save(self, path: Path, values: np.ndarray) -> None:
        image = Image.fromarray(values, mode="L")
        image.putpalette(self._palette)
        try:
            with open(path, "wb") as file:
                image.save(file, format="PNG")
        except OSError as error:
            raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DiskError:
    """The error to raise when a result cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            "the disk (or your quota) is full",
            path=path,
            expected="room for one PNG per frame, and for small records",
            remedy="free space or move `paths: results:` in the config, then run snakemake again: "
            "finished videos are kept, only unfinished ones run",
        )
    return DiskError(
        f"cannot be written ({error})",
        path=path,
        expected="a writable results folder",
        remedy="check permissions and the file system, then run snakemake again; finished videos are kept",
    )
