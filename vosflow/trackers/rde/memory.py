"""What RDE-VOS remembers of objects, and how it is read.

A memory is of objects whose prompts are on one frame: their keys, which depend on images alone, are the same, so that
finding what to read is done once for all of them. Except in mode stm, it does not grow.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.trackers.rde.network import MemoryCompression

BLOCKS = {
    "two-frames-compress": ("given", "given", "compressed", "last"),
    "gt-compress": ("given", "compressed"),
    "last-compress": ("compressed", "last"),
    "compress": ("compressed",),
    "stm": ("all",),
}
"""The blocks that each mode reads; a block that is named twice is there twice.

`given` is the first frame with its given mask, `compressed` what SAM has made of all remembered frames, `last` the last
one of these (not the last frame of the video: with mem_every=3, up to three frames ago). `all` are all of them.
"""
BEFORE_UPDATES = {"two-frames-compress": ("given", "given"), "gt-compress": ("given", "given")}
"""The same, as long as there is only the first frame: where not named here, it is there once.

Twice the given frame is what the authors' code does: two-frames-compress concatenates it once as part of the memory and
once more as "ground truth", before the first update beside its equal. It is part of the method: each copy takes its own
of the top_k places, and doubles the weight of what is read there.
"""


class Memory:
    """The memory of O objects that were given on one frame.

    Args:
        mode: see `BLOCKS`.
        top_k: for each place of a frame, values are read from this many places of the memory.
        key: float32 [1, K, h, w], of the first frame.
        values: [O, V, h, w].
    """

    def __init__(self, mode: str, top_k: int, key: Tensor, values: Tensor) -> None:
        self.mode = mode
        self.top_k = top_k
        self._key, self._values = key, values  # of block `compressed`, as SAM takes them
        first = _as_rows(key, values)
        self._rows = {"given": first}
        self._arrange(BEFORE_UPDATES.get(mode, ("given",)))

    def compress(self, sam: MemoryCompression, key: Tensor) -> Tensor:
        """The key of the block `compressed` after frame with `key` [1, K, h, w] joined it."""
        return sam.keys(self._key, key)
