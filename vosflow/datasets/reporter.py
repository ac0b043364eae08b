"""How a download tells what it does: a bar where someone watches a terminal, else a line now and then (in logs)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

Say = Callable[[str], None]
Advance = Callable[..., None]
"""Called as advance(bytes so far, total bytes or None)."""

INTERVAL = 10  # seconds between two lines


class Reporter(Protocol):
    """Where messages and progress go."""

    def say(self, line: str) -> None:
        """Tell one thing."""
        ...

    def progress(self, name: str, total: int | None) -> Advance:
        """Begin to show the progress of file `name` of `total` bytes; the last begun one counts."""
        ...


class LineReporter:
    """Lines to `say`; how far a download is, at most every ten seconds."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def progress(self, name: str, total: int | None) -> Advance:
        """See `Reporter`."""
        began: tuple[float, int] | None = None
        due = 0.0

        def advance(have: int, known: int | None = None) -> None:
            nonlocal began, due
            now = time.monotonic()
            if began is None:
                began, due = (now, have), now + INTERVAL
            if now < due:
                return
            due = now + INTERVAL
            speed = (have - began[1]) / (now - began[0]) / 1e6
            whole = known or total
            share = f" of {whole / 1e6:,.0f} MB ({100 * have / whole:.0f} %)" if whole else " MB"
            self.say(f"{name}: {have / 1e6:,.0f}{share}, {speed:.1f} MB/s")

        return advance


class _BarReporter:
    """A bar on a terminal, with speed and remaining time; messages appear above it."""

    def __init__(self, bar) -> None:
        self._bar = bar

    def say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def progress(self, name: str, total: int | None) -> Advance:
        for task in self._bar.task_ids:
            self._bar.remove_task(task)
        task = self._bar.add_task(name, total=total)

        def advance(have: int, known: int | None = None) -> None:
            self._bar.update(task, completed=have, total=known or total)

        return advance


@contextmanager
def stderr_reporter() -> Iterator[Reporter]:
    """A reporter to stderr: a bar if that is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield LineReporter(lambda line: print(line, file=sys.stderr, flush=True))
        return
    from rich import progress  # takes 0.1 s to import
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _BarReporter(bar)
