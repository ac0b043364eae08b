"""Labels of marks in a plot, placed so that none covers another one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.text import Text

from vosflow.report.figures import SOFT

Spot = tuple[float, float]
Box = tuple[float, float, float, float]
"""left, bottom, right, top; like a `Spot` (x, y) in pixels of the figure."""


def place_labels(axis: Axes) -> None:
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
            cost = sum(overlap(box, other) for other in taken) + 200 * crossed + 1e6 * outside
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


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _crosses(start: Spot, end: Spot, box: Box) -> bool:
    """Whether a line passes through a box, tried at points along it."""
    for step in range(1, 12):
        x, y = (start[axis] + (end[axis] - start[axis]) * step / 12 for axis in (0, 1))
        if box[0] < x < box[2] and box[1] < y < box[3]:
            return True
    return False
