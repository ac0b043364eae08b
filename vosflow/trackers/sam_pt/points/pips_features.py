"""Features of frames for PIPs and PIPs++: the encoder that both have, and maps kept for the windows to come."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosflow.trackers.sam_pt.clip import Clip

CHANNELS = 128
KEPT_BYTES = 2**30


class FrameEncoder(nn.Module):
    """`fnet` of PIPs: residual blocks at strides 2 to 16, all resized to one stride and mixed.

    Args:
        stride: of the features, in pixels; independent of the weights.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64), ResidualBlock(64, 64))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, stride=2), ResidualBlock(96, 96))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, stride=2), ResidualBlock(128, 128))
        self.layer4 = nn.Sequential(ResidualBlock(128, 128, stride=2), ResidualBlock(128, 128))
        self.conv2 = nn.Conv2d(64 + 96 + 128 + 128, 2 * CHANNELS, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, images: Tensor) -> Tensor:
        """RGB from -1 to 1, [T, 3, H, W] -> [T, 128, H // stride, W // stride]."""
        size = (images.shape[-2] // self.stride, images.shape[-1] // self.stride)
        x = F.instance_norm(self.conv1(images)).relu_()
        scales = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            scales.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        return self.conv3(F.instance_norm(self.conv2(torch.cat(scales, dim=1))).relu_())


class ResidualBlock(nn.Module):
    """Two convolutions, each normalised per frame and channel, and a shortcut, which has one where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[T, inputs, h, w] -> [T, outputs, h / stride, w / stride]."""
        y = F.instance_norm(self.conv1(x)).relu_()
        y = F.instance_norm(self.conv2(y)).relu_()
        if self.downsample is not None:
            x = F.instance_norm(self.downsample(x))
        return (x + y).relu_()


class FeatureMaps:
    """Feature maps of frames, computed once and kept while there is room: windows overlap, and so do calls.

    Args:
        encode: from a frame, uint8 RGB [H, W, 3], to its features, float32 [h, w, C].
    """

    def __init__(self, encode: Callable[[np.ndarray], Tensor]) -> None:
        self._encode = encode
        self._kept: OrderedDict[str, Tensor] = OrderedDict()  # by digest of the frame's pixels
        self._bytes = 0

    def window(self, clip: Clip, frames: Iterable[int]) -> Tensor:
        """Of these frames of a clip, [S, h, w, C]."""
        return torch.stack([self._one(clip, index) for index in frames])

    def _one(self, clip: Clip, index: int) -> Tensor:
        key = clip.digest(index)
        if key not in self._kept:
            self._kept[key] = self._encode(clip[index])
            self._bytes += self._kept[key].nbytes
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]
