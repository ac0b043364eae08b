"""Reading feature maps at points: bilinear samples, and correlations of a point's feature with what surrounds it.

Feature maps are channels last, [S, h, w, C] for S frames, so that a place's feature is contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 4  # of the pyramid
RADIUS = 3  # pixels of a level, each way
NEIGHBOURS = LEVELS * (2 * RADIUS + 1) ** 2  # correlations of one point in one frame
PLACES_AT_ONCE = 2048  # points x frames, 32 KiB each per level: neither memory nor caches should overflow


def sample_bilinear(maps: Tensor, xy: Tensor) -> Tensor:
    """Values of maps [S, h, w, C] at xy [S, N, 2] (x, y), [S, N, C]; beyond the border, that of the border."""
    frames, height, width, channels = maps.shape
    corner = xy.floor()
    x, y = (xy - corner)[..., None].unbind(-2)  # [S, N, 1] each
    column, row = corner.long().unbind(-1)
    flat = maps.reshape(-1, channels)
    frame = torch.arange(frames, device=maps.device)[:, None] * (height * width)

    def at(down: int, right: int) -> Tensor:
        return flat[frame + (row + down).clamp(0, height - 1) * width + (column + right).clamp(0, width - 1)]

    return (at(0, 0) * (1 - x) + at(0, 1) * x) * (1 - y) + (at(1, 0) * (1 - x) + at(1, 1) * x) * y


def build_pyramid(maps: Tensor) -> list[Tensor]:
    """Maps [S, h, w, C] and their averages over 2 x 2, 4 x 4 and 8 x 8 places."""
    levels = [maps]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1].permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1).contiguous())
    return levels


def correlate(levels: Sequence[Tensor], features: Tensor, xy: Tensor) -> Tensor:
    """Correlations of features with the 7 x 7 places around a point, on each level; places outside give 0.

    PIPs (and RAFT) compute the correlation with every place of every map and then read 49 of them, bilinearly. They
    all have the same fractions, so they follow from the 8 x 8 places around: 256 products per point, frame and feature
    instead of 4/3 of the map.

    Args:
        levels: [S, h, w, C], from `build_pyramid`.
        features: K for each point and frame, [N, S, K, C].
        xy: (x, y) in places of the first level, [N, S, 2].

    Returns:
        [N, S, K * 196]; for each feature level by level, x before y.
    """
    chunks = zip(*(part.split(max(1, PLACES_AT_ONCE // xy.shape[1])) for part in (features, xy)), strict=True)
    return torch.cat(
        [
            torch.cat([_correlate(level, *chunk, 2**i) for i, level in enumerate(levels)], dim=-1).flatten(2)
            for chunk in chunks
        ]
    )


def _correlate(maps: Tensor, features: Tensor, xy: Tensor, scale: int) -> Tensor:
    frames, height, width, channels = maps.shape
    points, _, count, _ = features.shape
    xy = xy / scale
    corner = xy.floor()
    x, y = (xy - corner)[..., None, None, None].unbind(2)  # [N, S, 1, 1, 1]
    around = torch.arange(-RADIUS, RADIUS + 2, device=maps.device)
    columns, rows = (corner.long()[..., None] + around).unbind(2)  # [N, S, 8]
    frame = torch.arange(frames, device=maps.device)[:, None, None] * (height * width)
    places = frame + rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    inside = _within(rows, height)[..., :, None] & _within(columns, width)[..., None, :]  # [N, S, 8, 8]

    patches = maps.reshape(-1, channels)[places.flatten()].view(points * frames, -1, channels)  # [NS, 64, C]
    products = patches @ features.reshape(points * frames, count, channels).mT  # [NS, 64, K]
    products = products.view(*inside.shape, count) * (inside[..., None] * channels**-0.5)
    products = products[:, :, :-1] * (1 - y) + products[:, :, 1:] * y
    products = products[:, :, :, :-1] * (1 - x) + products[:, :, :, 1:] * x  # [N, S, 7 of y, 7 of x, K]
    return products.permute(0, 1, 4, 3, 2).flatten(3)  # [N, S, K, 49]


def _within(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)
