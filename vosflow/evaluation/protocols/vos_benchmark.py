"""The protocol of the toolkit vos-benchmark, for comparison with numbers made by it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth
from vosflow.evaluation.measures import areas, score_frame
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import Summary, object_means, summarize_objects
from vosflow.manifest import Manifest, VideoEntry

IDS = range(1, 256)


class VosBenchmark(Protocol):
    """hkchengrex's vos-benchmark 0.1.0 with its defaults (semi-supervised).

    1. The ground truth's frames count, without the first and the last of them. Predictions of others are ignored.
    2. Every value but 0 is an object: 255 too, there is no void.
    3. An object counts if the ground truth shows it on a frame that counts. One that is seen on the first or the last
       frame only does not; an id that is only predicted does not.
    4. Its frames begin where ground truth or prediction first show it, and go on to the end. So earlier frames on which
       it is rightly absent are not counted as 1, and an early false positive makes the list longer.
    5. From there on, a frame without the object in both masks scores J = F = 1.
    6. Totals are means over all objects of all videos. J&F is the mean of the two means. (The toolkit gives percent.)
    7. A video of fewer than 3 frames, or without an object that counts, takes no part.
    """

    name = "vos-benchmark"
    about = (
        "What hkchengrex's vos-benchmark 0.1.0 computes with its defaults, on any label maps: all frames but the first "
        "and the last; an object counts from the frame on which ground truth or prediction first show it; every id is "
        "an object, 255 too."
    )
    late_objects = True
    ignores_ids = True
    notes = ("vos-benchmark counts an object only from its first sight in ground truth or prediction.",)

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, tuple[int, ...]]:
        """Frames without objects: which ones count is only known when the masks are."""
        return dict.fromkeys(ground_truth_frames(video)[1:-1], ())

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _SeenScorer(video, root)

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        objects = summarize_objects(scores)
        if not objects:
            raise VosflowError(
                f"nothing to score in {manifest.dataset}/{manifest.split}",
                path=manifest.root,
                expected="a video with an object on a frame other than the first and the last",
                remedy="check the ground truth's folder and the list of videos",
            )
        return Summary(objects, object_means(objects))


class _SeenScorer(VideoScorer):
    def __init__(self, video: VideoEntry, root: str | Path) -> None:
        self._video, self._root = video, root
        self._in_truth: set[int] = set()
        self._scores: dict[int, dict[str, tuple[float, float]]] = {}  # of each object seen so far

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        truth = read_ground_truth(self._video, self._root, frame)
        shown = set(_ids(truth))
        self._in_truth |= shown
        for object_id in shown.union(_ids(masks)):
            self._scores.setdefault(object_id, {})
        objects = sorted(self._scores)
        J, F = score_frame(truth, masks, objects)
        for index, object_id in enumerate(objects):
            self._scores[object_id][frame] = float(J[index]), float(F[index])

    def rows(self) -> list[Score]:
        return [
            Score(self._video.name, object_id, frame, J, F)
            for object_id in sorted(self._in_truth)
            for frame, (J, F) in self._scores[object_id].items()
        ]


def _ids(label_map: np.ndarray) -> list[int]:
    return [IDS[index] for index in np.flatnonzero(areas(label_map, IDS))]
