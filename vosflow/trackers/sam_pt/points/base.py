"""What a point tracker of SAM-PT is: frames and query points in, positions and visibilities out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from vosflow.trackers.sam_pt.clip import Clip

if TYPE_CHECKING:
    from vosflow.artefacts import Artefacts
    from vosflow.trackers.base import Checkpoint, Part


class PointTrackerSettings(BaseModel):
    """Base of every point tracker's settings: typed, with the published defaults, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


@dataclass(frozen=True)
class Tracks:
    """Where points are in each frame of a clip.

    Attributes:
        positions: float32 [T, N, 2], (x, y) in pixels of the clip's frames, pixel centres at whole numbers.
        visible: bool [T, N].
    """

    positions: np.ndarray
    visible: np.ndarray


class PointTracker(Protocol):
    """A method that follows points. Built once per shard, then asked for one clip after another.

    The module that defines it must import quickly, as it is read whenever a study is planned: torch and the network
    are imported inside functions.

    Attributes:
        Settings: its knobs.
        weights: what it needs, by role: usually {"point_tracker": Part(network=..., checkpoint=...)}.

    A method that matches masks instead of following points sets `matches_masks = True` and has, instead of `track`,
    `track_masks(clip, masks, frames, count, generators) -> Tracks`: masks bool [O, H, W], each on frame `frames[o]` of
    the clip, `count` points for each (N = O * count, object by object), and for each a numpy Generator for what is
    random, so that other objects change nothing in it. It gets the masks of all objects in one call, and is called a
    second time with the masks inverted if negative points are wanted.

    A method whose work is all on the frames, however many points there are (optical flow), sets
    `costs_by_frames = True`: it gets the points of all objects in one call, also of those that otherwise do not know
    of each other.
    """

    Settings: ClassVar[type[PointTrackerSettings]]
    weights: ClassVar[Mapping[str, Part]]

    def __init__(self, settings: PointTrackerSettings, checkpoints: Mapping[str, Checkpoint], device: str) -> None: ...

    def load(self) -> None:
        """Load the weights onto the device. Raises VosflowError for weights of another network."""
        ...

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """Follow points both ways from the frames they are given on.

        Args:
            queries: float32 [N, 3], (frame of the clip, x, y) each.
            artefacts: where what other queries of the same clip may use again is kept, such as optical flow.

        Raises:
            VosflowError: the clip is unusable for the method, for instance too small.
        """
        ...
