"""The summary of a study: one row per run, as CSV for programs, Markdown for READMEs and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vosflow.catalog import PublishedRow
from vosflow.errors import VosflowError
from vosflow.report.published import METRICS, TOLERANCE, Comparison, compare
from vosflow.report.results import RunResult, short_name

SCORE_COLUMNS = {
    "J&F": "J&F-Mean",
    "J": "J-Mean",
    "F": "F-Mean",
    "J-Recall": "J-Recall",
    "F-Recall": "F-Recall",
    "J-Decay": "J-Decay",
    "F-Decay": "F-Decay",
}
COLUMNS = (
    *("dataset", "run", "tracker", "checkpoint", "settings", "compared_with", "headline"),
    *SCORE_COLUMNS,
    *("frames_per_second", "peak_memory_MiB", "videos", "frames", "objects", "mode", "precision", "device"),
    *("published", "difference", "within_tolerance", "not_comparable", "notes"),
)
"""The columns of every summary; after SCORE_COLUMNS stand those that the protocols of its runs add."""
NO_GROUND_TRUTH = "no public ground truth"
GROUND_TRUTH = "ground truth"
SHOWN = {
    "dataset": "Dataset",
    "run": "Run",
    "settings": "Settings",
    "compared_with": "What the numbers are",
    **{name: name for name in SCORE_COLUMNS},
    "mode": "Mode",
    "precision": "Precision",
    "frames_per_second": "Frames/s",
    "peak_memory_MiB": "Peak MiB",
    "videos": "Videos",
    "published": "Published",
    "difference": "Difference",
    "within_tolerance": f"Within {100 * TOLERANCE:g}",
}
"""The columns a reader sees, and their headings; the CSV has them all."""
TEXT_COLUMNS = ("dataset", "run", "settings", "mode", "precision", "compared_with", "within_tolerance")
MEBIBYTE = 2**20

Row = dict[str, str]


def summary_rows(runs: Sequence[RunResult], published: Iterable[PublishedRow] | None = None) -> list[Row]:
    """One row per run, in the order of `runs`; every cell is text, numbers at full precision, scores as fractions.

    `headline` names the column of the run's main score; its protocol says which. `published` replaces the catalog's
    published numbers. A run without ground truth has empty score cells and says so in its notes.
    """
    rows = [_row(run, published) for run in runs]
    added = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    return [{name: row.get(name, "") for name in _all_columns(added)} for row in rows]


def _all_columns(added: Iterable[str]) -> list[str]:
    place = COLUMNS.index("F-Decay") + 1
    return [*COLUMNS[:place], *added, *COLUMNS[place:]]


def _row(run: RunResult, published: Iterable[PublishedRow] | None) -> Row:
    totals = run.description["totals"]
    scores = {short_name(column): value for column, value in (run.scores or {}).items()}
    row: dict[str, object] = {
        "dataset": run.dataset,
        "run": run.name,
        "tracker": run.tracker,
        "checkpoint": run.checkpoint or "",
        "settings": json.dumps(run.shown_settings, ensure_ascii=False),
        "headline": run.score_name,
        **dict.fromkeys(SCORE_COLUMNS, ""),
        **scores,
        "frames_per_second": totals["frames_per_second"],
        "peak_memory_MiB": None if totals["peak_memory_bytes"] is None else totals["peak_memory_bytes"] / MEBIBYTE,
        "videos": totals["videos"],
        "frames": totals["frames"],
        "objects": totals["objects"],
        "mode": run.mode,
        "precision": "; ".join(run.precisions),
        "device": "; ".join(run.devices),
        "compared_with": _compared_with(run),
        "published": "",
        "difference": "",
        "within_tolerance": "",
        "not_comparable": "",
        "notes": json.dumps([NO_GROUND_TRUTH] * (run.scores is None) + run.notes, ensure_ascii=False),
    }
    of_headline = (found for found in compare(run, published) if METRICS[found.row.metric] == run.rules.headline)
    comparison = next(of_headline, None)
    if comparison is not None:
        row |= _published_cells(comparison)
    return {name: "" if value is None else str(value) for name, value in row.items()}  # str(float) is exact


def _published_cells(comparison: Comparison) -> Row:
    """The cells on the published score: the number and the difference, or why it cannot be compared."""
    if comparison.reasons:
        number = f"{percent(comparison.published)} published for {comparison.row.method}"
        return {"not_comparable": f"{number}: {'; '.join(comparison.reasons)}"}
    return {
        "published": comparison.published,
        "difference": comparison.difference,
        "within_tolerance": "yes" if comparison.within_tolerance else "no",
    }


def _compared_with(run: RunResult) -> str:
    """What the masks were compared with; somebody's prediction is no ground truth, and says so."""
    if run.scores is None:
        return ""
    other = run.description.get("agreement_with")
    return f"agreement with {other}" if other else GROUND_TRUTH


