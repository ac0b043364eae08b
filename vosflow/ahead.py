"""Work done in threads beside the main one: reading ahead of it, writing behind it.

Both are bounded, keep the order, and raise an item's error in the main thread, where the caller can name the video.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int, threads: int = 1
) -> Iterator[Result]:
    """Yield `function(item)` of each item in order, computed in `threads` threads at most `depth` items ahead.

    A result is dropped once it is yielded. An item's error is raised where its result would be. When the generator
    is closed, what has not begun is cancelled and what has is waited for: no thread outlives it.
    """
    items = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as executor:
        waiting = deque(executor.submit(function, item) for item in itertools.islice(items, depth))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(executor.submit(function, item) for item in itertools.islice(items, 1))
                yield result
                del result
        finally:
            executor.shutdown(cancel_futures=True)


class Behind:
    """Calls done in `threads` threads behind the caller, which waits when `depth` of them are not yet done.

    A call's error is raised by a later `call`, or by `close`, which must come at the end.
    """

    def __init__(self, *, depth: int, threads: int = 1) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="behind")
        self._waiting: deque[Future] = deque()
        self._depth = depth

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have `function(*arguments)` called; the arguments must not be changed afterwards."""
        while self._waiting and (len(self._waiting) >= self._depth or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._executor.submit(function, *arguments))

    def close(self, *, drop: bool = False) -> None:
        """Wait for all calls and raise the first error; or drop errors, and the calls that have not begun."""
        try:
            while self._waiting and not drop:
                self._waiting.popleft().result()
        finally:
            self._executor.shutdown(cancel_futures=True)
