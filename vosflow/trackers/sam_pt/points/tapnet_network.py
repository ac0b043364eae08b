"""The network of TapNet: a ResNet-18 that shifts channels over time, and a cost volume per frame.

Written from the papers (TAP-Vid, arXiv 2211.03726; temporal shift, Lin et al., arXiv 1811.08383; pre-activation ResNet,
He et al., arXiv 1603.05027) and from what the authors' code computes (github.com/google-deepmind/tapnet, Apache-2.0).
There is no PyTorch port of theirs: parameters have the names below, and come from the published JAX weights. Frames are
256 x 256, the size it was trained at.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vosflow.trackers.sam_pt.points.tap import FRAMES_AT_ONCE, CostVolumeHead, features_at, pad_same, unit_length

SHIFTED = 1 / 8  # of the channels, each way in time
TEMPERATURE = 10.0

_BLOCK = r"tap_net/~/tsm_resnet_video/tsm_resnet_unit_(\d)/block_(\d)/"
HAIKU_MODULES = {
    r"tap_net/~/tsm_resnet_video/tsm_resnet_stem": r"stem",
    _BLOCK + r"(conv_\d|shortcut_conv)": r"units.\1.\2.\3",
    _BLOCK + r"batch_norm": r"units.\1.\2.norm_0",
    _BLOCK + r"batch_norm_1": r"units.\1.\2.norm_1",
    r"tap_net/~/cost_volume_regression_([12])": r"head.hid\1",
    r"tap_net/~/cost_volume_occlusion_1": r"head.hid3",
    r"tap_net/~/cost_volume_occlusion_2": r"head.hid4",
    r"tap_net/~/occlusion_out": r"head.occ_out",
    r"tap_net/~/regression_\w+": "",
}
"""Modules of the published JAX checkpoint, see `haiku.from_haiku`."""


class TapNetNetwork(nn.Module):
    """TapNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, stride=2, bias=False)
        self.units = nn.ModuleList(
            [
                nn.ModuleList([_Block(64, 64, 1, projects=True, shifts=True), _Block(64, 64, 1, shifts=True)]),
                nn.ModuleList([_Block(64, 128, 2, projects=True, shifts=True), _Block(128, 128, 1, shifts=True)]),
                nn.ModuleList([_Block(128, 256, 1, projects=True), _Block(256, 256, 1)]),
            ]
        )
        self.head = CostVolumeHead(1, TEMPERATURE, rectifies=False)

    def encode(self, frames: Iterable[Tensor]) -> Tensor:
        """Features of all frames of a clip; those of one depend on its neighbours, and at the ends on zeros.

        Args:
            frames: each [1, 3, 256, 256]; read one after another.

        Returns:
            [T, 32, 32, 256], each of length 1.
        """
        hidden = torch.cat([self._start(frame) for frame in frames])  # [T, 64, 64, 64]
        for unit in self.units:
            for block in unit:
                hidden = block(hidden)
        return unit_length(hidden)

    def track(self, features: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Find query points in all frames of a clip.

        Args:
            features: [T, 32, 32, 256], as `encode` gives them.
            queries: [N, 3], (frame, x, y) in pixels of the 256 x 256 frames.

        Returns:
            Positions [N, T, 2], (x, y) in these pixels, and logits [N, T, 1] of "occluded".
        """
        return self.head(features, queries, features_at(features, queries))

    def _start(self, frame: Tensor) -> Tensor:
        hidden = self.stem(pad_same(frame, 7))
        # The maximum of 3 x 3 is taken over what is there: outside is no zero.
        return functional.max_pool2d(functional.pad(hidden, (0, 1, 0, 1), value=-torch.inf), 3, 2)


class _Block(nn.Module):
    """A residual block whose norms and ReLUs come first."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projects: bool = False, shifts: bool = False) -> None:
        super().__init__()
        self.shifts = shifts
        self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None
        self.norm_0 = _Norm(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.norm_1 = _Norm(outputs)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)

    def forward(self, clip: Tensor) -> Tensor:
        """[T, C, h, w] -> [T, C', h / stride, w / stride]."""
        active = torch.relu(self.norm_0(clip))
        shifted = shift_over_time(active) if self.shifts else active
        parts = zip(*(frames.split(FRAMES_AT_ONCE) for frames in (clip, active, shifted)), strict=True)
        return torch.cat([self._convolve(*part) for part in parts])

    def _convolve(self, frames: Tensor, active: Tensor, shifted: Tensor) -> Tensor:
        shortcut = frames if self.shortcut_conv is None else self.shortcut_conv(active)
        padded = pad_same(shifted, 3) if self.conv_0.stride[0] == 2 else functional.pad(shifted, (1, 1, 1, 1))
        return shortcut + self.conv_2(torch.relu(self.norm_1(self.conv_0(padded))))


class _Norm(nn.Module):
    """A batch norm of averages as they were trained."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, images: Tensor) -> Tensor:
        return functional.batch_norm(images, self.running_mean, self.running_var, self.weight, self.bias)


def shift_over_time(clip: Tensor) -> Tensor:
    """Let frames see their neighbours: the last eighth of the channels comes from the next frame, and goes first; the
    first eighth comes from the previous frame, and goes last; zeros at the ends of the clip. [T, C, h, w]."""
    count = int(clip.shape[1] * SHIFTED)
    later, earlier = torch.zeros_like(clip[:, :count]), torch.zeros_like(clip[:, :count])
    later[:-1] = clip[1:, -count:]
    earlier[1:] = clip[:-1, :count]
    return torch.cat([later, clip[:, count:-count], earlier], 1)
