"""Scores on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from vosflow.evaluation.run import Progress as Report
from vosflow.evaluation.scores import GLOBAL_COLUMNS
from vosflow.evaluation.statistics import Summary


def print_summary(summary: Summary, title: str) -> None:
    """Print the objects' means and the totals, in percent with one decimal (the files have full precision)."""
    console = Console()
    objects = Table(title=f"{title}: per object (%)")
    for column in ("Sequence", "J-Mean", "F-Mean"):
        objects.add_column(column, justify="left" if column == "Sequence" else "right")
    for entry in summary.objects:
        objects.add_row(f"{entry.video}_{entry.object}", _percent(entry.J.mean), _percent(entry.F.mean))
    totals = Table(title=f"{title}: mean over {len(summary.objects)} objects (%)")
    for column in GLOBAL_COLUMNS:
        totals.add_column(column, justify="right")
    totals.add_row(*(_percent(summary.totals[column]) for column in GLOBAL_COLUMNS))
    console.print(objects, totals)


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on stderr, if that is a terminal; yields the function to call after each video."""
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda video, done, total: bar.update(task, description=video, completed=done, total=total)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"
