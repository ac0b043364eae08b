"""Figures of a study as inline SVG: swept settings, accuracy against speed, and every video of every run.

The SVGs take the page's font and colours: text is text, and each colour is a CSS variable with the light theme's
value as its fallback, so that one figure serves light, dark and print. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from vosflow.report.results import RunResult, main_runs

SERIES = ("#0072b2", "#d55e00", "#009e73", "#b3589a", "#8a6d00", "#3a9bd9", "#6b5bd2", "#7a7a7a")
"""Hues after Okabe and Ito, "Color Universal Design" (2008), darkened where a thin line on white needs it."""
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
INK, SOFT, RULE, PAPER = "#1b1f24", "#5b6470", "#d9dde2", "#fefefe"
VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    RULE: "rule",
    PAPER: "paper",
    **{colour: f"series-{index}" for index, colour in enumerate(SERIES)},
}
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that layouts are the same everywhere
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
Point = tuple[float, float, bool]
"""Value of the setting, score in percent, whether the value is out of distribution."""
Spot = tuple[float, float]
Box = tuple[float, float, float, float]
"""left, bottom, right, top"""
PANELS_IN_A_ROW = 6  # per-video panels: more make the bars too short to compare


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
                _legend_below(figure)
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
    colour, marker = SERIES[family % len(SERIES)], MARKERS[family % len(MARKERS)]
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

    A thin line reaches from a run's slowest to its fastest video. One colour per tracker or checkpoint. Marks of runs
    that took arrays from other runs are hollow. Every mark is labelled with its run, placed so that no two labels
    collide.
    """
    scored = [run for run in runs if not math.isnan(run.score) and run.description["totals"]["frames_per_second"]]
    counts = Counter(run.dataset for run in scored)
    datasets = [name for name, count in counts.items() if count > 1]
    if not datasets:
        return None
    families = list(dict.fromkeys(run.family for run in runs))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "speed"}):
        figure, axes = make_panels(len(datasets), width=6.4, height=4.2, columns=2)
        for axis, dataset in zip(axes, datasets, strict=True):
            _draw_speed(axis, [run for run in scored if run.dataset == dataset], families)
            axis.set_title(dataset)
        _legend_below(figure)
        figure.draw_without_rendering()  # gives the panels their final places
        for axis in axes:
            _place_labels(axis)
        return as_svg(figure, "speed")


def _draw_speed(axis: Axes, runs: Sequence[RunResult], families: list[str]) -> None:
    for run in runs:
        index = families.index(run.family)
        speed, score = run.description["totals"]["frames_per_second"], 100 * run.score
        colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
        axis.plot(speed, score, marker, color=colour, markersize=7, label=run.family)
        if run.is_sped_up:
            axis.plot(speed, score, marker, color=colour, markersize=7, markerfacecolor=PAPER)
        axis.hlines(score, run.slowest, run.fastest, color=colour, linewidth=1, alpha=0.45, zorder=1)
        label = run.name.removeprefix(f"{run.family},")  # the legend says the rest
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


def _decades(low: float, high: float) -> Iterator[float]:
    """1, 2, 5, 10, ... from below `low` to above `high`."""
    for exponent in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**exponent
            if low / 1.6 <= value <= high * 1.6:
                yield value


def _place_labels(axis: Axes) -> None:
    """Move each annotation to the nearest place where it covers no mark, no other label and no border.

    Greedy, from the most crowded label to the least, over rings of offsets around its mark; a label that ends up
    apart from its mark gets a thin leader line, which must not cross other labels either.
    """
    figure = axis.get_figure()
    renderer = figure.canvas.get_renderer()
    marks = {label: tuple(axis.transData.transform(label.xy)) for label in axis.texts}
    frame = axis.get_window_extent(renderer)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks.values()]
    for lines in axis.collections:  # from the slowest to the fastest video
        taken += [(*start - 1, *end + 1) for start, end in map(axis.transData.transform, lines.get_segments())]
    leaders: list[tuple[Spot, Spot]] = []

    def crowd(label: Text) -> float:
        x, y = marks[label]
        return -sum(1 / (1 + math.hypot(x - u, y - v)) for u, v in marks.values())

    for label in sorted(axis.texts, key=crowd):
        extent = label.get_window_extent(renderer)
        width, height = extent.width + 2, extent.height + 2
        x, y = marks[label]
        best = None
        for ring, dx, dy in _offsets():
            left = x + dx if dx > 0 else x + dx - width if dx < 0 else x - width / 2
            box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
            nearest = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
            outside = box[0] < frame.x0 or box[2] > frame.x1 or box[1] < frame.y0 or box[3] > frame.y1
            own = (x - 6, y - 6, x + 6, y + 6)
            crossed = sum(_crosses((x, y), nearest, other) for other in taken if other != own) if ring > 1 else 0
            crossed += sum(_crosses(*leader, box) for leader in leaders)
            cost = sum(_overlap(box, other) for other in taken) + 200 * crossed + 1e6 * outside
            if best is None or cost < best[0]:
                best = (cost, ring, dx, dy, box, nearest)
            if cost == 0:
                break
        _, ring, dx, dy, box, nearest = best
        taken.append(box)
        points = 72 / figure.dpi  # per pixel
        label.set_ha("left" if dx > 0 else "right" if dx < 0 else "center")
        label.set_position((dx * points, dy * points))
        if ring > 1:
            leaders.append(((x, y), nearest))
            ends = axis.transData.inverted().transform([(x, y), nearest])
            axis.plot(ends[:, 0], ends[:, 1], color=SOFT, linewidth=0.7, zorder=1, scalex=False, scaley=False)


