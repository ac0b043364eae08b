"""The protocols of DAVIS 2016 and DAVIS 2017 (semi-supervised)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.files import (
    check_files,
    ground_truth_frames,
    prediction_path,
    read_ground_truth,
    read_prediction,
)
from vosflow.evaluation.measures import score_frame
from vosflow.evaluation.protocols.base import Protocol
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import Summary, summarize
from vosflow.manifest import LABEL_MAPS, Manifest, VideoEntry

VOID = 255


class _Davis(Protocol):
    """What both have in common: dense label maps, all frames but the first and the last, means over objects."""

    def check(self, manifest: Manifest, predictions: Path) -> None:
        if manifest.layout != LABEL_MAPS:
            raise VosflowError(
                f"protocol {self.name} cannot score {manifest.dataset}/{manifest.split}: its layout is "
                f"{manifest.layout}",
                expected=f"layout {LABEL_MAPS}: one label map per frame, objects do not overlap",
                remedy="use the protocol of the dataset's publisher",
            )
        check_files(
            manifest, predictions, {video.name: self.scored_frames(video, manifest.root) for video in manifest.videos}
        )

    def scored_frames(self, video: VideoEntry, root: str | Path) -> tuple[str, ...]:
        """Names of the frames that count; raises VosflowError if none does."""
        frames = ground_truth_frames(video)
        if len(frames) < 3:
            raise VosflowError(
                f"video {video.name} has {len(frames)} ground-truth frames, none is left to score",
                path=Path(root) / video.ground_truth.folder,
                expected="at least 3: the first and the last frame do not count",
                remedy="leave this video out of the list",
            )
        return frames[1:-1]

    def score_video(self, video: VideoEntry, root: str | Path, predictions: str | Path) -> list[Score]:
        frames = self.scored_frames(video, root)
        objects = self.scored_objects(video, root)
        J = np.empty((len(objects), len(frames)))
        F = np.empty((len(objects), len(frames)))
        for index, frame in enumerate(frames):
            truth = self.clean_ground_truth(read_ground_truth(video, root, frame))
            guess = self.clean_prediction(
                read_prediction(predictions, video, frame), objects, prediction_path(predictions, video, frame)
            )
            J[:, index], F[:, index] = score_frame(truth, guess, objects)
        return [
            Score(video.name, object_id, frame, float(J[row, column]), float(F[row, column]))
            for row, object_id in enumerate(objects)
            for column, frame in enumerate(frames)
        ]

    def summarize(self, scores: Iterable[Score]) -> Summary:
        return summarize(scores)

    @abstractmethod
    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        """The ids that count."""

    @abstractmethod
    def clean_ground_truth(self, truth: np.ndarray) -> np.ndarray:
        """The label map to compare with, uint8 [H, W], from a ground-truth file's values."""

    @abstractmethod
    def clean_prediction(self, guess: np.ndarray, objects: range, path: Path) -> np.ndarray:
        """The label map to compare, uint8 [H, W], from a prediction file's values; raises VosflowError."""


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

    def check(self, manifest: Manifest, predictions: Path) -> None:
        if manifest.binary_ground_truth:
            raise VosflowError(
                f"protocol {self.name} cannot score {manifest.dataset}/{manifest.split}: its ground truth is binary",
                expected="ground truth with object ids",
                remedy="use protocol davis2016",
            )
        super().check(manifest, predictions)

    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        first = ground_truth_frames(video)[0]
        count = int(self.clean_ground_truth(read_ground_truth(video, root, first)).max())
        if count == 0:
            raise VosflowError(
                f"no object on the first ground-truth frame of video {video.name}",
                path=video.ground_truth.path(root, first),
                expected="object ids from 1 to 254 (255 is void)",
                remedy="if the masks are 0 and 255, as those of DAVIS 2016, use protocol davis2016",
            )
        return range(1, count + 1)

    def clean_ground_truth(self, truth: np.ndarray) -> np.ndarray:
        return np.where(truth == VOID, np.uint8(0), truth)

    def clean_prediction(self, guess: np.ndarray, objects: range, path: Path) -> np.ndarray:
        if guess.max() > objects[-1]:
            unknown = [int(object_id) for object_id in np.unique(guess) if object_id > objects[-1]]
            raise VosflowError(
                f"the prediction has ids that the video does not have: {', '.join(map(str, unknown))}",
                path=path,
                expected=f"0 for background and ids up to {objects[-1]}, the largest of the first ground-truth frame",
                remedy="map the tracker's ids to those of the first annotation; save ids, not colours or probabilities",
            )
        return guess


class Davis2016(_Davis):
    """DAVIS 2016, one object per video: the rules of fperazzi/davis (J and F; its temporal stability is not reported).

    1. The first and the last ground-truth frame do not count.
    2. Every value above 0 is the object, in ground truth and prediction alike (255 is no void): ids are merged.
    3. Both masks empty: J = F = 1.
    4. Recall counts values strictly above 0.5. The toolkit keeps the uncounted frames as NaN and strips them
       (`db_statistics`) before it takes recall and the decay's bins, so both are those of DAVIS 2017.
    5. Totals are means over videos, which are means over objects here. They are reported in the columns of DAVIS 2017.
    """

    name = "davis2016"

    def scored_objects(self, video: VideoEntry, root: str | Path) -> range:
        return range(1, 2)

    def clean_ground_truth(self, truth: np.ndarray) -> np.ndarray:
        return (truth > 0).astype(np.uint8)

    def clean_prediction(self, guess: np.ndarray, objects: range, path: Path) -> np.ndarray:
        return (guess > 0).astype(np.uint8)
