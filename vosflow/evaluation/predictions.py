"""Predictions on disk: checking that they are all there, and reading them with errors that name the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import missing_files, some
from vosflow.evaluation.png import read_ids
from vosflow.manifest import LABEL_MAPS, Manifest, VideoEntry
from vosflow.masks import object_folder

if TYPE_CHECKING:
    from vosflow.trackers.base import Masks

Needs = Mapping[str, Sequence[int]]
"""The frames of a video that must be predicted, each with its objects: see `Protocol.needs`."""


@dataclass(frozen=True)
class Predictions:
    """The masks of a run, or of somebody else's code.

    Attributes:
        folder: holds {video}/{frame}.png, or {video}/{object:03d}/{frame}.png in the per-object layout.
        layout: "label_maps" or "per_object".
        strict: a missing video or frame is an error; otherwise it counts as empty masks.
    """

    folder: Path
    layout: str = LABEL_MAPS
    strict: bool = True

    def check(self, manifest: Manifest, needs: Mapping[str, Needs]) -> dict[str, int]:
        """Look for every file that is needed, before any is read.

        Args:
            needs: per video.

        Returns:
            {video: number of missing files}, only videos with any; always empty if strict.

        Raises:
            VosflowError: no such folder; or, if strict or if nothing at all is there, naming every video without a
                folder, or the first video with missing masks and which.
        """
        if not self.folder.is_dir():
            raise VosflowError(
                "the folder of predictions does not exist",
                path=self.folder,
                expected="a folder with one sub-folder of masks per video",
                remedy="check the path, or run the tracker first",
            )
        absent = [video.name for video in manifest.videos if not (self.folder / video.name).is_dir()]
        if absent and (self.strict or len(absent) == len(manifest.videos)):
            raise VosflowError(
                f"{len(absent)} of {len(manifest.videos)} videos have no prediction: {some(absent)}",
                path=self.folder / absent[0],
                expected="a folder {video} with one label map {frame}.png per frame",
                remedy="run the tracker on these videos; if the videos lie in a sub-folder of "
                f"{self.folder}, name that sub-folder",
            )
        needed = {video.name: self._files(needs[video.name]) for video in manifest.videos}
        missing = {video: self._missing(video, files) for video, files in needed.items()}
        nothing = all(len(names) == _count(needed[video]) for video, names in missing.items())
        missing = {video: names for video, names in missing.items() if names}
        if missing and (self.strict or nothing):
            video, names = next(iter(missing.items()))
            raise VosflowError(
                f"the prediction of video {video} lacks {len(names)} of {_count(needed[video])} masks: {some(names)}",
                path=self.folder / video / names[0],
                expected="one label map {frame}.png for each scored frame"
                if self.layout == LABEL_MAPS
                else "one mask {object}/{frame}.png for each scored frame of each object",
                remedy="run the tracker again on this video; masks must be named like the frames"
                + ("" if nothing else ". To count what is missing as empty: --no-strict"),
            )
        return {video: len(names) for video, names in missing.items()}

    def path(self, video: VideoEntry, frame: str) -> Path:
        """The file of a frame; in the per-object layout the folder of the video's objects."""
        folder = self.folder / video.name
        return folder / f"{frame}.png" if self.layout == LABEL_MAPS else folder

    def read(self, video: VideoEntry, frame: str, objects: Sequence[int]) -> Masks:
        """The masks of one frame; in the per-object layout those of `objects`.

        Raises:
            VosflowError: unreadable, RGB, or of another size than the ground truth; missing, if strict; more than two
                values in the mask of one object.
        """
        if self.layout == LABEL_MAPS:
            return self._read(video, self.path(video, frame))
        folder = self.folder / video.name
        return {o: self._read_mask(video, folder / object_folder(o) / f"{frame}.png") for o in objects}

    def _files(self, needs: Needs) -> dict[str, list[str]]:
        """The files that are needed of a video: their names, by their folder below that of the video."""
        if self.layout == LABEL_MAPS:
            return {"": [f"{frame}.png" for frame in needs]}
        files: dict[str, list[str]] = {}
        for frame, objects in needs.items():
            for object_id in objects:
                files.setdefault(object_folder(object_id), []).append(f"{frame}.png")
        return files

    def _missing(self, video: str, files: Mapping[str, list[str]]) -> list[str]:
        """Those that are not there, relative to the video's folder."""
        return [
            str(Path(folder, name))
            for folder, names in files.items()
            for name in missing_files(self.folder / video / folder, names)
        ]

    def _read_mask(self, video: VideoEntry, path: Path) -> np.ndarray:
        values = self._read(video, path)
        low, high = values.min(), values.max()
        if low != high and np.count_nonzero(values == low) + np.count_nonzero(values == high) < values.size:
            raise VosflowError(
                "the mask of one object has more than two pixel values",
                path=path,
                expected="0 for background and one other value for the object",
                remedy="save one binary mask per object: no ids of several objects, no probabilities",
            )
        return values > 0

    def _read(self, video: VideoEntry, path: Path) -> np.ndarray:
        if not self.strict and not path.is_file():
            return np.zeros((video.height, video.width), np.uint8)
        label_map = read_ids(path)
        if label_map.shape != (video.height, video.width):
            raise VosflowError(
                f"the prediction is {label_map.shape[1]}x{label_map.shape[0]} pixels",
                path=path,
                expected=f"{video.width}x{video.height}, the size of the ground truth of video {video.name}",
                remedy="save label maps at the ground truth's size; if you must resize ids, use nearest neighbour",
            )
        return label_map


def _count(files: Mapping[str, list[str]]) -> int:
    return sum(map(len, files.values()))
