"""Figures of a study: swept settings, accuracy against speed, and every video of every run."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from vosflow.report.figures import DASHES, INK, PAPER, SERIES, STYLE, as_svg, legend_below, make_panels, series
from vosflow.report.labels import place_labels
from vosflow.report.results import RunResult, main_runs
from vosflow.report.video_tables import fits_bars, ordered

Point = tuple[float, float, bool]
"""Value of the setting, score in percent, whether the value is out of distribution."""
MOST_LABELS = 14  # of the runs in a panel of the plot of speeds


def plot_sweeps(runs: Sequence[RunResult]) -> dict[str, str]:
    """{setting: SVG} of the score against every numeric setting that was swept over at least two values.

    One panel per dataset, one line per tracker or checkpoint with otherwise equal settings. Hollow marks are values
    that the run's notes call out of distribution.
    """
    figures = {}
    for setting in dict.fromkeys(name for run in runs for name in run.description["swept"]):
        lines = _sweep_lines(runs, setting)
        if not lines:
            continue
        datasets = list(dict.fromkeys(dataset for dataset, _, _ in lines))
        families = list(dict.fromkeys(run.family for run in runs))
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": setting}):
            figure, axes = make_panels(len(datasets), width=5.6 if len(datasets) == 1 else 4.4, height=3.4)
            styles: dict[str, list[str]] = {}
            for axis, dataset in zip(axes, datasets, strict=True):
                chosen = [(key[1], key[2], points) for key, points in lines.items() if key[0] == dataset]
                for family, label, points in chosen:
                    labels = styles.setdefault(family, [])
                    labels += [label] * (label not in labels)
                    _draw_line(axis, label, points, families.index(family), labels.index(label), len(chosen) == 1)
                _finish_sweep(axis, setting, [point[0] for _, _, points in chosen for point in points])
                axis.set_ylabel(f"{main_runs(runs)[dataset].score_name} (%)")
                axis.set_title(dataset)
            if len(lines) > len(datasets):
                legend_below(figure)
            figures[setting] = as_svg(figure, f"sweep-{setting}")
    return figures


def _sweep_lines(runs: Sequence[RunResult], setting: str) -> dict[tuple[str, str, str], list[Point]]:
    """{(dataset, family, label): points}, lines of two or more values only.

    A label names the settings in which a family's lines on a dataset differ: others would only make it long.
    """
    lines: dict[tuple[str, str, tuple[str, ...]], list[Point]] = {}
    for run in runs:
        value = run.description["settings"].get(setting)
        if math.isnan(run.score) or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        others = tuple(f"{name}={other}" for name, other in run.shown_settings.items() if name != setting)
        strange = any(
            note.startswith(f"{setting}=") and "out of distribution" in note for note in run.description["notes"]
        )
        lines.setdefault((run.dataset, run.family, others), []).append((value, 100 * run.score, strange))
    lines = {key: sorted(points) for key, points in lines.items() if len({point[0] for point in points}) > 1}
    named = {}
    for (dataset, family, others), points in lines.items():
        beside = [set(key[2]) for key in lines if key[:2] == (dataset, family)]
        shared = set.intersection(*beside)
        label = ", ".join([family, *(text for text in others if text not in shared)])
        named[dataset, family, label] = points
    return named


def _draw_line(axis: Axes, label: str, points: list[Point], family: int, variant: int, numbered: bool) -> None:
    colour, marker = series(family)
    values, scores, _ = zip(*points, strict=True)
    dashes = DASHES[variant % len(DASHES)]
    axis.plot(values, scores, color=colour, linestyle=dashes, linewidth=2, marker=marker, markersize=6.5, label=label)
    for value, score, strange in points:
        if strange:
            axis.plot(value, score, marker, markersize=6.5, color=colour, markerfacecolor=PAPER, zorder=3)
        if numbered:
            text = axis.annotate(f"{score:.1f}", (value, score), (0, 8), textcoords="offset points", ha="center")
            text.set(fontsize=9, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.7, "pad": 0.5})


def _finish_sweep(axis: Axes, setting: str, values: list[float]) -> None:
    values = sorted(set(values))
    if values[0] > 0 and values[-1] / values[0] > 32:  # such as 64, 256, 1024, 4096
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    if len(values) <= 10:
        axis.xaxis.set_major_locator(FixedLocator(values))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.margins(x=0.08, y=0.18)
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="y")
    axis.set_xlabel(setting)


def plot_speed(runs: Sequence[RunResult]) -> str | None:
    """SVG of the score against frames/s, one panel per dataset; None where fewer than two runs are scored.

    A thin line reaches from a run's slowest to its fastest video. One colour and marker per tracker or checkpoint.
    Marks of runs that took arrays from other runs are hollow. Marks are labelled with their runs, placed so that no two
    labels collide; of more than `MOST_LABELS` runs only those that no other run beats in both score and speed. All say
    their run when the mouse is over them.
    """
    scored = [run for run in runs if not math.isnan(run.score) and run.description["totals"]["frames_per_second"]]
    counts = Counter(run.dataset for run in scored)
    datasets = [name for name, count in counts.items() if count > 1]
    if not datasets:
        return None
    families = list(dict.fromkeys(run.family for run in runs))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "speed"}):
        figure, axes = make_panels(len(datasets), width=6.4, height=4.2, columns=2)
        titles: dict[str, str] = {}
        for axis, dataset in zip(axes, datasets, strict=True):
            _draw_speed(axis, [run for run in scored if run.dataset == dataset], families, titles)
            axis.set_title(dataset)
        legend_below(figure)
        figure.draw_without_rendering()  # gives the panels their final places
        for axis in axes:
            place_labels(axis)
        return as_svg(figure, "speed", titles)


def _draw_speed(axis: Axes, runs: Sequence[RunResult], families: list[str], titles: dict[str, str]) -> None:
    labelled = runs if len(runs) <= MOST_LABELS else unbeaten(runs)
    for run in runs:
        speed, score = _speed(run), 100 * run.score
        colour, marker = series(families.index(run.family))
        face = PAPER if run.is_sped_up else colour
        gid = f"mark-{len(titles)}"
        titles[gid] = f"{run.name}: {score:.1f}, {speed:.3g} frames/s"
        axis.plot([], [], marker, color=colour, markersize=7, label=run.family)  # for the legend
        axis.plot(speed, score, marker, color=colour, markersize=7, markerfacecolor=face, gid=gid)
        strength = 0.45 if run in labelled else 0.2
        axis.hlines(score, run.slowest, run.fastest, color=colour, linewidth=1, alpha=strength, zorder=1)
        if run in labelled:
            label = shortened(run.name.removeprefix(f"{run.family}@"), 48)  # the legend says the rest
            text = axis.annotate(label, (speed, score), (0, 0), textcoords="offset points", fontsize=8.5, va="center")
            text.set_in_layout(False)
    speeds = [speed for run in runs for speed in (run.slowest, run.fastest)]
    if max(speeds) > 8 * min(speeds):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator(list(_decades(min(speeds), max(speeds)))))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(min(speeds) / 1.6, max(speeds) * 1.6)
    else:
        axis.margins(x=0.2)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.margins(y=0.15)
    axis.grid()
    axis.set_xlabel("frames/s" + (" (log scale)" if axis.get_xscale() == "log" else ""))
    axis.set_ylabel(f"{runs[0].score_name} (%)")


def unbeaten(runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs than which no other one is better in score or speed without being worse in the other."""

    def beats(other: RunResult, run: RunResult) -> bool:
        better = other.score >= run.score and _speed(other) >= _speed(run)
        return better and (other.score > run.score or _speed(other) > _speed(run))

    return [run for run in runs if not any(beats(other, run) for other in runs)]


