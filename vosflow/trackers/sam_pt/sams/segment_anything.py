"""SAMs by the package segment-anything-hq (https://github.com/SysCV/sam-hq, Apache-2.0).

It holds the networks of Segment Anything (arXiv 2304.02643), HQ-SAM (arXiv 2306.01567) and TinyViT (arXiv 2207.10666,
the image encoder of MobileSAM, arXiv 2306.14289) under the parameter names of the published weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.sams.base import Decoded, Proposals

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vosflow.trackers.sam_pt.sams.base import Array
    from vosflow.trackers.sam_pt.sams.steps import Steps


class SegmentAnything:
    """What all of them share, see `vosflow.trackers.sam_pt.sams.base.Sam`.

    Args:
        checkpoints: {"sam": weights}, as published (.pth, .pt) or as .safetensors. Their shapes tell the sizes of the
            network, so that reduced ones of one's own need no configuration.
        device: "cpu" or "cuda".
        precision: "float32", or "bfloat16" for automatic mixed precision.

    Attributes:
        kind: what the weights must be: see `vosflow.trackers.sam_pt.sams.network.Kind`.
    """

    weights: ClassVar[Part]
    kind: ClassVar[str]
    image_size = 1024

    def __init__(
        self, checkpoints: Mapping[str, Checkpoint], device: str, precision: Literal["float32", "bfloat16"]
    ) -> None:
        self.checkpoint = checkpoints["sam"]
        self.device = device
        self.precision = precision
        self._steps: Steps | None = None

    def load(self) -> None:
        """Build the network and load its weights; does nothing if that was done.

        Raises:
            VosflowError: the weights are missing, damaged, incomplete, or those of another SAM.
        """
        if self._steps is None:
            from vosflow.trackers.sam_pt.sams.network import load_network
            from vosflow.trackers.sam_pt.sams.steps import Steps

            network = load_network(self.checkpoint.path, self.kind).to(self.device)
            self._steps = Steps(network, self.precision)
            self.image_size = self._steps.image_size

    def encode(self, frame: np.ndarray) -> dict[str, torch.Tensor]:
        """See `Steps.encode`."""
        return self._loaded().encode(frame)

    def decode(
        self,
        features: Mapping[str, Array],
        size: tuple[int, int],
        points: Array,
        labels: Array,
        boxes: Array | None = None,
        masks: Array | None = None,
        full_size: bool = True,
    ) -> Decoded:
        """See `vosflow.trackers.sam_pt.sams.base.Sam.decode`."""
        return self._loaded().decode(features, size, points, labels, boxes, masks, full_size)

    def propose(self, frame: np.ndarray, most: int) -> Proposals:
        """See `vosflow.trackers.sam_pt.sams.proposals.propose_masks`."""
        from vosflow.trackers.sam_pt.sams.proposals import propose_masks

        return propose_masks(self._loaded(), frame, most)

    def _loaded(self) -> Steps:
        self.load()
        return self._steps