def _offsets() -> Iterator[tuple[int, float, float]]:
    """(ring, dx, dy) in pixels, nearest first."""
    for ring in range(1, 21):
        near, far = 4.0 + 5 * ring, 6.0 + 7 * ring
        for dx, dy in (
            (near, 0),
            (-near, 0),
            (0, far),
            (0, -far),
            (near, far),
            (near, -far),
            (-near, far),
            (-near, -far),
        ):
            yield ring, dx, dy


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _crosses(start: Spot, end: Spot, box: Box) -> bool:
    """Whether a line passes through a box, tried at points along it."""
    for step in range(1, 12):
        x, y = (start[axis] + (end[axis] - start[axis]) * step / 12 for axis in (0, 1))
        if box[0] < x < box[2] and box[1] < y < box[3]:
            return True
    return False


def plot_videos(runs: Sequence[RunResult]) -> dict[str, str]:
    """{dataset: SVG} of J&F per video: one panel of bars per run, the videos in the order of the main run's J&F.

    The videos share their rows across panels, so that a run is read downwards and a video is read across.
    """
    figures = {}
    best = main_runs([run for run in runs if run.scores is not None])
    families = list(dict.fromkeys(run.family for run in runs))
    for dataset, main in best.items():
        chosen = [run for run in runs if run.dataset == dataset and run.scores is not None]
        videos = sorted(main.video_scores, key=lambda video: -main.video_scores[video])
        for run in chosen:
            videos += [video for video in run.video_scores if video not in videos]
        with matplotlib.rc_context(STYLE | {"svg.hashsalt": dataset}):
            columns = min(len(chosen), PANELS_IN_A_ROW)
            figure, axes = make_panels(
                len(chosen),
                width=1.75 if columns > 2 else 3.2,
                height=0.55 + 0.2 * len(videos),
                columns=columns,
                left=1.6,
            )
            for index, (axis, run) in enumerate(zip(axes, chosen, strict=True)):
                colour = SERIES[families.index(run.family) % len(SERIES)]
                _draw_videos(axis, run, videos, colour, named=index % columns == 0, is_main=run is main)
            figures[dataset] = as_svg(figure, f"videos-{dataset}")
    return figures


def _draw_videos(axis: Axes, run: RunResult, videos: list[str], colour: str, *, named: bool, is_main: bool) -> None:
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
    axis.set_yticks(range(len(videos)), [_shortened(video, 24) for video in videos] if named else [""] * len(videos))
    axis.tick_params(axis="y", labelsize=8.5, labelcolor=INK)
    axis.tick_params(axis="x", labelsize=7.5)
    axis.xaxis.set_major_locator(FixedLocator([0, 50, 100]))
    axis.grid(axis="x")
    axis.spines["left"].set_visible(False)
    axis.set_title(_wrapped(run.name), fontsize=8.5, fontweight="bold" if is_main else "normal")


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


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def make_panels(
    count: int, *, width: float, height: float, columns: int = 3, left: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` equal panels of `width` x `height` inches, at most `columns` in a row."""
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(left + columns * width, rows * height + 0.3), layout="constrained")
    FigureCanvasAgg(figure)  # measures text; the file is written by the SVG backend
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    for axis in axes:
        axis.set_facecolor("none")
    figure.patch.set_alpha(0)
    return figure, axes


def _legend_below(figure: Figure) -> None:
    handles = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = 1 if max(map(len, handles)) > 40 else min(3, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns, fontsize=9)


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for an HTML page: ids of its own, colours as CSS variables."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")  # HTML needs neither
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    return text
