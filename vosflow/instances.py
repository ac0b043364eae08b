"""Masks of proposed objects on disk: one file per video, written frame by frame, and the results.json of a run.

    masks/{video}/instances.jsonl    {"height": H, "width": W}
                                     {"frame": name, "counts": {object id: run lengths}}     one line per frame
                                     {"scores": {object id: score}}
    results.json                     the format of YouTube-VIS, see `vosflow.evaluation.instances`

Run lengths are the compressed ones of pycocotools. An object without a pixel is left out of a frame; one that has none
on any frame is a result all the same if its tracker scored it, as in the evaluation of Mask2Former and SAM-PT.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from vosflow.errors import VosflowError, cannot_write
from vosflow.manifest import Manifest, VideoEntry
from vosflow.mask_writer import VideoWriter

FILE = "instances.jsonl"
CATEGORY = 1  # trackers propose objects, and say of none what it is
FRAMES_WAITING = 4


class InstanceWriter(VideoWriter):
    """Writes the masks of proposed objects, which may overlap, as run lengths; memory does not grow with the video.

    Args:
        height, width: of the video, in pixels.
        scores: {object id: score}, complete when the writer is left.
    """

    def __init__(self, folder: str | Path, video: str, *, height: int, width: int, scores: Mapping[int, float]) -> None:
        super().__init__(folder, video, waiting=FRAMES_WAITING, threads=1)
        self._size = {"height": height, "width": width}
        self._scores = scores

    def __enter__(self) -> InstanceWriter:
        super().__enter__()
        self._behind.call(self._append, self._size)
        return self

    def write(self, frame: str, masks: Mapping[int, np.ndarray]) -> None:
        """Write one frame, {object id: bool [H, W]}."""
        present = {object_id: mask for object_id, mask in masks.items() if mask.any()}
        # In Fortran order, as pycocotools wants it; this is the copy, too.
        copies = {object_id: np.array(mask, np.uint8, order="F") for object_id, mask in sorted(present.items())}
        self._behind.call(self._append_frame, frame, copies)

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            scores = {str(object_id): float(score) for object_id, score in sorted(self._scores.items())}
            self._behind.call(self._append, {"scores": scores})
        super().__exit__(kind, error, trace)

    def _append_frame(self, frame: str, masks: Mapping[int, np.ndarray]) -> None:
        counts = {str(object_id): rle.encode(mask)["counts"].decode("ascii") for object_id, mask in masks.items()}
        self._append({"frame": frame, "counts": counts})

    def _append(self, line: Mapping) -> None:
        path = self._aside / FILE
        try:
            with open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise cannot_write(path, error) from error


@dataclass(frozen=True)
class VideoInstances:
    """The proposed objects of one video.

    Attributes:
        counts: {frame: {object id: compressed run lengths}}.
        scores: {object id: score} of all objects.
    """

    height: int
    width: int
    counts: Mapping[str, Mapping[int, str]]
    scores: Mapping[int, float]

    def encoded(self, frame: str, object_id: int) -> dict | None:
        """The mask of an object on a frame in the form of pycocotools; None where it has no pixel."""
        counts = self.counts[frame].get(object_id)
        return None if counts is None else {"size": [self.height, self.width], "counts": counts}

    def masks(self, frame: str) -> dict[int, np.ndarray]:
        """{object id: bool [H, W]} of the objects on a frame."""
        present = {object_id: self.encoded(frame, object_id) for object_id in self.counts[frame]}
        return {object_id: rle.decode(mask).astype(bool) for object_id, mask in present.items()}


def read_instances(masks: str | Path, video: VideoEntry) -> VideoInstances:
    """The proposed objects of a video below a run's mask folder; raises VosflowError if they are not all there."""
    path = Path(masks) / video.name / FILE
    try:
        size, *frames, end = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        counts = {line["frame"]: _by_id(line["counts"]) for line in frames}
        if counts.keys() != set(video.frames.names) or size != {"height": video.height, "width": video.width}:
            raise ValueError(f"it is not of the {len(video.frames.names)} frames of the video")
        return VideoInstances(size["height"], size["width"], counts, _by_id(end["scores"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VosflowError(
            f"not the instances of video {video.name} ({type(error).__name__}: {error})",
            path=path,
            expected="a file written by the tracking job, complete",
            remedy="delete the file and run snakemake again: the video is tracked anew",
        ) from error


def write_results(manifest: Manifest, masks: str | Path, output: str | Path) -> int:
    """Write the results.json of all videos of `manifest` and return the number of objects; one video is in memory.

    Raises:
        VosflowError: see `read_instances`; or the file cannot be written.
    """
    output = Path(output)
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    count = 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "w", encoding="utf-8") as file:
            file.write("[")
            for video in manifest.videos:
                for result in _results(video, read_instances(masks, video)):
                    file.write(",\n" * (count > 0) + json.dumps(result))
                    count += 1
            file.write("]\n")
        os.replace(aside, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    finally:
        aside.unlink(missing_ok=True)
    return count


def _results(video: VideoEntry, instances: VideoInstances) -> Iterator[dict]:
    for object_id, score in instances.scores.items():
        yield {
            "video_id": video.external_id,
            "category_id": CATEGORY,
            "score": score,
            "segmentations": [instances.encoded(frame, object_id) for frame in video.frames.names],
        }


def _by_id(values: Mapping[str, object]) -> dict[int, object]:
    return {int(object_id): value for object_id, value in values.items()}