def write_summary(rows: Sequence[Row], csv_path: str | Path, markdown_path: str | Path) -> None:
    """Write summary.csv and summary.md, each atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(csv_path, text.getvalue())
    write_text(markdown_path, markdown(rows))


def read_summary(path: str | Path) -> list[Row]:
    """The rows of a summary.csv; raises VosflowError if it is missing or has other columns."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise _bad_summary(path, f"the summary cannot be read ({error.strerror})") from error
    names = reader.fieldnames or []
    if names != _all_columns(name for name in names if name not in COLUMNS):
        raise _bad_summary(path, "not a summary of this version")
    return rows


def _bad_summary(path: str | Path, problem: str) -> VosflowError:
    return VosflowError(
        problem,
        path=path,
        expected="a summary.csv written by scripts/summarize.py",
        remedy="run snakemake again, or write it with scripts/summarize.py",
    )


def format_cell(column: str, text: str) -> str:
    """A cell as a reader sees it: scores in percent with one decimal, "" where there is nothing to show."""
    if column == "settings":
        return ", ".join(f"{name}={_plain(value)}" for name, value in json.loads(text).items())
    if column == "compared_with" and text == GROUND_TRUTH:
        return ""  # as everybody expects
    if text == "" or column in TEXT_COLUMNS:
        return text
    if column in SCORE_COLUMNS or column == "published" or column not in COLUMNS:
        return percent(float(text))
    if column == "difference":
        return percent(float(text), signed=True)
    if column == "frames_per_second":
        return three_digits(float(text))
    return f"{float(text):.0f}"


def percent(fraction: float, *, signed: bool = False, decimals: int = 1) -> str:
    """A fraction in percent; "n/a" for NaN, and never a negative zero."""
    if math.isnan(fraction):
        return "n/a"
    value = round(100 * fraction, decimals) + 0.0  # -0.0 + 0.0 = 0.0
    return f"{value:{'+' if signed and value else ''}.{decimals}f}"


def three_digits(value: float) -> str:
    """A measured speed with no more digits than it is worth."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that a reader sees and that hold anything: no empty published column in a study of own models.

    J&F is kept where a run is without ground truth: it says so there.
    """
    keep = {"dataset", "run", "frames_per_second", "peak_memory_MiB", "videos"}
    keep |= {"J&F"} if any(row["headline"] == "" for row in rows) else set()
    names = [name for name in rows[0] if name in SHOWN or name not in COLUMNS] if rows else list(SHOWN)
    names.sort(key=lambda name: list(SHOWN).index(name if name in SHOWN else "F-Decay"))
    return [name for name in names if name in keep or any(format_cell(name, row[name]) for row in rows)]


def heading(column: str) -> str:
    """What a reader sees above a column: columns that a protocol adds are called as it calls them."""
    return SHOWN.get(column, column)


