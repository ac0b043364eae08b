"""Scores on a terminal: progress while videos are scored, tables at the end, and what protocols there are."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vosflow.evaluation.compare import CONFIDENCE, RESAMPLES, Comparison, compare, object_values
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.evaluation.run import Evaluation
from vosflow.evaluation.run import Progress as Report
from vosflow.manifest import Manifest

SHOWN_OBJECTS = 40
SHOWN_VIDEOS = 5
SECONDS_BETWEEN_LINES = 10


def print_evaluation(evaluation: Evaluation, manifest: Manifest) -> None:
    """Print objects, totals and what one must know of them, in percent with one decimal."""
    console = _console()
    rules, summary = evaluation.protocol, evaluation.summary
    _print_table(console, _objects_table(evaluation))
    videos = len({entry.video for entry in summary.objects})
    totals = _table(f"{rules.name}: {len(summary.objects)} objects in {videos} videos (%)", "", "")
    for column, value in summary.totals.items():
        totals.add_row(column, _percent(value), style="bold" if column == rules.headline else None)
    _print_table(console, totals)
    if manifest.agreement_with:
        console.print(Text(f"note: this is the agreement with {manifest.agreement_with}, no score", style="bold"))
    for note in (*rules.notes, *manifest.notes):
        console.print(Text(f"note: {note}"))
    _print_warnings(console, evaluation)


def print_comparison(evaluation: Evaluation, other: Evaluation, first: str | Path, second: str | Path) -> None:
    """Print the totals of two sets side by side, and which videos make the difference.

    Args:
        first, second: what the two sets are called.

    Raises:
        VosflowError: they are not of the same videos.
    """
    console = _console()
    comparison = compare(evaluation.summary, other.summary, evaluation.protocol.headline)
    table = _table("Comparison (%)", "", "A", "B", "A - B", f"{CONFIDENCE:.0%} interval")
    for entry in comparison.columns:
        interval = "" if entry.interval is None else " to ".join(_signed(bound) for bound in entry.interval)
        table.add_row(entry.column, _percent(entry.first), _percent(entry.second), _signed(entry.difference), interval)
    _print_table(console, table)
    console.print(Text(f"A: {first}\nB: {second}"))
    _print_warnings(console, other)
    console.print(Text(_explain_intervals(comparison)))
    ranked = list(comparison.video_differences.items())
    gains = [item for item in ranked if item[1] > 0][:SHOWN_VIDEOS]
    losses = [item for item in reversed(ranked) if item[1] < 0][:SHOWN_VIDEOS]
    for title, items in (("A is better, most in", gains), ("A is worse, most in", losses)):
        if items:
            named = ", ".join(f"{video} ({_signed(difference)})" for video, difference in items)
            console.print(Text(f"{title} ({comparison.ranked_by}): {named}"))


def print_protocols() -> None:
    """Print what each protocol is, a paragraph each."""
    console = _console()
    for name in BUILT_IN:
        rules = load_protocol(name)
        console.print(Text(name, style="bold"))
        lines = [rules.about, *rules.notes, f"Main number: {rules.headline}. Layout: {', '.join(rules.layouts)}."]
        for line in lines:
            console.print(Text(line), width=min(console.width, 100))
        console.print(Text(f"Rules: {Path(sys.modules[type(rules).__module__].__file__).name}, {type(rules).__name__}"))
        console.print()


@contextmanager
def show_progress(title: str = "scoring") -> Iterator[Report]:
    """Yield the function to call after each video: a bar on a terminal, elsewhere a line now and then."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LinesNowAndThen(title)
        return
    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda video, done, total: bar.update(task, description=video, completed=done, total=total)


class _LinesNowAndThen:
    """Progress where nobody watches: a log must not be flooded, and a long run must not look dead."""

    def __init__(self, title: str) -> None:
        self._title, self._started, self._last = title, time.monotonic(), time.monotonic()

    def __call__(self, video: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            left = (now - self._started) / done * (total - done)
            print(f"{self._title}: {done} of {total} videos, {left:.0f} s left", file=sys.stderr, flush=True)


def _print_warnings(console: Console, evaluation: Evaluation) -> None:
    if evaluation.missing:
        count, videos = sum(evaluation.missing.values()), list(evaluation.missing)
        some = ", ".join(videos[:5]) + (f", ... ({len(videos)} videos)" if len(videos) > 5 else "")
        console.print(Text(f"missing predictions, counted as empty: {count}, in {some}"))
    if evaluation.strange:
        shown = "; ".join(
            f"{video}: {', '.join(map(str, ids[:5]))}" for video, ids in list(evaluation.strange.items())[:3]
        )
        console.print(
            Text(
                f"warning: in {len(evaluation.strange)} videos no predicted id of the first scored frame is an object "
                f"of the video ({shown}): it counts as background. Save object ids, not colours or 0 and 255",
                style="bold",
            )
        )


def _objects_table(evaluation: Evaluation) -> Table:
    """Means of the objects; of many objects, those with the lowest score."""
    rules, summary = evaluation.protocol, evaluation.summary
    headline = object_values(summary, rules.headline)
    extra = summary.object_columns
    columns = [rules.headline] if headline is not None and rules.headline not in ("J-Mean", "F-Mean", *extra) else []
    ranks = headline if headline is not None else [entry.J.mean for entry in summary.objects]
    places = range(len(summary.objects))
    title = f"{rules.name}: per object (%)"
    if len(places) > SHOWN_OBJECTS:
        places = sorted(places, key=lambda index: ranks[index])[:SHOWN_OBJECTS]
        title = f"{rules.name}: the {SHOWN_OBJECTS} lowest of {len(summary.objects)} objects (%); --output writes all"
    table = _table(title, "Sequence", *columns, "J-Mean", "F-Mean", *extra)
    for index in places:
        entry = summary.objects[index]
        values = [*([headline[index]] if columns else []), entry.J.mean, entry.F.mean, *entry.extra]
        table.add_row(f"{entry.video}_{entry.object}", *map(_percent, values))
    return table


def _explain_intervals(comparison: Comparison) -> str:
    if all(entry.interval is None for entry in comparison.columns):
        return "No intervals: there are fewer than two videos, or no column is a mean over objects."
    return (
        f"Intervals: paired bootstrap, {RESAMPLES} resamples of {comparison.videos} videos (the unit of resampling). "
        "Where one holds 0, the difference may be of these videos only."
    )


def _table(title: str, first: str, *others: str) -> Table:
    """A table without frames; the first column is text, all others are numbers."""
    table = Table(title=title, box=SIMPLE_HEAD, show_header=any((first, *others)))
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


def _print_table(console: Console, table: Table) -> None:
    """The title in a line of its own: rich breaks it to the width of the columns."""
    title, table.title = table.title, None
    console.print(Text(f"\n{title}", style="italic"))
    console.print(table)


def _console() -> Console:
    """Standard output; as wide as a table needs where it is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 160))


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def _signed(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:+.2f}"
