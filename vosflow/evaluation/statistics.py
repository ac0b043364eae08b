"""Mean, recall and decay: from the score rows of a run to the numbers of a paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vosflow.evaluation.scores import Score

RECALL_THRESHOLD = 0.5
DECAY_BINS = 4


class Statistics(NamedTuple):
    """Statistics of one measure of one object over its scored frames, as fractions."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class ObjectSummary:
    """Statistics of one object of one video."""

    video: str
    object: int
    J: Statistics
    F: Statistics
    extra: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What a run scored: each object (in the order of the rows) and the whole.

    `totals` has the columns of global_results.csv, in that order. `object_columns` names the values of
    `ObjectSummary.extra`: what a protocol adds to per_object_results.csv.
    """

    objects: tuple[ObjectSummary, ...]
    totals: dict[str, float]
    object_columns: tuple[str, ...] = ()


def summarize(scores: Iterable[Score]) -> Summary:
    """Statistics of each object, and their means over all objects of all videos (not over videos, not over frames).

    Args:
        scores: rows; those of one object in temporal order. At least one.
    """
    rows: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        rows.setdefault((score.video, score.object), []).append(score)
    if not rows:
        raise ValueError("no scores to summarize")
    objects = tuple(
        ObjectSummary(video, object_id, statistics([s.J for s in of_object]), statistics([s.F for s in of_object]))
        for (video, object_id), of_object in rows.items()
    )
    J = Statistics(*(float(np.mean([getattr(o.J, name) for o in objects])) for name in Statistics._fields))
    F = Statistics(*(float(np.mean([getattr(o.F, name) for o in objects])) for name in Statistics._fields))
    totals = {
        "J&F-Mean": (J.mean + F.mean) / 2,
        **{f"J-{name.capitalize()}": value for name, value in J._asdict().items()},
        **{f"F-{name.capitalize()}": value for name, value in F._asdict().items()},
    }
    return Summary(objects, totals)


def statistics(values: Iterable[float]) -> Statistics:
    """Mean, recall and decay of one object's values in temporal order (at least one)."""
    values = np.asarray(values, np.float64)
    return Statistics(float(np.mean(values)), float(np.mean(values > RECALL_THRESHOLD)), decay(values))


def decay(values: np.ndarray) -> float:
    """How much is lost over time: the mean of the first quarter less the mean of the last, float64 [n] -> float.

    The bins of davis2017-evaluation: neighbours share one value. That toolkit keeps the bin edges in uint8, so that
    they wrap in videos with more than 256 scored frames and the decay becomes meaningless (NaN, often). Here they do
    not wrap; up to 256 frames both agree.
    """
    edges = (np.round(np.linspace(1, len(values), DECAY_BINS + 1) + 1e-10) - 1).astype(np.int64)
    return float(np.mean(values[edges[0] : edges[1] + 1]) - np.mean(values[edges[-2] : edges[-1] + 1]))