def markdown(rows: Sequence[Row]) -> str:
    """The summary as a GitHub table: percent with one decimal, the best score of each dataset in bold."""
    columns = shown_columns(rows)
    best = {row["dataset"]: best_score(rows, row["dataset"]) for row in rows}
    lines = [
        "| " + " | ".join(heading(name).replace("|", "\\|") for name in columns) + " |",
        "|" + "|".join("---" if name in TEXT_COLUMNS else "--:" for name in columns) + "|",
    ]
    notes: list[str] = []
    for row in rows:
        cells = {name: _escape_markdown(format_cell(name, row[name])) for name in columns}
        if row["headline"] == "":
            cells["J&F"] = NO_GROUND_TRUTH
        elif is_best(row, best[row["dataset"]]):
            cells[row["headline"]] = f"**{cells[row['headline']]}**"
        own = [note for note in json.loads(row["notes"]) if note != NO_GROUND_TRUTH]
        own += [f"not comparable with {row['not_comparable']}"] if row["not_comparable"] else []
        notes += [note for note in own if note not in notes]
        cells["run"] += "".join(f" [{notes.index(note) + 1}]" for note in own)
        lines.append("| " + " | ".join(cells.values()) + " |")
    lines += ["", f"{UNITS} Measured on: {'; '.join(dict.fromkeys(row['device'] for row in rows))}."]
    lines += [f"- [{number}] {_escape_markdown(note)}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


UNITS = (
    "Scores in percent (decay and V: lower is better); frames/s is frames tracked per second of tracking; "
    "peak memory in MiB."
)


def best_score(rows: Sequence[Row], dataset: str) -> float | None:
    """The highest score on a dataset, or None where there is nothing to compare it with."""
    scores = [float(row[row["headline"]]) for row in rows if row["dataset"] == dataset and row["headline"]]
    numbers = [score for score in scores if not math.isnan(score)]
    return max(numbers) if len(numbers) > 1 else None


def is_best(row: Row, best: float | None) -> bool:
    """Whether a row has the highest score of its dataset, `best_score`."""
    return best is not None and row["headline"] != "" and float(row[row["headline"]]) == best


def _escape_markdown(text: str) -> str:
    for character in "\\|*_`<>[]":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def print_summary(csv_path: str | Path, console: Console | None = None) -> None:
    """Print a summary.csv as tables that fit a terminal of 80 columns, one per dataset."""
    rows = read_summary(csv_path)
    console = console or Console()
    widest = max(len(row["run"]) for row in rows)
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        chosen = [row for row in rows if row["dataset"] == dataset]
        headline = chosen[0]["headline"]
        unscored = format_cell("compared_with", chosen[0]["compared_with"]) if headline else NO_GROUND_TRUTH
        scores = dict.fromkeys((headline or "J&F", "J&F", "J", "F"))
        scores = [name for name in scores if not headline or any(row[name] for row in chosen)]
        columns = ("run", *scores, "frames_per_second", "peak_memory_MiB")
        unscored = f", {unscored}" if unscored else ""
        title = Text(f"{dataset}: {chosen[0]['videos']} videos{unscored}", style="bold")  # Text: [names] are no markup
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column(SHOWN["run"], min_width=min(widest, 36), overflow="fold")
        for name in columns[1:]:
            table.add_column(heading(name), justify="right", no_wrap=True)
        best = best_score(rows, dataset)
        for row in chosen:
            style = "bold" if is_best(row, best) else ""
            table.add_row(*(Text(format_cell(name, row[name]), style=style) for name in columns))
        console.print(table)
        for row in chosen:
            if row["published"]:
                score, number, difference = (format_cell(n, row[n]) for n in (headline, "published", "difference"))
                line = f"{row['run']}: {headline} published {number}, reproduced {score}, difference {difference}"
                inside = "within" if row["within_tolerance"] == "yes" else "not within"
                console.print(Text(f"{line}, {inside} {100 * TOLERANCE:g}"))
            elif row["not_comparable"]:
                console.print(Text(f"{row['run']}: not comparable with {row['not_comparable']}"))
    console.print(Text("Scores in percent. Recall, decay and settings are in:"), Text(str(csv_path)), sep="\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)
