"""Progress of a stage for people: a bar on a terminal, and one line for each row of the curves."""

from __future__ import annotations

import sys
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vosflow.training.rde.curves import Row


class Telling:
    """Reports on one stage. Use as a context manager.

    Args:
        label: what is trained.
        total: iterations of the stage.
        silent: say nothing, for all processes but one.
    """

    def __init__(self, label: str, total: int, *, silent: bool = False, stream: IO[str] | None = None) -> None:
        self._label, self._total, self._silent = label, total, silent
        self._stream = stream or sys.stderr
        self._bar: Progress | None = None

    def __enter__(self) -> Telling:
        if self._stream.isatty() and not self._silent:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bar = Progress(*columns, console=Console(file=self._stream))
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, iteration: int) -> None:
        """So many iterations are done."""
        if self._bar:
            self._bar.update(self._task, completed=iteration)

    def row(self, row: Row) -> None:
        """A row of the curves."""
        if self._silent:
            return
        numbers = " ".join(f"{name}={value:.4g}" for name, value in row.items() if name != "iteration")
        text = f"{self._label}: {row['iteration']}/{self._total} {numbers}"
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)
