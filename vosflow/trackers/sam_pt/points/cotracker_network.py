"""The network of CoTracker 1 and its way through a clip.

Source: Karaev et al., CoTracker: It Is Better to Track Together, arXiv 2307.07635 (version 1 of August 2023), with the
parameters' names and the details of facebookresearch/co-tracker@4f297a9. Written anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vosflow.trackers.sam_pt.points.cotracker_layers import Mlp, attend, normalise, sample_own
from vosflow.trackers.sam_pt.points.cotracker_windows import list_windows
from vosflow.trackers.sam_pt.points.pips_features import CHANNELS, FrameEncoder
from vosflow.trackers.sam_pt.points.sampling import NEIGHBOURS, build_pyramid, correlate

WIDTH = 384
DEPTH = 6
WAVES = 64  # channels that encode a displacement, for each of x and y
TOKEN = (2 + 2 * WAVES) + NEIGHBOURS + CHANNELS + 2  # displacement, correlation, appearance, new and visible
ITERATIONS = 6
SURELY_VISIBLE = 10.0  # logit that a point starts with


class CoTrackerNetwork(nn.Module):
    """Refines all points of a window together: attention over time for each point, over points in each frame.

    Args:
        window: frames per window.
        stride: of the features, in pixels.
    """

    def __init__(self, window: int, stride: int) -> None:
        super().__init__()
        self.window, self.stride = window, stride
        self.fnet = FrameEncoder(stride)
        self.updateformer = UpdateFormer()
        self.norm = nn.GroupNorm(1, CHANNELS)
        self.ffeat_updater = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(CHANNELS, 1))

    def follow(self, read_maps: Callable[[list[int]], Tensor], length: int, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Follow points forwards through a clip.

        A point takes part from the first window that holds its frame. Each window starts from where the one before
        left the half that they share, its second half from the last frame of the first.

        Args:
            read_maps: gives the features of S frames, [S, h, w, C].
            length: of the clip, in frames.
            queries: [N, 3], (frame, x, y) in pixels of what was encoded.

        Returns:
            Positions [T, N, 2], 0 in frames before a point's first window, and logits of visibility [T, N].
        """
        size, half = self.window, self.window // 2
        padded = max(length, size)
        order = torch.argsort(queries[:, 0], stable=True)  # so that the points of a window are the first ones
        given, points = queries[order, 0].long(), queries[order, 1:] / self.stride  # [N], [N, 2] in cells
        begin = points.repeat(size, 1, 1)  # [S, N, 2]
        visible = torch.full(begin.shape[:2], SURELY_VISIBLE, device=points.device)  # [S, N]
        looks = points.new_zeros(len(points), CHANNELS)
        positions = points.new_zeros(padded + half, len(points), 2)  # in cells; the last window may overhang
        logits = points.new_zeros(padded + half, len(points))
        known = 0
        for start, frames in list_windows(length, size):
            count = int((given < start + size).sum())
            if count == 0:
                continue
            maps = read_maps(frames)
            new = slice(known, count)
            looks[new] = sample_own(maps, given[new] - start, points[new, None])[:, 0]
            if known:
                for state, so_far in ((begin, positions), (visible, logits)):
                    state[:half, :known] = so_far[start : start + half, :known]
                    state[half:, :known] = so_far[start + half - 1, :known]
            now = torch.arange(start, start + size, device=points.device)[:, None]  # [S, 1]
            fresh = (now >= given[:count]) & (now < padded)
            fresh[:half, :known] = False
            inputs = (begin[:, :count], looks[:count], visible[:, :count], fresh)
            positions[start : start + size, :count], logits[start : start + size, :count] = self.refine(maps, *inputs)
            known = count
        back = torch.argsort(order)
        return positions[:length, back] * self.stride, logits[:length, back]

    def refine(
        self, maps: Tensor, points: Tensor, looks: Tensor, visible: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Refine the positions of N points in the S frames of a window, ITERATIONS times.

        Args:
            maps: features of the frames, [S, h, w, C].
            points: where they are thought to be, (x, y) in cells, [S, N, 2].
            looks: features of the points where they were given, [N, C].
            visible: logits of visibility so far, [S, N].
            fresh: frames in which a point has not been looked for before, bool [S, N].

        Returns:
            Positions [S, N, 2] in cells, logits of visibility [S, N].
        """
        size, height, width, _ = maps.shape
        pyramid = build_pyramid(maps)
        places = [_embed_position(points[0, :, axis], side) for axis, side in enumerate((width, height))]
        embedding = torch.cat(places, dim=-1) + _sine_table(size, TOKEN, maps.device)[:, None]  # [S, N, TOKEN]
        flags = _mix_flags(fresh, visible)
        looks = looks.expand(size, -1, -1)  # [S, N, C]
        for _ in range(ITERATIONS):
            alike = correlate(pyramid, looks.transpose(0, 1)[:, :, None], points.transpose(0, 1)).transpose(0, 1)
            tokens = torch.cat([_embed_displacement(points - points[0]), alike, looks, flags], dim=-1)
            change = self.updateformer(tokens + embedding)  # [S, N, 2 + C]
            looks = looks + self.ffeat_updater(self.norm(change[..., 2:].flatten(0, 1))).view_as(looks)
            points = points + change[..., :2]
        return points, self.vis_predictor(looks)[..., 0]


class UpdateFormer(nn.Module):
    """Blocks of attention over time and over points in turns; what comes out are changes of position and looks."""

    def __init__(self) -> None:
        super().__init__()
        self.input_transform = nn.Linear(TOKEN, WIDTH)
        self.time_blocks = nn.ModuleList(AttentionBlock() for _ in range(DEPTH))
        self.space_blocks = nn.ModuleList(AttentionBlock() for _ in range(DEPTH))
        self.flow_head = nn.Linear(WIDTH, 2 + CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """[S, N, TOKEN] to [S, N, 2 + C]."""
        tokens = self.input_transform(tokens)
        for over_time, over_points in zip(self.time_blocks, self.space_blocks, strict=True):
            tokens = over_time(tokens.transpose(0, 1)).transpose(0, 1)
            tokens = over_points(tokens)
        return self.flow_head(tokens)


class AttentionBlock(nn.Module):
    """Self-attention, then an Mlp, each around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = SelfAttention()
        self.mlp = Mlp(WIDTH, 4 * WIDTH, WIDTH, gelu="tanh")

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        tokens = tokens + self.attn(normalise(tokens))
        return tokens + self.mlp(normalise(tokens))


class SelfAttention(nn.Module):
    """Attention of each token to all of its row."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        return self.proj(attend(*self.qkv(tokens).chunk(3, dim=-1)))


def _mix_flags(fresh: Tensor, visible: Tensor) -> Tensor:
    """The last two channels of the tokens, from [S, N] each: [S, N, 2].

    The published weights were trained with an interleaving that looks like a slip (a concatenation along points instead
    of channels): of all points' rows of `fresh`, then all points' rows of `visible`, each point gets the next two,
    folded into S pairs. So what a point gets depends on its place in the order of points.
    """
    rows = torch.cat([fresh.to(visible.dtype).T, visible.T])  # [2 * N, S]
    return rows.reshape(visible.shape[1], -1, 2).transpose(0, 1)


def _embed_displacement(displacement: Tensor) -> Tensor:
    """[..., 2] in cells to [..., 2 + 2 * WAVES]: itself, then sines and cosines in turns, of x and of y."""
    rates = torch.arange(0, WAVES, 2, dtype=torch.float32, device=displacement.device) * (1000 / WAVES)
    angles = displacement[..., None] * rates  # [..., 2, WAVES / 2]
    waves = torch.stack([angles.sin(), angles.cos()], dim=-1)  # [..., 2, WAVES / 2, 2]
    return torch.cat([displacement, waves.flatten(-3)], dim=-1)


def _embed_position(positions: Tensor, side: int) -> Tensor:
    """Positions [N] along a side of so many cells to [N, TOKEN / 2], linear between cells, constant outside."""
    table = _sine_table(side, TOKEN // 2, positions.device)
    low = positions.floor()
    weight = (positions - low)[:, None]
    below, above = (table[cell.long().clamp(0, side - 1)] for cell in (low, low + 1))
    return below * (1 - weight) + above * weight


def _sine_table(length: int, channels: int, device: torch.device) -> Tensor:
    """Sines, then cosines, of 0, 1, ... at `channels` / 2 wavelengths (Vaswani et al., 2017): [length, channels]."""
    rates = 10000.0 ** -(torch.arange(channels // 2, dtype=torch.float64) / (channels / 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float().to(device)
