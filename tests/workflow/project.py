"""A small project to run Snakemake in: a copy of the checkout with tiny videos and a user's own tracker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.unit.clips import make_videos
from tests.workflow.prepared import HOUSE, run_snakemake

COPIED = ("Snakefile", "rules", "scripts", "vosflow", "profiles", "envs", "slurm", "workstation")
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "2"]

# A tracker as a user would write it in a repository of their own.
OWN_TRACKER = '''
import numpy as np

from my_helper import moved
from vosflow.masks import merge_objects
from vosflow.trackers.base import TrackerSettings


class MySettings(TrackerSettings):
    shift: int = 0
    gain: float = 1.0


class MyTracker:
    """Shifts the prompt by some pixels per frame."""

    Settings = MySettings
    needs_checkpoint = False
    uses_gpu = False

    def __init__(self, settings, checkpoint, device):
        self.settings = settings

    def load(self):
        pass

    def track(self, video):
        given = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        for index, name in enumerate(video.frame_names):
            video.read_frame(index)
            masks = {k: moved(mask, self.settings.shift * index) for k, mask in given.items()}
            yield name, merge_objects(masks, video.height, video.width)
'''
OWN_HELPER = '''
import numpy as np


def moved(mask, pixels):
    """Roll a mask to the right."""
    return np.roll(mask, pixels, axis=1)
'''


class Project:
    """A folder with everything that `snakemake` needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path, videos: dict[str, int]) -> Project:
        """Copy the checkout and make the videos and the config."""
        folder.mkdir(parents=True)
        for name in COPIED:
            source = HOUSE / name
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / name, follow_symlinks=False)
        make_videos(folder / "videos", videos)
        (folder / "my_tracker.py").write_text(OWN_TRACKER)
        (folder / "my_helper.py").write_text(OWN_HELPER)
        project = cls(folder)
        project.write_config(DEFAULT_CONFIG)
        return project

    def copy(self, folder: Path) -> Project:
        """An independent copy, with Snakemake's memory and all modification times."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def write_config(self, config: dict) -> None:
        """Replace config.yaml."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the project; output and errors together in `stdout`."""
        answer = run_snakemake(["--cores", "2", *arguments], self.folder, self.environment)
        assert not check or answer.returncode == 0, answer.stdout
        return answer

    def planned(self, *arguments: str) -> set[str]:
        """Folder names of the runs (or "tables", "report", ...) for which a dry run announces jobs."""
        text = self.snakemake("-n", *arguments).stdout
        outputs = re.findall(r"^    output: (.*)$", text, re.MULTILINE)
        places = {path.strip() for line in outputs for path in line.split(", results/")}
        parts = [path.removeprefix("results/").split("/") for path in places]
        return {part[1] if part[0] == "toy-val" else part[0] for part in parts}

    def computed(self, run: str = "*") -> dict[str, int]:
        """{run/video: time at which its record was written, in ns} of finished videos."""
        records = self.folder.glob(f"results/toy-val/{run}/videos/*.json")
        finished = [path for path in records if '"key"' in path.read_text()]
        return {f"{path.parts[-3]}/{path.stem}": path.stat().st_mtime_ns for path in finished}

    def mask_bytes(self, run: str) -> dict[str, bytes]:
        """Content of all masks of a run."""
        top = self.folder / "results/toy-val" / run / "masks"
        return {str(path.relative_to(top)): path.read_bytes() for path in sorted(top.rglob("*.png"))}


class StagedProject(Project):
    """A project with the tracker that waits, and tells how often it tracked which video; see tests/slurm/staged.py."""

    stage: Path

    @classmethod
    def make(cls, folder: Path, videos: dict[str, int]) -> StagedProject:
        project = super().make(folder, videos)
        project.stage = folder / "stage"
        project.stage.mkdir()
        shutil.copy(HOUSE / "tests/slurm/staged.py", folder)
        project.write_config({**DEFAULT_CONFIG, "runs": [STAGED_RUN]})
        return project

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "STAGE": str(self.stage)}

    @property
    def log(self) -> str:
        """What it has printed since `start`."""
        return (self.folder / "snakemake.log").read_text()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start Snakemake and let it run."""
        with open(self.folder / "snakemake.log", "ab") as log:
            return subprocess.Popen(
                [*SNAKEMAKE, *arguments],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def told(self, event: str) -> list[dict[str, str]]:
        """Where videos were started or finished, one by one."""
        paths = self.stage.glob(f"*.{event}")
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


STAGED_RUN = {"name": "staged", "dataset": "toy/val", "tracker": "staged:StagedTracker"}
DEFAULT_CONFIG = {
    "runs": [
        {"dataset": "toy/val", "tracker": "static"},
        {"dataset": "toy/val", "tracker": "flow"},
        {
            "name": "mine",
            "dataset": "toy/val",
            "tracker": "my_tracker:MyTracker",
            "settings": {"shift": [0, 2], "gain": 1.0},
        },
    ],
    "execution": {"device": "cpu", "shards": 2, "threads": 1, "evaluation_workers": 1},
    "datasets": {
        "toy/val": {
            "base_video_dir": "videos/JPEGImages/480p",
            "input_mask_dir": "videos/Annotations/480p",
            "annotations": "videos/Annotations/480p",
            "protocol": "davis2017",
        }
    },
    "report": {"title": "toy", "filmstrips": 1},
}
