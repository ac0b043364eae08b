"""The network of RDE-VOS (Li et al., CVPR 2022, arXiv 2205.03761), by the parameter names of the official weights.

It is STCN (Cheng et al., NeurIPS 2021) with a part that folds two memories into one: the spatio-temporal aggregation
module, SAM (`mem_compress`). Nothing here knows of videos: what is remembered when, and read how, is in `memory` and
`policies`.

What does not depend on objects is computed once per frame, not per object: half of the convolutions on concatenated
features (`ResBlock.prepare`) and the decoder's skip connections.

Shapes: T frames, O objects of each, [H, W] the padded image, [h, w] = [H/16, W/16]; channels at width 64, as published:
K = 64 of keys, V = 512 of values.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

STRIDE = 16


@dataclass(frozen=True)
class Features:
    """What is known of T frames before anything of objects is.

    Attributes:
        key: float32 [T, K, h, w].
        f16: features at stride 16, [T, 2V, h, w], for the value encoder.
        thin: what the decoder's first block makes of the image, before its ReLU and of its shortcut, 2 x [T, V, h, w].
        skip8: [T, V, 2h, 2w], and skip4: [T, V/2, 4h, 4w], skip connections of the decoder.
    """

    key: Tensor
    f16: Tensor
    thin: tuple[Tensor, Tensor]
    skip8: Tensor
    skip4: Tensor

    def split(self) -> list[Features]:
        """One of each frame."""
        thin = zip(*(part.split(1) for part in self.thin), strict=True)
        parts = (self.key.split(1), self.f16.split(1), thin, self.skip8.split(1), self.skip4.split(1))
        return [Features(*part) for part in zip(*parts, strict=True)]


class RdeNetwork(nn.Module):
    """RDE-VOS.

    Args:
        width: channels of the stems; 64 as published.
        key_channels: 64 as published.
        compresses: has SAM. Without it this is STCN.
        others: the value encoder sees the masks of other objects, too; not so in training stage 0, which has one.
    """

    def __init__(
        self, width: int = 64, key_channels: int = 64, *, compresses: bool = True, others: bool = True
    ) -> None:
        super().__init__()
        values = 8 * width
        self.key_encoder = KeyEncoder(width)
        self.value_encoder = ValueEncoder(width, 5 if others else 4)
        self.key_proj = KeyProjection(16 * width, key_channels)
        self.key_comp = nn.Conv2d(16 * width, values, 3, padding=1)
        self.decoder = Decoder(width)
        self.mem_compress = MemoryCompression(key_channels, values) if compresses else None

    def encode_frames(self, images: Tensor) -> Features:
        """Features of frames, normalised RGB [T, 3, H, W]."""
        f16, f8, f4 = self.key_encoder(images)
        key = self.key_proj(f16.to(self.key_proj.key_proj.weight.dtype)).float()
        return Features(key, f16, *self.decoder.prepare(self.key_comp(f16), f8, f4))

    def encode_values(self, image: Tensor, features: Features, masks: Tensor, others: Tensor | None) -> Tensor:
        """Values of objects, [T O, V, h, w]; all frames have as many.

        Args:
            image: [T, 3, H, W], and their features. In tracking this is one frame.
            masks: probabilities of the objects, those of one frame after those of the other, [T O, 1, H, W].
            others: for each object the sum of all others' probabilities, likewise; None for a network without them.
        """
        return self.value_encoder(image, features.f16, masks, others)

    def decode(self, readout: Tensor, features: Features) -> Tensor:
        """Logits float32 [T O, H, W] from what was read from the memory for T frames, [T O, V, h, w]."""
        return self.decoder(readout, features)


class KeyEncoder(nn.Module):
    """A ResNet-50 up to its third stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.res2 = stage(Bottleneck, width, width, blocks=3, stride=1)
        self.layer2 = stage(Bottleneck, 4 * width, 2 * width, blocks=4, stride=2)
        self.layer3 = stage(Bottleneck, 8 * width, 4 * width, blocks=6, stride=2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features at strides 16 [T, 1024, h, w], 8 [T, 512, 2h, 2w] and 4 [T, 256, 4h, 4w]."""
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 3, stride=2, padding=1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    """From features to keys."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(channels, key_channels, 3, padding=1)

    def forward(self, f16: Tensor) -> Tensor:
        """[T, 1024, h, w] -> [T, K, h, w]."""
        return self.key_proj(f16)


class ValueEncoder(nn.Module):
    """A ResNet-18 up to its third stage on image, mask and the others' masks; then the key encoder's features join.

    Unlike torchvision's, its convolutions have biases.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = with_biases(stage(BasicBlock, width, width, blocks=2, stride=1))
        self.layer2 = with_biases(stage(BasicBlock, width, 2 * width, blocks=2, stride=2))
        self.layer3 = with_biases(stage(BasicBlock, 2 * width, 4 * width, blocks=2, stride=2))
        self.fuser = Fuser(4 * width, 16 * width, 8 * width)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor, others: Tensor | None) -> Tensor:
        """See `RdeNetwork.encode_values`."""
        image = image.repeat_interleave(len(masks) // len(image), dim=0)
        x = torch.cat([image, masks] if others is None else [image, masks, others], dim=1)  # [O, 5 or 4, H, W]
        x = F.max_pool2d(self.bn1(self.conv1(x)), 3, stride=2, padding=1).relu()  # [O, 64, 4h, 4w]
        return self.fuser(self.layer3(self.layer2(self.layer1(x))), f16)


class Fuser(nn.Module):
    """Joins features of objects and of the frame: two residual blocks with attention (CBAM) in between."""

    def __init__(self, own: int, shared: int, values: int) -> None:
        super().__init__()
        self.block1 = ResBlock(own + shared, values)
        self.attention = Attention(values)
        self.block2 = ResBlock(values, values)

    def forward(self, x: Tensor, f16: Tensor) -> Tensor:
        """x [T O, 256, h, w], f16 [T, 1024, h, w] -> [T O, V, h, w]."""
        x = self.block1(x, self.block1.prepare(f16))
        return self.block2(x + self.attention(x))


class Attention(nn.Module):
    """CBAM (Woo et al., ECCV 2018): a gate for each channel, then one for each place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = nn.Module()
        self.ChannelGate.mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, channels // 16), nn.ReLU(), nn.Linear(channels // 16, channels)
        )
        self.SpatialGate = nn.Module()
        self.SpatialGate.spatial = nn.Module()
        self.SpatialGate.spatial.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """[O, V, h, w] -> the same."""
        mlp = self.ChannelGate.mlp
        gate = mlp(x.mean(dim=(2, 3))) + mlp(x.amax(dim=(2, 3)))  # [O, V]
        x = x * gate.sigmoid()[:, :, None, None]
        places = torch.stack([x.amax(dim=1), x.mean(dim=1)], dim=1)  # [O, 2, h, w]
        return x * self.SpatialGate.spatial.conv(places).sigmoid()


