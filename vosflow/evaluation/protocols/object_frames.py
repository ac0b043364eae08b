"""What protocols have in common in which each object counts on frames of its own, and objects fall into two groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth
from vosflow.evaluation.measures import score_frame
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import SEEN, UNSEEN
from vosflow.manifest import Manifest, VideoEntry


class ObjectFramesProtocol(Protocol):
    """Label maps; which frames and which group each object has, the manifest says (`object_frames`, `groups`).

    Where nobody knows the groups, all means over groups are NaN, and the plain means over objects remain.
    """

    late_objects = True
    ignores_ids = True
    needs_meta = True

    def check(self, manifest: Manifest) -> None:
        super().check(manifest)
        grouped = any(video.groups for video in manifest.videos)
        for video in manifest.videos:
            unknown = [o for o in video.object_frames if video.groups.get(o) not in (SEEN, UNSEEN)] if grouped else []
            if unknown or not video.object_frames:
                raise VosflowError(
                    f"protocol {self.name} does not know the "
                    + (f"group of object {unknown[0]}" if unknown else "objects")
                    + f" of video {video.name}",
                    path=manifest.root,
                    expected=f"for each object its frames, and whether it is {SEEN} or {UNSEEN} (or this for none)",
                    remedy="name the dataset's meta file (--meta), or write the manifest again",
                )

    @staticmethod
    def group_of(manifest: Manifest) -> Callable[[str, int], str]:
        """(video, object) -> its group, "" where the manifest does not know it."""
        groups = {video.name: video.groups for video in manifest.videos}
        return lambda video, object_id: groups[video].get(object_id, "")

    @abstractmethod
    def counted(self, frames: Sequence[str]) -> Sequence[str]:
        """The frames that count, of all that an object is annotated on."""

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, list[int]]:
        on_frame: dict[str, list[int]] = {}
        for object_id, frames in sorted(video.object_frames.items()):
            counted = self.counted(frames)
            if not counted:
                raise VosflowError(
                    f"object {object_id} of video {video.name} has {len(frames)} annotated frames, none is left to "
                    "score",
                    path=Path(root) / video.ground_truth.folder,
                    expected="more frames than those that do not count",
                    remedy="leave this video out of the list",
                )
            for frame in counted:
                on_frame.setdefault(frame, []).append(object_id)
        known = ground_truth_frames(video)
        missing = sorted(set(on_frame).difference(known))
        if missing:
            raise VosflowError(
                f"the ground truth of video {video.name} lacks {len(missing)} of {len(on_frame)} frames on which an "
                "object counts",
                path=video.ground_truth.path(root, missing[0]),
                expected="a label map for each of them",
                remedy="extract the dataset's archive again, or use the meta file that belongs to it",
            )
        return {frame: on_frame[frame] for frame in known if frame in on_frame}

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _ObjectFramesScorer(video, root, self.needs(video, root))


class _ObjectFramesScorer(VideoScorer):
    def __init__(self, video: VideoEntry, root: str | Path, needs: Mapping[str, list[int]]) -> None:
        self._video, self._root, self._needs = video, root, needs
        self._scores: dict[int, list[Score]] = {object_id: [] for object_id in sorted(video.object_frames)}

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        objects = self._needs[frame]
        J, F = score_frame(read_ground_truth(self._video, self._root, frame), masks, objects)
        for index, object_id in enumerate(objects):
            score = Score(self._video.name, object_id, frame, float(J[index]), float(F[index]))
            self._scores[object_id].append(score)

    def rows(self) -> list[Score]:
        return [score for of_object in self._scores.values() for score in of_object]
