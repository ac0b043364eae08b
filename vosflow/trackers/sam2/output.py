"""From logits at the network's size to the masks of a frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.manifest import LABEL_MAPS
from vosflow.trackers.base import Masks
from vosflow.trackers.sam2 import OVERLAP_CEILING
from vosflow.video import Video


def to_masks(logits: Mapping[int, Tensor], video: Video, object_ids: tuple[int, ...], score_thresh: float) -> Masks:
    """The masks of one frame in the video's layout, see `vosflow.trackers.base.Masks`.

    Args:
        logits: {object id: float32 [1, 1, s, s]} of the objects that have started, ids ascending; s may be any.
        object_ids: all objects of the video: in the per-object layout those that have not started are empty.
        score_thresh: a pixel belongs to an object if its logit is above this.
    """
    size = (video.height, video.width)
    if video.layout == LABEL_MAPS:
        return _label_map(logits, size, score_thresh)
    masks = {k: (scores > score_thresh).cpu().numpy() for k, scores in _at_video_size(logits, size)}
    return {k: masks[k] if k in masks else np.zeros(size, bool) for k in object_ids}


def _label_map(logits: Mapping[int, Tensor], size: tuple[int, int], score_thresh: float) -> np.ndarray:
    """A pixel is the object's with the highest score there, the smallest id's if two are equal; object by object.

    This is `_apply_non_overlapping_constraints` of the sam2 package, a threshold, and a merge in which the smallest id
    wins. Below `OVERLAP_CEILING` the threshold lets losers pass, too: then the smallest id among them wins.
    """
    device = next(iter(logits.values())).device if logits else None
    label_map = torch.zeros(size, dtype=torch.uint8, device=device)
    highest = torch.full(size, score_thresh, device=device)
    for k, scores in _at_video_size(logits, size):
        above = scores > highest
        if score_thresh < OVERLAP_CEILING:
            above &= label_map == 0
        else:
            torch.maximum(highest, scores, out=highest)
        label_map.masked_fill_(above, k)
    return label_map.cpu().numpy()


def _at_video_size(logits: Mapping[int, Tensor], size: tuple[int, int]) -> Iterator[tuple[int, Tensor]]:
    """(object id, scores float32 [H, W]) one after another: ten objects at 1080p would fill 80 MB at once."""
    for k, scores in logits.items():
        if scores.shape[-2:] != size:
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        yield k, scores[0, 0]
