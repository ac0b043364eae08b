"""What RDE-VOS remembers of objects, and how it is read.

A memory is of objects whose prompts are on one frame: their keys, which depend on images alone, are the same, so that
what to read is looked for once for all of them. Except in mode stm, it does not grow.

Shapes: O objects, K channels of keys, V of values, [h, w] places of a frame; N places of the memory, its rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = {
    "two-frames-compress": ("given", "given", "compressed", "last"),
    "gt-compress": ("given", "compressed"),
    "last-compress": ("compressed", "last"),
    "compress": ("compressed",),
    "stm": ("all",),
}
"""What each mode reads once a second frame is remembered; a block that is named twice is there twice.

`given` is the frame of the prompts, `compressed` what SAM has made of all remembered frames, `last` the last one of
these (not the video's last frame: with mem_every=3 it is up to three frames old), `all` are all of them as they are.
"""
COPIES_AT_FIRST = {"two-frames-compress": 2, "gt-compress": 2}
"""How often the frame of the prompts is there until then; once where not said here.

That it is there twice is what the authors' code does, which concatenates "the memory" and "the ground truth", also
where these are the same, and for two-frames-compress the ground truth once more. It is part of the method: each copy
takes its own of the top_k places, and doubles the weight of what is read there.
"""
SCORES_AT_ONCE = 2**24

Compress = Callable[[Tensor, Tensor], Tensor]
"""Makes one of an old and a new key, or values, of the same shape."""


class Memory:
    """The memory of O objects that were given on one frame.

    Args:
        mode: see `BLOCKS`.
        top_k: for each place of a frame, values are read from this many rows; from all, if there are fewer.
        key: float32 [1, K, h, w], of the frame of the prompts.
        values: [O, V, h, w].
    """

    def __init__(self, mode: str, top_k: int, key: Tensor, values: Tensor) -> None:
        self.objects = len(values)
        self._mode = mode
        self._top_k = top_k
        self._compressed = key, values
        self._blocks = {"given": _as_lists(key, values)}
        self._arrange(["given"] * COPIES_AT_FIRST.get(mode, 1))

    def update(self, key: Tensor, values: Tensor, compress_keys: Compress, compress_values: Compress) -> None:
        """Remember a frame: key [1, K, h, w] and values [O, V, h, w]."""
        new = _as_lists(key, values)
        if self._mode == "stm":
            self._blocks["all"] = _join([self._blocks.get("all", self._blocks["given"]), new])
        else:
            old_key, old_values = self._compressed
            self._compressed = compress_keys(old_key, key), compress_values(old_values, values)
            self._blocks |= {"compressed": _as_lists(*self._compressed), "last": new}
        self._arrange(BLOCKS[self._mode])

    def read(self, key: Tensor) -> Tensor:
        """Values [O, V, h, w] for the places of a frame with `key`, float32 [1, K, h, w]."""
        queries = key[0].flatten(1).T  # [h w, K]
        chunk = max(1, SCORES_AT_ONCE // len(self._values))
        read = torch.cat([self._read(part) for part in queries.split(chunk)])  # [h w, O V]
        return read.unflatten(1, (self.objects, -1)).permute(1, 2, 0).unflatten(2, key.shape[2:]).contiguous()

    def _read(self, queries: Tensor) -> Tensor:
        """Values [n, O V] for n queries [n, K].

        A query's score for a row is their negative squared distance over sqrt(K), less what the query adds to all its
        scores. The softmax is over the top_k highest scores. (The authors' code exponentiates them as they are, which
        overflows to NaN above 88; to subtract the highest first is the same function.)

        Which rows are read is the one thing here that rounding can change by more than itself. Scores are therefore
        rounded as in the authors' code, (2 k q - |k|^2) / sqrt(K): with K = 64 both factors are powers of two, which
        round nothing, so that only the order in which squares are added matters, see `_arrange`.
        """
        scale = 1 / math.sqrt(queries.shape[1])
        scores = torch.addmm(self._penalties, queries, self._keys, alpha=2 * scale)  # [n, N]
        best, rows = scores.topk(min(self._top_k, len(self._values)), sorted=False)
        if self._twice:
            # Rows that are there twice are looked through once: the best of all with copies are the best without them,
            # some of these with their copies.
            copies = best.masked_fill(rows >= self._twice, -math.inf)
            most = min(self._top_k, len(self._values) + self._twice)
            best, order = torch.cat([best, copies], dim=1).topk(most, sorted=False)
            rows = torch.cat([rows, rows], dim=1).gather(1, order)
        weights = best.softmax(dim=1).to(self._values.dtype)
        return F.embedding_bag(rows, self._values, mode="sum", per_sample_weights=weights)

    def _arrange(self, names: list[str] | tuple[str, ...]) -> None:
        """Lay out the rows of the blocks called `names`, those that are there twice first."""
        counts = Counter(names).most_common()
        self._keys, self._values = _join([self._blocks[name] for name, _ in counts])  # [K, N], [N, O V]
        # The sum runs over the outer dimension, as in the authors' code: over the inner one, torch adds in another
        # order, and half of the scores would be rounded otherwise.
        self._penalties = -self._keys.square().sum(dim=0) / math.sqrt(len(self._keys))  # [N]
        self._twice = sum(len(self._blocks[name][1]) for name, count in counts if count == 2)


Lists = tuple[Tensor, Tensor]
"""Keys and values of n places: [K, n], one column each, and [n, O V], one row each."""


def _as_lists(key: Tensor, values: Tensor) -> Lists:
    """Of a frame's places: of its key [1, K, h, w] and values [O, V, h, w]."""
    return key[0].flatten(1), values.flatten(2).permute(2, 0, 1).flatten(1).contiguous()


def _join(blocks: Sequence[Lists]) -> Lists:
    if len(blocks) == 1:
        return blocks[0]
    keys, values = zip(*blocks, strict=True)
    return torch.cat(keys, dim=1), torch.cat(values)
