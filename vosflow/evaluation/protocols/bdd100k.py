"""The protocol of BDD100K MOTS as video object segmentation, by SAM-PT."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth
from vosflow.evaluation.measures import score_frame
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import (
    Rows,
    Statistics,
    Summary,
    column_mean,
    mean,
    object_means,
    summarize_objects,
)
from vosflow.manifest import Manifest, VideoEntry

SHORT, LONG = 5, 30  # frames on which an object shows
PARTS = ("J-Vis-Mean", "F-Vis-Mean", "J-NonVis-Mean", "F-NonVis-Mean")
SHOWN = "visible-frames"


class Bdd100k(Protocol):
    """BDD100K MOTS 2020, semi-supervised: the rules of sam_pt/vos_eval/bdd100keval.py in SysCV/sam-pt at 874ff7e.

    1. An object counts on all frames after the first that shows it, the last of the video included.
    2. An object that first shows on the last frame has J = F = 1, among Vis and NonVis too.
    3. J and F are those of DAVIS; an object that is absent from both masks of a frame scores J = F = 1 there.
    4. There is no void region (the conversion leaves crowds and ignored instances out: they are background).
    5. A predicted id above the largest of the video's ground truth is an error.
    6. Vis and NonVis are the means over those counted frames on which the ground truth shows the object, and over the
       others; then over objects that have such frames.
    7. Short, Medium and Long are means over objects that show on fewer than 5, on 5 to 29, on 30 frames or more, the
       first included.
    8. Totals are means over all objects of all videos; the parts of a video that was cut are videos. J&F is the mean of
       the two means.

    An id below the largest that no ground-truth frame shows makes the evaluator fail; it has no rows here.
    """

    name = "bdd100k"
    about = (
        "BDD100K MOTS 2020 as video object segmentation, by the rules of SAM-PT's bdd100keval.py: each object on the "
        "frames after its first; means over objects; also over frames that show the object and those that do not, and "
        "over objects that show shortly or long."
    )
    late_objects = True
    extra = ("visible",)

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, list[int]]:
        counted: dict[str, list[int]] = {}
        for object_id, frames in _object_frames(video, root).items():
            for name in frames[1:]:
                counted.setdefault(name, []).append(object_id)
        return {name: counted[name] for name in ground_truth_frames(video) if name in counted}

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _LateScorer(video, root, self.needs(video, root), _object_frames(video, root))

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        objects = summarize_objects(scores, _of_object)
        totals = {"J&F-Mean": object_means(objects)["J&F-Mean"]}
        for measure in "JF":
            values = [getattr(o, measure) for o in objects]
            totals |= {
                f"{measure}-{name.capitalize()}": mean(getattr(v, name) for v in values) for name in Statistics._fields
            }
        parts = {name: column_mean(objects, index) for index, name in enumerate(PARTS)}
        for part in ("Vis", "NonVis"):
            totals[f"J&F-{part}-Mean"] = (parts[f"J-{part}-Mean"] + parts[f"F-{part}-Mean"]) / 2
        totals |= parts
        for part, first, end in (("Short", 0, SHORT), ("Medium", SHORT, LONG), ("Long", LONG, math.inf)):
            of_part = object_means([o for o in objects if first <= o.extra[-1] < end])
            totals |= {f"{name.removesuffix('-Mean')}-{part}-Mean": value for name, value in of_part.items()}
        totals[SHOWN] = column_mean(objects, len(PARTS))
        return Summary(objects, totals, (*PARTS, SHOWN))


class _LateScorer(VideoScorer):
    def __init__(
        self,
        video: VideoEntry,
        root: str | Path,
        needs: Mapping[str, Sequence[int]],
        objects: Iterable[int],
    ) -> None:
        self._video, self._root, self._needs = video, root, needs
        self._scores: dict[int, list[Score]] = {object_id: [] for object_id in objects}
        self._largest = max(self._scores)

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        if masks.max(initial=0) > self._largest:
            raise VosflowError(
                f"the predicted id {masks.max()} is no object of video {self._video.name}",
                path=path,
                expected=f"ids from 0 to {self._largest}",
                remedy="write label maps with the ids of the ground truth",
            )
        objects = self._needs[frame]
        truth = read_ground_truth(self._video, self._root, frame)
        J, F = score_frame(truth, masks, objects)
        present = set(np.flatnonzero(np.bincount(truth.ravel(), minlength=256)))
        for index, object_id in enumerate(objects):
            score = Score(
                self._video.name, object_id, frame, float(J[index]), float(F[index]), (float(object_id in present),)
            )
            self._scores[object_id].append(score)

    def rows(self) -> list[Score]:
        last = self._video.ground_truth.names[-1]
        rows = []
        for object_id, scores in self._scores.items():
            rows += scores or [Score(self._video.name, object_id, last, 1.0, 1.0, (math.nan,))]  # rule 2
        return rows


def _object_frames(video: VideoEntry, root: str | Path) -> dict[int, Sequence[str]]:
    """The ground-truth frames of each object from its first on, objects by id.

    As the manifest knows them; of a bare folder all ground truth is read. Raises VosflowError if there is no object.
    """
    frames: dict[int, Sequence[str]] = dict(sorted(video.object_frames.items()))
    names = ground_truth_frames(video)
    if not frames:
        for index, name in enumerate(names):
            shown = np.flatnonzero(np.bincount(read_ground_truth(video, root, name).ravel()))
            frames = {object_id: names[index:] for object_id in shown.tolist() if object_id} | frames
    if not frames:
        raise VosflowError(
            f"no object of video {video.name} is known",
            path=video.ground_truth.path(root, names[0]),
            expected="at least one object in the ground truth",
            remedy="leave this video out of the list, or write the manifest again",
        )
    return dict(sorted(frames.items()))


def _of_object(rows: Rows) -> tuple[float, ...]:
    """The columns `PARTS` of one object (rule 6; NaN where it has no such frame), and on how many frames it shows."""
    parts = [[row for row in rows if row.extra[0] != other] for other in (0, 1)]  # NaN: in both, rule 2
    means = (mean(getattr(row, measure) for row in part) for part in parts for measure in "JF")
    return (*means, 1 + sum(row.extra[0] == 1 for row in rows))
