"""A tracker whose masks are easily known, and three videos for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.unit.clips import make_videos
from vosflow import masks
from vosflow.manifest import PER_OBJECT, Manifest
from vosflow.trackers.base import TrackerSettings


class ToySettings(TrackerSettings):
    shift: int = 0
    gain: float = 1.0


class ToyTracker:
    """Repeats the prompt, shifted; counts the videos that it tracked."""

    Settings = ToySettings
    needs_checkpoint = False
    uses_gpu = False
    tracked: list[str] = []
    loaded = 0

    def __init__(self, settings, checkpoint, device):
        self.settings = settings

    def load(self):
        ToyTracker.loaded += 1

    def track(self, video):
        ToyTracker.tracked.append(video.name)
        given = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        for index, name in enumerate(video.frame_names):
            video.read_frame(index)
            moved = {k: np.roll(mask, self.settings.shift * index, axis=1) for k, mask in given.items()}
            merged = masks.merge_objects(moved, video.height, video.width)
            yield name, moved if video.layout == PER_OBJECT else merged


TOY = f"{__name__}:ToyTracker"


def make_toy(folder: Path) -> tuple[Manifest, Path]:
    """(manifest of three videos, run folder), and counters at 0."""
    ToyTracker.tracked, ToyTracker.loaded = [], 0
    return make_videos(folder / "data", {"a": 4, "b": 6, "c": 5}), folder / "run"


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "masks").rglob("*.png"))}


def finished(folder: Path) -> list[str]:
    """Names of the videos whose record holds a key."""
    records = sorted((folder / "videos").glob("*.json"))
    return [path.stem for path in records if "key" in json.loads(path.read_text())]
