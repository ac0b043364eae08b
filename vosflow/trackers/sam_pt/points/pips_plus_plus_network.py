"""The network of PIPs++ (Zheng et al., ICCV 2023, arXiv 2307.15055), by the parameter names of the official weights.

Like PIPs, it moves points through all frames of a window at once, looking at correlations around them. But windows may
have any length, as convolutions over time take the place of the mixer, and three features are looked for: that of the
first frame, and those of where the point was 2 and 4 frames before.

Shapes: N points, S frames of a window, C = 128 channels. Positions are in places of the feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosflow.trackers.sam_pt.points.pips_features import CHANNELS, FrameEncoder
from vosflow.trackers.sam_pt.points.sampling import NEIGHBOURS, correlate, sample_bilinear

FEATURES = 3  # looked for, per point and frame
BEFORE = (2, 4)  # frames
BLOCKS = (128, 128, 256, 256, 512, 512, 1024, 1024)  # channels of the convolutions over time
TEMPERATURE = 10_000  # of the position embedding


class PipsPlusPlusNetwork(nn.Module):
    """PIPs++.

    Args:
        stride: of the feature maps, in pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.fnet = FrameEncoder(stride)
        self.delta_block = TimeConvolutions(FEATURES * NEIGHBOURS + CHANNELS + 2)
        self.norm = nn.GroupNorm(1, CHANNELS)  # in the authors' weights; never used

    def forward(
        self, levels: list[Tensor], positions: Tensor, features: Tensor | None, iters: int
    ) -> tuple[Tensor, Tensor]:
        """Follow points through a window.

        Args:
            levels: feature maps of its frames, from `build_pyramid`.
            positions: first guess, [N, S, 2]; in the first frame it stays.
            features: what the window before this one returned, of which the recent ones are looked for in the first
                iteration; None in the first window.
            iters: how often positions are updated.

        Returns:
            Positions [N, S, 2], and features [N, S, 3, C]: of the first frame of all, and those of the last iteration
            from 2 and 4 frames before.
        """
        frames = positions.shape[1]
        start = positions[:, :1]
        if features is None:
            given = sample_bilinear(levels[0][:1], start.transpose(0, 1))[0]  # [N, C]
            features = given[:, None, None].expand(-1, frames, FEATURES, -1)
        earlier = [(torch.arange(frames, device=start.device) - k).clamp(min=0) for k in BEFORE]
        for i in range(iters):
            if i > 0:
                here = sample_bilinear(levels[0], positions.transpose(0, 1)).transpose(0, 1)  # [N, S, C]
                features = torch.stack([features[:, :, 0], *(here[:, index] for index in earlier)], dim=2)
            correlations = correlate(levels, features, positions)
            motion = positions.diff(dim=1)
            motion = torch.cat([motion, motion[:, -1:]], dim=1)  # [N, S, 2]
            positions = positions + self.delta_block(torch.cat([correlations, embed(motion)], dim=-1))
            positions[:, :1] = start
        return positions, features


def embed(motion: Tensor) -> Tensor:
    """Sines and cosines of 32 multiples of x, then of y, and both themselves; [N, S, 2] -> [N, S, 130]."""
    waves = CHANNELS // 4
    frequencies = 1 / TEMPERATURE ** (torch.arange(waves, device=motion.device) / (waves - 1))
    x, y = (motion[..., None] * frequencies).unbind(2)  # [N, S, 32] each
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos(), motion], dim=-1)


class TimeConvolutions(nn.Module):
    """Residual convolutions over the frames of a window: [N, S, inputs] -> [N, S, 2]."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first_block_conv = TimeConvolution(inputs, BLOCKS[0])
        widths = (BLOCKS[0], *BLOCKS)
        self.basicblock_list = nn.ModuleList(
            ResidualBlock(*widths[i : i + 2], is_first=i == 0) for i in range(len(BLOCKS))
        )
        self.dense = nn.Linear(BLOCKS[-1], 2)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.first_block_conv(x.transpose(1, 2)).relu()  # [N, channels, S]
        for block in self.basicblock_list:
            x = block(x)
        return self.dense(x.relu().transpose(1, 2))


class ResidualBlock(nn.Module):
    """Two convolutions over time, each after a normalisation over the window and a ReLU; the first block has but one.

    The shortcut gains channels of zeros on both sides.
    """

    def __init__(self, inputs: int, outputs: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        self.conv1 = TimeConvolution(inputs, outputs)
        self.conv2 = TimeConvolution(outputs, outputs)
        added = outputs - inputs
        self.padding = (0, 0, added // 2, added - added // 2)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, S] -> [N, outputs, S]."""
        y = x if self.is_first else F.instance_norm(x).relu()
        y = self.conv2(F.instance_norm(self.conv1(y)).relu())
        return y + F.pad(x, self.padding)


class TimeConvolution(nn.Module):
    """A convolution over 3 frames, zeros beyond the ends."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, S] -> [N, outputs, S]."""
        return self.conv(x)
