"""Two Snakemakes at the same time: in one folder, and in two folders that share results."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.slurm import staged
from tests.workflow.project import DEFAULT_CONFIG, SNAKEMAKE, Project
from vosflow.engine import track_shard
from vosflow.manifest import load_manifest
from vosflow.method import Method

pytestmark = pytest.mark.workflow

VIDEOS = {"a": 5, "b": 6, "c": 5, "d": 4}


class StagedProject(Project):
    """A project with the tracker that waits and tells how often it tracked which video."""

    stage: str

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "STAGE": self.stage}

    def start(self) -> subprocess.Popen:
        with open(self.folder / "snakemake.log", "ab") as log:
            return subprocess.Popen(SNAKEMAKE, cwd=self.folder, env=self.environment, stdout=log, stderr=log)


@pytest.fixture
def staged_project(tmp_path) -> StagedProject:
    (tmp_path / "stage").mkdir()
    project = StagedProject(Project.make(tmp_path / "one", VIDEOS).folder)
    project.stage = str(tmp_path / "stage")
    shutil.copy(staged.__file__, project.folder / "staged.py")
    config = copy.deepcopy(DEFAULT_CONFIG)
    config["runs"] = [{"name": "shared", "dataset": "toy/val", "tracker": "staged:StagedTracker"}]
    config["paths"] = {"results": str(tmp_path / "results")}
    for key in ("base_video_dir", "input_mask_dir", "annotations"):
        folder = config["datasets"]["toy/val"][key]
        config["datasets"]["toy/val"][key] = str(project.folder / folder)
    project.write_config(config)
    return project


def test_a_second_snakemake_in_the_same_folder_is_refused(staged_project, tmp_path):
    (tmp_path / "stage/hold").touch()
    first = staged_project.start()
    deadline = time.monotonic() + 120
    while not list((tmp_path / "stage").glob("*.started")):
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.05)
    second = staged_project.snakemake(check=False)
    assert second.returncode != 0 and "--unlock" in second.stdout, "Snakemake's own words; the README explains them"
    (tmp_path / "stage/hold").unlink()
    assert first.wait(120) == 0, (staged_project.folder / "snakemake.log").read_text()


def test_a_workstation_gives_each_job_a_device_of_its_own(staged_project, tmp_path):
    """Two workflows on one machine with two GPUs, both told that there are eight: two jobs at once, then the others."""
    stage, folders = tmp_path / "stage", [staged_project]
    (stage / "hold").touch()
    folders.append(StagedProject(staged_project.copy(tmp_path / "two").folder))
    folders[1].stage = str(stage)
    jobs = []
    for project in folders:
        config = yaml.safe_load((project.folder / "config.yaml").read_text())
        config["runs"][0]["tracker"] = "staged:StagedGpuTracker"
        config["execution"]["device"] = "auto"
        config["paths"]["results"] = "results"
        project.write_config(config)
        python = os.pathsep.join([str(project.folder), str(Path(staged.__file__).parent / "pretend")])
        environment = {**project.environment, "CUDA_VISIBLE_DEVICES": "61,62", "PYTHONPATH": python}
        command = [*SNAKEMAKE[:3], "--profile", "workstation", "--cores", "4", "track_all"]
        with open(project.folder / "snakemake.log", "ab") as log:
            jobs.append(subprocess.Popen(command, cwd=project.folder, env=environment, stdout=log, stderr=log))
    deadline = time.monotonic() + 120
    logs = [project.folder / "snakemake.log" for project in folders]
    while sum(log.read_text().count("all visible GPUs are leased") for log in logs) < 2:  # two of the four jobs wait
        assert time.monotonic() < deadline and all(job.poll() is None for job in jobs)
        time.sleep(0.05)
    holders = [json.loads(line) for path in stage.glob("*.started") for line in path.read_text().splitlines()]
    assert sorted(holder["CUDA_VISIBLE_DEVICES"] for holder in holders) == ["61", "62"]
    (stage / "hold").unlink()
    assert [job.wait(120) for job in jobs] == [0, 0], [log.read_text() for log in logs]


def test_two_folders_that_share_results_share_the_work(staged_project, tmp_path, monkeypatch):
    other = StagedProject(staged_project.copy(tmp_path / "two").folder)
    other.stage = staged_project.stage
    both = [staged_project, other]
    for process in [project.start() for project in both]:
        process.wait(240)  # one may stop because the other is just making a file again that it wants to read
    for project in both:
        project.snakemake()
    assert "Nothing to be done" in other.snakemake().stdout
    finished = {path.stem: path.read_text().count("\n") for path in (tmp_path / "stage").glob("*.finished")}
    assert finished == dict.fromkeys(VIDEOS, 1), "a video was tracked twice"
    shared = tmp_path / "results/toy-val/shared"
    assert json.loads((shared / "run.json").read_text())["totals"]["videos"] == len(VIDEOS)
    monkeypatch.setenv("STAGE", other.stage)
    method = Method.of("tests.slurm.staged:StagedTracker")
    track_shard(method, load_manifest(shared.parent / "manifest.json"), tmp_path / "alone", shard=1, shards=1)
    one, two = (sorted((folder / "masks").rglob("*.png")) for folder in (shared, tmp_path / "alone"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 20
