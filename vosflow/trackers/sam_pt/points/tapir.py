"""TAPIR as a point tracker: any clip at once, every point by itself (Doersch et al., arXiv 2306.08637)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

if TYPE_CHECKING:
    import torch

    from vosflow.artefacts import Artefacts


class TapirSettings(PointTrackerSettings):
    """TAPIR's settings, with the defaults of SAM-PT's newer profile (the older one has a threshold of 0.5).

    Attributes:
        visibility_threshold: a point is visible where (1 - P(occluded)) * (1 - P(far off)) is above it.
        causal: frames do not see later ones when positions are refined. The weights `tapir_causal` were trained so;
            SAM-PT ran them without, and its published settings therefore have false for both weights.
    """

    visibility_threshold: float = Field(0.1, ge=0, le=1)
    causal: bool = False


class Tapir:
    """TAPIR. Frames are resized to 256 x 256 whatever their shape; features are computed once per frame."""

    Settings: ClassVar[type[TapirSettings]] = TapirSettings
    weights: ClassVar[Mapping[str, Part]] = {"point_tracker": Part(network="tapir", checkpoint="tapir_panning")}

    def __init__(self, settings: TapirSettings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device
        self._network = None
        self._digests: list[str] = []  # of the last clip's frames
        self._features: tuple[torch.Tensor, ...] = ()  # of these frames, see `_encode`

    def load(self) -> None:
        """Read the weights: the authors' PyTorch file, or what `scripts/fetch.py` converts of their JAX files.

        Raises:
            VosflowError: they are no weights of TAPIR, or not finite.
        """
        import torch

        from vosflow.trackers.sam_pt.points.haiku import from_haiku, is_haiku
        from vosflow.trackers.sam_pt.points.tapir_network import HAIKU_MODULES, TapirNetwork, pyramid_level
        from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict

        weights = read_state_dict(self.checkpoint.path, "TAPIR", under="state_dict")
        if is_haiku(weights):
            weights = from_haiku(weights, HAIKU_MODULES)
        with torch.device("meta"):
            network = TapirNetwork(pyramid_level(weights), causal=self.settings.causal)
        if differences := list_differences(weights, network.state_dict()):
            raise VosflowError(
                f"the checkpoint does not fit TAPIR ({differences})",
                path=self.checkpoint.path,
                expected="tapir_checkpoint_panning.pt, or tapir_checkpoint_panning.npy or causal_tapir_checkpoint.npy, "
                "converted; BootsTAPIR is another network",
                remedy="python scripts/fetch.py --checkpoint tapir_panning",
            )
        check_finite(weights, self.checkpoint.path)
        network.load_state_dict(weights, assign=True)
        self._network = network.eval().to(self.device)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. On its own frame, too, a point is where the last refinement puts it."""
        from vosflow.trackers.sam_pt.points.networks import float32
        from vosflow.trackers.sam_pt.points.tap import follow

        with float32(self.device):
            high, low = self._encode(clip, artefacts)

            def find(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                positions, logits = self._network.track(high, low, points)
                return positions, (1 - logits.sigmoid()).prod(-1)

            return follow(clip, queries, find, self.settings.visibility_threshold, self.device)

    def _encode(self, clip: Clip, artefacts: Artefacts) -> tuple[torch.Tensor, ...]:
        """Features of all frames, on the device: [T, 64, 64, 128] and [T, 32, 32, 256].

        Those of the last clip are kept: the next call is mostly about other objects of it, or a part of it. Where it is
        not, they are let go first: features of two clips may be more than the device holds.
        """
        digests = [clip.digest(index) for index in range(len(clip))]
        if digests != self._digests:
            rows = {digest: row for row, digest in enumerate(self._digests)}
            last = () if rows.keys().isdisjoint(digests) else self._features
            self._digests, self._features = [], ()
            levels: list[torch.Tensor] = []
            for index, digest in enumerate(digests):
                known = last and digest in rows
                frame = [level[rows[digest]] for level in last] if known else self._encode_frame(clip, index, artefacts)
                levels = levels or [level.new_empty(len(clip), *level.shape) for level in frame]
                for level, features in zip(levels, frame, strict=True):
                    level[index] = features
            self._digests, self._features = digests, tuple(levels)
        return self._features

    def _encode_frame(self, clip: Clip, index: int, artefacts: Artefacts) -> list[torch.Tensor]:
        import torch

        from vosflow.trackers.sam_pt.points.tap import prepare_frame

        def make() -> dict[str, np.ndarray]:
            high, low = self._network.encode(prepare_frame(clip[index], self.device))
            return {"high": high[0].cpu().numpy(), "low": low[0].cpu().numpy()}

        facts = {"network": "tapir", "weights": self.checkpoint.sha256, "frame": clip.digest(index)}
        features = artefacts.get("point_features", facts, make, (__name__,))
        return [torch.from_numpy(features[name]).to(self.device) for name in ("high", "low")]
