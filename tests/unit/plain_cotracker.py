"""CoTracker 1 and 3 done plainly, from a state dict: the whole clip in memory, always both ways, token by token, whole
maps correlated, attention spelt out. What the point trackers must give, but for rounding.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.trackers.sam_pt.points.cotracker_network import CoTrackerNetwork

StateDict = dict[str, Tensor]


def make_weights(network: torch.nn.Module) -> StateDict:
    """Weights from names alone: noise, by which points move a little and are now visible, now not.

    CoTracker 1 feels displacements a thousand times (it embeds sines of 984 times a displacement): were it to move
    points by pixels, rounding alone would make tracks differ.
    """
    wander = 0.003 if isinstance(network, CoTrackerNetwork) else 0.02
    likely = {"vis_predictor.0.bias": 0.85, "updateformer.vis_conf_head.bias": 0.5}
    weights = {}
    for name, value in network.state_dict().items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(value.shape)
        scale = 0.1 if value.ndim < 2 else np.prod(value.shape[1:]) ** -0.5
        scale *= wander if "flow_head" in name else 0.4 if "vis_conf_head.weight" in name else 1
        scale *= 3 if "space_virtual" in name or "space_point" in name else 1  # else points hardly feel each other
        weights[name] = torch.tensor(noise * scale + likely.get(name, 0), dtype=torch.float32)
    return weights


def moving_squares(frames: int, height: int, width: int) -> np.ndarray:
    """A clip uint8 [T, height, width, 3]: squares that move over noise, which is another one on every frame."""
    clip = np.random.default_rng(frames).integers(0, 120, (frames, height, width, 3), dtype=np.uint8)
    for t in range(frames):
        clip[t, 8 + t : 24 + t, 10 + t : 26 + t] = (250, 90, 30)
        clip[t, 30:42, max(0, 50 - 2 * t) : 62 - 2 * t] = (20, 200, 240)
    return clip


def track_v1(
    weights: StateDict, frames: np.ndarray, queries: np.ndarray, size: tuple[int, int], stride: int, window: int
):
    """Positions [T, N, 2] and probabilities of visibility [T, N] of CoTracker 1 in SAM-PT, support grids of 2 x 2."""
    _, height, width, _ = frames.shape
    video = F.interpolate(torch.tensor(frames).permute(0, 3, 1, 2).float(), size, mode="bilinear")
    scale = torch.tensor([size[1] / width, size[0] / height])
    points = add_grids(queries, scale, len(frames), size)

    def follow(video: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        short = max(0, window - len(video))
        padded = torch.cat([video, video[-1:].repeat(short, 1, 1, 1)])
        maps = torch.cat([encode(weights, frame, stride) for frame in padded])
        positions, logits = follow_v1(weights, maps, points, stride, window)
        return positions[: len(video)], logits.sigmoid()[: len(video)]

    positions, visible = follow(video, points)
    points[:, 0] = len(frames) - 1 - points[:, 0]
    before, visible_before = (x.flip(0) for x in follow(video.flip(0), points))
    visible = torch.where(positions[..., 0] == 0, visible_before, visible)
    positions = torch.where(positions == 0, before, positions)
    return (positions / scale)[:, : len(queries)].numpy(), visible[:, : len(queries)].numpy()


def follow_v1(weights: StateDict, maps: Tensor, queries: Tensor, stride: int, window: int) -> tuple[Tensor, Tensor]:
    length, half = len(maps), window // 2
    order = sorted(range(len(queries)), key=lambda n: int(queries[n, 0]))
    times = [int(queries[n, 0]) for n in order]
    starts = queries[order, 1:] / stride
    positions, logits = torch.zeros(length, len(order), 2), torch.zeros(length, len(order))
    coords = vis = None  # of the window before, [S, N, ...]
    for start in range(0, length - half, half):
        count = sum(time < start + window for time in times)
        if not count:
            continue
        here = maps[start : start + window]
        here = torch.cat([here, here[-1:].repeat(window - len(here), 1, 1, 1)])
        known = 0 if coords is None else coords.shape[1]
        begin, vis_begin = starts[:count].repeat(window, 1, 1), torch.full((window, count), 10.0)
        mask = torch.zeros(window, count)
        for n in range(count):
            for s in range(window):
                seen = n < known and start + s < start - half + window
                mask[s, n] = float(times[n] <= start + s < length and not seen)
                if n < known:
                    begin[s, n] = coords[half + min(s, half - 1), n]
                    vis_begin[s, n] = vis[half + min(s, half - 1), n]
        looks = torch.stack([read(maps[times[n]], starts[n][None], "border")[0] for n in range(count)])
        coords, vis = window_v1(weights, here, begin, looks, vis_begin, mask)
        stop = min(start + window, length)
        positions[start:stop, :count] = coords[: stop - start] * stride
        logits[start:stop, :count] = vis[: stop - start]
    back = torch.argsort(torch.tensor(order))
    return positions[:, back], logits[:, back]


def window_v1(weights: StateDict, maps: Tensor, coords: Tensor, looks: Tensor, vis: Tensor, mask: Tensor):
    size, count = vis.shape
    _, channels, height, width = maps.shape
    grid = torch.cat(
        [sines(width, 228)[None].expand(height, -1, -1), sines(height, 228)[:, None].expand(-1, width, -1)], 2
    )
    where = read(grid.permute(2, 0, 1), coords[0], "border")  # [N, 456]
    both = torch.cat([mask[None, :, :, None], vis[None, :, :, None]], dim=2)  # along points, as in the authors' code
    flags = both.permute(0, 2, 1, 3).reshape(count, size, 2)
    looks = looks.repeat(size, 1, 1)
    for _ in range(6):
        tokens = torch.zeros(count, size, 456)
        alike = correlate(maps, looks, coords)
        for n in range(count):
            for s in range(size):
                moved = coords[s, n] - coords[0, n]
                angles, waves = (moved[:, None] * torch.arange(0, 64, 2) * 1000 / 64).flatten(), torch.zeros(128)
                waves[0::2], waves[1::2] = angles.sin(), angles.cos()
                tokens[n, s] = torch.cat([moved, waves, alike[s, n], looks[s, n], flags[n, s]])
        x = linear(weights, "updateformer.input_transform", tokens + where[:, None] + sines(size, 456))
        for i in range(sum(name.endswith("attn.qkv.bias") for name in weights) // 2):
            x = block(weights, f"updateformer.time_blocks.{i}", x)
            x = block(weights, f"updateformer.space_blocks.{i}", x.transpose(0, 1)).transpose(0, 1)
        change = linear(weights, "updateformer.flow_head", x).transpose(0, 1)  # [S, N, 130]
        coords = coords + change[..., :2]
        normed = F.layer_norm(change[..., 2:], (channels,), weights["norm.weight"], weights["norm.bias"])
        looks = looks + F.gelu(linear(weights, "ffeat_updater.0", normed))
    return coords, linear(weights, "vis_predictor.0", looks)[..., 0]


def correlate(maps: Tensor, looks: Tensor, coords: Tensor) -> Tensor:
    """Looks [S, N, C] against whole maps, of which 7 x 7 places at 4 levels are read: [S, N, 196]."""
    size, count, channels = looks.shape
    levels = []
    for level in range(4):
        products = torch.einsum("snc,schw->snhw", looks, maps) / channels**0.5
        around = coords[:, :, None] / 2**level + offsets()
        levels.append(
            torch.stack(
                [
                    torch.stack([read(products[s, n][None], around[s, n], "zeros")[:, 0] for n in range(count)])
                    for s in range(size)
                ]
            )
        )
        maps = F.avg_pool2d(maps, 2)
    return torch.cat(levels, dim=-1)


def track_v3(weights: StateDict, frames: np.ndarray, queries: np.ndarray, size: tuple[int, int]):
    """Positions [T, N, 2] and visibility times confidence [T, N] of CoTracker 3 online, with support grids of 2 x 2."""
    _, height, width, _ = frames.shape
    video = F.interpolate(torch.tensor(frames).permute(0, 3, 1, 2).float(), size, mode="bilinear", align_corners=True)
    scale = torch.tensor([(size[1] - 1) / (width - 1), (size[0] - 1) / (height - 1)])
    points = add_grids(queries, scale, len(frames), size)

    def follow(video: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        maps = F.normalize(torch.cat([encode(weights, frame, 4) for frame in video]), dim=1, eps=1e-6)
        states = follow_v3(weights, maps, points, size)
        return states[..., :2] * 4, states[..., 2].sigmoid() * states[..., 3].sigmoid()

    positions, visible = follow(video, points)
    given = points[:, 0].clone()
    points[:, 0] = len(frames) - 1 - points[:, 0]
    past, visible_past = (x.flip(0) for x in follow(video.flip(0), points))
    before = torch.arange(len(frames))[:, None] < given
    positions = torch.where(before[..., None], past, positions) / scale
    return positions[:, : len(queries)].numpy(), torch.where(before, visible_past, visible)[:, : len(queries)].numpy()


def follow_v3(weights: StateDict, maps: Tensor, queries: Tensor, size: tuple[int, int]) -> Tensor:
    length, count, window, half = len(maps), len(queries), 16, 8
    maps = torch.cat([maps, maps[-1:].repeat(window, 1, 1, 1)])
    times, starts = queries[:, 0].long(), queries[:, 1:] / 4
    states = torch.zeros(length + window, count, 4)
    looks = [[None] * count for _ in range(4)]
    level_maps = maps
    for level in range(4):
        for n in range(count):
            looks[level][n] = read(level_maps[times[n]], starts[n] / 2**level + offsets(), "border")
        level_maps = F.avg_pool2d(level_maps, 2)
    for start in range(0, max(length, window) - half, half):
        begin = torch.cat([starts, torch.zeros(count, 2)], dim=1).repeat(window, 1, 1)
        for n in range(count):
            if start and times[n] < start + half:
                begin[:half, n] = states[start : start + half, n]
                begin[half:, n] = states[start + half - 1, n]
        here = [[look if times[n] < start + window else 0 * look for n, look in enumerate(row)] for row in looks]
        states[start : start + window] = window_v3(weights, maps[start : start + window], here, begin, size)
    return states[:length]


def window_v3(
    weights: StateDict, maps: Tensor, looks: list[list[Tensor]], states: Tensor, size: tuple[int, int]
) -> Tensor:
    window, count, _ = states.shape
    pyramid = [maps]
    for _ in range(3):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    for _ in range(6):
        coords, tokens, alike = states[..., :2], torch.zeros(count, window, 1110), torch.zeros(count, window, 4, 49, 49)
        for level in range(4):
            for n in range(count):
                for s in range(window):
                    around = read(pyramid[level][s], coords[s, n] / 2**level + offsets(), "border")  # [49, C]
                    alike[n, s, level] = around @ looks[level][n].T
        alike = F.gelu(linear(weights, "corr_mlp.fc1", alike.flatten(3)))
        alike = linear(weights, "corr_mlp.fc2", alike).flatten(2)  # [N, S, 4 * 256]
        for n in range(count):
            for s in range(window):
                scale = torch.tensor([size[1] / 4, size[0] / 4])
                ahead = (coords[s, n] - coords[s + 1, n]) / scale if s + 1 < window else torch.zeros(2)
                behind = (coords[s, n] - coords[s - 1, n]) / scale if s else torch.zeros(2)
                steps = torch.cat([ahead, behind])
                waves = torch.cat([steps * 2**k for k in range(10)])
                rest = [steps, waves.sin(), waves.cos()]
                tokens[n, s] = torch.cat([states[s, n, 2:], alike[n, s], *rest])
        x = linear(weights, "updateformer.input_transform", tokens + weights["time_emb"])
        virtual = weights["updateformer.virual_tracks"][0].expand(-1, window, -1)
        for i in range(sum(name.endswith("norm_context.bias") for name in weights) // 2):
            x, virtual = (block(weights, f"updateformer.time_blocks.{i}", tracks) for tracks in (x, virtual))
            x, virtual = x.transpose(0, 1), virtual.transpose(0, 1)
            virtual = block(weights, f"updateformer.space_virtual2point_blocks.{i}", virtual, x)
            virtual = block(weights, f"updateformer.space_virtual_blocks.{i}", virtual)
            x = block(weights, f"updateformer.space_point2virtual_blocks.{i}", x, virtual)
            x, virtual = x.transpose(0, 1), virtual.transpose(0, 1)
        heads = [linear(weights, f"updateformer.{head}", x) for head in ("flow_head", "vis_conf_head")]
        states = states + torch.cat(heads, dim=-1).transpose(0, 1)
    return states


def add_grids(queries: np.ndarray, scale: Tensor, length: int, size: tuple[int, int]) -> Tensor:
    margin, (height, width) = size[1] // 64, size
    grids = [
        [t, x, y] for t in range(0, length, 12) for y in (margin, height - margin) for x in (margin, width - margin)
    ]
    points = torch.tensor(queries.tolist() + grids)
    points[: len(queries), 1:] *= scale
    return points


def encode(weights: StateDict, frame: Tensor, stride: int) -> Tensor:
    """A frame [3, H, W], 0 to 255, to features [1, 128, h, w]."""

    def conv(name: str, x: Tensor, step: int = 1) -> Tensor:
        kernel = weights[f"fnet.{name}.weight"]
        return F.conv2d(x, kernel, weights[f"fnet.{name}.bias"], step, kernel.shape[-1] // 2)

    def norm(x: Tensor) -> Tensor:
        return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    x, stages = norm(conv("conv1", 2 * (frame[None] / 255) - 1, 2)).relu(), []
    for layer in ("layer1", "layer2", "layer3", "layer4"):
        for unit in (f"{layer}.0", f"{layer}.1"):
            step = 2 if f"fnet.{unit}.downsample.0.bias" in weights else 1
            y = norm(conv(f"{unit}.conv2", norm(conv(f"{unit}.conv1", x, step)).relu())).relu()
            x = ((norm(conv(f"{unit}.downsample.0", x, 2)) if step == 2 else x) + y).relu()
        size = frame.shape[1] // stride, frame.shape[2] // stride
        stages.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
    return conv("conv3", norm(conv("conv2", torch.cat(stages, 1))).relu())


def block(weights: StateDict, name: str, tokens: Tensor, others: Tensor | None = None) -> Tensor:
    """Attention of tokens [B, L, D] to themselves or to others, then an Mlp."""
    inputs, attn = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6), f"{name}.attn"
    context = inputs
    if others is not None:
        attn = f"{name}.cross_attn"
        scale, shift = weights[f"{name}.norm_context.weight"], weights[f"{name}.norm_context.bias"]
        context = F.layer_norm(others, others.shape[-1:], scale, shift)
    if f"{attn}.qkv.weight" in weights:
        (q, k, v), out = linear(weights, f"{attn}.qkv", inputs).chunk(3, -1), f"{attn}.proj"
    else:
        q, (k, v) = linear(weights, f"{attn}.to_q", inputs), linear(weights, f"{attn}.to_kv", context).chunk(2, -1)
        out = f"{attn}.to_out"
    heads = []
    for head in zip(q.chunk(8, -1), k.chunk(8, -1), v.chunk(8, -1), strict=True):
        scores = head[0] @ head[1].transpose(1, 2) / head[0].shape[-1] ** 0.5
        heads.append(scores.softmax(-1) @ head[2])
    tokens = tokens + linear(weights, out, torch.cat(heads, -1))
    inputs = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
    x = F.gelu(linear(weights, f"{name}.mlp.fc1", inputs), approximate="tanh")
    return tokens + linear(weights, f"{name}.mlp.fc2", x)


def linear(weights: StateDict, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def read(image: Tensor, points: Tensor, padding: str) -> Tensor:
    """An image [C, h, w] at points [P, 2] (x, y): [P, C]."""
    height, width = image.shape[1:]
    grid = 2 * points / torch.tensor([width - 1, height - 1]) - 1
    return F.grid_sample(image[None], grid[None, None], padding_mode=padding, align_corners=True)[0, :, 0].T


def offsets() -> Tensor:
    return torch.tensor([[float(x), float(y)] for x in range(-3, 4) for y in range(-3, 4)])


def sines(length: int, channels: int) -> Tensor:
    rates = 1 / 10000 ** (np.arange(channels // 2) / (channels // 2))
    angles = np.outer(np.arange(length), rates)
    return torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], 1), dtype=torch.float32)
