"""Writing the masks of a video, all at once or not at all."""

from __future__ import annotations

import glob
import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from vosflow.ahead import Behind
from vosflow.errors import cannot_write
from vosflow.manifest import LABEL_MAPS
from vosflow.masks import DAVIS_PALETTE, object_folder

WRITERS = 4  # threads, at most; they are started as they are needed
WAITING = 16  # images not yet written, at most


class VideoWriter(ABC):
    """Writes the masks of one video: aside first, then renamed, so that they appear at once or not at all.

    Use as a context manager; leaving it normally publishes `{folder}/{video}`, an exception leaves what was there.
    Only one process may write a video at a time: hold `RunFolder.lock`. Masks are encoded and written in threads
    beside the caller's; what goes wrong there is raised by the next `write`, or on leaving.

    Args:
        folder: the run's mask folder.
        video: name of the video.
        waiting: masks or frames that are not yet written, at most.
        threads: that write; one keeps the order.
    """

    def __init__(self, folder: str | Path, video: str, *, waiting: int, threads: int) -> None:
        self._final = Path(folder) / video
        # The video's name comes last: names may hold dots, and what `_leftovers` finds must be this video's alone.
        self._aside = self._final.with_name(f".{socket.gethostname()}.{os.getpid()}.writing.{video}")
        self._behind = Behind(depth=waiting, threads=threads)

    def __enter__(self) -> Self:
        for left in self._leftovers():
            shutil.rmtree(left, ignore_errors=True)
        self._make_folder(self._aside)
        return self

    @abstractmethod
    def write(self, frame: str, masks: np.ndarray | Mapping[int, np.ndarray]) -> None:
        """Write one frame. The masks are copied: the caller may go on with them.

        Raises:
            DiskError: this or an earlier frame could not be written.
        """

    def __exit__(self, kind, error, trace) -> None:
        try:
            self._behind.close(drop=kind is not None)
            if kind is None:
                self._publish()
        finally:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _publish(self) -> None:
        old = self._final.with_name(f".{self._final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._final.exists():
            os.rename(self._final, old)
        os.rename(self._aside, self._final)
        shutil.rmtree(old, ignore_errors=True)

    def _leftovers(self) -> list[Path]:
        """What killed jobs left of this video."""
        return list(self._final.parent.glob(f".*.writing.{glob.escape(self._final.name)}"))

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error


class VideoMaskWriter(VideoWriter):
    """Writes label maps or masks of objects as PNG files.

    Args:
        layout: "label_maps" ({video}/{frame}.png) or "per_object" ({video}/{object:03d}/{frame}.png, values 0 and 1).
        palette: flat RGB palette of the PNG files.
    """

    def __init__(self, folder: str | Path, video: str, *, layout: str, palette: list[int] | None = None) -> None:
        super().__init__(folder, video, waiting=WAITING, threads=WRITERS)
        self._layout = layout
        self._palette = palette or DAVIS_PALETTE

    def write(self, frame: str, masks: np.ndarray | Mapping[int, np.ndarray]) -> None:
        """Write one frame: a label map uint8 [H, W], or {object id: bool [H, W]} in the per-object layout."""
        if self._layout == LABEL_MAPS:
            self._behind.call(self._save, self._aside / f"{frame}.png", masks.copy())
            return
        for object_id, mask in masks.items():
            folder = self._aside / object_folder(object_id)
            self._make_folder(folder)
            self._behind.call(self._save, folder / f"{frame}.png", mask.astype(np.uint8))

    def _save(self, path: Path, values: np.ndarray) -> None:
        image = Image.fromarray(values, mode="L")
        image.putpalette(self._palette)
        try:
            with open(path, "wb") as file:
                image.save(file, format="PNG")
        except OSError as error:
            raise cannot_write(path, error) from error
