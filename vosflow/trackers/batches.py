"""How many frames or objects share a call of the network: fewer, once the device has run out of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from vosflow.video import Video

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batches:
    """Runs a function on a list of items, at most `size` of them at once.

    Where that is too much for the device's memory, `size` is halved until it fits, and stays so for the video, whose
    record says it. With one item at once, running out of memory is an error as anywhere else.

    Args:
        of: what the items are ("frames", "objects").
        video: is told, see `Video.remark`.
    """

    def __init__(self, size: int, of: str, video: Video) -> None:
        self.size = size
        self._of = of
        self._video = video

    def run(self, function: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """`function` of all items, part by part; it must not change anything, for a part may be run again."""
        results: list[Result] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self.size]
            try:
                results += function(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                fits = False
            else:
                fits = True
            if not fits:  # outside of the handler, whose traceback would keep the failed part's tensors alive
                self.size = len(part) // 2
                self._video.remark(f"out of memory with {len(part)} {self._of} at once: went on with {self.size}")
                torch.cuda.empty_cache()
        return results
