"""The network of PIPs (Harley et al., ECCV 2022, arXiv 2204.04153), by the parameter names of the official weights.

It moves points through a window of 8 frames at once: an MLP-Mixer over the frames looks at how each point's feature
correlates with its surroundings in every frame, and updates positions and features, several times.

Shapes: N points, S = 8 frames, C = 128 channels. Positions are in places of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vosflow.trackers.sam_pt.points.pips_features import CHANNELS, FrameEncoder
from vosflow.trackers.sam_pt.points.sampling import NEIGHBOURS, correlate

WINDOW = 8  # frames; the weights are for as many
WIDTH, DEPTH, EXPANSION = 512, 12, 4  # of the mixer
WAVES = 64  # sines and cosines for each coordinate


class PipsNetwork(nn.Module):
    """PIPs.

    Args:
        stride: of the feature maps, in pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.fnet = FrameEncoder(stride)
        self.delta_block = nn.Module()
        self.delta_block.to_delta = make_mixer(CHANNELS + NEIGHBOURS + 3 * WAVES + 3, WINDOW * (2 + CHANNELS))
        self.norm = nn.GroupNorm(1, CHANNELS)
        self.ffeat_updater = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(CHANNELS, 1))

    def forward(self, levels: list[Tensor], start: Tensor, features: Tensor, iters: int) -> tuple[Tensor, Tensor]:
        """Follow points through a window.

        Args:
            levels: feature maps of its frames, from `build_pyramid`.
            start: where the points are in its first frame, [N, 2].
            features: of the points, [N, C].
            iters: how often positions and features are updated.

        Returns:
            Positions [N, S, 2], and probabilities that the points are visible, [N, S].
        """
        points = len(start)
        positions = start[:, None].repeat(1, WINDOW, 1)  # at rest
        features = features[:, None].repeat(1, WINDOW, 1)
        times = torch.linspace(0, WINDOW, WINDOW, device=start.device).expand(points, -1)[..., None]
        for _ in range(iters):
            correlations = correlate(levels, features[:, :, None], positions)
            motion = torch.cat([positions - positions[:, :1], times], dim=-1)  # [N, S, 3]
            delta = self.delta_block.to_delta(torch.cat([features, correlations, embed(motion)], dim=-1))
            delta = delta.view(points, WINDOW, 2 + CHANNELS)
            update = self.ffeat_updater(self.norm(delta[..., 2:].reshape(-1, CHANNELS)))
            features = features + update.view_as(features)
            positions = positions + delta[..., :2]
            positions[:, 0] = start
        return positions, self.vis_predictor(features)[..., 0].sigmoid()


def embed(motion: Tensor) -> Tensor:
    """Sines and cosines, in turn, of 32 multiples of each coordinate, and the coordinates; [N, S, 3] -> [N, S, 195]."""
    frequencies = torch.arange(0, WAVES, 2, device=motion.device, dtype=torch.float32) * (1000.0 / WAVES)
    phases = motion[..., None] * frequencies  # [N, S, 3, 32]
    waves = torch.stack([phases.sin(), phases.cos()], dim=-1)
    return torch.cat([waves.flatten(2), motion], dim=-1)


def make_mixer(inputs: int, outputs: int) -> nn.Sequential:
    """An MLP-Mixer over the frames of a window: [N, S, inputs] -> [N, outputs]."""
    blocks = [
        nn.Sequential(
            PreNormResidual(feed_forward(WINDOW, over_frames=True)),
            PreNormResidual(feed_forward(WIDTH, over_frames=False)),
        )
        for _ in range(DEPTH)
    ]
    return nn.Sequential(
        nn.Linear(inputs, WIDTH), *blocks, nn.LayerNorm(WIDTH), MeanOverFrames(), nn.Linear(WIDTH, outputs)
    )


def feed_forward(size: int, *, over_frames: bool) -> nn.Sequential:
    """Two dense layers over frames or channels of [N, S, channels]; the authors' had dropout where Identity is."""

    def dense(inputs: int, outputs: int) -> nn.Module:
        return nn.Conv1d(inputs, outputs, 1) if over_frames else nn.Linear(inputs, outputs)

    return nn.Sequential(dense(size, EXPANSION * size), nn.GELU(), nn.Identity(), dense(EXPANSION * size, size))


class PreNormResidual(nn.Module):
    """x + fn(norm(x))."""

    def __init__(self, fn: nn.Module) -> None:
        super().__init__()
        self.fn = fn
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[N, S, WIDTH] -> the same."""
        return x + self.fn(self.norm(x))


class MeanOverFrames(nn.Module):
    """[N, S, WIDTH] -> [N, WIDTH]."""

    def forward(self, x: Tensor) -> Tensor:
        """The mean over S."""
        return x.mean(dim=1)
