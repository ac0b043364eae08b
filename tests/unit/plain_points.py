"""PIPs, PIPs++ and RAFT the plain way, point by point, straight from a state dict: nothing is shared or skipped.

Each window's frames are encoded anew, a point's feature is correlated with whole maps, which are then read by
grid_sample, and RAFT's flows are computed in both directions. Written from the descriptions of the methods.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = Mapping[str, Tensor]
S = 8  # frames of a window of PIPs


def _images(frames: np.ndarray) -> Tensor:
    return 2 * (torch.tensor(frames.copy()).permute(0, 3, 1, 2).float() / 255) - 1


def _conv(w: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)


def _dense(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].flatten(1).T + w[f"{name}.bias"]


def _normed(x: Tensor) -> Tensor:
    over = tuple(range(2, x.ndim))
    return (x - x.mean(over, keepdim=True)) / torch.sqrt(x.var(over, unbiased=False, keepdim=True) + 1e-5)


def encode(w: Weights, frames: np.ndarray, stride: int) -> Tensor:
    """uint8 [T, H, W, 3] -> [T, 128, h, w]."""
    images = _images(frames)
    height, width = images.shape[2] // stride, images.shape[3] // stride
    x = _normed(_conv(w, "fnet.conv1", images, stride=2, padding=3)).relu()
    scales = []
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"fnet.layer{layer}.{block}"
            step = 2 if layer > 1 and block == 0 else 1
            y = _normed(_conv(w, f"{name}.conv1", x, stride=step, padding=1)).relu()
            y = _normed(_conv(w, f"{name}.conv2", y, padding=1)).relu()
            if step == 2:
                x = _normed(_conv(w, f"{name}.downsample.0", x, stride=2))
            x = (x + y).relu()
        scales.append(F.interpolate(x, (height, width), mode="bilinear", align_corners=True))
    x = _normed(_conv(w, "fnet.conv2", torch.cat(scales, 1), padding=1)).relu()
    return _conv(w, "fnet.conv3", x)


def sample(values: Tensor, xy: Tensor) -> Tensor:
    """One value of a map [C, h, w] at (x, y), the border's beyond it."""
    _, height, width = values.shape
    x, y = xy.tolist()
    left, top = math.floor(x), math.floor(y)
    total = torch.zeros(len(values))
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            total += across * down * values[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return total


def correlations(maps: Tensor, features: Tensor, xy: Tensor) -> Tensor:
    """Of features [T, C] with maps [T, C, h, w] around xy [T, 2], on four levels: [T, 196]."""
    offset = torch.arange(-3.0, 4)
    around = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=-1)  # x varies slowest
    result = []
    for level in range(4):
        volume = torch.einsum("tc,tchw->thw", features, maps) / math.sqrt(maps.shape[1])
        height, width = volume.shape[1:]
        grid = xy[:, None, None] / 2**level + around
        grid = 2 * grid / torch.tensor([width - 1, height - 1]) - 1
        result.append(F.grid_sample(volume[:, None], grid, align_corners=True).flatten(1))
        maps = F.avg_pool2d(maps, 2)
    return torch.cat(result, dim=1)


