"""What the networks of CoTracker 1 and 3 have in common. Parameters are called as in the published weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vosflow.trackers.sam_pt.points.sampling import sample_bilinear

HEADS = 8


class Mlp(nn.Module):
    """Two linear layers with GELU between them: exact (`gelu="none"`) or by the tanh formula (`gelu="tanh"`)."""

    def __init__(self, inputs: int, hidden: int, outputs: int, gelu: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, outputs)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


def normalise(tokens: Tensor) -> Tensor:
    """Layer normalisation without parameters, as before every attention and Mlp."""
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attention with HEADS heads: [B, Q, D], [B, K, D], [B, K, D] to [B, Q, D]."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def sample_own(maps: Tensor, frames: Tensor, points: Tensor) -> Tensor:
    """Features at P points for each of N tracks, each in a frame of its own.

    Args:
        maps: [S, h, w, C].
        frames: indices into S, [N].
        points: (x, y) in cells, [N, P, 2].

    Returns:
        [N, P, C].
    """
    samples = points.new_empty(*points.shape[:2], maps.shape[-1])
    for frame in frames.unique().tolist():
        tracks = frames == frame
        sampled = sample_bilinear(maps[frame, None], points[None, tracks].flatten(1, 2))  # [1, tracks * P, C]
        samples[tracks] = sampled[0].unflatten(0, (-1, points.shape[1]))
    return samples
