"""Average precision and recall of instances through videos: YouTube-VIS, and UVO, which ignores categories."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.instances import (
    Annotations,
    FoundInstance,
    TrueInstance,
    read_annotations,
    read_results,
    tube_ious,
)
from vosflow.evaluation.protocols.base import InstanceProtocol
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import ObjectSummary, Statistics, Summary
from vosflow.manifest import Manifest

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_FOUND = (1, 10, 100)
AREAS = {"": (0, 1e10), "-small": (0, 128**2), "-medium": (128**2, 256**2), "-large": (256**2, 1e10)}
WHOLE_VIDEO = "all"  # what stands in the column of frames
UNMATCHED = -1


@dataclass(frozen=True)
class Matches:
    """What the results of one video, best score first, were matched to, in one category and one range of areas.

    Attributes:
        scores: float64 [D].
        true: index of the ground-truth instance, or UNMATCHED, int64 [T, D] for T thresholds.
        ignored: whether a result counts neither as right nor as wrong, bool [T, D].
        counted: whether a ground-truth instance counts, bool [G].
    """

    scores: np.ndarray
    true: np.ndarray
    ignored: np.ndarray
    counted: np.ndarray


class YouTubeVis(InstanceProtocol):
    """YouTube-VIS: the rules of ytvoseval of youtubevos/cocoapi at f3f9948, which are COCO's over whole videos.

    1. The IoU of two instances is the sum of their intersections over all frames divided by the sum of their unions.
       A frame where only one of them is present adds to the union only; there is no credit for common absence.
       An instance without any pixel has IoU 0 with everything.
    2. In each video and category, results are taken by falling score (of equals, the earlier in the file first), 100 at
       most. Each takes the free instance of the ground truth with the highest IoU at or above the threshold; of equals
       the last. An instance that counts is preferred to an ignored one, whatever their IoUs.
    3. Ignored are crowds, and what lies outside the range of areas. A crowd may be matched many times. (Unlike COCO's,
       the IoU with a crowd is an ordinary one.) A result that is matched to an ignored instance counts neither as right
       nor as wrong; neither does an unmatched one whose own area lies outside the range.
    4. The area of an instance is the mean over the frames where it is present: of the ground truth as the file states
       it. Ranges: small to 128^2, medium to 256^2, large above (not COCO's 32^2 and 96^2).
    5. Precision is interpolated (never rising with recall) and read at the recalls 0, 0.01, ..., 1; where a recall is
       not reached it is 0. AP is the mean over these, over the IoU thresholds 0.5, 0.55, ..., 0.95, and over
       categories with ground truth. AP50 and AP75 are those of one threshold.
    6. AR@k is the recall reached with the k best results of each video and category, as a mean over the thresholds
       and categories. AR by area is that of 100 results.
    7. Videos count in the order of their ids: it decides ties of scores between them.

    In the score files J is the highest spatio-temporal IoU of an instance with one of the 100 results, over the
    whole video; there is no F.
    """

    name = "ytvis"
    about = (
        "YouTube-VIS: average precision and recall of instances with scores, over their spatio-temporal IoU, by the "
        "rules of ytvoseval; means over categories. Takes a JSON file of annotations and a results.json."
    )
    headline = "AP"
    notes = ("J in the score files is the best spatio-temporal IoU of each instance; there is no F",)
    by_category = True

    def evaluate(
        self, manifest: Manifest, results: Path, *, strict: bool, progress: Callable[[str, int, int], None] | None
    ) -> tuple[list[Score], Summary, dict[str, int]]:
        annotations = read_annotations(manifest)
        found = read_results(results, manifest, annotations.categories if self.by_category else None)
        missing = {video: 1 for video, instances in found.items() if not instances}
        if missing and strict:
            raise VosflowError(
                f"{len(missing)} of {len(found)} videos have no results: {', '.join(list(missing)[:8])}",
                path=results,
                expected="at least one instance for each video",
                remedy="run the tracker on these videos; if it found nothing there: --no-strict",
            )
        table = _Table(self._categories(annotations))
        videos = sorted(manifest.videos, key=lambda video: video.external_id)
        for done, video in enumerate(videos, start=1):
            for category, members in table.categories.items():
                true = [instance for instance in annotations.instances[video.name] if instance.category in members]
                true.sort(key=lambda instance: instance.category)
                table.add(video.name, category, true, self._of_category(found[video.name], members))
            if progress is not None:
                progress(video.name, done, len(videos))
        return table.scores(manifest), Summary(table.objects(manifest), table.totals(), table.object_columns), missing

    def _categories(self, annotations: Annotations) -> dict[str, frozenset[int]]:
        """What is averaged: {name: category ids}, in the order of the ids."""
        ids = sorted(annotations.categories)
        if not self.by_category:
            return {"": frozenset(ids)}
        return {f"{number} {annotations.categories[number]}": frozenset((number,)) for number in ids}

    def _of_category(self, found: Sequence[FoundInstance], members: frozenset[int]) -> list[FoundInstance]:
        return [instance for instance in found if not self.by_category or instance.category in members]


class Uvo(YouTubeVis):
    """UVO, dense: the rules of YouTube-VIS without categories, as the evaluation script that UVO ships.

    1. Every result counts as of UVO's one category, whatever it says.
    2. All instances of a video are matched together (`useCats = False`).
    3. All else as in `YouTubeVis`. The main number is AR@100.
    """

    name = "uvo"
    about = (
        "UVO, dense: average recall and precision of class-agnostic instances with scores, over their spatio-temporal "
        "IoU, by UVO's script over ytvoseval. Takes a JSON file of annotations and a results.json."
    )
    headline = "AR@100"
    by_category = False


class _Table:
    """All that was matched: numbers only, no masks."""

    object_columns = tuple(f"AR@{most}" for most in MOST_FOUND)

    def __init__(self, categories: dict[str, frozenset[int]]) -> None:
        self.categories = categories
        self._matches: dict[tuple[str, str], list[Matches]] = {
            (name, area): [] for name in categories for area in AREAS
        }
        self._objects: dict[str, list[ObjectSummary]] = {}

    def add(self, video: str, category: str, true: list[TrueInstance], found: list[FoundInstance]) -> None:
        """Match the instances of one video and category, in all ranges of areas."""
        found = sorted(found, key=lambda instance: -instance.score)[: MOST_FOUND[-1]]  # stable
        ious = tube_ious([instance.tube for instance in found], [instance.tube for instance in true])
        for area, limits in AREAS.items():
            self._matches[category, area].append(match_instances(ious, true, found, limits))
        matches = self._matches[category, ""][-1]
        for index, instance in enumerate(true):
            if matches.counted[index]:
                self._objects.setdefault(video, []).append(
                    _object_summary(video, instance.id, category, ious[:, index], matches.true == index)
                )

    def objects(self, manifest: Manifest) -> tuple[ObjectSummary, ...]:
        """Each ground-truth object that counts, in the manifest's video order."""
        return tuple(entry for video in manifest.videos for entry in self._objects.get(video.name, []))

    def scores(self, manifest: Manifest) -> list[Score]:
        """One row per object: J is its highest IoU."""
        return [Score(o.video, o.object, WHOLE_VIDEO, o.J.mean, math.nan) for o in self.objects(manifest)]

    def totals(self) -> dict[str, float]:
        """The publisher's statistics; NaN where a range of areas has no ground truth."""
        precisions = {area: self._precisions(area) for area in AREAS}
        return {
            "AP": _mean(precisions[""]),
            "AP50": _mean(precisions[""][0]),
            "AP75": _mean(precisions[""][5]),
            **{f"AP{area}": _mean(precisions[area]) for area in AREAS if area},
            **{f"AR@{most}": _mean(self._recalls("", most)) for most in MOST_FOUND},
            **{f"AR{area}": _mean(self._recalls(area, MOST_FOUND[-1])) for area in AREAS if area},
        }

    def _precisions(self, area: str) -> np.ndarray:
        """float64 [T, R, categories with ground truth]."""
        curves = [precision_curves(self._matches[name, area]) for name in self.categories]
        return np.stack([curve for curve in curves if curve is not None] or [np.full((10, 101), np.nan)], axis=-1)

    def _recalls(self, area: str, most: int) -> np.ndarray:
        """float64 [T, categories with ground truth]."""
        recalls = [reached_recalls(self._matches[name, area], most) for name in self.categories]
        return np.stack([recall for recall in recalls if recall is not None] or [np.full(10, np.nan)], axis=-1)


def match_instances(
    ious: np.ndarray, true: Sequence[TrueInstance], found: Sequence[FoundInstance], limits: tuple[float, float]
) -> Matches:
    """Match results to the ground truth of one video and category, at each threshold.

    Args:
        ious: float64 [D, G]; results best score first.
        limits: areas below the first or above the second are ignored.
    """
    low, high = limits
    crowd = np.array([instance.crowd for instance in true], bool)
    counted = np.array([low <= instance.area <= high for instance in true], bool) & ~crowd
    matched = np.full((len(THRESHOLDS), len(found)), UNMATCHED)
    for row, threshold in zip(matched, THRESHOLDS, strict=True):
        free = np.ones(len(true), bool)
        for index in np.flatnonzero((ious >= threshold).any(axis=1)):
            possible = (ious[index] >= threshold) & (free | crowd)
            preferred = possible & counted if (possible & counted).any() else possible
            if preferred.any():
                best = np.where(preferred, ious[index], -1.0)
                row[index] = len(best) - 1 - np.argmax(best[::-1])  # the last of equals
                free[row[index]] = False
    outside = np.array([not low <= instance.area <= high for instance in found], bool)
    of_ignored = (matched != UNMATCHED) & ~np.append(counted, True)[matched]
    ignored = of_ignored | ((matched == UNMATCHED) & outside)
    return Matches(np.array([instance.score for instance in found], np.float64), matched, ignored, counted)


def precision_curves(matches: Iterable[Matches]) -> np.ndarray | None:
    """Interpolated precision at each threshold and recall, float64 [T, R]; None without ground truth that counts."""
    matches = list(matches)
    total = sum(int(entry.counted.sum()) for entry in matches)
    if total == 0:
        return None
    order = np.argsort(-np.concatenate([entry.scores for entry in matches]), kind="stable")
    ignored = np.concatenate([entry.ignored for entry in matches], axis=1)[:, order]
    hit = np.concatenate([entry.true != UNMATCHED for entry in matches], axis=1)[:, order]
    curves = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for curve, right, wrong in zip(curves, hit & ~ignored, ~hit & ~ignored, strict=True):
        right, wrong = np.cumsum(right), np.cumsum(wrong)
        precision = right / (wrong + right + np.spacing(1))
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(right / total, RECALLS, side="left")
        reached = places < len(falling)
        curve[reached] = falling[places[reached]]
    return curves


def reached_recalls(matches: Iterable[Matches], most: int) -> np.ndarray | None:
    """Recall at each threshold with the `most` best results of each video, float64 [T]; None without ground truth."""
    matches = list(matches)
    total = sum(int(entry.counted.sum()) for entry in matches)
    if total == 0:
        return None
    right = [((entry.true != UNMATCHED) & ~entry.ignored)[:, :most].sum(axis=1) for entry in matches]
    return np.sum(right, axis=0) / total


def _object_summary(video: str, object_id: int, category: str, ious: np.ndarray, matched: np.ndarray) -> ObjectSummary:
    """`ious` [D] and `matched` [T, D] of one object with the results, best score first."""
    best = float(ious.max(initial=0.0))
    J = Statistics(best, float(best > THRESHOLDS[0]), 0.0)
    F = Statistics(math.nan, math.nan, math.nan)
    recalls = tuple(float(matched[:, :most].any(axis=1).mean()) for most in MOST_FOUND)
    return ObjectSummary(video, object_id, J, F, recalls, group=category)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values))
