"""SuperPoint finds keypoints in an image, SuperGlue says which of two images' keypoints are the same.

Written from the papers (DeTone et al., arXiv 1712.07629; Sarlin et al., arXiv 1911.11763) and from what transformers'
implementation of both computes (Apache-2.0). Parameters have the names of the published weights, which are licensed for
non-commercial research only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

CELL = 8  # pixels each way that share one descriptor
WIDTH, HEADS = 256, 4
LAYERS = 18  # of attention: within an image and across images in turn


@dataclass(frozen=True)
class Keypoints:
    """What SuperPoint finds in an image.

    Attributes:
        positions: float32 [K, 2], (x, y) of whole pixels.
        scores: float32 [K], probabilities.
        descriptors: float32 [K, 256], of length 1.
        height, width: of the image.
    """

    positions: Tensor
    scores: Tensor
    descriptors: Tensor
    height: int
    width: int


class SuperPoint(nn.Module):
    """The network of SuperPoint."""

    def __init__(self) -> None:
        super().__init__()
        for name, inputs, outputs, kernel in (
            ("conv1a", 1, 64, 3),
            ("conv1b", 64, 64, 3),
            ("conv2a", 64, 64, 3),
            ("conv2b", 64, 64, 3),
            ("conv3a", 64, 128, 3),
            ("conv3b", 128, 128, 3),
            ("conv4a", 128, 128, 3),
            ("conv4b", 128, 128, 3),
            ("convPa", 128, 256, 3),
            ("convPb", 256, CELL**2 + 1, 1),
            ("convDa", 128, 256, 3),
            ("convDb", 256, WIDTH, 1),
        ):
            self.add_module(name, nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))

    def detect(self, image: Tensor, radius: int, threshold: float, border: int) -> Keypoints:
        """Find keypoints.

        Args:
            image: float32 [H, W], gray, 0 to 1; both sides of 8 or more. Pixels beyond whole cells of 8 x 8 are not
                looked at.
            radius: of two keypoints this near (in a square), the weaker one goes.
            threshold: keypoints have a probability above it.
            border: and are this many pixels away from the border, at least.
        """
        heat, coarse = self(image[None, None])
        heat = suppress_neighbours(heat, radius)[0]  # [8h, 8w]
        ys, xs = torch.nonzero(heat > threshold, as_tuple=True)
        height, width = heat.shape
        inside = (ys >= border) & (ys < height - border) & (xs >= border) & (xs < width - border)
        ys, xs = ys[inside], xs[inside]
        positions = torch.stack([xs, ys], 1).float()
        return Keypoints(positions, heat[ys, xs], sample_descriptors(coarse, positions), *image.shape)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 1, H, W] -> probability of a keypoint [B, 8h, 8w], descriptors of cells [B, 256, h, w]."""
        hidden = images
        for block in range(1, 5):
            hidden = torch.relu(getattr(self, f"conv{block}a")(hidden))
            hidden = torch.relu(getattr(self, f"conv{block}b")(hidden))
            hidden = functional.max_pool2d(hidden, 2) if block < 4 else hidden
        # Of each cell: one of its 64 pixels, or none of them.
        heat = torch.softmax(self.convPb(torch.relu(self.convPa(hidden))), 1)[:, :-1]
        coarse = self.convDb(torch.relu(self.convDa(hidden)))
        return functional.pixel_shuffle(heat, CELL)[:, 0], functional.normalize(coarse, dim=1)


def suppress_neighbours(heat: Tensor, radius: int) -> Tensor:
    """Non-maximum suppression: 0 everywhere but at maxima. [B, H, W] -> [B, H, W].

    Twice, pixels that a maximum suppresses are taken away, and maxima of the rest are kept as well.
    """

    def largest(values: Tensor) -> Tensor:
        return functional.max_pool2d(values, 2 * radius + 1, stride=1, padding=radius)

    maxima = heat == largest(heat)
    for _ in range(2):
        suppressed = largest(maxima.float()) > 0
        rest = heat.masked_fill(suppressed, 0)
        maxima = maxima | ((rest == largest(rest)) & ~suppressed)
    return heat.masked_fill(~maxima, 0)


def sample_descriptors(coarse: Tensor, positions: Tensor) -> Tensor:
    """Descriptors at keypoints, bilinear between cells.

    The centre of the first cell counts as the pixel (3.5, 3.5), and that of the last one as the last pixel: not quite
    even, but the weights of SuperGlue were trained with it (magicleap/SuperGluePretrainedNetwork, issue 18).

    Args:
        coarse: [1, 256, h, w].
        positions: [K, 2], (x, y) in pixels.

    Returns:
        [K, 256], of length 1.
    """
    cells = torch.tensor(coarse.shape[:1:-1], device=coarse.device)  # (w, h)
    places = (positions - (CELL / 2 - 0.5)) / (cells * CELL - (CELL / 2 + 0.5)) * 2 - 1
    found = functional.grid_sample(coarse, places[None, None], align_corners=True)[0, :, 0]
    return functional.normalize(found, dim=0).T


