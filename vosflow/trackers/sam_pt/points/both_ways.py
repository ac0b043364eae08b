"""Following points both ways from the frames they are given on, by a method that goes one way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import Tracks


def track_both_ways(one_way: Callable[[Clip, np.ndarray], Tracks], clip: Clip, queries: np.ndarray) -> Tracks:
    """Tracks by `one_way` on the clip and, for points given after its first frame, on the reversed clip.

    Of the reversed clip only what lies before a point's frame is taken, so there is nothing to do for points given on
    the first frame. Points must not influence each other.

    Args:
        one_way: follows queries from their frames to the end of a clip; what it says of earlier frames is not used.
        queries: float32 [N, 3], (frame, x, y) each.
    """
    tracks = one_way(clip, queries)
    first = queries[:, 0].astype(int)  # [N]
    late = np.flatnonzero(first > 0)
    if not len(late):
        return tracks
    mirrored = queries[late].copy()
    mirrored[:, 0] = len(clip) - 1 - first[late]
    back = one_way(clip.reversed(), mirrored)
    before = np.arange(len(clip))[:, None] < first[late]  # [T, late points]
    positions, visible = tracks.positions.copy(), tracks.visible.copy()
    positions[:, late] = np.where(before[..., None], back.positions[::-1], positions[:, late])
    visible[:, late] = np.where(before, back.visible[::-1], visible[:, late])
    return Tracks(positions, visible)
