"""Mean, recall and decay: from the score rows of a run to the numbers of a paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vosflow.evaluation.scores import Score

RECALL_THRESHOLD = 0.5
DECAY_BINS = 4
SEEN, UNSEEN = "seen", "unseen"


class Statistics(NamedTuple):
    """Statistics of one measure of one object over its scored frames, as fractions."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class ObjectSummary:
    """Statistics of one object of one video.

    `extra` are the values of `Summary.object_columns`, NaN where the object has none. `group` is the group that it is
    averaged in first ("seen", "unseen"), "" where the protocol has no groups.
    """

    video: str
    object: int
    J: Statistics
    F: Statistics
    extra: tuple[float, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Summary:
    """What a run scored: each object (in the order of the rows) and the whole.

    `totals` has the columns of global_results.csv, in that order. `object_columns` names the values of
    `ObjectSummary.extra`, what a protocol adds to per_object_results.csv; each is named like the column of `totals`
    that it is averaged into.
    """

    objects: tuple[ObjectSummary, ...]
    totals: dict[str, float]
    object_columns: tuple[str, ...] = ()


Rows = Sequence[Score]
"""The rows of one object, in temporal order."""


def summarize_objects(
    scores: Iterable[Score],
    extra: Callable[[Rows], tuple[float, ...]] | None = None,
    group: Callable[[str, int], str] | None = None,
) -> tuple[ObjectSummary, ...]:
    """Statistics of each object, in the order of the rows.

    Args:
        scores: rows; those of one object in temporal order.
        extra: what a protocol adds of an object, from its rows.
        group: (video, object) -> the group it is averaged in.
    """
    rows: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        rows.setdefault((score.video, score.object), []).append(score)
    return tuple(
        ObjectSummary(
            video,
            object_id,
            statistics([score.J for score in of_object]),
            statistics([score.F for score in of_object]),
            () if extra is None else extra(of_object),
            "" if group is None else group(video, object_id),
        )
        for (video, object_id), of_object in rows.items()
    )


def summarize(scores: Iterable[Score]) -> Summary:
    """Statistics of each object, and their means over all objects of all videos (not over videos, not over frames).

    Args:
        scores: rows; those of one object in temporal order. At least one.
    """
    objects = summarize_objects(scores)
    if not objects:
        raise ValueError("no scores to summarize")
    J = Statistics(*(mean(getattr(o.J, name) for o in objects) for name in Statistics._fields))
    F = Statistics(*(mean(getattr(o.F, name) for o in objects) for name in Statistics._fields))
    totals = {
        "J&F-Mean": (J.mean + F.mean) / 2,
        **{f"J-{name.capitalize()}": value for name, value in J._asdict().items()},
        **{f"F-{name.capitalize()}": value for name, value in F._asdict().items()},
    }
    return Summary(objects, totals)


def object_means(objects: Sequence[ObjectSummary]) -> dict[str, float]:
    """J&F, J and F as means over all objects: the totals of protocols that report neither recall nor decay."""
    J, F = mean(o.J.mean for o in objects), mean(o.F.mean for o in objects)
    return {"J&F-Mean": (J + F) / 2, "J-Mean": J, "F-Mean": F}


def group_means(objects: Sequence[ObjectSummary]) -> dict[str, float]:
    """J&F, J and F as means of two group means, those of the seen and of the unseen objects; these; and, for
    comparison, J&F as the mean over all objects.

    A group without objects makes all NaN but the other group's own means and the last: half of a number is none.
    """
    groups = {name: object_means([o for o in objects if o.group == name]) for name in (SEEN, UNSEEN)}
    seen, unseen = groups[SEEN], groups[UNSEEN]
    return {
        "J&F-Mean": (seen["J-Mean"] + seen["F-Mean"] + (unseen["J-Mean"] + unseen["F-Mean"])) / 4,
        "J-Mean": (seen["J-Mean"] + unseen["J-Mean"]) / 2,
        "J-seen-Mean": seen["J-Mean"],
        "J-unseen-Mean": unseen["J-Mean"],
        "F-Mean": (seen["F-Mean"] + unseen["F-Mean"]) / 2,
        "F-seen-Mean": seen["F-Mean"],
        "F-unseen-Mean": unseen["F-Mean"],
        "J&F-objects-Mean": object_means(objects)["J&F-Mean"],
    }


def column_mean(objects: Sequence[ObjectSummary], index: int) -> float:
    """Mean of one extra column over the objects that have a value in it; NaN if none has."""
    return mean(o.extra[index] for o in objects if not math.isnan(o.extra[index]))


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    values = list(values)
    return float(np.mean(values)) if values else math.nan


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
