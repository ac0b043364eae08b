"""SAM-PT-reinit: points are sampled anew from SAM's masks, window by window."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SMALLEST_AREA = 25  # pixels; a mask must have more to start again from
UNKNOWN_DIFFERENCE = 720.0  # variant D: of areas that say nothing
SYNC_BONUS = 36.0  # variant D: for the frame on which another object starts


def choose_frames(
    variant: str, masks: np.ndarray, horizon: int, next_start: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """On which frame of a window each object starts again.

    Frames are counted from the second one of the window. Areas of the first quarter of the window, and those of at
    most 25 pixels, say nothing. Variants, by the authors' names:

    - reinit-on-horizon-and-sync-masks: the last frame of the window, or where the next object starts, if earlier;
    - reinit-at-median-of-area-diff: where an object has the median of its areas;
    - reinit-on-similar-mask-area: where an object's area is closest to that at the beginning;
    - reinit-on-similar-mask-area-and-sync-masks: as before, with one frame for all objects, by the sum of relative
      differences, and with a preference for where the next object starts.

    Args:
        masks: bool [O, L, H, W], predicted in the window.
        horizon: full length of windows (L may be less at the end of a video).
        next_start: the next frame on which another object starts, counted likewise, if there is one.

    Returns:
        int64 [O], a frame for each object, and bool [O]: whether its mask there is large enough to start from.
    """
    areas = torch.from_numpy(masks.sum((2, 3)).astype(np.float32))  # [O, L]
    first, later = areas[:, 0], areas[:, 1:].clone()
    large_enough = later > SMALLEST_AREA
    later[~large_enough] = torch.nan
    if horizon // 4 < later.shape[1]:
        later[:, : horizon // 4] = torch.nan
    chosen = _choose(variant, later, first, horizon, next_start)
    return chosen.numpy(), large_enough[torch.arange(len(later)), chosen].numpy()


def _choose(variant: str, later: Tensor, first: Tensor, horizon: int, next_start: int | None) -> Tensor:
    objects = len(later)
    if variant == "reinit-on-horizon-and-sync-masks":
        return torch.full((objects,), min(horizon - 2, horizon - 2 if next_start is None else next_start))
    if variant == "reinit-at-median-of-area-diff":
        return later.nanmedian(dim=1).indices
    differences = (later - first[:, None]).abs()
    if variant == "reinit-on-similar-mask-area":
        return differences.nan_to_num(nan=torch.inf).argmin(1)
    summed = (differences / first[:, None]).nan_to_num(nan=UNKNOWN_DIFFERENCE, posinf=torch.inf).sum(0)
    if next_start is not None and next_start < len(summed):  # the authors' code fails where it is beyond the window
        summed[next_start] -= SYNC_BONUS
    return summed.argmin().repeat(objects)
