"""A chain of RDE-VOS's training stages, and tracking with its weights, through the whole workflow."""

from __future__ import annotations

import csv
import json
import re

import pytest
import yaml

from tests.unit.tiny_rde import make_still_images, make_training_videos
from tests.workflow.project import DEFAULT_CONFIG, Project

TINY = {"processes": 1, "iterations": 2, "batch_size": 2, "crop": 48, "workers": 0, "threads": 1, "held_out": 1}
CALM = {"compression": "average", "clip_gradient": 1.0}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Tiny training sets, a chain of two stages, and a run with the weights of the last."""
    project = Project.make(tmp_path_factory.mktemp("training") / "project", {"a": 3})
    sets = project.folder / "sets"
    make_still_images(sets / "static")
    for name in ("davis", "youtube"):
        make_training_videos(sets / name, {"one": 6, "two": 6})
    training = {
        "method": "rde",
        "stages": [0, 3],
        "width": 8,
        "key_channels": 16,
        "backbone": "random",
        "data": {name: f"sets/{name}" for name in ("static", "davis", "youtube")},
        "settings": {**TINY, **CALM},
    }
    runs = [{"name": "mine", "dataset": "toy/val", "tracker": "rde", "checkpoint": "tiny"}]
    execution = {**DEFAULT_CONFIG["execution"], "shards": 1}
    project.write_config({**DEFAULT_CONFIG, "runs": runs, "training": {"tiny": training}, "execution": execution})
    project.snakemake()
    return project


def test_a_run_tracks_with_weights_that_are_trained_here(project):
    for stage in ("0", "3"):
        (weights,) = (project.folder / "data/training/rde").glob(f"stage{stage}-*/weights.safetensors")
        with open(weights.with_name("curves.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["iteration"] for row in rows] == ["0", "2"]
        assert all(row["held_out_J"] for row in rows)
    assert set(project.computed("mine")) == {"mine/a"}
    page = (project.folder / "results/report/index.html").read_text()
    assert "tiny.stage0" in page and "tiny.stage3" in page


def dry_run(project: Project, changed: dict[str, str], *arguments: str) -> str:
    """What `snakemake -n` announces with {text: other text} in the config, which stays as it is."""
    config = project.folder / "config.yaml"
    text = edited = config.read_text()
    for old, new in changed.items():
        assert old in edited
        edited = edited.replace(old, new)
    config.write_text(edited)
    try:
        return project.snakemake("-n", *arguments).stdout
    finally:
        config.write_text(text)


def test_other_settings_of_a_stage_train_it_and_what_follows_again(project):
    answer = dry_run(project, {"  tiny:\n": "  tiny:\n    stage_settings:\n      3: {learning_rate: 0.001}\n"})
    outputs = [line for line in answer.splitlines() if "output:" in line]
    assert any("data/training/rde/stage3-" in line for line in outputs)
    assert not any("data/training/rde/stage0-" in line for line in outputs)
    assert any("results/toy-val/mine/" in line for line in outputs)
    assert (
        "training tiny.stage3 begins anew" in answer and "learning_rate is 0.001 and was 2e-05. To use that" in answer
    )


def test_sets_that_moved_train_nothing_again_nor_does_a_stage_that_another_training_has(project):
    other = yaml.safe_load((project.folder / "config.yaml").read_text())["training"]["tiny"]
    other |= {"data": {name: f"moved/{name}" for name in other["data"]}, "stage_settings": {3: {"seed": 1}}}
    changes = {"sets/": "moved/", "training:\n": f"training:\n  other: {json.dumps(other)}\n"}
    (project.folder / "sets").rename(project.folder / "moved")
    try:
        answer = dry_run(project, changes)
    finally:
        (project.folder / "moved").rename(project.folder / "sets")
    assert re.findall(r"output: data/training/rde/stage(\d)", answer) == ["3"]
    assert "toy-val/mine" not in "".join(line for line in answer.splitlines() if "output:" in line)
    (page,) = re.findall(r"input: (.*curves.*)", answer)
    assert page.count("curves.csv") == 4, "of both trainings"


def test_what_decides_no_weights_trains_nothing_again(project):
    practical = "hours: 9\n      save_every: 3\n      skip_unreadable: true\n      workers: 2"
    shared_out = {"batch_size: 2": "batch_size: 1", "processes: 1": "processes: 2"}
    assert "Nothing to be done" in dry_run(project, {"workers: 0": practical, **shared_out})
    assert "train_rde" not in dry_run(project, {"device: cpu": "device: auto"})


def test_a_stage_asks_slurm_for_its_gpus_on_one_node(project):
    changes = {"device: cpu": "device: cuda", "processes: 1": "processes: 4", "workers: 0": "workers: 3"}
    answer = dry_run(project, {**changes, "threads: 1\n      held": "hours: 30\n      held"}, "--profile", "slurm")
    jobs = re.findall(r"^rule train_rde_stage:$.*?^    resources: (.*?)$", answer, re.MULTILINE | re.DOTALL)
    asked = [dict(part.split("=") for part in job.split(", ")) for job in jobs]
    assert [(one["gpu"], one["nodes"], one["runtime"]) for one in asked] == [("4", "1", "1800")] * 2
    assert [(one["slurm_partition"], one["mem_mb"]) for one in asked] == [("gpu", "36000")] * 2
    assert [one["cpus_per_task"] for one in asked] == ["16"] * 2, "however few this machine has"
