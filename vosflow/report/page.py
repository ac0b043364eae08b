"""The report page: one HTML file that needs nothing else, to be read, printed or sent."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vosflow.catalog import PublishedRow
from vosflow.errors import VosflowError
from vosflow.report import tables
from vosflow.report.filmstrips import CORRECT, EXTRA, MISSED, SWAPPED, make_filmstrips
from vosflow.report.instances import SHOWN
from vosflow.report.plots import INK, PAPER, RULE, SERIES, SOFT, plot_speed, plot_sweeps, plot_videos
from vosflow.report.published import TOLERANCE, Comparison, awaited, compare
from vosflow.report.results import RunResult, main_runs
from vosflow.report.training import StageResult, training_sections

TEMPLATES = Path(__file__).resolve().parent / "templates"
SERIES_DARK = ("#4aa8e8", "#f08a4b", "#2fc79a", "#dd8cc6", "#d0b040", "#8cc8f0", "#a79cf2", "#a8a8a8")
"""The hues of `plots.SERIES`, lightened for a dark page."""


@dataclass(frozen=True)
class Cell:
    """A table cell: what is shown, what it sorts by, and its CSS classes."""

    text: str
    key: str
    classes: str


def write_page(
    runs: Sequence[RunResult],
    summary: str | Path,
    folder: str | Path,
    *,
    title: str = "vosflow",
    filmstrips: int = 2,
    published: Iterable[PublishedRow] | None = None,
    stages: Sequence[StageResult] = (),
) -> Path:
    """Write `{folder}/index.html` and return its path.

    Args:
        runs: the runs of the study, in the order of its tables.
        summary: the summary.csv of the same runs; the page's table is that file, so that the two cannot differ.
        title: the headline.
        filmstrips: number of best and of worst videos shown per dataset.
        published: replaces the catalog's published numbers.
        stages: of the trainings of the study.

    Raises:
        VosflowError: the summary is of other runs or outdated, or a file that the page shows is missing or damaged.
    """
    rows = tables.read_summary(summary)
    if rows != tables.summary_rows(runs, published):
        raise VosflowError(
            "the summary is not that of the given runs",
            path=summary,
            expected="the rows that scripts/summarize.py writes for the same --runs",
            remedy="write the summary again, then the page",
        )
    path = Path(folder) / "index.html"
    text = render_page(runs, rows, title=title, filmstrips=filmstrips, published=published, stages=stages)
    tables.write_text(path, text)
    return path


def render_page(
    runs: Sequence[RunResult],
    rows: Sequence[tables.Row],
    *,
    title: str,
    filmstrips: int,
    published: Iterable[PublishedRow] | None = None,
    stages: Sequence[StageResult] = (),
) -> str:
    """The page's HTML. The same runs give the same text: it holds no date but those of the results."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": tables.percent, "speed": tables.three_digits, "json": _readable_json}
    speed = plot_speed(runs)
    comparisons = [comparison for run in runs for comparison in compare(run, published)]
    return environment.get_template("index.html").render(
        runs=runs,
        rows=rows,
        title=title,
        headline=_headline(runs),
        columns=[(tables.heading(name), name not in tables.TEXT_COLUMNS) for name in _columns(rows)],
        table=_table(rows),
        units=tables.UNITS,
        notes=_notes(runs),
        devices=sorted({device for run in runs for device in run.devices}),
        plotted_devices=sorted({device for run in runs if run.scores is not None for device in run.devices}),
        comparisons=[comparison for comparison in comparisons if not comparison.reasons],
        incomparable=[comparison for comparison in comparisons if comparison.reasons],
        awaited=[(run, *found) for run in runs for found in awaited(run, published)],
        comparison_row=_comparison_row,
        tolerance=f"{100 * TOLERANCE:g}",
        sweeps={name: Markup(svg) for name, svg in plot_sweeps(runs).items()},
        speed=None if speed is None else Markup(speed),
        videos={name: Markup(svg) for name, svg in plot_videos(runs).items()},
        strips=make_filmstrips(runs, filmstrips),
        trainings=[{**section, "curves": Markup(section["curves"] or "")} for section in training_sections(stages)],
        main_runs={dataset: run.name for dataset, run in main_runs(runs).items()},
        protocols=_protocols(runs),
        instances=sorted({run.dataset for run in runs if run.of_instances}),
        most_instances=SHOWN,
        palette=_palette(),
        legend=[("correct", CORRECT), ("missed", MISSED), ("extra", EXTRA), ("another object's", SWAPPED)],
    )


