"""A tracker that waits for the test: what happens while a video is being tracked is then no matter of timing.

The folder STAGE is how the two talk. `{video}.started` and `{video}.finished` get one line per attempt, which says
where it runs. A video waits in its third frame while `hold` exists, unless its `{video}.go` exists.
"""

import json
import os
import time
from pathlib import Path

import numpy as np

from vosflow.masks import merge_objects
from vosflow.trackers.base import TrackerSettings


class Settings(TrackerSettings):
    """Nothing that matters."""

    shift: int = 1


class StagedTracker:
    """Shifts the prompt by some pixels per frame."""

    Settings = Settings
    needs_checkpoint = False
    uses_gpu = False

    def __init__(self, settings, checkpoint, device):
        self.settings = settings
        self.stage = Path(os.environ["STAGE"])

    def load(self):
        pass

    def track(self, video):
        self._tell(f"{video.name}.started")
        hoard = self.stage / "take_megabytes"
        ballast = np.ones(int(hoard.read_text()) * 2**20, np.uint8) if hoard.exists() else None
        given = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        for index, name in enumerate(video.frame_names):
            if index == 2:
                self._wait(video.name)
            masks = {k: np.roll(mask, self.settings.shift * index, axis=1) for k, mask in given.items()}
            yield name, merge_objects(masks, video.height, video.width)
        del ballast
        self._tell(f"{video.name}.finished")

    def _wait(self, name):
        deadline = time.monotonic() + 1800
        while (self.stage / "hold").exists() and not (self.stage / f"{name}.go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _tell(self, name):
        names = ("SLURM_JOB_ID", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
        line = json.dumps({key: os.environ.get(key) for key in names} | {"pid": os.getpid()})
        with open(self.stage / name, "a", encoding="utf-8") as file:
            file.write(line + "\n")


class StagedGpuTracker(StagedTracker):
    """The same on a GPU."""

    uses_gpu = True
