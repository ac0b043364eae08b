"""The protocols of DAVIS 2016 and DAVIS 2017 (semi-supervised)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth, some
from vosflow.evaluation.measures import areas, score_frame
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import Summary, summarize
from vosflow.manifest import Manifest, VideoEntry

VOID = 255
MOST_VALUES = 32  # above 0, in a mask of DAVIS 2016; videos of DAVIS 2017 have 10 objects at most


class _Davis(Protocol):
    """What both have in common: dense label maps, all frames but the first and the last, means over objects."""

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, range]:
        frames = ground_truth_frames(video)
        if len(frames) < 3:
            raise VosflowError(
                f"video {video.name} has {len(frames)} ground-truth frames, none is left to score",
                path=Path(root) / video.ground_truth.folder,
                expected="at least 3: the first and the last frame do not count",
                remedy="leave this video out of the list",
            )
        return dict.fromkeys(frames[1:-1], self.scored_objects(video, root))

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _DavisScorer(self, video, root)

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        return summarize(scores)

    @abstractmethod
    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        """The ids that count."""

    def to_ids(self, label_map: np.ndarray) -> np.ndarray:
        """The ids to compare, uint8 [H, W], from the values of a ground truth or of a prediction."""
        return label_map

    def check_prediction(self, guess: np.ndarray, objects: range, path: Path | None) -> None:
        """Raise VosflowError if predicted values break the rules."""


class _DavisScorer(VideoScorer):
    def __init__(self, rules: _Davis, video: VideoEntry, root: str | Path) -> None:
        self._rules, self._video, self._root = rules, video, root
        self._objects = rules.scored_objects(video, root)
        self._scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        self._rules.check_prediction(masks, self._objects, path)
        truth = self._rules.to_ids(read_ground_truth(self._video, self._root, frame))
        self._scores[frame] = score_frame(truth, self._rules.to_ids(masks), self._objects)

    def rows(self) -> list[Score]:
        return [
            Score(self._video.name, object_id, frame, float(J[index]), float(F[index]))
            for index, object_id in enumerate(self._objects)
            for frame, (J, F) in self._scores.items()
        ]


class Davis2017(_Davis):
    """DAVIS 2017, semi-supervised: the rules of davischallenge's davis2017-evaluation at ac7c43f.

    1. The first and the last ground-truth frame do not count; predictions for them are never opened.
    2. A video's objects are 1..N, N being the largest id of its first ground-truth frame. An object that first
       appears later with an id above N does not count.
    3. A gap in these ids is an object all the same: it scores J = F = 1 on every frame where it is not predicted.
    4. 255 in the ground truth is background. There is no void region: what is predicted there is a false positive.
    5. A predicted id above N (255 included) on a frame that counts is an error, not ignored.
    6. A prediction with fewer ids is fine: a missing object is an empty mask.
    7. An object that is absent from ground truth and prediction of a frame scores J = F = 1 there.
    8. Recall counts values strictly above 0.5. Decay: see `vosflow.evaluation.statistics.decay`; unlike the toolkit's
       its bin edges do not wrap in videos with more than 256 scored frames.
    9. Totals are means over all objects of all videos. J&F is the mean of the two means.

    Two cases in which the toolkit crashes or scores nothing are errors here: fewer than 3 ground-truth frames, and no
    object on the first one.
    """

    name = "davis2017"
    about = (
        "DAVIS 2017, semi-supervised, by the rules of davis2017-evaluation. All frames but the first and the last; "
        "objects 1..N of the first ground-truth frame; means over objects. A predicted id above N is an error."
    )

    def check(self, manifest: Manifest) -> None:
        if manifest.binary_ground_truth:
            raise VosflowError(
                f"protocol {self.name} cannot score {manifest.dataset}/{manifest.split}: its ground truth is binary",
                expected="ground truth with object ids",
                remedy="use protocol davis2016",
            )
        super().check(manifest)

    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        first = ground_truth_frames(video)[0]
        truth = read_ground_truth(video, root, first)
        count = int(truth[truth != VOID].max(initial=0))
        if count == 0:
            raise VosflowError(
                f"no object on the first ground-truth frame of video {video.name}",
                path=video.ground_truth.path(root, first),
                expected="object ids from 1 to 254 (255 is void)",
                remedy="if the masks are 0 and 255, as those of DAVIS 2016, use protocol davis2016",
            )
        return range(1, count + 1)

    def remarks(self, manifest: Manifest) -> Iterable[str]:
        gaps = []
        for video in manifest.videos:
            found = areas(read_ground_truth(video, manifest.root, ground_truth_frames(video)[0]), range(1, VOID))
            ids = np.flatnonzero(found) + 1
            gaps += [f"{video.name}_{number}" for number in range(1, max(ids, default=1)) if number not in ids]
        if gaps:
            yield (
                f"not on the first frame, though a larger id is: {some(gaps)}. By the rules each is an object all the "
                "same, with J = F = 1 wherever it is not predicted"
            )

    def check_prediction(self, guess: np.ndarray, objects: range, path: Path | None) -> None:
        if guess.max() > objects[-1]:
            unknown = [str(object_id) for object_id in np.unique(guess) if object_id > objects[-1]]
            raise VosflowError(
                f"the prediction has ids that the video does not have: {some(unknown)}",
                path=path,
                expected=f"0 for background and ids up to {objects[-1]}, the largest of the first ground-truth frame",
                remedy="map the tracker's ids to those of the first annotation; save ids, not colours or "
                "probabilities. If objects that appear later are to count, use another protocol (see --protocol list)",
            )


class Davis2016(_Davis):
    """DAVIS 2016, one object per video: the rules of fperazzi/davis (J and F; its temporal stability is not reported).

    1. The first and the last ground-truth frame do not count.
    2. Every value above 0 is the object, in ground truth and prediction alike (255 is no void): ids are merged.
    3. Both masks empty: J = F = 1.
    4. Recall counts values strictly above 0.5. The toolkit keeps the uncounted frames as NaN and strips them
       (`db_statistics`) before it takes recall and the decay's bins, so both are those of DAVIS 2017.
    5. Totals are means over videos, which are means over objects here. They are reported in the columns of DAVIS 2017.

    Unlike the toolkit it refuses a prediction with more than 32 values: they are probabilities, or the noise of a JPEG,
    of which every value above 0 would count.
    """

    name = "davis2016"
    about = (
        "DAVIS 2016: one object per video, every value above 0, by the rules of fperazzi/davis. All frames but the "
        "first and the last; means over videos."
    )

    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        return range(1, 2)

    def to_ids(self, label_map: np.ndarray) -> np.ndarray:
        return (label_map > 0).astype(np.uint8)

    def check_prediction(self, guess: np.ndarray, objects: range, path: Path | None) -> None:
        values = np.count_nonzero(areas(guess, range(1, 256)))
        if values > MOST_VALUES:
            raise VosflowError(
                f"the prediction has {values} values above 0: it looks like probabilities, and all of them would count",
                path=path,
                expected="0 for background, and another value for the object (or the ids of its parts)",
                remedy="apply the tracker's threshold, and save the result as a PNG",
            )
