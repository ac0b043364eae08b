"""Comparing two sets of predictions: differences, their confidence intervals, and the videos that make them.

The interval is that of a paired bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13:
percentile intervals): videos are drawn with replacement, both sets are scored on the same draw, and the total is taken
again. The unit is the video, because objects and frames of one video are not independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.statistics import ObjectSummary, Statistics, Summary

RESAMPLES = 10_000
CONFIDENCE = 0.95
AT_ONCE = 1_000  # resamples held in memory
ROUNDING = 1e-9


@dataclass(frozen=True)
class Difference:
    """One column of global_results.csv: both totals and their difference, all fractions.

    `interval` is the confidence interval of the difference; None where the total is no mean over objects, so that it
    cannot be taken again from resampled videos, or where there are fewer than two videos to draw.
    """

    column: str
    first: float
    second: float
    interval: tuple[float, float] | None

    @property
    def difference(self) -> float:
        """first - second."""
        return self.first - self.second


@dataclass(frozen=True)
class Comparison:
    """Two sets of predictions of the same videos.

    Attributes:
        columns: in the order of the protocol's totals.
        videos: number of videos, the unit of resampling.
        ranked_by: the column that `video_differences` are of; None if no column is a mean over objects.
        video_differences: {video: first - second}, from the largest gain to the largest loss.
    """

    columns: tuple[Difference, ...]
    videos: int
    ranked_by: str | None
    video_differences: dict[str, float]


def compare(first: Summary, second: Summary, headline: str, *, seed: int = 0) -> Comparison:
    """Compare two summaries of one protocol over the same videos.

    Args:
        headline: the column to rank videos by, where its total is a mean over objects.
        seed: of the resampling; the same seed gives the same intervals.

    Raises:
        VosflowError: the two are of different videos or have different columns.
    """
    videos = _common_videos(first, second)
    if list(first.totals) != list(second.totals):
        raise VosflowError(
            "the two sets have different columns",
            expected="two sets scored by the same protocol",
            remedy="score both again, by one protocol",
        )
    means = {}
    for column in first.totals:
        pair = _VideoMeans.of(first, column, videos), _VideoMeans.of(second, column, videos)
        if pair[0] is not None and pair[1] is not None:
            means[column] = pair
    intervals = _intervals(means, len(videos), seed) if len(videos) > 1 else {}
    columns = tuple(
        Difference(column, value, second.totals[column], intervals.get(column))
        for column, value in first.totals.items()
    )
    ranked_by = headline if headline in means else "J&F-Mean" if "J&F-Mean" in means else next(reversed(means), None)
    differences = means[ranked_by][0].per_video - means[ranked_by][1].per_video if ranked_by else np.empty(0)
    ranked = {videos[i]: float(differences[i]) for i in np.argsort(-differences, kind="stable")}
    ranked = {video: difference for video, difference in ranked.items() if not math.isnan(difference)}
    return Comparison(columns, len(videos), ranked_by, ranked)


class _VideoMeans:
    """What one column's total is made of: per group, the sum and the number of objects in each video, [groups, V]."""

    def __init__(self, sums: np.ndarray, counts: np.ndarray) -> None:
        self._sums, self._counts = sums, counts

    @classmethod
    def of(cls, summary: Summary, column: str, videos: list[str]) -> _VideoMeans | None:
        """None if the column's total is no mean over objects, nor a mean over groups of such means."""
        values = object_values(summary, column)
        if values is None:
            return None
        places = {video: index for index, video in enumerate(videos)}
        for groups in ([o.group for o in summary.objects], [""] * len(values)):
            names = sorted(set(groups))
            sums, counts = np.zeros((2, len(names), len(videos)))
            for entry, group, value in zip(summary.objects, groups, values, strict=True):
                if not math.isnan(value):
                    sums[names.index(group), places[entry.video]] += value
                    counts[names.index(group), places[entry.video]] += 1
            means = cls(sums, counts)
            if abs(means.totals(np.ones((1, len(videos))))[0] - summary.totals[column]) < ROUNDING:
                return means
        return None

    @property
    def per_video(self) -> np.ndarray:
        """Mean over the objects of each video, float64 [V]; NaN where a video has none."""
        return _divide(self._sums.sum(axis=0), self._counts.sum(axis=0))

    def totals(self, weights: np.ndarray) -> np.ndarray:
        """The total if each video counted so often, float64 [B], from `weights` [B, V]; NaN where a group is empty."""
        return _divide(weights @ self._sums.T, weights @ self._counts.T).mean(axis=1)


def object_values(summary: Summary, column: str) -> np.ndarray | None:
    """What each object contributes to a column of the totals, float64 [objects]; None if objects have no such value.

    NaN where an object does not count in the column: "J-seen-Mean" is of the objects of the group "seen".
    """
    if column in summary.object_columns:
        index = summary.object_columns.index(column)
        return np.array([entry.extra[index] for entry in summary.objects], np.float64)
    measure, *group, statistic = column.split("-") if "-" in column else (column, "")
    if measure not in ("J", "F", "J&F") or len(group) > 1 or statistic.lower() not in Statistics._fields:
        return None
    counts = [not group or entry.group == group[0] for entry in summary.objects]
    values = [_value(entry, measure, statistic.lower()) for entry in summary.objects]
    return np.where(counts, values, np.nan)


def _value(entry: ObjectSummary, measure: str, statistic: str) -> float:
    values = [getattr(getattr(entry, name), statistic) for name in measure.split("&")]
    return sum(values) / len(values)


def _common_videos(first: Summary, second: Summary) -> list[str]:
    names = [list(dict.fromkeys(entry.video for entry in summary.objects)) for summary in (first, second)]
    only = [sorted(set(names[0]) - set(names[1])), sorted(set(names[1]) - set(names[0]))]
    if any(only):
        raise VosflowError(
            f"the two sets are not of the same videos: {len(only[0])} are only in the first, {len(only[1])} only in "
            f"the second, for instance {(only[0] + only[1])[0]}",
            expected="two sets of predictions for one list of videos",
            remedy="score both with the same --videos",
        )
    return names[0]


def _intervals(
    means: dict[str, tuple[_VideoMeans, _VideoMeans]], videos: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the differences; all columns are taken from the same draws."""
    drawn: dict[str, list[np.ndarray]] = {column: [] for column in means}
    for weights in _resamples(videos, seed):
        for column, (first, second) in means.items():
            drawn[column].append(first.totals(weights) - second.totals(weights))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    bounds = {column: np.nanquantile(np.concatenate(values), tails) for column, values in drawn.items()}
    return {column: (float(low), float(high)) for column, (low, high) in bounds.items()}


def _resamples(videos: int, seed: int) -> Iterator[np.ndarray]:
    """How often each video is drawn, int64 [B, V], in chunks."""
    random = np.random.default_rng(seed)
    for _ in range(RESAMPLES // AT_ONCE):
        yield random.multinomial(videos, np.full(videos, 1 / videos), size=AT_ONCE)


def _divide(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)