class Decoder(nn.Module):
    """From what was read from the memory to logits, with skip connections from the key encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.compress = ResBlock(16 * width, 8 * width)
        self.up_16_8 = Upsampling(8 * width, 8 * width, 4 * width)
        self.up_8_4 = Upsampling(4 * width, 4 * width, 4 * width)
        self.pred = nn.Conv2d(4 * width, 1, 3, padding=1)

    def prepare(self, thin: Tensor, f8: Tensor, f4: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """All that depends on the frame alone: `Features.thin`, `skip8` and `skip4`."""
        return self.compress.prepare(thin), self.up_16_8.skip_conv(f8), self.up_8_4.skip_conv(f4)

    def forward(self, readout: Tensor, features: Features) -> Tensor:
        """See `RdeNetwork.decode`."""
        x = self.compress(readout, features.thin)  # [O, 512, h, w]
        x = self.up_16_8(x, features.skip8)  # [O, 256, 2h, 2w]
        x = self.up_8_4(x, features.skip4)  # [O, 256, 4h, 4w]
        logits = self.pred(x.relu()).float()
        return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)[:, 0]


class Upsampling(nn.Module):
    """Doubles the resolution and adds a skip connection."""

    def __init__(self, skipped: int, coming: int, going: int) -> None:
        super().__init__()
        self.skip_conv = nn.Conv2d(skipped, coming, 3, padding=1)
        self.out_conv = ResBlock(coming, going)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """x [T O, coming, h, w], skip [T, coming, 2h, 2w], already through `skip_conv` -> [T O, going, 2h, 2w]."""
        return self.out_conv(_join(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), skip))


class ResBlock(nn.Module):
    """Residual block without normalisation, ReLU first. Where the width changes, the shortcut is a convolution.

    Its input may come in two parts, those channels that each object has, and last those that all objects share.
    """

    def __init__(self, coming: int, going: int) -> None:
        super().__init__()
        self.downsample = None if coming == going else nn.Conv2d(coming, going, 3, padding=1)
        self.conv1 = nn.Conv2d(coming, going, 3, padding=1)
        self.conv2 = nn.Conv2d(going, going, 3, padding=1)

    def prepare(self, shared: Tensor) -> tuple[Tensor, Tensor]:
        """What `conv1` and the shortcut make of the last channels of the input, without biases."""
        channels = shared.shape[1]
        return (
            F.conv2d(shared.relu(), self.conv1.weight[:, -channels:], padding=1),
            F.conv2d(shared, self.downsample.weight[:, -channels:], padding=1),
        )

    def forward(self, x: Tensor, prepared: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x [T O, channels, h, w]; `prepared`, of T frames: the other channels of the input, where x has not all."""
        if prepared is None:
            shortcut = x if self.downsample is None else self.downsample(x)
            return shortcut + self.conv2(self.conv1(x.relu()).relu())
        first, shortcut = prepared
        channels = x.shape[1]
        first = _join(F.conv2d(x.relu(), self.conv1.weight[:, :channels], self.conv1.bias, padding=1), first)
        shortcut = _join(F.conv2d(x, self.downsample.weight[:, :channels], self.downsample.bias, padding=1), shortcut)
        return shortcut + self.conv2(first.relu())