class SuperGlue(nn.Module):
    """The network of SuperGlue."""

    def __init__(self) -> None:
        super().__init__()
        self.bin_score = nn.Parameter(torch.tensor(1.0))
        self.kenc = nn.ModuleDict({"encoder": _mlp(3, 32, 64, 128, 256, WIDTH)})
        self.gnn = nn.ModuleDict({"layers": nn.ModuleList([_Layer() for _ in range(LAYERS)])})
        self.final_proj = nn.Conv1d(WIDTH, WIDTH, 1)

    def match(self, first: Keypoints, second: Keypoints, iterations: int, threshold: float) -> tuple[Tensor, Tensor]:
        """Which keypoints of two images are the same.

        Args:
            iterations: of Sinkhorn's algorithm.
            threshold: pairs have a probability above it.

        Returns:
            Pairs int64 [M, 2], numbers of keypoints in the first and in the second image, in the order of the first;
            their probabilities float32 [M].
        """
        if not len(first.positions) or not len(second.positions):
            nothing = torch.zeros(0, 2, device=first.positions.device)
            return nothing.long(), nothing[:, 0]
        looks = [self._encode(keypoints) for keypoints in (first, second)]
        for number, layer in enumerate(self.gnn["layers"]):
            sources = looks[::-1] if number % 2 else looks
            looks = [look + layer(look, source) for look, source in zip(looks, sources, strict=True)]
        one, other = (self.final_proj(look[None])[0] for look in looks)  # [256, K], [256, L]
        scores = assign(one.T @ other / WIDTH**0.5, self.bin_score, iterations)
        best, partners = scores.max(1)
        numbers = torch.arange(len(best), device=best.device)
        chosen = (scores.argmax(0)[partners] == numbers) & (best > threshold)
        return torch.stack([numbers, partners], 1)[chosen], best[chosen]

    def _encode(self, keypoints: Keypoints) -> Tensor:
        """Descriptors that know where their keypoints are: [256, K]."""
        size = torch.tensor([keypoints.width, keypoints.height], device=keypoints.positions.device)
        places = (keypoints.positions - size / 2) / (0.7 * size.max())
        hidden = torch.cat([places, keypoints.scores[:, None]], 1).T[None]
        for layer in self.kenc["encoder"]:
            hidden = layer(hidden)
        return keypoints.descriptors.T + hidden[0]


def assign(scores: Tensor, bin_score: Tensor, iterations: int) -> Tensor:
    """Probabilities that keypoints belong together, by optimal transport with a bin for those without partner.

    Sinkhorn's algorithm in log space (paper, section 3.2): rows and columns of keypoints have mass 1, the bins as much
    as could remain.

    Args:
        scores: [K, L].
        bin_score: of a keypoint and the bin.

    Returns:
        [K, L].
    """
    rows, columns = scores.shape
    couplings = bin_score.expand(rows + 1, columns + 1).clone()
    couplings[:-1, :-1] = scores
    row_mass, column_mass = scores.new_zeros(rows + 1), scores.new_zeros(columns + 1)  # logarithms
    row_mass[-1], column_mass[-1] = float(torch.tensor(columns).log()), float(torch.tensor(rows).log())
    by_row, by_column = torch.zeros_like(row_mass), torch.zeros_like(column_mass)
    for _ in range(iterations):
        by_row = row_mass - (couplings + by_column).logsumexp(1)
        by_column = column_mass - (couplings + by_row[:, None]).logsumexp(0)
    return (couplings + by_row[:, None] + by_column)[:-1, :-1].exp()


class _Layer(nn.Module):
    """What keypoints learn from those of one image: looks [256, K], sources [256, L] -> [256, K]."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.ModuleDict(
            {
                "merge": nn.Conv1d(WIDTH, WIDTH, 1),
                "proj": nn.ModuleList([nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3)]),
            }
        )
        self.mlp = _mlp(2 * WIDTH, 2 * WIDTH, WIDTH)

    def forward(self, looks: Tensor, sources: Tensor) -> Tensor:
        inputs = (looks, sources, sources)
        # Heads are interleaved: channel c belongs to head c modulo 4.
        query, key, value = (
            layer(values[None]).unflatten(1, (-1, HEADS)).permute(0, 2, 3, 1)  # [1, 4, K, 64]
            for layer, values in zip(self.attn["proj"], inputs, strict=True)
        )
        message = functional.scaled_dot_product_attention(query, key, value)
        message = self.attn["merge"](message.permute(0, 3, 1, 2).flatten(1, 2))
        hidden = torch.cat([looks[None], message], 1)
        for layer in self.mlp:
            hidden = layer(hidden)
        return hidden[0]


def _mlp(*channels: int) -> nn.ModuleList:
    """Layers for each keypoint by itself, with batch norms and ReLUs between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(channels, channels[1:-1], strict=False):
        layers += [nn.Conv1d(inputs, outputs, 1), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.ModuleList([*layers, nn.Conv1d(channels[-2], channels[-1], 1)])
