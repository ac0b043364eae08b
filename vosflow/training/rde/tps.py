"""Thin-plate splines: smooth warps of images through displaced points."""

from __future__ import annotations

import numpy as np


def tps_map(points: np.ndarray, targets: np.ndarray, height: int, width: int) -> np.ndarray:
    """Where pixels of a warped image come from, float32 [height, width, 2]: (x, y) in pixels, as for cv2.remap.

    The spline of least bending that maps `points` to `targets` (Bookstein, "Principal warps", IEEE TPAMI 1989).

    Args:
        points: float [N, 2], (x, y) from 0 to 1, in the warped image; at least three that are not on one line.
        targets: float [N, 2], where they come from.
    """
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _bending(points, points)
    system[:count, count] = 1
    system[:count, count + 1 :] = points
    system[count:, :count] = system[:count, count:].T
    wanted = np.concatenate([targets - points, np.zeros((3, 2))])  # displacements: far away, they stay bounded
    weights = np.linalg.solve(system, wanted)  # [N + 3, 2]
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    places = np.stack([x.ravel(), y.ravel()], axis=1)  # [H W, 2]
    moved = places + _bending(places, points) @ weights[:count] + weights[count] + places @ weights[count + 1 :]
    return (moved * (width, height) - 0.5).astype(np.float32).reshape(height, width, 2)


def _bending(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """r^2 log r of all distances, [places, points]."""
    squared = np.square(places[:, None] - points[None]).sum(axis=2)
    return 0.5 * squared * np.log(np.maximum(squared, 1e-12))
