"""What a SAM is for SAM-PT: it encodes a frame once, and decodes the prompts of any number of objects on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from vosflow.trackers.base import Checkpoint, Part

    Array = np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Decoded:
    """The masks of B objects on one frame, on the SAM's device, float32.

    Attributes:
        logits: [B, H, W] at the size of the frame; above 0 is the object. None if they were not asked for.
        low_res: [B, 1, h, w], the decoder's own, of the SAM's padded square input: what `decode` takes as `masks`.
        iou: [B], how good the SAM expects each mask to be.
    """

    logits: torch.Tensor | None
    low_res: torch.Tensor
    iou: torch.Tensor


@dataclass(frozen=True)
class Proposals:
    """Masks of everything on a frame that looks like an object, the best one first.

    Attributes:
        masks: bool [N, H, W]; they may overlap.
        scores: float32 [N], the IoU that the SAM expects of each.
    """

    masks: np.ndarray
    scores: np.ndarray


class Sam(Protocol):
    """A promptable segmentation network. Built once per shard.

    The module that defines it must import quickly, as it is read whenever a study is planned: torch and the network
    are imported inside functions.

    Attributes:
        weights: what it needs; its `Checkpoint` is `checkpoints["sam"]`.
        image_size: side of its square input in pixels, as trained. On the instance, after `load`, that of its weights.
    """

    weights: ClassVar[Part]
    image_size: int

    def __init__(self, checkpoints: Mapping[str, Checkpoint], device: str, precision: str) -> None: ...

    def load(self) -> None:
        """Load the weights onto the device. Raises VosflowError for weights of another network."""
        ...

    def encode(self, frame: np.ndarray) -> dict[str, torch.Tensor]:
        """What `decode` needs to know of a frame uint8 RGB [H, W, 3]: float32 tensors without a batch dimension.

        As numpy arrays they may be kept anywhere, and given back to `decode`, without loss.
        """
        ...

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
        """One mask for each of B objects on a frame, from prompts that have the same number of points each.

        Args:
            features: of the frame, from `encode`.
            size: (H, W) of the frame that was encoded.
            points: float [B, P, 2], (x, y) in pixels of the frame. P may be 0.
            labels: int [B, P], 1 for points on the object, 0 for points off it.
            boxes: float [B, 4], (x0, y0, x1, y1) in pixels of the SAM's input, not of the frame.
            masks: float [B, 1, h, w], `Decoded.low_res` of an earlier call.
            full_size: whether `logits` are wanted.
        """
        ...

    def propose(self, frame: np.ndarray, most: int) -> Proposals:
        """At most `most` masks of what is on a frame uint8 RGB [H, W, 3], without any prompt."""
        ...