class MemoryCompression(nn.Module):
    """SAM: makes one memory of an old one and that of a new frame; a branch for keys and one for values."""

    def __init__(self, key_channels: int, value_channels: int) -> None:
        super().__init__()
        self.key_encoder = Aggregation(key_channels)
        self.value_encoder = Aggregation(value_channels)
        self.compress_key = nn.Conv3d(key_channels, key_channels, (2, 3, 3), padding=(0, 1, 1))
        self.compress_value = nn.Conv3d(value_channels, value_channels, (2, 3, 3), padding=(0, 1, 1))

    def keys(self, old: Tensor, new: Tensor) -> Tensor:
        """Two keys, each [1, K, h, w], to one."""
        return _squeeze(self.compress_key, self.key_encoder(torch.stack([old, new], dim=1)))

    def values(self, old: Tensor, new: Tensor) -> Tensor:
        """Two values, each [O, V, h, w], to one."""
        return _squeeze(self.compress_value, self.value_encoder(torch.stack([old, new], dim=1)))


class Aggregation(nn.Module):
    """One branch of SAM: attention over both frames, then convolutions of several dilations; both residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.non_local = NonLocal(channels)
        self.conv1 = DilatedConvs(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[O, 2, C, h, w] -> the same."""
        x = self.non_local(x)
        return x + self.conv1(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class NonLocal(nn.Module):
    """Non-local block (Wang et al., CVPR 2018) over the places of two frames, without a softmax.

    Without one, (theta^T phi) g^T may be computed as theta^T (phi g^T): a matrix of channels x channels instead of one
    of places x places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(FrameConv(channels, inner, 1), nn.MaxPool2d(2))
        self.theta = FrameConv(channels, inner, 1)
        self.phi = nn.Sequential(FrameConv(channels, inner, 1), nn.MaxPool2d(2))
        self.W = FrameConv(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[O, 2, C, h, w] -> the same."""
        frames = x.flatten(0, 1)  # [2 O, C, h, w]
        theta, phi, g = (
            layer(frames).float().unflatten(0, x.shape[:2]).flatten(3) for layer in (self.theta, self.phi, self.g)
        )  # [O, 2, C/2, h w], and of the pooled ones [O, 2, C/2, n]
        channels = torch.einsum("otcn,otdn->ocd", phi, g) / (2 * phi.shape[3])  # [O, C/2, C/2]
        gathered = torch.einsum("ocd,otcn->otdn", channels, theta).to(x.dtype)
        return x + self.W(gathered.flatten(0, 1).unflatten(2, x.shape[3:])).unflatten(0, x.shape[:2])


class DilatedConvs(nn.Module):
    """Parallel convolutions of different reach (ASPP of Chen et al. 2017), joined by one more; without biases."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for number, (size, dilation) in enumerate(((1, 1), (3, 2), (3, 4), (3, 6)), 1):
            branch = nn.Module()
            branch.atrous_conv = FrameConv(channels, channels // 4, size, dilation=dilation, bias=False)
            self.add_module(f"aspp{number}", branch)
        self.conv1 = FrameConv(channels, channels, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> the same."""
        branches = (self.aspp1, self.aspp2, self.aspp3, self.aspp4)
        return self.conv1(torch.cat([branch.atrous_conv(x).relu() for branch in branches], dim=1)).relu()


class FrameConv(nn.Conv3d):
    """A 3-D convolution whose kernel spans one frame, applied as the 2-D one that it is: [N, C, h, w]."""

    def __init__(self, coming: int, going: int, size: int, *, dilation: int = 1, bias: bool = True) -> None:
        padding = (0, dilation * (size // 2), dilation * (size // 2))
        super().__init__(coming, going, (1, size, size), padding=padding, dilation=(1, dilation, dilation), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, coming, h, w] -> [N, going, h, w]."""
        return F.conv2d(x, self.weight[:, :, 0], self.bias, padding=self.padding[1:], dilation=self.dilation[1:])


def stage(block: type[nn.Module], coming: int, planes: int, *, blocks: int, stride: int) -> nn.Sequential:
    """A stage of a ResNet, of torchvision's blocks."""
    going = planes * block.expansion
    downsample = None
    if stride != 1 or coming != going:
        downsample = nn.Sequential(nn.Conv2d(coming, going, 1, stride=stride, bias=False), nn.BatchNorm2d(going))
    first = block(coming, planes, stride, downsample)
    return nn.Sequential(first, *(block(going, planes) for _ in range(blocks - 1)))


def with_biases(module: nn.Module) -> nn.Module:
    """Give every convolution in `module` a bias."""
    for conv in (part for part in module.modules() if isinstance(part, nn.Conv2d)):
        conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
    return module


def _join(own: Tensor, shared: Tensor) -> Tensor:
    """The sum of features that objects have, [T O, C, h, w], and of those that all objects of a frame share."""
    return (own.unflatten(0, (len(shared), -1)) + shared[:, None]).flatten(0, 1)


def _squeeze(conv: nn.Conv3d, pair: Tensor) -> Tensor:
    """A convolution over two frames, [O, 2, C, h, w] -> [O, C, h, w]; as a 2-D one, which is faster."""
    return F.conv2d(pair.flatten(1, 2), conv.weight.transpose(1, 2).flatten(1, 2), conv.bias, padding=1)
