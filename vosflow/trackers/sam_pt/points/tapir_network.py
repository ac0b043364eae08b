"""The network of TAPIR: features, a first guess per frame, and its refinement over time.

Written from the paper (Doersch et al., arXiv 2306.08637) and from what the authors' code computes (github.com/
google-deepmind/tapnet, Apache-2.0); parameters have the names of the authors' PyTorch port. Frames are 256 x 256, the
size it was trained at, and positions are refined at this size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vosflow.trackers.sam_pt.points.tap import FRAMES_AT_ONCE, SIDE, CostVolumeHead, features_at, pad_same, unit_length

HIGH, LOW = 128, 256  # channels of the features of stride 4 and 8
PATCH = 7  # cells, each way, that are compared around a position
ITERATIONS = 4
WIDTH, BLOCKS = 512, 12  # of the mixer
TEMPERATURE = 20.0

HAIKU_MODULES = {
    r"tapir/~/resnet/~/initial_conv": r"resnet_torch.initial_conv",
    r"tapir/~/resnet/~/block_group_(\d)/~/block_(\d)/~/(conv_\d)": r"resnet_torch.block_groups.\1.blocks.\2.\3",
    r"tapir/~/resnet/~/block_group_(\d)/~/block_(\d)/~/instancenorm_(\d)": (
        r"resnet_torch.block_groups.\1.blocks.\2.bn_\3"
    ),
    r"tapir/~/resnet/~/block_group_(\d)/~/block_(\d)/~/shortcut_conv": (
        r"resnet_torch.block_groups.\1.blocks.\2.proj_conv"
    ),
    r"tapir/~/cost_volume_regression_([12])": r"torch_cost_volume_track_mods.hid\1",
    r"tapir/~/cost_volume_occlusion_1": r"torch_cost_volume_track_mods.hid3",
    r"tapir/~/cost_volume_occlusion_2": r"torch_cost_volume_track_mods.hid4",
    r"tapir/~/occlusion_out": r"torch_cost_volume_track_mods.occ_out",
    r"tapir/~/(conv_stats|regression)_\w+": "",
    r"tapir/~/pips_mlp_mixer/(linear|linear_1|layer_norm)": r"torch_pips_mixer.\1",
    r"tapir/~/pips_mlp_mixer/block/(layer_norm(?:_1)?|mlp1_up(?:_1)?)": r"torch_pips_mixer.blocks.0.\1",
    r"tapir/~/pips_mlp_mixer/block/(mlp2_\w+)": r"torch_pips_mixer.blocks.0.conv_channels_mixer.\1",
    r"tapir/~/pips_mlp_mixer/block_(\d+)/(layer_norm(?:_1)?|mlp1_up(?:_1)?)": r"torch_pips_mixer.blocks.\1.\2",
    r"tapir/~/pips_mlp_mixer/block_(\d+)/(mlp2_\w+)": r"torch_pips_mixer.blocks.\1.conv_channels_mixer.\2",
}
"""Modules of the published JAX checkpoints, see `haiku.from_haiku`."""


def pyramid_level(weights: Mapping[str, Tensor]) -> int:
    """How many levels coarser than stride 8 the mixer of these weights compares; 0 if they are not TAPIR's."""
    mixer = weights.get("torch_pips_mixer.linear.weight", torch.empty(0))
    return max(0, (mixer.shape[-1] - 4 - HIGH - LOW) // PATCH**2 - 2)


class TapirNetwork(nn.Module):
    """TAPIR.

    Args:
        pyramid_level: 0 for the weights `tapir_checkpoint_panning`, 1 for `causal_tapir_checkpoint`.
        causal: a frame sees no later ones when positions are refined.
    """

    def __init__(self, pyramid_level: int, *, causal: bool) -> None:
        super().__init__()
        self.pyramid_level = pyramid_level
        outputs = 4 + HIGH + LOW
        self.resnet_torch = _ResNet()
        self.torch_cost_volume_track_mods = CostVolumeHead(2, TEMPERATURE, rectifies=True)
        self.torch_pips_mixer = _Mixer(outputs + (pyramid_level + 2) * PATCH**2, outputs, causal=causal)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Features of frames [B, 3, 256, 256]: [B, 64, 64, 128] and [B, 32, 32, 256], each of length 1."""
        high, low = self.resnet_torch(frames)
        return unit_length(high), unit_length(low)

    def track(self, high: Tensor, low: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Follow query points through all frames of a clip.

        Args:
            high: [T, 64, 64, 128], as `encode` gives them.
            low: [T, 32, 32, 256].
            queries: [N, 3], (frame, x, y) in pixels of the 256 x 256 frames.

        Returns:
            Positions [N, T, 2], (x, y) in these pixels, and logits [N, T, 2] of "occluded" and "far off".
        """
        query_low = features_at(low, queries)
        positions, logits = self.torch_cost_volume_track_mods(low, queries, query_low)
        levels = [high, low]
        for _ in range(self.pyramid_level):
            levels.append(functional.avg_pool2d(levels[-1].permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1))
        # What a point looks like starts as it was on the query frame, and is refined frame by frame.
        looks = torch.cat([features_at(high, queries), query_low], -1)[:, None].expand(-1, len(low), -1)
        for _ in range(ITERATIONS):
            compared = [looks[..., :HIGH]] + [looks[..., HIGH:]] * (self.pyramid_level + 1)
            patches = [
                compare_patches(level, positions * (level.shape[1] / SIDE), look)
                for level, look in zip(levels, compared, strict=True)
            ]
            update = self.torch_pips_mixer(torch.cat([torch.zeros_like(positions), logits, looks, *patches], -1))
            positions = positions + update[..., :2]
            logits = logits + update[..., 2:4]
            looks = looks + update[..., 4:]
        return positions, logits


def compare_patches(features: Tensor, positions: Tensor, looks: Tensor) -> Tensor:
    """Dot products of each point's feature with those around its position, bilinear between cells, 0 outside.

    The 8 x 8 cells under the 7 x 7 places are compared, and then interpolated between: as both steps are linear, that
    is the same as interpolating features, with a quarter of the reading.

    Args:
        features: [T, h, w, C].
        positions: [N, T, 2], (x, y) in cells.
        looks: [N, T, C].

    Returns:
        [N, T, 49], row by row.
    """
    parts = zip(
        features.split(FRAMES_AT_ONCE), positions.split(FRAMES_AT_ONCE, 1), looks.split(FRAMES_AT_ONCE, 1), strict=True
    )
    return torch.cat([_compare(*part) for part in parts], 1)


def _compare(features: Tensor, positions: Tensor, looks: Tensor) -> Tensor:
    frames, height, width, channels = features.shape
    first = positions - 0.5 - PATCH // 2  # centre of the first place, in cells whose centres are whole numbers
    corner = first.floor()
    x_part, y_part = (first - corner)[..., None, None].unbind(2)  # [N, T, 1, 1]
    steps = torch.arange(PATCH + 1, device=features.device)
    xs, ys = (corner[..., None] + steps).unbind(2)  # [N, T, 8]
    inside = ((ys >= 0) & (ys < height))[..., None] & ((xs >= 0) & (xs < width))[..., None, :]
    rows = torch.arange(frames, device=features.device)[:, None] * height + ys.clamp(0, height - 1).long()
    cells = rows[..., None] * width + xs.clamp(0, width - 1).long()[..., None, :]  # [N, T, 8, 8]
    around = features.reshape(-1, channels)[cells].flatten(2, 3)  # [N, T, 64, C]
    products = (around @ looks[..., None]).view(cells.shape) * inside
    products = products[..., :-1] * (1 - x_part) + products[..., 1:] * x_part
    return (products[..., :-1, :] * (1 - y_part) + products[..., 1:, :] * y_part).flatten(2)


class _ResNet(nn.Module):
    """Features of stride 4 [B, 128, h/4, w/4] and of stride 8 [B, 256, h/8, w/8]."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_conv = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.block_groups = nn.ModuleList(
            [_BlockGroup(64, 64, 1), _BlockGroup(64, HIGH, 2), _BlockGroup(HIGH, LOW, 2), _BlockGroup(LOW, LOW, 1)]
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        first, second, third, last = self.block_groups
        high = second(first(self.initial_conv(pad_same(frames, 7))))
        return high, last(third(high))


class _BlockGroup(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [_Block(inputs, outputs, stride, projects=True), _Block(outputs, outputs, 1, projects=False)]
        )

    def forward(self, images: Tensor) -> Tensor:
        for block in self.blocks:
            images = block(images)
        return images


class _Block(nn.Module):
    """A residual block whose norms and ReLUs come first (He et al., arXiv 1603.05027)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.proj_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None
        self.bn_0 = nn.InstanceNorm2d(inputs, affine=True)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.bn_1 = nn.InstanceNorm2d(outputs, affine=True)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        active = torch.relu(self.bn_0(images))
        shortcut = images if self.proj_conv is None else self.proj_conv(active)
        padded = pad_same(active, 3) if self.conv_0.stride[0] == 2 else functional.pad(active, (1, 1, 1, 1))
        return self.conv_1(torch.relu(self.bn_1(self.conv_0(padded)))) + shortcut


class _Mixer(nn.Module):
    """An MLP mixer that mixes over time by convolutions, for clips of any length: [N, T, in] -> [N, T, out]."""

    def __init__(self, inputs: int, outputs: int, *, causal: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, WIDTH)
        self.layer_norm = nn.LayerNorm(WIDTH, bias=False)
        self.linear_1 = nn.Linear(WIDTH, outputs)
        self.blocks = nn.ModuleList([_MixerBlock(causal=causal) for _ in range(BLOCKS)])

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.linear(inputs)
        for block in self.blocks:
            hidden = block(hidden)
        return self.linear_1(self.layer_norm(hidden))


class _MixerBlock(nn.Module):
    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.around = (2, 0) if causal else (1, 1)
        self.layer_norm = nn.LayerNorm(WIDTH, bias=False)
        self.mlp1_up = nn.Conv1d(WIDTH, 4 * WIDTH, 3, groups=WIDTH)
        self.mlp1_up_1 = nn.Conv1d(4 * WIDTH, 4 * WIDTH, 3, groups=4 * WIDTH)
        self.layer_norm_1 = nn.LayerNorm(WIDTH, bias=False)
        self.conv_channels_mixer = _ChannelMixer()

    def forward(self, hidden: Tensor) -> Tensor:
        over_time = functional.pad(self.layer_norm(hidden).transpose(1, 2), self.around)  # [N, 512, T + 2]
        over_time = functional.gelu(self.mlp1_up(over_time), approximate="tanh")
        over_time = self.mlp1_up_1(functional.pad(over_time, self.around))  # [N, 2048, T]
        hidden = hidden + over_time.unflatten(1, (WIDTH, 4)).sum(2).transpose(1, 2)
        return hidden + self.conv_channels_mixer(self.layer_norm_1(hidden))


class _ChannelMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp2_up = nn.Linear(WIDTH, 4 * WIDTH)
        self.mlp2_down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.mlp2_down(functional.gelu(self.mlp2_up(hidden), approximate="tanh"))
