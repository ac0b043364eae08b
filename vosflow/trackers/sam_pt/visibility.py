"""Which tracked points prompt SAM: those that are visible, inside the frame, and, if wished, look as at the start."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vosflow.trackers.sam_pt.clip import Clip

BORDER = 0.01  # of the frame's width and height


class Visibility(IntEnum):
    """Of a point on a frame; only VISIBLE ones prompt SAM. The numbers are the authors'."""

    VISIBLE = 1
    HIDDEN = 0
    OUTSIDE_FRAME = -2
    PATCH_DIFFERS = -3
    AFTER_PATCH_DIFFERED = -4


def mark_outside(visibility: np.ndarray, positions: np.ndarray, height: int, width: int) -> None:
    """Mark points near or beyond the frame's border.

    Args:
        visibility: int8 [...], changed in place.
        positions: float32 [..., 2], (x, y) in pixels.
    """
    share = positions / np.array([width, height], np.float32)
    visibility[((share < BORDER) | (share > 1 - BORDER)).any(-1)] = Visibility.OUTSIDE_FRAME


def mark_differing_patches(
    visibility: np.ndarray,
    positions: np.ndarray,
    clip: Clip,
    queries: np.ndarray,
    *,
    size: int,
    threshold: float,
    as_bgr: bool,
) -> None:
    """Mark points on patches unlike that of their query, and, further away in time from it, all that follow.

    The similarity of patches of `size` x `size` pixels is exp(-distance / (2 size^2)) in Lab.

    Args:
        visibility: int8 [T, N], changed in place.
        positions: float32 [T, N, 2], (x, y).
        queries: float32 [N, 3], (frame, x, y).
        as_bgr: take the channels of frames in the wrong order.
    """
    frames = len(clip)
    starts = queries[:, 0].astype(int)
    wanted = np.zeros((len(queries), size * size * 3), np.float32)
    for frame in np.unique(starts):
        here = starts == frame
        wanted[here] = _patches(to_lab(clip[frame], as_bgr), queries[here, 1:], size)
    for frame in range(frames):
        patches = _patches(to_lab(clip[frame], as_bgr), positions[frame], size)
        similarity = np.exp(-np.linalg.norm(patches - wanted, axis=1) / (2 * size**2))
        differs = (visibility[frame] == Visibility.VISIBLE) & ~(similarity > threshold)
        visibility[frame, differs] = Visibility.PATCH_DIFFERS
    for n, start in enumerate(starts):
        differs = np.flatnonzero(visibility[:, n] == Visibility.PATCH_DIFFERS)
        after, before = differs[differs > start], differs[differs < start]
        if len(after):
            visibility[after[0] + 1 :, n] = Visibility.AFTER_PATCH_DIFFERED
        if len(before):
            visibility[: before[-1], n] = Visibility.AFTER_PATCH_DIFFERED


def to_lab(frame: np.ndarray, as_bgr: bool = False) -> np.ndarray:
    """A frame uint8 RGB [H, W, 3] in CIE Lab (D65, 2 degrees), float32."""
    rgb = (frame[..., ::-1] if as_bgr else frame) / 255.0
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)


def _patches(image: np.ndarray, centres: np.ndarray, size: int) -> np.ndarray:
    """Bilinear patches around points of an image [H, W, C], zero outside of it: float32 [N, size * size * C]."""
    import torch
    from torch.nn import functional as F

    height, width = image.shape[:2]
    reach = np.arange(-(size // 2), size // 2 + 1, dtype=np.float32)
    offsets = np.stack(np.meshgrid(reach, reach, indexing="ij"), -1).reshape(-1, 2)
    places = (centres[:, None] + offsets + 0.5) / np.array([width, height], np.float32) * 2 - 1  # [N, size^2, 2]
    sampled = F.grid_sample(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        torch.from_numpy(places.astype(np.float32))[None],
        mode="bilinear",
        align_corners=False,
    )  # [1, C, N, size^2]
    return sampled[0].permute(1, 2, 0).reshape(len(centres), -1).numpy()
