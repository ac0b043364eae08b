"""The protocol of SA-V val and test: one mask per object and frame, objects may overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, missing_files, read_ground_truth
from vosflow.evaluation.measures import score_masks
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import Summary, object_means, summarize_objects
from vosflow.manifest import PER_OBJECT, ImageFolder, Manifest, VideoEntry
from vosflow.masks import object_folder


class Sav(Protocol):
    """SA-V: the rules of sav_dataset/sav_evaluator.py in facebookresearch/sam2 at 2b90b9f.

    1. Masks are PNG files {video}/{object}/{frame}.png with at most two values; what is above 0 is the object. Objects
       may overlap, each is scored alone.
    2. An object's frames are those of its own ground-truth folder (6 a second), without the first and the last of them.
       Predictions of other frames (24 a second) are ignored.
    3. Of these, its list begins at the first one on which ground truth or prediction show it. So earlier frames on
       which it is rightly absent are not counted as 1, and an early false positive makes the list longer.
    4. From there on, a frame on which both masks are empty scores J = F = 1.
    5. Totals are means over all objects of all videos. J&F is the mean of the two means. (The evaluator gives percent.)

    An object with fewer than 3 annotated frames, or that the ground truth shows on none of those that count, makes the
    evaluator fail with an assertion: it is an error here.
    """

    name = "sav"
    about = (
        "SA-V val and test, by the rules of sav_evaluator.py: one PNG per object and frame, objects may overlap; each "
        "object has its own list of frames, without the first and the last, beginning where ground truth or prediction "
        "first show it; means over objects."
    )
    layouts = (PER_OBJECT,)
    late_objects = True
    notes = ("The SA-V evaluator counts an object only from its first sight in ground truth or prediction.",)

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, list[int]]:
        counted: dict[str, list[int]] = {}
        for object_id, frames in sorted(_annotated(video, root).items()):
            for frame in frames[1:-1]:
                counted.setdefault(frame, []).append(object_id)
        return {frame: counted[frame] for frame in ground_truth_frames(video) if frame in counted}

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _ObjectScorer(video, root, self.needs(video, root))

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        objects = summarize_objects(scores)
        return Summary(objects, object_means(objects))


class _ObjectScorer(VideoScorer):
    def __init__(self, video: VideoEntry, root: str | Path, needs: Mapping[str, list[int]]) -> None:
        self._video, self._root, self._needs = video, root, needs
        self._views = {object_id: _view(video, object_id) for object_id in _object_frames(video)}
        self._in_truth: set[int] = set()
        self._scores: dict[int, dict[str, tuple[float, float]]] = {}  # of each object seen so far

    def add(self, frame: str, masks: Mapping[int, np.ndarray], path: Path | None = None) -> None:
        for object_id in self._needs[frame]:
            guess = self._mask(masks, object_id, frame, path)
            truth = read_ground_truth(self._views[object_id], self._root, frame) > 0
            if truth.any():
                self._in_truth.add(object_id)
            elif object_id not in self._scores and not guess.any():
                continue
            self._scores.setdefault(object_id, {})[frame] = score_masks(truth, guess)

    def _mask(self, masks: Mapping[int, np.ndarray], object_id: int, frame: str, path: Path | None) -> np.ndarray:
        if object_id not in masks:
            raise VosflowError(
                f"object {object_id} of video {self._video.name} has no mask on frame {frame}",
                path=path,
                expected="a mask of each object on each frame that counts, an empty one where it is not seen",
                remedy="run the tracker again, with the prompts of all objects",
            )
        return masks[object_id]

    def rows(self) -> list[Score]:
        for object_id, view in self._views.items():
            if object_id not in self._in_truth:
                raise VosflowError(
                    f"object {object_id} of video {self._video.name} is on none of the frames that count",
                    path=Path(self._root) / view.ground_truth.folder,
                    expected="a ground-truth mask that is not empty, apart from the first and the last",
                    remedy="leave this object or video out; SA-V's evaluator fails on it too",
                )
        return [
            Score(self._video.name, object_id, frame, J, F)
            for object_id in sorted(self._scores)
            for frame, (J, F) in self._scores[object_id].items()
        ]


def _annotated(video: VideoEntry, root: str | Path) -> Mapping[int, tuple[str, ...]]:
    """The ground-truth frames of each object; raises VosflowError if one cannot be scored or a file is missing."""
    annotated = _object_frames(video)
    for object_id, frames in annotated.items():
        folder = Path(root) / _view(video, object_id).ground_truth.folder
        if len(frames) < 3:
            raise VosflowError(
                f"object {object_id} of video {video.name} has {len(frames)} ground-truth frames: none counts",
                path=folder,
                expected="at least 3: the first and the last frame of each object do not count",
                remedy="leave this object or video out; SA-V's evaluator fails on it too",
            )
        missing = missing_files(folder, (f"{frame}{video.ground_truth.suffix}" for frame in frames))
        if missing:
            raise VosflowError(
                f"the ground truth of object {object_id} of video {video.name} lacks {len(missing)} of {len(frames)} "
                "frames",
                path=folder / missing[0],
                expected="the files that the manifest lists",
                remedy="restore them (extract the dataset's archive again), or write the manifest again",
            )
    return annotated


def _object_frames(video: VideoEntry) -> Mapping[int, tuple[str, ...]]:
    """The annotated frames of each object: all of the video's, unless the manifest tells them apart."""
    return video.object_frames or dict.fromkeys(video.objects, video.ground_truth.names)


def _view(video: VideoEntry, object_id: int) -> VideoEntry:
    """The video with the ground truth of one object only."""
    truth = video.ground_truth
    folder = ImageFolder(f"{truth.folder}/{object_folder(object_id)}", truth.suffix, _object_frames(video)[object_id])
    return replace(video, ground_truth=folder)
