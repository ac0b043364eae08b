"""The losses of RDE-VOS (Li et al., CVPR 2022, arXiv 2205.03761), weighted as in the authors' code.

Shapes: B clips, O objects (1 or 2), V channels, P pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_TARGET = 1e-20  # a target that underflows to 0 has a NaN for its gradient; the authors' code has that


def bootstrapped_cross_entropy(logits: Tensor, labels: Tensor, objects: Tensor, share: float) -> Tensor:
    """Cross-entropy over the `share` of pixels where it is largest, of each clip; the mean over clips.

    Args:
        logits: float32 [B, 1 + O, H, W], the background's first.
        labels: int64 [B, H, W], 0 to O.
        objects: int64 [B], how many objects each clip has: logits of others do not count.
        share: 0 to 1; with 1 all pixels count.
    """
    losses = []
    for clip_logits, clip_labels, count in zip(logits, labels, objects.tolist(), strict=True):
        pixels = F.cross_entropy(clip_logits[None, : 1 + count], clip_labels[None], reduction="none").flatten()
        if share < 1:
            pixels = pixels.topk(max(1, int(share * len(pixels))), sorted=False).values
        losses.append(pixels.mean())
    return torch.stack(losses).mean()


def weigh_frames(losses: Sequence[Tensor]) -> Tensor:
    """The frames' losses, in temporal order, as one: after each frame the sum so far is halved.

    So the last of n counts 1/2 and the first 2**-n: the authors' code halves inside its loop over frames. It also
    shifts the balance against the pulls below, so it is part of the method.
    """
    total = torch.zeros_like(losses[0])
    for loss in losses:
        total = (total + loss) / 2
    return total


def pull(pulled: Tensor, target: Tensor) -> Tensor:
    """KL(target || pulled) of softmaxes over channels, the mean over all elements: float32 [B, V, h, w] each.

    As in the authors' code the target gets gradients as well, and the mean is over channels, too (torch's reduction
    "mean"). Targets are kept above 0: at 0 the gradient would be NaN.
    """
    target = target.float().softmax(1).clamp_min(LEAST_TARGET)
    return F.kl_div(pulled.float().log_softmax(1), target, reduction="none").mean()
