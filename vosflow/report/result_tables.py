"""The page's tables of results: one per dataset, the published score beside each run's own, notes by numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vosflow.catalog import PublishedRow
from vosflow.report import tables
from vosflow.report.published import as_printed, awaited, of_main_score
from vosflow.report.results import RunResult

PUBLISHED_CELLS = ("published", "difference")
NOT_ON_THE_PAGE = ("settings", "within_tolerance", *PUBLISHED_CELLS)
"""Columns that stand elsewhere there: settings below the run's name, the rest in PUBLISHED_CELLS."""
NAMED_RUNS = 3  # of those that carry a note


@dataclass(frozen=True)
class Cell:
    """A table cell: what is shown, what it sorts by, its CSS classes; where on the page more is said, and a hint."""

    text: str
    key: str
    classes: str = "number"
    link: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Line:
    """One run: its name, the settings that the name does not say, the numbers of its notes, and its cells."""

    name: str
    settings: str
    notes: list[int]
    cells: list[Cell]


@dataclass(frozen=True)
class ResultTable:
    """The runs on one dataset.

    Attributes:
        columns: (heading, whether it is of numbers) of the cells, without the run's name.
        said_once: what is the same for all runs, in words.
        notes: what a reader must know of all runs.
    """

    dataset: str
    anchor: str
    said_once: str
    columns: list[tuple[str, bool]]
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Note:
    """A note on some of the runs of a dataset, and which these are."""

    number: int
    text: str
    runs: str


def anchor(kind: str, *names: str) -> str:
    """An id for a place on the page, and for nothing else on it."""
    return "-".join([kind, *("".join(c if c.isalnum() else f".{ord(c):x}." for c in name) for name in names)])


def result_tables(
    runs: Sequence[RunResult], rows: Sequence[tables.Row], published: Iterable[PublishedRow] | None = None
) -> tuple[list[ResultTable], list[Note]]:
    """One table per dataset, and the numbered notes of all of them.

    Args:
        runs, rows: the runs of the study and their rows of the summary, in the same order.
        published: replaces the catalog's published numbers.
    """
    carriers: dict[str, list[str]] = {}
    beside = {run.key: _published_cells(run, published) for run in runs}
    made = []
    rows = [{**row, "not_comparable": ""} for row in rows]  # why, is said in the section on published numbers
    for dataset, chosen in tables.by_dataset(rows).items():
        columns = [name for name in tables.shown_columns(chosen) if name not in ("run", *NOT_ON_THE_PAGE)]
        headings = [(tables.heading(name), name not in tables.TEXT_COLUMNS) for name in columns]
        known = any(beside[dataset, row["run"]] for row in chosen)
        common = _common_settings(chosen)
        table = ResultTable(
            dataset,
            anchor("results", dataset),
            ", ".join(filter(None, [tables.said_once(chosen), _unsaid(common)])),
            _with_published(headings, known),
            notes=tables.common_notes(chosen),
        )
        best = tables.best_score(chosen, dataset)
        for row in chosen:
            cells = [_cell(row, name, best) for name in columns]
            cells = _with_published(cells, known, beside[dataset, row["run"]] or [Cell("", "", ""), Cell("", "", "")])
            own = [note for note in tables.notes_of(row) if note not in table.notes]
            for note in own:
                carriers.setdefault(note, []).append(f"{dataset} {row['run']}")
            numbers = [list(carriers).index(note) + 1 for note in own]
            table.lines.append(Line(row["run"], _settings(row, common), numbers, cells))
        made.append(table)
    return made, [Note(number, text, _some(names)) for number, (text, names) in enumerate(carriers.items(), 1)]


def _with_published(cells: list, known: bool, extra: Sequence = (("Published", True), ("Difference", True))) -> list:
    """Cells with those on published scores after the main one."""
    return [*cells[:1], *extra, *cells[1:]] if known else cells


def _published_cells(run: RunResult, published: Iterable[PublishedRow] | None = None) -> list[Cell]:
    """The published main score of a run and what it is apart, or why they cannot be compared; nothing if none is known.

    Of several the first comparable one, else the first; all of them are in the section on published numbers.
    """
    first = of_main_score(run, published)
    if first is not None:
        key = str(first.published)
        if first.reasons:
            why = Cell("not comparable", "", "remark", anchor("why", *run.key), "; ".join(first.reasons))
            return [Cell(as_printed(first.row), key, "number soft"), why]
        apart = tables.percent(first.difference, signed=True).replace("-", "−")
        outside = "" if first.within_tolerance else " outside"
        link = anchor("published", *run.key)
        return [Cell(as_printed(first.row), key), Cell(apart, str(first.difference), "number" + outside, link)]
    waiting = [(row, reasons) for row, reasons in awaited(run, published) if row.metric in ("J&F", "G", "J&F-dot")]
    if waiting:
        row, reasons = waiting[0]
        text = "not comparable" if reasons else "compare by hand"
        return [
            Cell(as_printed(row), str(row.value / 100), "number soft"),
            Cell(text, "", "remark", anchor("why" if reasons else "server", *run.key), "; ".join(reasons)),
        ]
    return []


def _cell(row: tables.Row, name: str, best: float | None) -> Cell:
    text = tables.format_cell(name, row[name])
    if name == "J&F" and row["headline"] == "":
        return Cell(tables.NO_GROUND_TRUTH, "", "absent")
    if name in tables.TEXT_COLUMNS:
        return Cell(text, row[name], "")
    classes = "number best" if name == row["headline"] and tables.is_best(row, best) else "number"
    return Cell(text.replace("-", "−"), "" if text == "n/a" else row[name], classes)


def _common_settings(rows: Sequence[tables.Row]) -> dict:
    """The settings that all runs have, if there are several runs."""
    first, *others = (json.loads(row["settings"]) for row in rows)
    return {
        name: value
        for name, value in first.items()
        if others and all(name in other and other[name] == value for other in others)
    }


def _unsaid(settings: dict) -> str:
    """Settings as words, without precision and mode, which are told anyway."""
    return _as_words({name: value for name, value in settings.items() if name not in ("precision", "mode")})


def _settings(row: tables.Row, common: dict) -> str:
    """The settings of a run that neither its name nor the line above the table tells."""
    values = json.loads(row["settings"])
    return _as_words({name: values[name] for name in values if name not in common and f"@{name}=" not in row["run"]})


def _as_words(settings: dict) -> str:
    return tables.format_cell("settings", json.dumps(settings, ensure_ascii=False))


def _some(names: Sequence[str]) -> str:
    others = len(names) - NAMED_RUNS
    return "; ".join(names[:NAMED_RUNS]) + (f" and {others} more" if others > 0 else "")
