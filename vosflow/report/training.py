"""Trainings on the page: curves, J before and after each stage, and sample masks."""

from __future__ import annotations

import base64
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes

from vosflow.errors import VosflowError
from vosflow.report.figures import SERIES, STYLE, as_svg, make_panels
from vosflow.training.rde.files import SAMPLES

PLOTTED = (("ce", "cross-entropy"), ("iou", "IoU of training clips"), ("held_out_J", "J of held-out clips"))


@dataclass(frozen=True)
class StageResult:
    """One trained stage.

    Attributes:
        training: its id in the config.
        stage: 0 to 3.
        rows: of curves.csv: {column: number}, without those that are empty.
        samples: file with masks of some clips.
    """

    training: str
    stage: int
    rows: list[dict[str, float]]
    samples: Path

    @property
    def name(self) -> str:
        """What runs call its weights."""
        return f"{self.training}.stage{self.stage}"

    def points(self, column: str) -> list[tuple[float, float]]:
        """(iteration, value) of a curve."""
        return [(row["iteration"], row[column]) for row in self.rows if column in row]

    def facts(self) -> dict[str, str]:
        """What the page's table says of it, by column."""
        loss, held_out = self.points("ce"), self.points("held_out_J")
        seconds = [row["seconds"] for row in self.rows if "seconds" in row]
        return {
            "Weights": self.name,
            "Iterations": f"{self.rows[-1]['iteration']:g}",
            "Cross-entropy, first": f"{loss[0][1]:.3f}" if loss else "",
            "last": f"{loss[-1][1]:.3f}" if loss else "",
            "J of held-out clips, before": f"{100 * held_out[0][1]:.1f}" if held_out else "",
            "after": f"{100 * held_out[-1][1]:.1f}" if held_out else "",
            "s/iteration": f"{sum(seconds) / len(seconds):.2f}" if seconds else "",
        }


def load_stages(curves: Sequence[tuple[str, str | Path]]) -> list[StageResult]:
    """The stages whose curves are in these files, {data}/training/{method}/stage{n}-{digest}/curves.csv.

    Args:
        curves: each with the id of its training; trainings may have a file in common.

    Raises:
        VosflowError: a file is missing or damaged.
    """
    return [_load_stage(training, Path(path)) for training, path in curves]


def _load_stage(training: str, path: Path) -> StageResult:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        stage = int(path.parent.name.removeprefix("stage").partition("-")[0])
        if not rows or "iteration" not in rows[-1]:
            raise ValueError("it has no rows")
    except (OSError, ValueError) as error:
        raise VosflowError(
            f"not readable as the curves of a training ({error})",
            path=path,
            expected="curves.csv in the folder of a stage, as training writes it",
            remedy="delete the stage's folder and run snakemake again",
        ) from error
    return StageResult(training, stage, rows, path.with_name(SAMPLES))


def plot_stages(stages: Sequence[StageResult]) -> str | None:
    """SVG of the curves of one training: a panel for each kind, all stages one after the other; None without any."""
    kinds = [(column, label) for column, label in PLOTTED if any(stage.points(column) for stage in stages)]
    if not kinds:
        return None
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "training"}):
        figure, axes = make_panels(len(kinds), width=4.2, height=3.0)
        for axis, (column, label) in zip(axes, kinds, strict=True):
            _draw_curve(axis, stages, column)
            axis.set_title(label)
            axis.set_xlabel("iteration, over all stages")
        axes[0].legend(fontsize=9)
        return as_svg(figure, f"training-{stages[0].training}")


def _draw_curve(axis: Axes, stages: Sequence[StageResult], column: str) -> None:
    start = 0.0
    for index, stage in enumerate(stages):
        points = stage.points(column)
        if points:
            iterations, values = zip(*points, strict=True)
            colour = SERIES[index % len(SERIES)]
            axis.plot([start + i for i in iterations], values, color=colour, label=f"stage {stage.stage}", marker=".")
        start += stage.rows[-1]["iteration"]
    axis.set_ylim(bottom=0)
    axis.grid()


def training_sections(stages: Sequence[StageResult]) -> list[dict]:
    """What the page shows of each training: its name, table, curves and pictures (data URIs)."""
    sections = []
    for name in dict.fromkeys(stage.training for stage in stages):
        own = [stage for stage in stages if stage.training == name]
        facts = [stage.facts() for stage in own]
        columns = [column for column in facts[0] if any(row[column] for row in facts)]  # none is held out by default
        sections.append(
            {
                "name": name,
                "columns": columns,
                "rows": [[row[column] for column in columns] for row in facts],
                "measured": any(stage.points("held_out_J") for stage in own),
                "curves": plot_stages(own),
                "samples": [(stage.stage, _as_uri(stage.samples)) for stage in own if stage.samples.is_file()],
            }
        )
    return sections


def _as_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
