"""The report page: one HTML file that needs nothing else, to be read, printed or sent."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vosflow.catalog import PublishedRow
from vosflow.errors import VosflowError
from vosflow.records import write_text
from vosflow.report import tables
from vosflow.report.figures import INK, PAPER, RULE, SERIES, SOFT
from vosflow.report.filmstrips import CORRECT, EXTRA, MISSED, SWAPPED, make_filmstrips
from vosflow.report.instances import SHOWN
from vosflow.report.plots import MOST_LABELS, plot_speed, plot_sweeps, plot_videos
from vosflow.report.published import TOLERANCE, Comparison, as_printed, as_text, awaited, compare
from vosflow.report.result_tables import anchor, result_tables
from vosflow.report.results import RunResult, main_runs
from vosflow.report.training import StageResult, training_sections
from vosflow.report.video_tables import SHADES, video_tables

TEMPLATES = Path(__file__).resolve().parent / "templates"
SERIES_DARK = ("#4aa8e8", "#f08a4b", "#2fc79a", "#dd8cc6", "#d0b040", "#8cc8f0", "#a79cf2", "#a8a8a8")
"""The hues of `figures.SERIES`, lightened for a dark page."""
MOST_NAMED = 8  # methods in the first line of the page


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
        VosflowError: the summary is of other runs or outdated, a file that the page shows is missing or damaged, or
            the page cannot be written.
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
    write_text(path, text)
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
    environment.filters |= {"percent": tables.percent, "speed": tables.three_digits}
    environment.filters |= {"json": _readable_json, "breakable": _breakable}
    speed = plot_speed(runs)
    results, notes = result_tables(runs, rows, published)
    comparisons = [comparison for run in runs for comparison in compare(run, published)]
    comparable = [one for one in comparisons if not one.reasons]
    others = [one for one in comparisons if one.reasons]
    waiting = [(run, row, reasons) for run in runs for row, reasons in awaited(run, published)]
    awaiting = [one for one in waiting if not one[2]]
    differing = [one for one in waiting if one[2]]
    return environment.get_template("index.html").render(
        runs=runs,
        title=title,
        headline=_headline(runs),
        results=results,
        notes=notes,
        anchor=anchor,
        as_printed=as_printed,
        units=tables.UNITS,
        devices=sorted({device for run in runs for device in run.devices}),
        plotted_devices=sorted({device for run in runs if run.scores is not None for device in run.devices}),
        comparisons=_placed("published", comparable, [one.run.key for one in comparable]),
        incomparable=_placed("why", others, [one.run.key for one in others]),
        awaited=_placed("server", awaiting, [run.key for run, _, _ in awaiting]),
        waiting=_placed("why", differing, [run.key for run, _, _ in differing]),
        comparison_row=_comparison_row,
        tolerance=f"{100 * TOLERANCE:g}",
        sweeps={name: Markup(svg) for name, svg in plot_sweeps(runs).items()},
        speed=None if speed is None else Markup(speed),
        videos={name: Markup(svg) for name, svg in plot_videos(runs).items()},
        video_tables=video_tables(runs),
        shades=SHADES,
        most_labels=MOST_LABELS,
        strips=make_filmstrips(runs, filmstrips),
        trainings=[{**section, "curves": Markup(section["curves"] or "")} for section in training_sections(stages)],
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
        "methods": _methods(runs),
        "datasets": datasets,
        "swept": swept,
        "runs": len(runs),
        "videos": len(videos),
        "frames": sum(frames.values()),
        "newest": f"{newest.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    }


def _methods(runs: Sequence[RunResult]) -> str:
    """The methods by name, or where they are many the trackers, each with the number of its weights."""
    families = dict.fromkeys(run.family for run in runs)
    if len(families) <= MOST_NAMED:
        return ", ".join(families)
    told = []
    for tracker in dict.fromkeys(run.tracker for run in runs):
        kinds = len({run.family for run in runs if run.tracker == tracker})
        told.append(tracker + (f" with {kinds} sets of weights" if kinds > 1 else ""))
    return ", ".join(told)


def _placed(kind: str, found: Sequence, keys: Sequence[tuple[str, str]]) -> list[tuple]:
    """[(anchor, found)]: an anchor where the key, that of a run, is there for the first time, else ""."""
    return [(anchor(kind, *key) if keys.index(key) == n else "", found[n]) for n, key in enumerate(keys)]


def _comparison_row(comparison: Comparison) -> list[str]:
    """Published as printed by its source; reproduced with one decimal more, so that rounding hides no difference."""
    return [
        as_printed(comparison.row),
        tables.percent(comparison.reproduced, decimals=2),
        tables.percent(comparison.difference, signed=True, decimals=2).replace("-", "−"),
        "yes" if comparison.within_tolerance else "no",
    ]


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


def _breakable(name: str) -> Markup:
    """A run's name that may go on in the next line before each of its words."""
    return Markup("<wbr>").join(re.split(r"(?<=[@=_])", name))


def _readable_json(value: object) -> str:
    """Lists of plain things as words, the rest as JSON."""
    if isinstance(value, list):
        return ", ".join(map(_readable_json, value))
    return as_text(value)
