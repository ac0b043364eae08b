"""From images to what the network takes, and from its probabilities back to label maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.trackers.rde.network import STRIDE

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Frame:
    """How frames are resized and padded.

    Attributes:
        height, width: of the video, in pixels.
        size: (height, width) to which frames are resized; equal to these where they are not.
        padding: zeros around them so that both sides are multiples of `STRIDE`: left, right, top, bottom.
    """

    height: int
    width: int
    size: tuple[int, int]
    padding: tuple[int, int, int, int]

    @classmethod
    def of(cls, height: int, width: int, short_side: int | None) -> Frame:
        """The geometry of a video of `height` x `width` whose shorter side becomes `short_side` pixels."""
        size = (height, width)
        if short_side is not None and min(size) != short_side:
            long_side = int(short_side * max(size) / min(size))
            size = (short_side, long_side) if height <= width else (long_side, short_side)
        left, right = _halves(-size[1] % STRIDE)
        top, bottom = _halves(-size[0] % STRIDE)
        return cls(height, width, size, (left, right, top, bottom))

    def image(self, rgb: np.ndarray) -> Tensor:
        """An image uint8 [height, width, 3] as the network takes it, float32 [3, H, W].

        It is resized after it was normalised, bicubically and without antialiasing, and padded with zeros at last:
        so did torchvision 0.9, with which the authors' numbers were made. (Newer ones antialias unless told not to.)
        """
        image = torch.tensor(rgb).permute(2, 0, 1).contiguous().float().div_(255)
        image = image.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])
        if self.size != (self.height, self.width):
            image = F.interpolate(image[None], self.size, mode="bicubic", align_corners=False, antialias=False)[0]
        return F.pad(image, self.padding)

    def mask(self, mask: np.ndarray) -> Tensor:
        """A mask bool [height, width] as the network takes it, 0 or 1, float32 [H, W]."""
        given = torch.from_numpy(mask).float()
        if self.size != (self.height, self.width):
            given = F.interpolate(given[None, None], self.size, mode="nearest")[0, 0]
        return F.pad(given, self.padding)

    def label_map(self, probabilities: Tensor, object_ids: Tensor) -> Tensor:
        """The most probable object of each pixel, [height, width]; the first of those that are equal.

        Args:
            probabilities: [1 + O, H, W], those of the background first.
            object_ids: [1 + O], 0 first; the label map has their type.
        """
        left, _, top, _ = self.padding
        height, width = self.size
        inner = probabilities[:, top : top + height, left : left + width]
        if self.size != (self.height, self.width):
            size = (self.height, self.width)
            inner = F.interpolate(inner[None], size, mode="bilinear", align_corners=False)[0]
        return object_ids[inner.max(dim=0).indices]  # argmax gives the same, on a CPU in several times as long


def _halves(padding: int) -> tuple[int, int]:
    return padding // 2, padding - padding // 2
