"""A baseline without learning: masks carried along by dense optical flow.

DIS optical flow (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, arXiv 1603.03590) as
implemented in OpenCV. The flow runs backwards, from each frame to the one before it, so that every pixel has a source.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS
from vosflow.trackers.base import Checkpoint, Masks, TrackerSettings
from vosflow.trackers.prompts import first_index, prompts_by_frame
from vosflow.video import Video

SMALLEST_SIDE = 16  # pixels; DIS finds no patches in smaller frames


class Settings(TrackerSettings):
    """Settings of the optical flow: `preset` trades speed for accuracy, in OpenCV's own words."""

    preset: Literal["ultrafast", "fast", "medium"] = "medium"


class FlowTracker:
    """Warps each object's given mask along the flow since its prompt.

    Each pixel of a frame carries the place in the prompted frame that it comes from, updated frame by frame. Masks
    are always sampled from the prompt itself, never from an earlier result: they neither blur nor lose small objects
    to repeated rounding, however long the video. What was covered is lost until the next prompt.
    """

    Settings = Settings
    needs_checkpoint = False
    uses_gpu = False

    def __init__(self, settings: Settings, checkpoint: Checkpoint | None, device: str) -> None:
        self._preset = settings.preset

    def load(self) -> None:
        """Nothing to load."""

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """See `vosflow.trackers.base.Tracker.track`. Deterministic: OpenCV computes each frame with one thread.

        Raises:
            VosflowError: the frames are too small for optical flow, or the video is bad.
        """
        if min(video.height, video.width) < SMALLEST_SIDE:
            raise VosflowError(
                f"the frames of video {video.name} are {video.width}x{video.height} pixels",
                path=video.frame_path(0),
                expected=f"at least {SMALLEST_SIDE} pixels on each side for optical flow",
                remedy="leave the video out, or use another tracker",
            )
        by_frame = prompts_by_frame(video)
        given: dict[int, tuple[int, np.ndarray]] = {}  # object: (index of its last prompt, mask float32 [H, W])
        sources: dict[int, np.ndarray] = {}  # index of a prompted frame: source coordinates [H, W, 2] in it
        previous = None
        for index, frame in video.frames(min(by_frame)):
            with _one_thread():
                current = _grey(frame)
                if previous is not None:
                    steps = _backward_coordinates(previous, current, self._preset)
                    sources = {start: _follow(field, steps) for start, field in sources.items()}
                for prompt in by_frame.get(index, ()):
                    given[prompt.object] = index, video.read_prompt(prompt).astype(np.float32)
                    sources[index] = _identity(video.height, video.width)
                in_use = {start for start, _ in given.values()}
                sources = {start: field for start, field in sources.items() if start in in_use}
                soft = {obj: _sample(mask, sources[start]) for obj, (start, mask) in sorted(given.items())}
            previous = current
            if index == min(by_frame):
                yield from self._before_first_prompt(video, index, first_index(video, by_frame))
            yield video.frame_names[index], _harden(soft, video)

    @staticmethod
    def _before_first_prompt(video: Video, prompted: int, first: int) -> Iterator[tuple[str, Masks]]:
        for index in range(first, prompted):
            yield video.frame_names[index], _harden({}, video)


def _harden(soft: dict[int, np.ndarray], video: Video) -> Masks:
    """Masks of one frame from soft masks float32 [H, W] in 0..1, by ascending id.

    A pixel is an object's from one half on; in a label map the object with the most of it wins, the smallest id if
    two are equal.
    """
    nothing = np.zeros((video.height, video.width), np.float32)
    if video.layout != LABEL_MAPS:
        ids = sorted({prompt.object for prompt in video.prompts})
        return {object_id: soft.get(object_id, nothing) >= 0.5 for object_id in ids}
    if not soft:
        return nothing.astype(np.uint8)
    stack = np.stack(list(soft.values()))  # [O, H, W]
    winners = np.array(list(soft), np.uint8)[stack.argmax(axis=0)]
    return np.where(stack.max(axis=0) >= 0.5, winners, 0).astype(np.uint8)


def _grey(frame: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _identity(height: int, width: int) -> np.ndarray:
    """Coordinates (x, y) of every pixel, float32 [H, W, 2]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=-1)


def _backward_coordinates(previous: np.ndarray, current: np.ndarray, preset: str) -> np.ndarray:
    """Where each pixel of `current` was in `previous` (both grey uint8 [H, W]): coordinates float32 [H, W, 2]."""
    import cv2

    height, width = current.shape
    # OpenCV chooses the coarsest scale by the width alone, and reads out of bounds if a frame that wide has less than
    # 8 rows (a patch) there (opencv_contrib issue 1355): frames flatter than 5:2 get more rows at the bottom.
    rows = max(math.ceil(0.4 * width) - height, 0)
    pair = [cv2.copyMakeBorder(image, 0, rows, 0, 0, cv2.BORDER_REPLICATE) for image in (current, previous)]
    flow = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")).calc(*pair, None)
    return _identity(height, width) + flow[:height]


def _follow(field: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Compose source coordinates of the previous frame, float32 [H, W, 2], with the step from this frame to it.

    What is interpolated are displacements: `remap` rounds positions to 1/32 pixel, which would add up in coordinates.
    Beyond the border they go on as they are at the border: what enters the frame comes from outside, or from where a
    camera that pans back had left it.
    """
    import cv2

    height, width = field.shape[:2]
    displacements = field - _identity(height, width)
    inside = np.clip(steps, 0, np.float32([width - 1, height - 1]))
    return steps + cv2.remap(displacements, inside, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _sample(mask: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The mask of the prompted frame as this frame sees it, float32 [H, W] in 0..1; 0 outside."""
    import cv2

    return cv2.remap(mask, field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's number of threads is a setting of the whole process: it is put back."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
