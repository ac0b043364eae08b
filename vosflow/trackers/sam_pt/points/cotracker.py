"""CoTracker 1, which SAM-PT uses: all points of a call are tracked together, in overlapping windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, model_validator

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

if TYPE_CHECKING:
    from torch import Tensor

    from vosflow.artefacts import Artefacts

PUBLISHED = {(4, 8): "stride_4_wind_8", (4, 12): "stride_4_wind_12", (8, 16): "stride_8_wind_16"}


class Settings(PointTrackerSettings):
    """Knobs of CoTracker in SAM-PT, with its values (configs/model/point_tracker/cotracker.yaml)."""

    interp_shape: tuple[int, int] = Field((384, 512), description="height and width that frames are resized to")
    visibility_threshold: float = Field(0.7, ge=0, le=1, description="a point is visible above this probability")
    support_grid_size: int = Field(2, ge=0, description="support points per side of their grid; 0 = none")
    support_grid_every_n_frames: int = Field(12, ge=1, description="frames from one support grid to the next")
    stride: int = Field(4, description="pixels between features; a fact of the weights: 4 or 8")
    window_length: int = Field(8, description="frames per window; a fact of the weights: 8 or 12, 16 at stride 8")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.stride, self.window_length) not in PUBLISHED:
            raise ValueError("stride and window_length must be those of published weights: 4 and 8, 4 and 12, 8 and 16")
        if any(side % self.stride or side < 16 * self.stride for side in self.interp_shape):
            raise ValueError(
                f"both sides of interp_shape must be multiples of {self.stride}, {16 * self.stride} or more"
            )
        return self


class CoTracker:
    """Tracks points with CoTracker 1 as SAM-PT does (SysCV/sam-pt@874ff7e, arXiv 2307.01197).

    Frames are resized to `interp_shape`, support points are added, and the clip is followed forwards. What that leaves
    unset, the time before a point's first window, is taken from a run through the reversed clip; if it leaves nothing
    unset, as with all points on the first frame, there is no such run, and nothing changes.
    """

    Settings = Settings
    weights = {"point_tracker": Part(network="cotracker", checkpoint="cotracker_stride_4_wind_8")}

    def __init__(self, settings: Settings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device

    def load(self) -> None:
        """Load the weights.

        Raises:
            VosflowError: they are missing, damaged, of another network, or by their name for another stride or window.
        """
        from vosflow.trackers.sam_pt.points.cotracker_network import CoTrackerNetwork
        from vosflow.trackers.sam_pt.points.networks import load_network
        from vosflow.trackers.sam_pt.points.pips_features import FeatureMaps

        self._check_name()
        window, stride = self.settings.window_length, self.settings.stride
        network = load_network(lambda: CoTrackerNetwork(window, stride), self.checkpoint, "CoTracker", under="model")
        self._network = network.to(self.device)
        self._maps = FeatureMaps(self._encode)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `vosflow.trackers.sam_pt.points.base.PointTracker.track`."""
        import torch

        from vosflow.trackers.sam_pt.points.cotracker_windows import add_support
        from vosflow.trackers.sam_pt.points.networks import float32

        settings, count = self.settings, len(queries)
        height, width = settings.interp_shape
        scale = np.float32([width / clip.width, height / clip.height])
        every = settings.support_grid_every_n_frames
        scaled = queries * np.float32([1, *scale])
        points = torch.from_numpy(add_support(scaled, settings.support_grid_size, every, len(clip), height, width))
        with float32(self.device):
            positions, visible = self._follow(clip, points, count)
            unset = positions == 0  # the authors' test, coordinate by coordinate
            if unset.any():
                points[:, 0] = len(clip) - 1 - points[:, 0]
                before, visible_before = (x.flip(0) for x in self._follow(clip.reversed(), points, count))
                positions = torch.where(unset, before, positions)
                visible = torch.where(unset[..., 0], visible_before, visible)
        return Tracks(positions.cpu().numpy() / scale, (visible > settings.visibility_threshold).cpu().numpy())

    def _follow(self, clip: Clip, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Positions [T, count, 2], 0 where unset, and probabilities of visibility [T, count], of the first points."""
        positions, logits = self._network.follow(
            lambda frames: self._maps.window(clip, frames), len(clip), points.to(self.device)
        )
        return positions[:, :count], logits[:, :count].sigmoid()

    def _encode(self, frame: np.ndarray) -> Tensor:
        from torch.nn import functional as F

        from vosflow.trackers.sam_pt.points.networks import to_image

        image = F.interpolate(to_image(frame, self.device), self.settings.interp_shape, mode="bilinear")
        return self._network.fnet(image)[0].permute(1, 2, 0).contiguous()

    def _check_name(self) -> None:
        """Weights do not tell their stride and window; their published names do."""
        wanted = PUBLISHED[self.settings.stride, self.settings.window_length]
        for name in (self.checkpoint.id, self.checkpoint.path.stem):
            told = next((published for published in PUBLISHED.values() if name.endswith(published)), wanted)
            if told != wanted:
                raise VosflowError(
                    f"the weights are called {name}, but the settings say stride {self.settings.stride}, window_length "
                    f"{self.settings.window_length}",
                    path=self.checkpoint.path,
                    expected=f"weights of cotracker_{wanted}",
                    remedy="change stride and window_length of the point tracker's settings, or the checkpoint",
                )
