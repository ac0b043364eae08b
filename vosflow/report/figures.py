"""What all figures of the page share: their look, panels, legends, and how they become part of an HTML page.

The SVGs take the page's font and colours: text is text, and each colour is a CSS variable with the light theme's
value as its fallback, so that one figure serves light, dark and print. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from html import escape

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
LETTER, LEGEND_SIGN, LEGEND_ROW = 0.085, 0.6, 0.19  # inches, of a legend: a letter, a line's sign, a row
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def make_panels(
    count: int, *, width: float, height: float, columns: int = 3, left: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` equal panels of `width` x `height` inches, at most `columns` in a row.

    `left` inches are added to its width, for labels beside the first panel.
    """
    columns = min(count, columns)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(left + columns * width, rows * height + 0.3), layout="constrained")
    FigureCanvasAgg(figure)  # measures text; the file is written by the SVG backend
    axes = [figure.add_subplot(rows, columns, index + 1) for index in range(count)]
    for axis in axes:
        axis.set_facecolor("none")
    figure.patch.set_alpha(0)
    return figure, axes


def series(index: int) -> tuple[str, str]:
    """Colour and marker of a method: a pair of its own for each of the first 64."""
    return SERIES[index % len(SERIES)], MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def legend_below(figure: Figure) -> None:
    """One legend for all panels, below them; the figure grows by what it takes."""
    handles = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width, height = figure.get_size_inches()
    columns = max(1, min(len(handles), int(width / (LETTER * max(map(len, handles)) + LEGEND_SIGN))))
    figure.set_size_inches(width, height + LEGEND_ROW * math.ceil(len(handles) / columns))
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns, fontsize=9)


def as_svg(figure: Figure, name: str, titles: Mapping[str, str] | None = None) -> str:
    """The figure as an SVG element for an HTML page: ids of its own, colours as CSS variables.

    `titles` {gid of an artist: words} are shown by browsers when the mouse is over it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")  # HTML needs neither
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for gid, words in (titles or {}).items():
        group = f'<g id="{prefix}-{gid}">'
        text = text.replace(group, f"{group}<title>{escape(words)}</title>")
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    return text
