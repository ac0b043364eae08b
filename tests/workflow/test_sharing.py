"""Two Snakemakes at the same time: in one folder, and in two folders that share results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.slurm.cluster import PATIENCE, wait_until
from tests.workflow.prepared import HOUSE
from tests.workflow.project import StagedProject
from vosflow.engine import track_shard
from vosflow.gpu import LOCKS
from vosflow.manifest import load_manifest
from vosflow.method import Method

VIDEOS = {"a": 5, "b": 6, "c": 5, "d": 4}


@pytest.fixture
def staged_project(tmp_path) -> Iterator[StagedProject]:
    """Its results are apart from it, and its videos are named by their whole paths."""
    project = StagedProject.make(tmp_path / "one", VIDEOS)
    config = yaml.safe_load((project.folder / "config.yaml").read_text())
    config["paths"] = {"results": str(tmp_path / "results")}
    for key in ("base_video_dir", "input_mask_dir", "annotations"):
        folder = config["datasets"]["toy/val"][key]
        config["datasets"]["toy/val"][key] = str(project.folder / folder)
    project.write_config(config)
    yield project
    (project.stage / "hold").unlink(missing_ok=True)  # whatever still waits goes on


def second_project(first: StagedProject, folder: Path) -> StagedProject:
    """A copy of the first, on the same stage."""
    second = StagedProject(first.copy(folder).folder)
    second.stage = first.stage
    return second


def test_a_second_snakemake_in_the_same_folder_is_refused(staged_project):
    (staged_project.stage / "hold").touch()
    first = staged_project.start()

    def at_work() -> bool:
        assert first.poll() is None, staged_project.log
        return bool(staged_project.told("started"))

    wait_until(at_work, "a video is being tracked")
    second = staged_project.snakemake(check=False)
    assert second.returncode != 0 and "--unlock" in second.stdout, "Snakemake's own words; the README explains them"
    (staged_project.stage / "hold").unlink()
    assert first.wait(PATIENCE) == 0, staged_project.log


@pytest.fixture
def two_gpus() -> Iterator[list[str]]:
    """Ids of pretend GPUs that no other test of this machine has."""
    ids = [f"test-{os.getpid()}-{number}" for number in (1, 2)]
    yield ids
    for name in ids:
        Path(LOCKS, f"vosflow-gpu-{name}.lock").unlink(missing_ok=True)


def test_a_workstation_gives_each_job_a_device_of_its_own(staged_project, two_gpus, tmp_path):
    """Two workflows on one machine with two GPUs, both told that there are eight: two jobs at once, then the others."""
    (staged_project.stage / "hold").touch()
    projects, jobs = [staged_project, second_project(staged_project, tmp_path / "two")], []
    for project in projects:
        config = yaml.safe_load((project.folder / "config.yaml").read_text())
        config["runs"][0]["tracker"] = "staged:StagedGpuTracker"
        config["execution"]["device"] = "auto"
        config["paths"]["results"] = "results"
        project.write_config(config)
        python = os.pathsep.join([str(project.folder), str(HOUSE / "tests/slurm/pretend")])
        options = ["--profile", "workstation", "--cores", "4", "track_all"]
        jobs.append(project.start(*options, CUDA_VISIBLE_DEVICES=",".join(two_gpus), PYTHONPATH=python))

    def two_at_work_and_two_waiting() -> bool:
        logs = [project.log for project in projects]
        assert all(job.poll() is None for job in jobs), logs
        waiting = sum(log.count("all visible GPUs are leased") for log in logs)
        return len(staged_project.told("started")) == waiting == 2

    wait_until(two_at_work_and_two_waiting, "two of four jobs are at work, and two wait")
    assert sorted(holder["CUDA_VISIBLE_DEVICES"] for holder in staged_project.told("started")) == two_gpus
    (staged_project.stage / "hold").unlink()
    assert [job.wait(PATIENCE) for job in jobs] == [0, 0], [project.log for project in projects]


def test_two_folders_that_share_results_share_the_work(staged_project, tmp_path, monkeypatch):
    other = second_project(staged_project, tmp_path / "two")
    both = [staged_project, other]
    for process in [project.start() for project in both]:
        process.wait(PATIENCE)  # one may stop because the other is just making a file again that it wants to read
    for project in both:
        project.snakemake()
    assert "Nothing to be done" in other.snakemake().stdout
    finished = {path.stem: path.read_text().count("\n") for path in other.stage.glob("*.finished")}
    assert finished == dict.fromkeys(VIDEOS, 1), "a video was tracked twice"
    shared = tmp_path / "results/toy-val/staged"
    assert json.loads((shared / "run.json").read_text())["totals"]["videos"] == len(VIDEOS)
    monkeypatch.setenv("STAGE", str(other.stage))
    method = Method.of("tests.slurm.staged:StagedTracker")
    track_shard(method, load_manifest(shared.parent / "manifest.json"), tmp_path / "alone", shard=1, shards=1)
    one, two = (sorted((folder / "masks").rglob("*.png")) for folder in (shared, tmp_path / "alone"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two] and len(one) == 20
