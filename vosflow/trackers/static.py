"""The floor of every comparison: each object stays where its last prompt put it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vosflow.manifest import LABEL_MAPS
from vosflow.masks import merge_objects
from vosflow.trackers.base import Checkpoint, Masks, TrackerSettings
from vosflow.trackers.prompts import first_index, prompts_by_frame
from vosflow.video import Video


class Settings(TrackerSettings):
    """There is nothing to set."""


class StaticTracker:
    """Repeats each object's mask until its next prompt or the end of the video."""

    Settings = Settings
    needs_checkpoint = False
    uses_gpu = False

    def __init__(self, settings: Settings, checkpoint: Checkpoint | None, device: str) -> None:
        pass

    def load(self) -> None:
        """Nothing to load."""

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """See `vosflow.trackers.base.Tracker.track`; where prompts overlap, the smallest id wins."""
        by_frame = prompts_by_frame(video)
        nothing = np.zeros((video.height, video.width), bool)
        masks = {object_id: nothing for object_id in sorted({prompt.object for prompt in video.prompts})}
        for index in range(first_index(video, by_frame), len(video)):
            masks |= {prompt.object: video.read_prompt(prompt) for prompt in by_frame.get(index, ())}
            label_maps = video.layout == LABEL_MAPS
            yield (
                video.frame_names[index],
                merge_objects(masks, video.height, video.width) if label_maps else dict(masks),
            )
