"""CoTracker 3, online: a newer network for what CoTracker 1 does in SAM-PT. SAM-PT's authors did not use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

if TYPE_CHECKING:
    from torch import Tensor

    from vosflow.artefacts import Artefacts


class Settings(PointTrackerSettings):
    """Knobs of CoTracker 3: its authors' threshold, and the support grids that SAM-PT gives CoTracker 1."""

    visibility_threshold: float = Field(
        0.6, ge=0, le=1, description="a point is visible if probability of being visible times confidence is above this"
    )
    support_grid_size: int = Field(2, ge=0, description="support points per side of their grid; 0 = none")
    support_grid_every_n_frames: int = Field(12, ge=1, description="frames from one support grid to the next")


class CoTracker3:
    """Tracks points with CoTracker 3 in windows of 16 frames, both ways from the frames they are given on.

    As in the predictors of facebookresearch/co-tracker@5dd71b0 (arXiv 2410.11831), frames are resized with corners
    aligned, what lies before a point's frame comes from the reversed clip, and on that frame the point is visible where
    it was given. There is no run through the reversed clip if all points are on the first frame.
    """

    Settings = Settings
    weights = {"point_tracker": Part(network="cotracker3", checkpoint="cotracker3_scaled_online")}

    def __init__(self, settings: Settings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device

    def load(self) -> None:
        """Load the weights.

        Raises:
            VosflowError: they are missing, damaged, or of another network, such as the offline one of CoTracker 3.
        """
        from vosflow.trackers.sam_pt.points.cotracker3_network import CoTracker3Network
        from vosflow.trackers.sam_pt.points.networks import load_network
        from vosflow.trackers.sam_pt.points.pips_features import FeatureMaps

        network = load_network(CoTracker3Network, self.checkpoint, "CoTracker 3, online", under="model")
        self._network = network.to(self.device)
        self._maps = FeatureMaps(self._encode)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `vosflow.trackers.sam_pt.points.base.PointTracker.track`."""
        import torch

        from vosflow.trackers.sam_pt.points.cotracker3_network import RESOLUTION
        from vosflow.trackers.sam_pt.points.cotracker_windows import add_support
        from vosflow.trackers.sam_pt.points.networks import float32

        settings, (height, width), count = self.settings, RESOLUTION, len(queries)
        scale = np.float32([(width - 1) / max(clip.width - 1, 1), (height - 1) / max(clip.height - 1, 1)])
        every = settings.support_grid_every_n_frames
        scaled = queries * np.float32([1, *scale])
        points = torch.from_numpy(add_support(scaled, settings.support_grid_size, every, len(clip), height, width))
        with float32(self.device):
            positions, visible = self._follow(clip, points, count)
            before = torch.arange(len(clip))[:, None] < points[:count, 0]  # [T, N]
            if before.any():
                before = before.to(self.device)
                points[:, 0] = len(clip) - 1 - points[:, 0]
                past, visible_past = (x.flip(0) for x in self._follow(clip.reversed(), points, count))
                positions = torch.where(before[..., None], past, positions)
                visible = torch.where(before, visible_past, visible)
        tracks = Tracks(positions.cpu().numpy() / scale, (visible > settings.visibility_threshold).cpu().numpy())
        own = queries[:, 0].astype(int), np.arange(count)
        tracks.positions[own], tracks.visible[own] = queries[:, 1:], True
        return tracks

    def _follow(self, clip: Clip, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Positions [T, count, 2] and visibility times confidence [T, count] of the first points."""
        positions, visible, confident = self._network.follow(
            lambda frames: self._maps.window(clip, frames), len(clip), points.to(self.device)
        )
        return positions[:, :count], visible[:, :count].sigmoid() * confident[:, :count].sigmoid()

    def _encode(self, frame: np.ndarray) -> Tensor:
        from torch.nn import functional as F

        from vosflow.trackers.sam_pt.points.cotracker3_network import RESOLUTION
        from vosflow.trackers.sam_pt.points.networks import to_image

        image = F.interpolate(to_image(frame, self.device), RESOLUTION, mode="bilinear", align_corners=True)
        return self._network.encode(image)[0]
