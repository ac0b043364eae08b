"""Frames of a video as SAM-PT sees them: longest side 1024 pixels, read on demand."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from PIL import Image

from vosflow.video import Video

LONGEST_SIDE = 1024
KEPT_BYTES = 256 * 2**20


class Clip:
    """A part of a video, forwards or backwards. Views share what was read.

    `len(clip)` frames of `clip.height` x `clip.width` pixels; `clip[i]` is one, uint8 RGB [H, W, 3], read-only.
    """

    def __init__(self, frames: _Frames, order: range) -> None:
        self._frames = frames
        self._order = order
        self.height, self.width = frames.height, frames.width

    @classmethod
    def of_video(cls, video: Video, *, longest_side: int = LONGEST_SIDE, shortest_side: int | None = None) -> Clip:
        """All frames of `video`, resized so that the longest side has `longest_side` pixels (or the shortest one
        `shortest_side`, if that is given), as `resize_frame` does."""
        read_frame = video.read_full_frame if video.has_full_frames else video.read_frame
        size = video.read_full_frame(0).shape[:2] if video.has_full_frames else (video.height, video.width)
        if shortest_side:
            longest_side = shortest_side * max(size) / min(size)
        height, width = working_size(*size, longest_side)

        def read(index: int) -> np.ndarray:
            return resize_frame(read_frame(index), height, width)

        return cls(_Frames(read, height, width), range(len(video)))

    @classmethod
    def of_array(cls, frames: np.ndarray) -> Clip:
        """Of frames in memory, uint8 [T, H, W, 3], as they are."""
        return cls(_Frames(lambda index: frames[index], *frames.shape[1:3]), range(len(frames)))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._frames.read(self._order[index])

    def part(self, start: int, stop: int) -> Clip:
        """Frames `start` to `stop` - 1, at most to the end."""
        return Clip(self._frames, self._order[start:stop])

    def reversed(self) -> Clip:
        """The same frames, the last one first."""
        return Clip(self._frames, self._order[::-1])

    def digest(self, index: int) -> str:
        """Of the pixels of frame `index`, hex."""
        return self._frames.digest(self._order[index])


class _Frames:
    """Frames by number, of which the most recently used are kept."""

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self.height, self.width = height, width
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._most = max(2, KEPT_BYTES // (height * width * 3))
        self._digests: dict[int, str] = {}

    def read(self, index: int) -> np.ndarray:
        if index not in self._kept:
            frame = self._read(index).view()
            frame.flags.writeable = False
            self._kept[index] = frame
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def digest(self, index: int) -> str:
        if index not in self._digests:
            frame = self.read(index)
            pixels = hashlib.sha256(np.ascontiguousarray(frame))
            pixels.update(str(frame.shape).encode())
            self._digests[index] = pixels.hexdigest()
        return self._digests[index]


def working_size(height: int, width: int, longest_side: float) -> tuple[int, int]:
    """Size of a frame resized to `longest_side`, rounded as in segment_anything's ResizeLongestSide; at least 1."""
    scale = longest_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_frame(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame uint8 [H, W, 3] in another size, bilinear with antialiasing (PIL), as in ResizeLongestSide."""
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
