"""The network of CoTracker 3, online, and its way through a clip.

Source: Karaev et al., CoTracker3: Simpler and Better Point Tracking by Pseudo-Labelling Real Videos, arXiv 2410.11831,
with the parameters' names and the details of facebookresearch/co-tracker@5dd71b0. Written anew.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vosflow.trackers.sam_pt.points.cotracker_layers import Mlp, attend, normalise, sample_own
from vosflow.trackers.sam_pt.points.cotracker_windows import list_windows
from vosflow.trackers.sam_pt.points.pips_features import CHANNELS, FrameEncoder
from vosflow.trackers.sam_pt.points.sampling import LEVELS, RADIUS, build_pyramid

RESOLUTION = (384, 512)  # height and width of what it was trained on
STRIDE = 4
WINDOW = 16
OCTAVES = 10  # of the waves that encode steps from frame to frame
PATCH = (2 * RADIUS + 1) ** 2  # cells around a point
CORRELATION = 256  # channels that a level's correlations become
TOKEN = 2 + LEVELS * CORRELATION + 4 * (1 + 2 * OCTAVES)  # visible and confident, correlation, steps
WIDTH = 384
DEPTH = 3
VIRTUAL_TRACKS = 64
ITERATIONS = 6
POINTS_AT_ONCE = 64  # compared with a window's frames: 64 MiB of features


class CoTracker3Network(nn.Module):
    """Refines all points of a window together; points see each other through a few virtual ones."""

    def __init__(self) -> None:
        super().__init__()
        self.fnet = FrameEncoder(STRIDE)
        self.updateformer = UpdateFormer()
        self.corr_mlp = Mlp(PATCH * PATCH, 384, CORRELATION, gelu="none")
        self.register_buffer("time_emb", torch.empty(1, WINDOW, TOKEN))

    def encode(self, images: Tensor) -> Tensor:
        """RGB from -1 to 1, [T, 3, H, W], to features of length 1: [T, H / STRIDE, W / STRIDE, C]."""
        features = self.fnet(images).permute(0, 2, 3, 1)
        return features / features.square().sum(dim=-1, keepdim=True).clamp(min=1e-12).sqrt()

    def follow(
        self, read_maps: Callable[[list[int]], Tensor], length: int, queries: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Follow points forwards through a clip.

        Points that are given later take part in every window, too, with nothing to look for, as in the online mode of
        the authors' code. Points of an earlier window start from where it left the half that is shared, in the other
        half from its last frame. Windows before the first point are left out, as nothing of them is kept.

        Args:
            read_maps: gives the features of S frames, as of `encode`, [S, h, w, C].
            length: of the clip, in frames.
            queries: [N, 3], (frame, x, y) in pixels of what was encoded.

        Returns:
            Positions [T, N, 2], logits of visibility [T, N] and of confidence [T, N]; of no meaning in frames before
            a point's own.
        """
        half = WINDOW // 2
        given, points = queries[:, 0].long(), queries[:, 1:] / STRIDE  # [N], [N, 2] in cells
        looks = [points.new_zeros(len(points), PATCH, CHANNELS) for _ in range(LEVELS)]
        unknown = F.pad(points, (0, 2)).expand(WINDOW, -1, -1)  # [S, N, 4]: x, y, logits of visibility and confidence
        states = points.new_zeros(max(length, WINDOW) + half, len(points), 4)  # the last window may overhang
        for start, frames in list_windows(length, WINDOW):
            if not (given < start + WINDOW).any():
                continue
            pyramid = build_pyramid(read_maps(frames))
            new = (given < start + WINDOW) & ((given >= start + half) | (start == 0))
            for level, maps in enumerate(pyramid):
                looks[level][new] = sample_own(maps, given[new] - start, _surround(points[new], level))
            left = torch.cat([states[start : start + half], states[start + half - 1].expand(half, -1, -1)])
            begin = torch.where((given < start + half)[:, None], left, unknown) if start else unknown
            states[start : start + WINDOW] = self.refine(pyramid, looks, begin)
        states = states[:length]
        return states[..., :2] * STRIDE, states[..., 2], states[..., 3]

    def refine(self, pyramid: list[Tensor], looks: list[Tensor], states: Tensor) -> Tensor:
        """Refine the states [S, N, 4] of N points in the S frames of a window, ITERATIONS times.

        Args:
            pyramid: features of the frames at each level, [S, h, w, C].
            looks: features around each point where it was given, at each level, [N, PATCH, C]; 0 if not yet given.
        """
        for _ in range(ITERATIONS):
            points, logits = states[..., :2], states[..., 2:]
            tokens = torch.cat([logits, self._correlate(pyramid, looks, points), _embed_steps(points)], dim=-1)
            states = states + self.updateformer(tokens + self.time_emb[0][:, None])
        return states

    def _correlate(self, pyramid: list[Tensor], looks: list[Tensor], points: Tensor) -> Tensor:
        """What surrounds points [S, N, 2] against what surrounded them where given: [S, N, LEVELS * CORRELATION]."""
        groups = []
        for group in torch.arange(points.shape[1], device=points.device).split(POINTS_AT_ONCE):
            levels = [
                self.corr_mlp(_compare(maps, points[:, group] / 2**level, look[group]).flatten(2))
                for level, (maps, look) in enumerate(zip(pyramid, looks, strict=True))
            ]
            groups.append(torch.cat(levels, dim=-1))
        return torch.cat(groups, dim=1)