def _speed(run: RunResult) -> float:
    return run.description["totals"]["frames_per_second"]


def _decades(low: float, high: float) -> Iterator[float]:
    """1, 2, 5, 10, ... from below `low` to above `high`."""
    for exponent in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**exponent
            if low / 1.6 <= value <= high * 1.6:
                yield value


def plot_videos(runs: Sequence[RunResult]) -> dict[str, str]:
    """{dataset: SVG} of J&F per video: one panel of bars per run, the videos in the order of the main run's J&F.

    The videos share their rows across panels, so that a run is read downwards and a video is read across. Datasets
    with more videos or runs than that is readable for are left out: they have tables (`video_tables`).
    """
    figures = {}
    scored = [run for run in runs if run.scores is not None]
    families = list(dict.fromkeys(run.family for run in runs))
    for dataset, main in main_runs(scored).items():
        chosen = [run for run in scored if run.dataset == dataset]
        if not fits_bars(chosen):
            continue
        videos = ordered(main, chosen)
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": dataset}):
            titles = [_wrapped(run.name) for run in chosen]
            height = 0.41 + 0.14 * max(title.count("\n") + 1 for title in titles) + 0.2 * len(videos)
            width = 1.75 if len(chosen) > 2 else 3.2
            figure, axes = make_panels(len(chosen), width=width, height=height, columns=len(chosen), left=1.6)
            for axis, run, title in zip(axes, chosen, titles, strict=True):
                colour = SERIES[families.index(run.family) % len(SERIES)]
                _draw_videos(axis, run, videos, colour, named=axis is axes[0])
                axis.set_title(title, fontsize=8.5, fontweight="bold" if run is main else "normal")
            figures[dataset] = as_svg(figure, f"videos-{dataset}")
    return figures


def _draw_videos(axis: Axes, run: RunResult, videos: list[str], colour: str, *, named: bool) -> None:
    for row, video in enumerate(videos):
        score = run.video_scores.get(video)
        if score is None:
            continue  # the run does not have this video: an empty row, not a zero
        axis.barh(row, 100 * score, height=0.66, color=colour)
        inside = score > 0.5
        axis.text(
            100 * score + (-2 if inside else 2),
            row,
            f"{100 * score:.1f}",
            ha="right" if inside else "left",
            va="center_baseline",
            fontsize=7.5,
            color=PAPER if inside else INK,
        )
    axis.set_xlim(0, 100)
    axis.set_ylim(len(videos) - 0.4, -0.6)
    axis.set_yticks(range(len(videos)), [shortened(video, 24) for video in videos] if named else [""] * len(videos))
    axis.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)


def _wrapped(name: str, width: int = 20) -> str:
    """A run's name in lines of at most `width` characters, broken before each swept setting where there are any."""
    lines = [""]
    for part in re.findall(r"@?[^@]+|@", name):
        while len(part) > width:
            lines, part = [*lines, part[:width]], part[width:]
        if len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line for line in lines if line)


def shortened(text: str, length: int) -> str:
    """At most `length` characters of a text; what is left out is marked."""
    return text if len(text) <= length else text[: length - 1] + "…"
