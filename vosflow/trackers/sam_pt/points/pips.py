"""PIPs, the point tracker of SAM-PT's paper (Harley et al., ECCV 2022, arXiv 2204.04153), with its chaining.

Windows of 8 frames are chained: a point's next window starts on the last frame of this one where it is surely visible.
The feature by which it is looked for stays that of the frame it was given on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks
from vosflow.trackers.sam_pt.points.both_ways import track_both_ways

if TYPE_CHECKING:
    from torch import Tensor

    from vosflow.artefacts import Artefacts

VISIBLE = 0.5
THRESHOLD_STEP = 0.02


class Settings(PointTrackerSettings):
    """Knobs of PIPs, with SAM-PT's defaults.

    Attributes:
        stride: of the feature maps, in pixels.
        iters: updates of positions in each window.
        initial_next_frame_visibility_threshold: a frame starts a point's next window if the point's visibility is
            above this; it falls by 0.02 until there is such a frame.
    """

    stride: int = Field(default=4, ge=1)
    iters: int = Field(default=6, ge=1)
    initial_next_frame_visibility_threshold: float = Field(default=0.9, ge=0, le=1)


class Pips:
    """PIPs; points do not influence each other."""

    Settings = Settings
    weights = {"point_tracker": Part(network="pips", checkpoint="pips")}

    def __init__(self, settings: Settings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device

    def load(self) -> None:
        """Load the weights. Raises VosflowError for weights of another network."""
        from vosflow.trackers.sam_pt.points.networks import load_network
        from vosflow.trackers.sam_pt.points.pips_features import FeatureMaps
        from vosflow.trackers.sam_pt.points.pips_network import PipsNetwork

        network = load_network(lambda: PipsNetwork(self.settings.stride), self.checkpoint, "PIPs")
        self._network = network.to(self.device)
        self._maps = FeatureMaps(self._encode)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. Raises VosflowError for frames of less than 8 strides."""
        from vosflow.trackers.sam_pt.points.networks import float32, refuse_small

        refuse_small(clip, 8 * self.settings.stride, "PIPs", "its coarsest feature maps would be empty")
        with float32(self.device):
            return track_both_ways(self._track_forwards, clip, queries)

    def _track_forwards(self, clip: Clip, queries: np.ndarray) -> Tracks:
        import torch

        from vosflow.trackers.sam_pt.points.pips_features import CHANNELS
        from vosflow.trackers.sam_pt.points.pips_network import WINDOW
        from vosflow.trackers.sam_pt.points.sampling import build_pyramid, sample_bilinear

        stride = self.settings.stride
        frames, points = len(clip), len(queries)
        first = queries[:, 0].astype(int)
        positions = np.zeros((frames, points, 2), np.float32)
        visibility = np.zeros((frames, points), np.float32)
        positions[first, np.arange(points)] = queries[:, 1:]
        visibility[first, np.arange(points)] = 1
        features = torch.zeros(points, CHANNELS, device=self.device)
        next_start = first.copy()  # where the next window of a point starts
        for t in range(frames - 1):
            starting = np.flatnonzero(next_start == t)
            if not len(starting):
                continue
            maps = self._maps.window(clip, (min(t + i, frames - 1) for i in range(WINDOW)))
            places = torch.from_numpy(positions[t] / stride).to(self.device)  # [N, 2]
            new = torch.from_numpy(np.flatnonzero(first == t)).to(self.device)
            features[new] = sample_bilinear(maps[:1], places[None, new])[0]
            these = torch.from_numpy(starting).to(self.device)
            moved, visible = self._network(build_pyramid(maps), places[these], features[these], self.settings.iters)
            stop = min(t + WINDOW, frames)
            positions[t + 1 : stop, starting] = (moved * stride).cpu().numpy().swapaxes(0, 1)[1 : stop - t]
            visibility[t + 1 : stop, starting] = visible.cpu().numpy().T[1 : stop - t]
            threshold = self.settings.initial_next_frame_visibility_threshold
            next_start[starting] = t + 1 + choose_next_start(visibility[t + 1 : stop, starting], threshold)
        return Tracks(positions, visibility > VISIBLE)

    def _encode(self, frame: np.ndarray) -> Tensor:
        from vosflow.trackers.sam_pt.points.networks import to_image

        return self._network.fnet(to_image(frame, self.device))[0].permute(1, 2, 0).contiguous()


def choose_next_start(visibility: np.ndarray, threshold: float) -> np.ndarray:
    """The last frame on which a point's visibility is above the threshold, which falls until there is one.

    Args:
        visibility: float32 [frames, N], from 0 to 1.

    Returns:
        Indices into the frames, [N].
    """
    steps = int(threshold / THRESHOLD_STEP) + 2
    falling = np.full(steps, np.float32(THRESHOLD_STEP))
    falling[0] = threshold
    thresholds = np.subtract.accumulate(falling)  # float32, the last one below 0
    reached = visibility.max(axis=0)[:, None] > thresholds  # [N, steps]
    above = visibility > thresholds[reached.argmax(axis=1)]  # [frames, N]
    return len(visibility) - 1 - above[::-1].argmax(axis=0)
