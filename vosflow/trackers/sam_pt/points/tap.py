"""What TapNet and TAPIR share: frames of 256 x 256, and points read off a cost volume.

Coordinates are raster coordinates, as in both papers: (0, 0) is the upper left corner of the upper left pixel or cell.
Both networks treat a query at whole numbers as such a corner; the authors of SAM-PT hand them pixel centres all the
same, and so does this.

Sources: Doersch et al., TAP-Vid (arXiv 2211.03726) and TAPIR (arXiv 2306.08637); github.com/google-deepmind/tapnet.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import Tracks

SIDE = 256  # of a frame as the networks see it
RADIUS = 5  # cells around the maximum of a heat map that are averaged
FRAMES_AT_ONCE = 16  # bounds memory; frames do not influence each other where it is used
POINTS_AT_ONCE = 64  # the same, for points


def prepare_frame(frame: np.ndarray, device: str) -> Tensor:
    """A frame uint8 RGB [H, W, 3] as float32 [1, 3, 256, 256] in [-1, 1], bilinear with antialiasing."""
    pixels = torch.tensor(frame, device=device).permute(2, 0, 1)[None] / 255
    return functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True) * 2 - 1


def follow(
    clip: Clip, queries: np.ndarray, find: Callable[[Tensor], tuple[Tensor, Tensor]], threshold: float, device: str
) -> Tracks:
    """Tracks of query points, some at a time.

    Args:
        queries: float32 [N, 3], (frame, x, y) in pixels of the clip.
        find: from queries [n, 3] in pixels of the 256 x 256 frames to positions [n, T, 2] in these pixels, and
            probabilities [n, T] of being visible.
        threshold: a point is visible where its probability is above it.
    """
    scale = SIDE / np.array([clip.width, clip.height], np.float32)
    positions = np.empty((len(clip), len(queries), 2), np.float32)
    visible = np.empty((len(clip), len(queries)), bool)
    for start in range(0, len(queries), POINTS_AT_ONCE):
        points = slice(start, start + POINTS_AT_ONCE)
        scaled = np.concatenate([queries[points, :1], queries[points, 1:] * scale], 1, dtype=np.float32)
        found, probabilities = find(torch.from_numpy(scaled).to(device))
        positions[:, points] = found.transpose(0, 1).cpu().numpy() / scale
        visible[:, points] = (probabilities > threshold).T.cpu().numpy()
    return Tracks(positions, visible)


def pad_same(images: Tensor, kernel: int) -> Tensor:
    """Zeros around [..., H, W] for a convolution of stride 2 over even sides: TensorFlow's and JAX's padding "SAME"."""
    before = (kernel - 2) // 2
    after = kernel - 2 - before
    return functional.pad(images, (before, after, before, after))


def unit_length(features: Tensor) -> Tensor:
    """Features [T, C, h, w] of length 1, channels last: [T, h, w, C]."""
    features = features.permute(0, 2, 3, 1)
    return features / features.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()


def features_at(features: Tensor, queries: Tensor) -> Tensor:
    """Features under query points, bilinear between cells.

    Args:
        features: [T, h, w, C].
        queries: [N, 3], (frame, x, y) in pixels of the 256 x 256 frame.

    Returns:
        [N, C].
    """
    frames = features[queries[:, 0].round().long()].permute(0, 3, 1, 2)  # [N, C, h, w]
    places = queries[:, None, None, 1:] * (2 / SIDE) - 1
    return functional.grid_sample(frames, places, padding_mode="border", align_corners=False)[:, :, 0, 0]


class CostVolumeHead(nn.ModuleDict):
    """Positions and logits from how well a query's feature matches every cell (TAP-Vid, section 4.1).

    Args:
        logits: how many per point and frame: occlusion, and for TAPIR whether the position is far off.
        temperature: by which the heat map is sharpened before its softmax.
        rectifies: a ReLU follows the convolution of the occlusion branch (TAPIR's has one, TapNet's has none).
    """

    def __init__(self, logits: int, temperature: float, *, rectifies: bool) -> None:
        super().__init__(
            {
                "hid1": nn.Conv2d(1, 16, 3, padding=1),
                "hid2": nn.Conv2d(16, 1, 3, padding=1),
                "hid3": nn.Conv2d(16, 32, 3, stride=2),
                "hid4": nn.Linear(32, 16),
                "occ_out": nn.Linear(16, logits),
            }
        )
        self.temperature = temperature
        self.rectifies = rectifies

    def forward(self, features: Tensor, queries: Tensor, query_features: Tensor) -> tuple[Tensor, Tensor]:
        """Find `queries` in every frame; on their own frames they are returned as they are.

        Args:
            features: [T, h, w, C].
            queries: [N, 3], (frame, x, y) in pixels of the 256 x 256 frame.
            query_features: [N, C].

        Returns:
            Positions [N, T, 2], (x, y) in these pixels, and logits [N, T, `logits`].
        """
        found = [self._find(part, query_features) for part in features.split(FRAMES_AT_ONCE)]
        positions = torch.cat([positions for positions, _ in found], 1)
        points, frames = torch.arange(len(queries), device=queries.device), queries[:, 0].round().long()
        positions[points, frames] = queries[:, 1:]
        return positions, torch.cat([logits for _, logits in found], 1)

    def _find(self, features: Tensor, query_features: Tensor) -> tuple[Tensor, Tensor]:
        costs = torch.einsum("nc,thwc->nthw", query_features, features)
        shape = costs.shape
        hidden = torch.relu(self["hid1"](costs.flatten(0, 1)[:, None]))  # [N * T, 16, h, w]
        heat = torch.softmax(self["hid2"](hidden).flatten(1) * self.temperature, -1)
        positions = soft_argmax(heat.view(shape)) * (SIDE / shape[-1])
        hidden = self["hid3"](pad_same(hidden, 3))
        hidden = torch.relu(hidden) if self.rectifies else hidden
        logits = self["occ_out"](torch.relu(self["hid4"](hidden.mean((-2, -1)))))
        return positions, logits.unflatten(0, shape[:2])


def soft_argmax(heat: Tensor) -> Tensor:
    """The mean of the cells less than 5 cells away from the maximum, weighted by their heat.

    Args:
        heat: [..., h, w], not negative.

    Returns:
        [..., 2], (x, y) in cells.
    """
    height, width = heat.shape[-2:]
    xs = torch.arange(width, device=heat.device) + 0.5
    ys = torch.arange(height, device=heat.device) + 0.5
    top = heat.flatten(-2).argmax(-1)[..., None, None]
    near = (xs - xs[top % width]).square() + (ys[:, None] - ys[top // width]).square() < RADIUS**2
    heat = heat * near
    total = heat.sum((-2, -1)).clamp(min=1e-12)
    return torch.stack([(heat.sum(-2) * xs).sum(-1) / total, (heat.sum(-1) * ys).sum(-1) / total], -1)
