"""How CoTracker 1 and 3 go through a clip: overlapping windows, and points added in support of the given ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def list_windows(length: int, window: int) -> Iterator[tuple[int, list[int]]]:
    """Start and frames of each window of `window` frames, the first half shared with the window before.

    Where a window goes beyond the end of a clip of `length` frames, the last frame is repeated.
    """
    for start in range(0, max(length, window) - window // 2, window // 2):
        yield start, [min(frame, length - 1) for frame in range(start, start + window)]


def add_support(queries: np.ndarray, size: int, every: int, length: int, height: int, width: int) -> np.ndarray:
    """Queries and, behind them, a grid of points on every `every`-th frame, which see how the camera moves.

    Args:
        queries: float32 [N, 3], (frame, x, y).
        size: points per side of the grid.
        length: of the clip; `height`, `width`: of its frames, in pixels.

    Returns:
        float32 [N + M, 3]. A grid goes row by row and leaves a margin of width // 64 free; a single point is central.
    """
    margin = width // 64
    steps = np.full(1, 0.5) if size == 1 else np.linspace(0, 1, size)
    y, x = np.meshgrid(*(margin + steps * (side - 2 * margin) for side in (height, width)), indexing="ij")
    grids = [np.stack([np.full(x.size, frame), x.ravel(), y.ravel()], axis=1) for frame in range(0, length, every)]
    return np.concatenate([queries, *grids]).astype(np.float32)
