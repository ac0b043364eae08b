"""TapNet as a point tracker: every frame by itself, without refinement (Doersch et al., TAP-Vid, arXiv 2211.03726)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

if TYPE_CHECKING:
    import torch

    from vosflow.artefacts import Artefacts


class TapNetSettings(PointTrackerSettings):
    """TapNet's settings, with the defaults of SAM-PT.

    Attributes:
        visibility_threshold: a point is visible where 1 - P(occluded) is above it.
    """

    visibility_threshold: float = Field(0.5, ge=0, le=1)


class TapNet:
    """TapNet. Frames are resized to 256 x 256 whatever their shape; features are computed once per clip."""

    Settings: ClassVar[type[TapNetSettings]] = TapNetSettings
    weights: ClassVar[Mapping[str, Part]] = {"point_tracker": Part(network="tapnet", checkpoint="tapnet")}

    def __init__(self, settings: TapNetSettings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device
        self._network = None
        self._digests: list[str] = []  # of the last clip's frames
        self._features: torch.Tensor | None = None  # of this clip, see `_encode`

    def load(self) -> None:
        """Read what `scripts/fetch.py` converts of the authors' JAX weights.

        Raises:
            VosflowError: they are no weights of TapNet.
        """
        from vosflow.trackers.sam_pt.points.haiku import from_haiku
        from vosflow.trackers.sam_pt.points.networks import load_network
        from vosflow.trackers.sam_pt.points.tapnet_network import HAIKU_MODULES, TapNetNetwork

        self._network = load_network(
            TapNetNetwork, self.checkpoint, "TapNet", rename=lambda weights: from_haiku(weights, HAIKU_MODULES)
        ).to(self.device)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. On its own frame a point is where its query is."""
        from vosflow.trackers.sam_pt.points.networks import float32
        from vosflow.trackers.sam_pt.points.tap import follow

        with float32(self.device):
            features = self._encode(clip, artefacts)

            def find(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                positions, logits = self._network.track(features, points)
                return positions, 1 - logits[..., 0].sigmoid()

            return follow(clip, queries, find, self.settings.visibility_threshold, self.device)

    def _encode(self, clip: Clip, artefacts: Artefacts) -> torch.Tensor:
        """Features of all frames, on the device: [T, 32, 32, 256]. Those of the last clip are kept: the next call may
        be about other objects of it."""
        import torch

        from vosflow.trackers.sam_pt.points.tap import prepare_frame

        def make() -> dict[str, np.ndarray]:
            frames = (prepare_frame(clip[index], self.device) for index in range(len(clip)))
            return {"features": self._network.encode(frames).cpu().numpy()}

        digests = [clip.digest(index) for index in range(len(clip))]
        if digests != self._digests:
            facts = {"network": "tapnet", "weights": self.checkpoint.sha256, "frames": digests}
            features = artefacts.get("point_features", facts, make, (__name__,))["features"]
            self._digests, self._features = digests, torch.from_numpy(features).to(self.device)
        return self._features
