"""The protocol of MOSE v2, as published with its defects, and a variant without them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth
from vosflow.evaluation.measures import (
    BOUNDARY_TOLERANCE,
    Element,
    FrameCounts,
    areas,
    boundary_radius,
    boundary_scores,
    count_frame,
    disk,
    region_scores,
)
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import (
    ObjectSummary,
    Rows,
    Statistics,
    Summary,
    column_mean,
    mean,
    object_means,
    summarize_objects,
)
from vosflow.manifest import Manifest, VideoEntry

ADAPTIVE_TOLERANCE = 0.1  # of the square root of the object's area
EXTRA = ("F-dot", "absent")
OBJECT_COLUMNS = ("F-dot-Mean", "J&F-dot-Mean", "J&F-dot-disappearance", "J&F-dot-reappearance")
NOTHING = Statistics(0.0, 0.0, 0.0)


class MoseV2(Protocol):
    """MOSE v2: the published scorer, MOSEv2/sam2_rcms/tools/score.py in henghuiding/MOSE-api at 241977a.

    1. Frames 1 .. n - 2 count: not the first, not the last. A video of fewer than 3 frames scores 0 for each object.
    2. A video's objects are those of its meta.json. Other ids are ignored, in ground truth and prediction; so is 255.
    3. An object counts on all of these frames. Absent from both masks, it scores 1 in all measures.
    4. J is smoothed: (intersection + 1) / (union + 1).
    5. F-dot is F with a tolerance that adapts to the object: b = ceil(0.1 sqrt(its area in the ground truth)) pixels,
       but at most c = 0.008 of the frame's diagonal. If the ground truth is empty, it is c.
    6. c is not rounded up. Where b >= c, F-dot and F both use skimage's disk(c), which for c that is no integer is off
       its centre: at 854x480 disk(7.837) has 191 pixels, and two of its sides are empty. Only where b < c is F the F of
       DAVIS, with disk(ceil(c)).
    7. J&F-dot, the headline, is the mean of J and F-dot; J&F of J and F.
    8. Disappearance: an object's runs of frames with empty ground truth, each scored with its mean J&F-dot; the runs of
       an object are averaged, then the objects that have any. A run that begins on the first frame that counts is none.
    9. Reappearance: the runs of frames with the object after a run without it, scored likewise. Here the first run
       without the object does count, so that an object that comes late reappears.
    10. Totals are means over all objects of all videos.

    Frames are paired by name. (The published scorer takes them by their position among the predicted files: a
    submission must hold all frames, the first too.) It gives 0 to a video without predictions; here that is an error,
    or its masks count as empty.
    """

    name = "mosev2"
    about = (
        "MOSE v2, as its published scorer computes it: smoothed J, a boundary tolerance that adapts to the object's "
        "size (F-dot, J&F-dot), and the same on disappearance and reappearance. It reproduces the scorer's defects, "
        "without which no number agrees with the leaderboard; mosev2-fixed is without them."
    )
    extra = EXTRA
    headline = "J&F-dot-Mean"
    late_objects = True
    ignores_ids = True
    notes = (
        "MOSEv2's J is (I+1)/(U+1): above 0 even without any overlap, the more so the smaller the object.",
        "MOSEv2's F is not that of DAVIS: where the object is large, its tolerance is a disk off its centre "
        "(defect of the published scorer, reproduced; mosev2-fixed is without it).",
    )

    def check(self, manifest: Manifest) -> None:
        super().check(manifest)
        for video in manifest.videos:
            if not video.objects:
                raise VosflowError(
                    f"the objects of video {video.name} are not known",
                    path=manifest.root,
                    expected="the objects of MOSE v2's meta file",
                    remedy="name that file (--meta), or write the manifest again",
                )

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(ground_truth_frames(video)[1:-1], video.objects)

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _MoseV2Scorer(self, video, root)

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        scored = {(o.video, o.object): o for o in summarize_objects(scores, _segment_scores)}
        objects = tuple(
            scored.get(
                (video.name, object_id),
                ObjectSummary(video.name, object_id, NOTHING, NOTHING, (0.0, 0.0, math.nan, math.nan)),
            )
            for video in manifest.videos
            for object_id in sorted(video.objects)
        )
        columns = {name: column_mean(objects, index) for index, name in enumerate(OBJECT_COLUMNS)}
        means = object_means(objects)
        totals = {
            "J&F-dot-Mean": (means["J-Mean"] + columns["F-dot-Mean"]) / 2,
            "J-Mean": means["J-Mean"],
            "F-dot-Mean": columns["F-dot-Mean"],
            "J&F-dot-disappearance": columns["J&F-dot-disappearance"],
            "J&F-dot-reappearance": columns["J&F-dot-reappearance"],
            "F-Mean": means["F-Mean"],
            "J&F-Mean": means["J&F-Mean"],
        }
        return Summary(objects, totals, OBJECT_COLUMNS)

    def tolerances(self, truth_areas: np.ndarray, height: int, width: int) -> tuple[list[Element], list[Element]]:
        """The tolerances of F and of F-dot, for objects of `truth_areas` (int [n], pixels): n elements each."""
        cap = BOUNDARY_TOLERANCE * np.linalg.norm((height, width))
        fixed, adaptive = [], []
        for bound in self._bounds(truth_areas, height, width):
            fixed.append(disk(math.ceil(cap)) if bound < cap else disk(float(cap)))
            adaptive.append(disk(bound) if bound < cap else disk(float(cap)))
        return fixed, adaptive

    def region(self, counts: FrameCounts) -> np.ndarray:
        """J of each object, float64 [n]."""
        smoothed = (counts.intersection + 1) / (counts.union + 1)
        return np.where(counts.union == 0, 1.0, np.clip(smoothed, 0, 1))

    @staticmethod
    def _bounds(truth_areas: np.ndarray, height: int, width: int) -> list[int]:
        """The tolerance of each object in pixels before it is capped."""
        whole = np.linalg.norm((height, width))
        return [math.ceil(ADAPTIVE_TOLERANCE * (np.sqrt(area) if area else whole)) for area in truth_areas]


class MoseV2Fixed(MoseV2):
    """MOSE v2 without the defects of its published scorer: for science, not for comparison with the leaderboard.

    All rules of mosev2, but:
    4. J is intersection / union.
    6. c is rounded up, and every disk is centred. So J and F are those of DAVIS, bit for bit, and F-dot differs from F
       only where the object is small.
    """

    name = "mosev2-fixed"
    about = (
        "mosev2 without the defects of the published scorer: J is not smoothed, and every disk is round and centred, "
        "so that J and F are those of DAVIS. Not comparable with the leaderboard."
    )
    notes = ("mosev2-fixed differs from MOSEv2's published scorer: not comparable with its leaderboard.",)

    def tolerances(self, truth_areas: np.ndarray, height: int, width: int) -> tuple[list[Element], list[Element]]:
        cap = boundary_radius(height, width)
        adaptive = [disk(min(bound, cap)) for bound in self._bounds(truth_areas, height, width)]
        return [disk(cap)] * len(adaptive), adaptive

    def region(self, counts: FrameCounts) -> np.ndarray:
        return region_scores(counts)


class _MoseV2Scorer(VideoScorer):
    def __init__(self, rules: MoseV2, video: VideoEntry, root: str | Path) -> None:
        self._rules, self._video, self._root = rules, video, root
        self._objects = sorted(video.objects)
        self._scores: dict[str, np.ndarray] = {}  # J, F, F-dot and absence of each object, [4, n]

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        truth = read_ground_truth(self._video, self._root, frame)
        truth_areas = areas(truth, self._objects)
        fixed, adaptive = self._rules.tolerances(truth_areas, *truth.shape)
        counts = count_frame(truth, masks, self._objects, fixed, adaptive)
        self._scores[frame] = np.stack([self._rules.region(counts), *boundary_scores(counts), truth_areas == 0])

    def rows(self) -> list[Score]:
        return [
            Score(self._video.name, object_id, frame, float(J), float(F), (float(F_dot), float(absent)))
            for index, object_id in enumerate(self._objects)
            for frame, (J, F, F_dot, absent) in ((frame, scores[:, index]) for frame, scores in self._scores.items())
        ]


def _segment_scores(rows: Rows) -> tuple[float, float, float, float]:
    """What OBJECT_COLUMNS names, of one object; NaN where it never disappears or never reappears."""
    J, F_dot = [row.J for row in rows], [row.extra[0] for row in rows]
    lost, found = _segments([row.extra[1] == 1 for row in rows])
    both = [(mean(J[run]) + mean(F_dot[run])) / 2 for run in (*lost, *found)]
    return mean(F_dot), (mean(J) + mean(F_dot)) / 2, mean(both[: len(lost)]), mean(both[len(lost) :])


def _segments(absent: Sequence[bool]) -> tuple[list[slice], list[slice]]:
    """Runs of frames after a disappearance, and after a reappearance: rules 8 and 9."""
    edges = [0, *(t for t in range(1, len(absent)) if absent[t] != absent[t - 1]), len(absent)]
    runs = [slice(start, end) for start, end in zip(edges, edges[1:], strict=False)][1:]
    return [run for run in runs if absent[run.start]], [run for run in runs if not absent[run.start]]
