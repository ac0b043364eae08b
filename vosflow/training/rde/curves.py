"""The curves of a training: rows of numbers, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

COLUMNS = (
    "iteration",
    "learning_rate",
    "counted_share",
    "loss",
    "ce",
    "kl",
    "f2",
    "f4",
    "iou",
    "held_out_J",
    "skipped",
    "seconds",
)
"""iou: of predicted and true masks of the training clips. skipped: iterations that changed no weights, because the loss
was not finite, or its gradient, or that was huge. Means are over what is finite. seconds: of one iteration. Empty where
there is none."""

Row = Mapping[str, float]


def curves_text(rows: Sequence[Row]) -> str:
    """The rows as CSV, numbers with six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([f"{row[name]:.6g}" if name in row else "" for name in COLUMNS] for row in rows)
    return text.getvalue()


class TensorBoard:
    """Writes rows as events for TensorBoard; those that a killed process wrote are hidden from iteration `first` on."""

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first)

    def add(self, row: Row) -> None:
        """Write one row."""
        for name in row.keys() - {"iteration"}:
            self._writer.add_scalar(name, row[name], int(row["iteration"]))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()