def _headline(runs: Sequence[RunResult]) -> dict:
    """What the study is, said in one line each, from the runs alone."""
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    videos = {(run.dataset, video["video"]) for run in runs for video in run.description["videos"]}
    frames = {(run.dataset, video["video"]): video["frames"] for run in runs for video in run.description["videos"]}
    newest = max(datetime.fromisoformat(video["finished"]) for run in runs for video in run.description["videos"])
    swept: dict[str, list] = {}
    for run in runs:
        for name, value in run.description["swept"].items():
            if value not in swept.setdefault(name, []):
                swept[name].append(value)
    return {
        "families": list(dict.fromkeys(run.family for run in runs)),
        "datasets": datasets,
        "swept": swept,
        "runs": len(runs),
        "videos": len(videos),
        "frames": sum(frames.values()),
        "newest": f"{newest.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    }


PUBLISHED_COLUMNS = ("published", "difference", "within_tolerance")


def _columns(rows: Sequence[tables.Row]) -> list[str]:
    """The columns of the page's table; published numbers have a table of their own, with their sources."""
    return [name for name in tables.shown_columns(rows) if name not in PUBLISHED_COLUMNS]


def _table(rows: Sequence[tables.Row]) -> list[list[Cell]]:
    columns = _columns(rows)
    table = []
    for row in rows:
        cells = []
        for name in columns:
            text, classes = tables.format_cell(name, row[name]), "" if name in tables.TEXT_COLUMNS else "number"
            if name == "J&F" and row["headline"] == "":
                text, classes = tables.NO_GROUND_TRUTH, "absent"
            elif name == row["headline"] and tables.is_best(row, tables.best_score(rows, row["dataset"])):
                classes = "number best"
            elif name not in tables.TEXT_COLUMNS:
                text = text.replace("-", "−")
            cells.append(Cell(text, row[name], classes))
        table.append(cells)
    return table


def _comparison_row(comparison: Comparison) -> list[str]:
    """Published as printed by its source; reproduced with one decimal more, so that rounding hides no difference."""
    return [
        f"{comparison.row.value:g}",
        tables.percent(comparison.reproduced, decimals=2),
        tables.percent(comparison.difference, signed=True, decimals=2).replace("-", "−"),
        "yes" if comparison.within_tolerance else "no",
    ]


def _notes(runs: Sequence[RunResult]) -> dict[str, str]:
    """{note: the runs that carry it, or the dataset if all of its runs do}."""
    carriers: dict[str, list[RunResult]] = {}
    for run in runs:
        for note in run.notes:
            carriers.setdefault(note, []).append(run)
    told = {}
    for note, carrying in carriers.items():
        names = []
        for dataset in dict.fromkeys(run.dataset for run in carrying):
            of_dataset = [run for run in carrying if run.dataset == dataset]
            everyone = len(of_dataset) == sum(run.dataset == dataset for run in runs) > 1
            names += [f"{dataset}, all runs"] if everyone else [f"{dataset} {run.name}" for run in of_dataset]
        told[note] = "; ".join(names)
    return told


def _protocols(runs: Sequence[RunResult]) -> list[dict]:
    """How each dataset's numbers came about: its protocol, with the rules as the code states them."""
    found = []
    for dataset, run in main_runs(runs).items():
        totals = run.description["totals"]
        found.append(
            {
                "dataset": dataset,
                "protocol": run.rules,
                "rules": run.rules and inspect.getdoc(type(run.rules)),
                "score": run.score_name,
                "proposed": run.of_instances,
                "by_frame": "J&F-Mean" in (run.scores or ()),
                **{key: totals[key] for key in ("videos", "frames", "objects")},
            }
        )
    return found


def _palette() -> dict[str, dict[str, str]]:
    """CSS variables of the light and the dark page, shared with the figures."""
    light = {"ink": INK, "soft": SOFT, "rule": RULE, "paper": PAPER, "shade": "#f3f5f7", "accent": "#0b63a5"}
    dark = {
        "ink": "#e6e9ed",
        "soft": "#9aa4b0",
        "rule": "#343b44",
        "paper": "#14171b",
        "shade": "#1d2228",
        "accent": "#6cb6f2",
    }
    return {
        "light": light | {f"series-{index}": colour for index, colour in enumerate(SERIES)},
        "dark": dark | {f"series-{index}": colour for index, colour in enumerate(SERIES_DARK)},
    }


def _readable_json(value: object) -> str:
    """Lists of plain things as words, the rest as JSON."""
    if isinstance(value, list):
        return ", ".join(map(_readable_json, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
