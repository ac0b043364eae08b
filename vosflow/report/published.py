"""Published numbers beside reproduced ones: which rows of the catalog a run may be compared with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vosflow.catalog import PublishedRow, find_split, load_published
from vosflow.errors import VosflowError
from vosflow.report.results import RunResult
from vosflow.trackers.sam2 import TRAINED_IMAGE_SIZE, TRAINED_NUM_MASKMEM

METRICS = {"J&F": "J&F-Mean", "J": "J-Mean", "F": "F-Mean"}
AS_PUBLISHED = {"sam2": {"num_maskmem": TRAINED_NUM_MASKMEM, "image_size": TRAINED_IMAGE_SIZE, "precision": "bfloat16"}}
"""Values that say aloud what the released networks and their authors' script do anyway: they change no method."""


@dataclass(frozen=True)
class Comparison:
    """A published number and the run that reproduces it; fractions. `difference` = reproduced - published."""

    run: RunResult
    row: PublishedRow
    published: float
    reproduced: float

    @property
    def difference(self) -> float:
        return self.reproduced - self.published


def compare(run: RunResult, published: Iterable[PublishedRow] | None = None) -> list[Comparison]:
    """The published numbers that `run` reproduces, in the catalog's order (tables show the first J&F).

    They are for the same checkpoint, dataset and split. The run is at default settings, scored, and over all videos
    of the split, as far as the catalog knows their number. `published` replaces the catalog's rows.
    """
    stated = AS_PUBLISHED.get(run.tracker, {})
    changed = [name for name, value in run.changed_settings.items() if name not in stated or stated[name] != value]
    if run.scores is None or run.checkpoint is None or changed or not _is_complete(run):
        return []
    identity = (run.checkpoint, run.description["dataset"], run.description["split"])
    return [
        Comparison(run, row, row.value / 100, run.scores[METRICS[row.metric]])
        for row in (load_published() if published is None else published)
        if (row.checkpoint, row.dataset, row.split) == identity
    ]


def _is_complete(run: RunResult) -> bool:
    try:
        videos = find_split(run.description["dataset"], run.description["split"]).videos
    except VosflowError:
        return True  # a dataset of the user's own: nothing is published about it
    return videos is None or videos == len(run.description["videos"])
