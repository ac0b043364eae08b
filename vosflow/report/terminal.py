"""The summary of a study in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vosflow.report.published import TOLERANCE
from vosflow.report.tables import (
    NO_GROUND_TRUTH,
    SHOWN,
    Row,
    best_score,
    by_dataset,
    format_cell,
    heading,
    is_best,
    read_summary,
)


def print_summary(csv_path: str | Path, console: Console | None = None) -> None:
    """Print a summary.csv as tables that fit a terminal of 80 columns, one per dataset."""
    rows = read_summary(csv_path)
    console = console or Console()
    widest = max(len(row["run"]) for row in rows)
    for chosen in by_dataset(rows).values():
        console.print(_table(chosen, widest))
        for line in _published(chosen):
            console.print(Text(line))
    console.print(Text("Scores in percent. Recall, decay and settings are in:"), Text(str(csv_path)), sep="\n")


def _table(rows: Sequence[Row], widest: int) -> Table:
    dataset, headline, videos = (rows[0][name] for name in ("dataset", "headline", "videos"))
    unscored = format_cell("compared_with", rows[0]["compared_with"]) if headline else NO_GROUND_TRUTH
    scores = dict.fromkeys((headline or "J&F", "J&F", "J", "F")) if headline else {}
    columns = ("run", *(name for name in scores if any(row[name] for row in rows)))
    columns += ("frames_per_second", "peak_memory_MiB")
    unscored = f", {unscored}" if unscored else ""
    title = f"{dataset}: {videos} video{'s' * (videos != '1')}{unscored}"
    title = Text(title, style="bold")  # Text: [names] are no markup
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(SHOWN["run"], min_width=min(widest, 36), overflow="fold")
    for name in columns[1:]:
        table.add_column(heading(name), justify="right", no_wrap=True)
    best = best_score(rows, dataset)
    for row in rows:
        style = "bold" if is_best(row, best) else ""
        table.add_row(*(Text(format_cell(name, row[name]), style=style) for name in columns))
    return table


def _published(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence on each run that a published score is known for."""
    for row in rows:
        if row["published"]:
            headline = row["headline"]
            score, number, difference = (format_cell(name, row[name]) for name in (headline, "published", "difference"))
            line = f"{row['run']}: {headline} published {number}, reproduced {score}, difference {difference}"
            inside = "within" if row["within_tolerance"] == "yes" else "not within"
            yield f"{line}, {inside} {100 * TOLERANCE:g}"
        elif row["not_comparable"]:
            yield f"{row['run']}: not comparable with {row['not_comparable']}"