class UpdateFormer(nn.Module):
    """Rounds of attention over time, and over points by way of the virtual ones; what comes out changes the states."""

    def __init__(self) -> None:
        super().__init__()
        self.input_transform = nn.Linear(TOKEN, WIDTH)
        self.flow_head = nn.Linear(WIDTH, 2)
        self.vis_conf_head = nn.Linear(WIDTH, 2)
        self.virual_tracks = nn.Parameter(torch.empty(1, VIRTUAL_TRACKS, 1, WIDTH))  # spelt as in the weights
        self.time_blocks = nn.ModuleList(SelfBlock() for _ in range(DEPTH))
        self.space_virtual_blocks = nn.ModuleList(SelfBlock() for _ in range(DEPTH))
        self.space_point2virtual_blocks = nn.ModuleList(CrossBlock() for _ in range(DEPTH))
        self.space_virtual2point_blocks = nn.ModuleList(CrossBlock() for _ in range(DEPTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """[S, N, TOKEN] to changes [S, N, 4]."""
        points = self.input_transform(tokens)  # [S, N, D]
        virtual = self.virual_tracks[:, :, 0].expand(len(points), -1, -1)
        for turn, over_time in enumerate(self.time_blocks):
            both = over_time(torch.cat([points, virtual], dim=1).transpose(0, 1)).transpose(0, 1)
            points, virtual = both.split([points.shape[1], VIRTUAL_TRACKS], dim=1)
            virtual = self.space_virtual2point_blocks[turn](virtual, points)
            virtual = self.space_virtual_blocks[turn](virtual)
            points = self.space_point2virtual_blocks[turn](points, virtual)
        return torch.cat([self.flow_head(points), self.vis_conf_head(points)], dim=-1)


class SelfBlock(nn.Module):
    """Attention of tokens to each other, then an Mlp, each around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.mlp = Mlp(WIDTH, 4 * WIDTH, WIDTH, gelu="tanh")

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        inputs = normalise(tokens)
        tokens = tokens + self.attn(inputs, inputs)
        return tokens + self.mlp(normalise(tokens))


class CrossBlock(nn.Module):
    """Attention of tokens to others, then an Mlp, each around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_context = nn.LayerNorm(WIDTH)
        self.cross_attn = Attention()
        self.mlp = Mlp(WIDTH, 4 * WIDTH, WIDTH, gelu="tanh")

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """[B, L, D] and [B, M, D] to [B, L, D]."""
        tokens = tokens + self.cross_attn(normalise(tokens), self.norm_context(others))
        return tokens + self.mlp(normalise(tokens))


class Attention(nn.Module):
    """Attention of tokens to others."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(WIDTH, WIDTH)
        self.to_kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.to_out = nn.Linear(WIDTH, WIDTH)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """[B, L, D] and [B, M, D] to [B, L, D]."""
        return self.to_out(attend(self.to_q(tokens), *self.to_kv(others).chunk(2, dim=-1)))


def _compare(maps: Tensor, points: Tensor, looks: Tensor) -> Tensor:
    """Products of the features around each point with those around it where it was given.

    All places around a point lie between cells by the same fractions, so that products with the 8 x 8 cells are enough:
    those with the 7 x 7 places follow from them. Cells beyond the border are those of the border.

    Args:
        maps: [S, h, w, C].
        points: (x, y) in cells, [S, N, 2].
        looks: [N, PATCH, C].

    Returns:
        [S, N, PATCH, PATCH], first the places around the point, x varying slowest.
    """
    size, height, width, _ = maps.shape
    corner = points.floor()
    x, y = (points - corner)[..., None, None, None].unbind(2)  # [S, N, 1, 1, 1]
    cells = corner.long()[..., None] + torch.arange(-RADIUS, RADIUS + 2, device=points.device)  # [S, N, 2, 8]
    columns, rows = cells[:, :, 0, :, None].clamp(0, width - 1), cells[:, :, 1, None].clamp(0, height - 1)
    frames = torch.arange(size, device=points.device)[:, None, None, None]
    patches = maps[frames, rows, columns].flatten(2, 3)  # [S, N, 64, C]
    products = (patches @ looks.mT).unflatten(2, columns.shape[2:3] * 2)  # [S, N, 8 of x, 8 of y, PATCH]
    products = products[:, :, :-1] * (1 - x) + products[:, :, 1:] * x
    products = products[:, :, :, :-1] * (1 - y) + products[:, :, :, 1:] * y
    return products.flatten(2, 3)


def _surround(points: Tensor, level: int) -> Tensor:
    """The PATCH cells around points [..., 2], at a level of the pyramid, x varying slowest: [..., PATCH, 2]."""
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32, device=points.device)
    return points[..., None, :] / 2**level + torch.cartesian_prod(steps, steps)


def _embed_steps(points: Tensor) -> Tensor:
    """Steps of points [S, N, 2] from the next and from the previous frame, with waves: [S, N, 4 * (1 + 2 * OCTAVES)].

    Steps are in parts of the frame; there is none past the ends of the window. Waves: all sines, then all cosines,
    octave by octave.
    """
    height, width = RESOLUTION
    step = points.diff(dim=0) / points.new_tensor([width / STRIDE, height / STRIDE])  # [S - 1, N, 2]
    steps = torch.cat([F.pad(-step, (0, 0, 0, 0, 0, 1)), F.pad(step, (0, 0, 0, 0, 1, 0))], dim=-1)  # [S, N, 4]
    octaves = 2.0 ** torch.arange(OCTAVES, device=points.device)
    angles = (steps[..., None, :] * octaves[:, None]).flatten(-2)  # [S, N, OCTAVES * 4]
    return torch.cat([steps, angles.sin(), (angles + torch.pi / 2).sin()], dim=-1)
