"""PIPs++ (Zheng et al., ICCV 2023, arXiv 2307.15055): points through windows of up to 128 frames, always visible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks
from vosflow.trackers.sam_pt.points.both_ways import track_both_ways

if TYPE_CHECKING:
    from torch import Tensor

    from vosflow.artefacts import Artefacts

Pixels = Annotated[int, Field(ge=64)]


class Settings(PointTrackerSettings):
    """Knobs of PIPs++, with SAM-PT's defaults.

    Attributes:
        stride: of the feature maps, in pixels.
        iters: updates of positions in each window.
        max_sequence_length: frames of a window; one window shares one frame with the next.
        image_size: (height, width) that frames are resized to; None leaves them as they are.
        compat: "published" scales points by height where it should be width, and the other way round, as SAM-PT does
            if there is an image_size; "fixed" does not.
    """

    stride: int = Field(default=8, ge=1)
    iters: int = Field(default=16, ge=1)
    max_sequence_length: int = Field(default=128, ge=2)
    image_size: tuple[Pixels, Pixels] | None = None
    compat: Literal["published", "fixed"] = "published"


class PipsPlusPlus:
    """PIPs++; points do not influence each other."""

    Settings = Settings
    weights = {"point_tracker": Part(network="pips_plus_plus", checkpoint="pips_plus_plus")}

    def __init__(self, settings: Settings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device

    def load(self) -> None:
        """Load the weights. Raises VosflowError for weights of another network."""
        from vosflow.trackers.sam_pt.points.networks import load_network
        from vosflow.trackers.sam_pt.points.pips_features import FeatureMaps
        from vosflow.trackers.sam_pt.points.pips_plus_plus_network import PipsPlusPlusNetwork

        network = load_network(lambda: PipsPlusPlusNetwork(self.settings.stride), self.checkpoint, "PIPs++")
        self._network = network.to(self.device)
        self._maps = FeatureMaps(self._encode)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. Raises VosflowError for frames of less than 8 strides."""
        from vosflow.trackers.sam_pt.points.networks import float32, refuse_small

        if self.settings.image_size is None:
            refuse_small(clip, 8 * self.settings.stride, "PIPs++", "its coarsest feature maps would be empty")
        scale = self._scale(clip)
        queries = np.concatenate([queries[:, :1], queries[:, 1:] * scale], axis=1)
        with float32(self.device):
            tracks = track_both_ways(self._track_forwards, clip, queries)
        return Tracks(tracks.positions / scale, tracks.visible)

    def _scale(self, clip: Clip) -> np.ndarray:
        """Factors for (x, y) from pixels of the clip to those of the resized frames."""
        if self.settings.image_size is None:
            return np.ones(2, np.float32)
        height, width = self.settings.image_size
        across, down = width / clip.width, height / clip.height
        if self.settings.compat == "published":
            across, down = height / clip.height, width / clip.width
        return np.array([across, down], np.float32)

    def _track_forwards(self, clip: Clip, queries: np.ndarray) -> Tracks:
        """Points given on the same frame go together: their windows start there."""
        frames, points = len(clip), len(queries)
        positions = np.zeros((frames, points, 2), np.float32)
        first = queries[:, 0].astype(int)
        for t in np.unique(first):
            these = first == t
            positions[t:, these] = self._follow(clip.part(t, frames), queries[these, 1:])
        return Tracks(positions, np.ones((frames, points), bool))

    def _follow(self, clip: Clip, xy: np.ndarray) -> np.ndarray:
        """Positions [T, N, 2] of points given on the first frame, at [N, 2]."""
        import torch

        from vosflow.trackers.sam_pt.points.sampling import build_pyramid

        frames, most = len(clip), self.settings.max_sequence_length
        positions = torch.tensor(xy / self.settings.stride, device=self.device)[:, None].repeat(1, frames, 1)
        features = None
        for start, stop in windows(frames, most):
            levels = build_pyramid(self._maps.window(clip, range(start, stop)))
            positions[:, start:stop], features = self._network(
                levels, positions[:, start:stop], features, self.settings.iters
            )
            positions[:, stop:] = positions[:, stop - 1 : stop]
        return (positions * self.settings.stride).cpu().numpy().swapaxes(0, 1)

    def _encode(self, frame: np.ndarray) -> Tensor:
        import torch.nn.functional as F

        from vosflow.trackers.sam_pt.points.networks import to_image

        image = to_image(frame, self.device)
        if self.settings.image_size is not None:
            image = F.interpolate(image, self.settings.image_size, mode="bilinear")
        return self._network.fnet(image)[0].permute(1, 2, 0).contiguous()


def windows(frames: int, most: int) -> list[tuple[int, int]]:
    """Where windows start and stop: `most` frames each, sharing one with the next; the last one ends with the clip.

    A clip of one frame has none.
    """
    if frames < 2:
        return []
    full = [(start, start + most) for start in range(0, frames - most, most - 1)]
    return [*full, (max(0, frames - most), frames)]
