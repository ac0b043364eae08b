"""What the page shows of proposed objects: masks of the ground truth and of a run's results, decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as rle

from vosflow.evaluation.instances import read_annotations
from vosflow.instances import read_instances
from vosflow.manifest import VideoEntry
from vosflow.report.results import RunResult

SHOWN = 8  # objects of a run: more in one picture cannot be told apart

Masks = list[Mapping[int, np.ndarray]]


def true_masks(run: RunResult, video: VideoEntry, frames: Sequence[str]) -> Masks:
    """{number from 1: bool [H, W]} of the instances that count (no crowds), for each frame."""
    instances = [instance for instance in read_annotations(run.manifest).instances[video.name] if not instance.crowd]
    places = [video.frames.names.index(frame) for frame in frames]
    return [
        {
            number: rle.decode(instance.tube[place]).astype(bool)
            for number, instance in enumerate(instances, start=1)
            if instance.tube[place] is not None
        }
        for place in places
    ]


def best_masks(run: RunResult, video: VideoEntry, frames: Sequence[str]) -> Masks:
    """{rank from 1: bool [H, W]} of the run's objects with the highest scores, for each frame."""
    instances = read_instances(run.path.parent / "masks", video)
    best = sorted(instances.scores, key=lambda object_id: (-instances.scores[object_id], object_id))[:SHOWN]
    shown = []
    for frame in frames:
        masks = instances.masks(frame)
        shown.append({rank: masks[object_id] for rank, object_id in enumerate(best, start=1) if object_id in masks})
    return shown