def both_ways(forwards, frames: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions [T, 2] and visibility [T] of one point; `forwards` takes frames from the query's on, and (x, y)."""
    t = int(query[0])
    xy = torch.tensor(query[1:])
    ahead, seen = forwards(frames[t:], xy)
    back, seen_back = forwards(frames[t::-1], xy)
    return np.concatenate([back[:0:-1], ahead]), np.concatenate([seen_back[:0:-1], seen])


def pips(w: Weights, frames: np.ndarray, xy: Tensor, stride: int, iters: int, threshold: float = 0.9):
    """PIPs for one point given on the first frame."""
    count = len(frames)
    positions, visibility = torch.zeros(count, 2), torch.zeros(count)
    positions[0], visibility[0] = xy, 1
    feature = sample(encode(w, frames[:1], stride)[0], xy / stride)
    t = 0
    while t < count - 1:
        window = frames[[min(t + i, count - 1) for i in range(S)]]
        moved, visible = _pips_window(w, encode(w, window, stride), positions[t] / stride, feature, iters)
        stop = min(t + S, count)
        positions[t + 1 : stop] = moved[1 : stop - t] * stride
        visibility[t + 1 : stop] = visible[1 : stop - t]
        t = next_start(visibility.numpy(), t + 1, stop - 1, threshold)
    return positions.numpy(), visibility.numpy() > 0.5


def next_start(visibility: np.ndarray, earliest: int, last: int, threshold: float) -> int:
    """The frame on which the next window starts, looked for as PIPs' paper tells."""
    limit = np.float32(threshold)
    while True:
        for t in range(last, earliest - 1, -1):
            if visibility[t] > limit:
                return t
        limit = limit - np.float32(0.02)


def _pips_window(w: Weights, maps: Tensor, start: Tensor, feature: Tensor, iters: int) -> tuple[Tensor, Tensor]:
    positions, features = start.repeat(S, 1), feature.repeat(S, 1)
    for _ in range(iters):
        motion = torch.cat([positions - positions[0], torch.linspace(0, S, S)[:, None]], dim=1)
        waves = []
        for coordinate in motion.T:
            phases = coordinate[:, None] * torch.arange(0, 64, 2) * (1000 / 64)
            waves.append(torch.stack([phases.sin(), phases.cos()], dim=-1).flatten(1))
        x = torch.cat([features, correlations(maps, features, positions), *waves, motion], dim=1)
        delta = _mix(w, x).view(S, -1)
        update = F.layer_norm(delta[:, 2:], delta[:, 2:].shape[1:], w["norm.weight"], w["norm.bias"])
        features = features + F.gelu(_dense(w, "ffeat_updater.0", update))
        positions = positions + delta[:, :2]
        positions[0] = start
    return positions, torch.sigmoid(_dense(w, "vis_predictor.0", features))[:, 0]


def _mix(w: Weights, x: Tensor) -> Tensor:
    name = "delta_block.to_delta"
    depth = max(int(key.split(".")[2]) for key in w if key.startswith(name)) - 3
    x = _dense(w, f"{name}.0", x)
    for block in range(1, depth + 1):
        for part in (0, 1):
            at = f"{name}.{block}.{part}"
            y = F.layer_norm(x, x.shape[1:], w[f"{at}.norm.weight"], w[f"{at}.norm.bias"])
            y = y.T if part == 0 else y
            y = _dense(w, f"{at}.fn.3", F.gelu(_dense(w, f"{at}.fn.0", y)))
            x = x + (y.T if part == 0 else y)
    x = F.layer_norm(x, x.shape[1:], w[f"{name}.{depth + 1}.weight"], w[f"{name}.{depth + 1}.bias"])
    return _dense(w, f"{name}.{depth + 3}", x.mean(0))


def pips_plus_plus(w: Weights, frames: np.ndarray, xy: Tensor, stride: int, iters: int, most: int):
    """PIPs++ for one point given on the first frame, in windows of at most `most` frames."""
    count = len(frames)
    positions = xy.repeat(count, 1) / stride
    memory = None
    start = 0
    while count > 1:
        stop = start + most
        if stop > count:
            start, stop = max(start - (stop - count), 0), count
        maps = encode(w, frames[start:stop], stride)
        positions[start:stop], memory = _plus_plus_window(w, maps, positions[start:stop].clone(), memory, iters)
        positions[stop:] = positions[stop - 1]
        if stop >= count:
            break
        start += most - 1
    return positions.numpy() * stride, np.ones(count, bool)


def _plus_plus_window(w: Weights, maps: Tensor, positions: Tensor, memory, iters: int):
    count = len(maps)
    start = positions[0].clone()
    if memory is None:
        memory = [sample(maps[0], start).repeat(count, 1)] * 3
    first, two, four = memory
    for i in range(iters):
        if i > 0:
            two, four = (
                torch.stack([sample(maps[max(t - k, 0)], positions[max(t - k, 0)]) for t in range(count)])
                for k in (2, 4)
            )
        motion = positions[1:] - positions[:-1]
        motion = torch.cat([motion, motion[-1:]])
        waves = []
        for coordinate in motion.T:
            phases = coordinate[:, None] / 10_000 ** (torch.arange(32) / 31)
            waves += [phases.sin(), phases.cos()]
        parts = [correlations(maps, feature, positions) for feature in (first, two, four)]
        positions = positions + _convolve(w, torch.cat([*parts, *waves, motion], dim=1))
        positions[0] = start
    return positions, (first, two, four)


def _convolve(w: Weights, x: Tensor) -> Tensor:
    """[T, inputs] -> [T, 2]."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv1d(x, w[f"delta_block.{name}.conv.weight"], w[f"delta_block.{name}.conv.bias"], padding=1)

    x = conv("first_block_conv", x.T[None]).relu()
    blocks = 1 + max(int(key.split(".")[2]) for key in w if "basicblock_list" in key)
    for i in range(blocks):
        y = x if i == 0 else _normed(x).relu()
        y = conv(f"basicblock_list.{i}.conv2", _normed(conv(f"basicblock_list.{i}.conv1", y)).relu())
        added = y.shape[1] - x.shape[1]
        left = torch.zeros(1, added // 2, x.shape[2])
        right = torch.zeros(1, added - added // 2, x.shape[2])
        x = y + torch.cat([left, x, right], dim=1)
    return _dense(w, "delta_block.dense", x[0].T.relu())


def raft(network: nn.Module, frames: np.ndarray, xy: Tensor, iters: int):
    """RAFT for one point given on the first frame, by torchvision's whole network."""
    images = _images(frames)
    height, width = images.shape[2:]
    across, down = -width % 8, -height % 8
    left, top = across // 2, down // 2
    positions = [xy]
    for one, other in zip(images[:-1], images[1:], strict=True):
        pair = [F.pad(image[None], (left, across - left, top, down - top), mode="replicate") for image in (one, other)]
        flow = network(*pair, num_flow_updates=iters)[-1][0, :, top : top + height, left : left + width]
        positions.append(positions[-1] + sample(flow, positions[-1]))
    result = torch.stack(positions).numpy()
    inside = (result >= 0) & (result < (width, height))
    return result, inside.all(1)
