"""From the masks of objects to what is written: label maps by the largest logit, or overlapping masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vosflow.trackers.sam_pt.prompting import Prediction

CERTAIN = 1e8  # logit of what is given: inside the prompt's mask, or outside of it, or before the object appears


class Merger:
    """Decides which object each pixel of a video belongs to.

    Args:
        starts: the frame of each object's prompt.
        prompts: bool [H, W] of each, at the size of the output: what it is on that frame.
        size: (H, W) of the frames that were worked on.
        spreads: an object without a mask on a frame has minus infinity there before its logits are resized. Where
            that enlarges, the first row and column turn into no number, and there all objects into background.
    """

    def __init__(
        self, starts: Sequence[int], prompts: Sequence[np.ndarray], *, size: tuple[int, int], device: str, spreads: bool
    ) -> None:
        self._starts = starts
        self._prompts = [torch.from_numpy(prompt).to(device) for prompt in prompts]
        self._size = size
        self._device = device
        self._spreads = spreads

    @torch.inference_mode()
    def winners(self, index: int, predictions: Mapping[int, Prediction]) -> np.ndarray:
        """The object with the largest logit at each pixel of frame `index`, from 1, or 0 where none is above 0.

        Returns:
            int64 [H, W].
        """
        height, width = self._prompts[0].shape
        if all(index < start for start in self._starts):
            return np.zeros((height, width), np.int64)
        logits = torch.zeros((len(self._prompts) + 1, height, width), device=self._device)  # 0 is the background
        for k, (start, prompt) in enumerate(zip(self._starts, self._prompts, strict=True)):
            if index < start:
                logits[k + 1] = -CERTAIN
            elif index == start:
                logits[k + 1] = torch.where(prompt, CERTAIN, -CERTAIN)
            else:
                logits[k + 1] = self._resized(predictions[k].logits)
        return (
            logits.softmax(0).max(0).indices.cpu().numpy()
        )  # the authors take the softmax, too: its rounding makes ties

    def _resized(self, logits: Tensor | None) -> Tensor:
        size = tuple(self._prompts[0].shape)
        if logits is None:
            logits = torch.full(tuple(self._size) if self._spreads else size, -torch.inf, device=self._device)
        return resize_logits(logits, *size)


def resize_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits [H, W] at another size, bilinear."""
    if tuple(logits.shape) == (height, width):
        return logits
    return F.interpolate(logits[None, None], size=(height, width), mode="bilinear", align_corners=False)[0, 0]


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask bool [H, W] at another size: the nearest pixel, as torch has it."""
    resized = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=(height, width), mode="nearest")
    return resized[0, 0].bool().numpy()
