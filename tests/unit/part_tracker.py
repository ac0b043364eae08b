"""Trackers of several networks and trackers that propose objects, in a few lines: what SAM-PT is to the engine."""

from __future__ import annotations

from typing import Literal

import numpy as np

from vosflow.masks import merge_objects
from vosflow.trackers.base import Part, TrackerSettings

POINTS = {"pips": Part("pips", "pips"), "cotracker": Part("cotracker", "cotracker_stride_4_wind_8"), "none": None}


class PartSettings(TrackerSettings):
    points: Literal["pips", "cotracker", "none"] = "pips"
    shift: int = 0


class PartTracker:
    """Shifts prompts; the brightness of each frame is an artefact that does not depend on `shift`."""

    Settings = PartSettings
    needs_checkpoint = True
    uses_gpu = False
    built_with: object = None

    @classmethod
    def parts(cls, settings):
        points = POINTS[settings.points]
        return {"sam": Part("mobile_sam", "mobile_sam")} | ({"point_tracker": points} if points else {})

    @classmethod
    def code_modules(cls, settings):
        return ("tests.unit.clips",) if settings.points == "cotracker" else ()

    def __init__(self, settings, checkpoint, device):
        self.settings = settings
        PartTracker.built_with = checkpoint

    def load(self):
        pass

    def track(self, video):
        masks = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        for index, name in enumerate(video.frame_names):
            frame = video.read_frame(index)
            kept = video.artefacts.get(
                "brightness", {"frame": index, "video": video.name}, lambda frame=frame: {"mean": frame.mean((0, 1))}
            )
            moved = {key: np.roll(mask, self.settings.shift * index, 1) for key, mask in masks.items()}
            assert kept["mean"].shape == (3,)
            yield name, merge_objects(moved, video.height, video.width)


class BoxSettings(TrackerSettings):
    side: int = 6
    late: int = 2


class BoxTracker:
    """Proposes two overlapping boxes; the second one appears on frame `late` and is away on every other frame."""

    Settings = BoxSettings
    needs_checkpoint = False
    uses_gpu = False
    proposes_objects = True

    def __init__(self, settings, checkpoint, device):
        self.settings = settings

    def load(self):
        pass

    def track(self, video):
        masks = np.zeros((2, video.height, video.width), bool)
        masks[0, 3 : 3 + self.settings.side, 2:9] = True
        masks[1, 4 : 4 + self.settings.side, 3:10] = True
        for index, name in enumerate(video.frame_names):
            video.read_frame(index)
            there = index >= self.settings.late and (index - self.settings.late) % 2 == 0
            yield name, {1: masks[0]} | ({2: masks[1]} if there else {})
        video.scores[1] = 0.9
        video.scores[2] = np.float32(0.25)
