"""The summary of a study: one row per run, how it is kept in summary.csv, and what readers see of it."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from vosflow.catalog import PublishedRow
from vosflow.errors import VosflowError
from vosflow.records import write_text
from vosflow.report.published import TOLERANCE, Comparison, as_printed, as_text, of_main_score
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
    "run": "Run",
    "settings": "Settings",
    "compared_with": "What the numbers are",
    "headline": "",  # the place of the main score, whatever the protocol calls it
    "published": "Published",
    "difference": "Difference",
    "within_tolerance": f"Within {100 * TOLERANCE:g}",
    **{name: name for name in SCORE_COLUMNS},
    "mode": "Mode",
    "precision": "Precision",
    "frames_per_second": "Frames/s",
    "peak_memory_MiB": "Peak MiB",
    "videos": "Videos",
}
"""The columns a reader sees of the runs on one dataset, and their headings; the CSV has them all."""
SAID_ONCE = {"videos": "{} videos", "mode": "mode {}", "precision": "precision {}"}
"""Columns that are told above a table instead, where all its rows agree."""
TEXT_COLUMNS = ("run", "settings", "mode", "precision", "compared_with", "within_tolerance")
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
    notes = [NO_GROUND_TRUTH] * (run.scores is None) + run.notes
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
        "notes": "",
    }
    comparison = of_main_score(run, published)
    if comparison is not None:
        row |= _published_cells(comparison)
        if comparison.row.note and not comparison.reasons:
            notes.append(f"published {as_printed(comparison.row)}: {comparison.row.note}")
    row["notes"] = json.dumps(notes, ensure_ascii=False)
    return {name: "" if value is None else str(value) for name, value in row.items()}  # str(float) is exact


def _published_cells(comparison: Comparison) -> Row:
    """The cells on the published score: the number and the difference, or why it cannot be compared."""
    if comparison.reasons:
        number = f"{as_printed(comparison.row)} published for {comparison.row.method}"
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


def write_summary(rows: Sequence[Row], path: str | Path) -> None:
    """Write summary.csv, at once or not at all; raises DiskError if it cannot."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


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
        return ", ".join(f"{name}={as_text(value)}" for name, value in json.loads(text).items())
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


def by_dataset(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """{dataset: its rows}, in the order in which they come."""
    return {name: [row for row in rows if row["dataset"] == name] for name in dict.fromkeys(r["dataset"] for r in rows)}


def shown_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that a reader sees of the runs on one dataset: those that hold anything, the main score first.

    J&F is kept where a run is without ground truth: it says so there.
    """
    headlines = [row["headline"] for row in rows]
    keep = {"run", "frames_per_second", "peak_memory_MiB"} | ({"J&F"} if "" in headlines else set())
    places = list(SHOWN)

    def place(name: str) -> int:
        return places.index("headline" if name in headlines else name if name in SHOWN else "F-Decay")

    known = [name for name in rows[0] if name != "headline" and (name in SHOWN or name not in COLUMNS)]
    names = sorted(known, key=place)
    names = [name for name in names if name in keep or any(format_cell(name, row[name]) for row in rows)]
    return [name for name in names if not (name in SAID_ONCE and _agree(rows, name))]


def said_once(rows: Sequence[Row]) -> str:
    """What all runs on a dataset have in common, to stand above their table: "30 videos, precision float32"."""
    told = {name: words.format(rows[0][name]) for name, words in SAID_ONCE.items() if _agree(rows, name)}
    told = {name: words for name, words in told.items() if rows[0][name]}
    if rows[0]["videos"] == "1" and "videos" in told:
        told["videos"] = "1 video"
    return ", ".join(told.values())


def _agree(rows: Sequence[Row], column: str) -> bool:
    return len({row[column] for row in rows}) == 1


def heading(column: str) -> str:
    """What a reader sees above a column: columns that a protocol adds are called as it calls them."""
    return SHOWN.get(column, column)


def notes_of(row: Row) -> list[str]:
    """What a reader must know of a row's numbers; that there are none stands in their place."""
    notes = [note for note in json.loads(row["notes"]) if note != NO_GROUND_TRUTH]
    return notes + ([f"not comparable with {row['not_comparable']}"] if row["not_comparable"] else [])


def common_notes(rows: Sequence[Row]) -> list[str]:
    """The notes that all of these rows carry, if there are several rows."""
    return [note for note in notes_of(rows[0]) if len(rows) > 1 and all(note in notes_of(row) for row in rows)]


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
