"""A chain of RDE-VOS's training stages, and tracking with its weights, through the whole workflow."""

from __future__ import annotations

import csv

import pytest
from PIL import Image

from tests.unit.clips import make_videos, moving_boxes
from tests.workflow.project import DEFAULT_CONFIG, Project
from vosflow.datasets.training_sets import FLAT_SETS

pytestmark = pytest.mark.workflow

TINY = {"processes": 1, "iterations": 2, "batch_size": 2, "crop": 48, "workers": 0, "threads": 1, "held_out": 1}
CALM = {"compression": "average", "clip_gradient": 1.0}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Tiny training sets, a chain of two stages, and a run with the weights of the last."""
    project = Project.make(tmp_path_factory.mktemp("training") / "project", {"a": 3})
    sets = project.folder / "sets"
    images, label_maps = moving_boxes(len(FLAT_SETS) + 1, 1)
    for image, label_map, place in zip(images, label_maps, (*FLAT_SETS, "fss/thing"), strict=True):
        (sets / "static" / place).mkdir(parents=True)
        Image.fromarray(image).save(sets / "static" / place / "0.jpg")
        Image.fromarray(label_map * 255).save(sets / "static" / place / "0.png")
    for name in ("davis", "youtube"):
        make_videos(sets / name, {"one": 6, "two": 6})
    (sets / "davis/ImageSets/2017").mkdir(parents=True, exist_ok=True)
    (sets / "davis/ImageSets/2017/train.txt").write_text("one\ntwo\n")
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
        (weights,) = (project.folder / "data/training/tiny").glob(f"stage{stage}-*/weights.safetensors")
        with open(weights.with_name("curves.csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["iteration"] for row in rows] == ["0", "2"]
        assert all(row["held_out_J"] for row in rows)
    assert set(project.computed("mine")) == {"mine/a"}
    page = (project.folder / "results/report/index.html").read_text()
    assert "tiny.stage0" in page and "tiny.stage3" in page


def test_other_settings_of_a_stage_train_it_and_what_follows_again(project):
    config = project.folder / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("  tiny:\n", "  tiny:\n    stage_settings:\n      3: {learning_rate: 0.001}\n"))
    answer = project.snakemake("-n").stdout
    config.write_text(text)
    outputs = [line for line in answer.splitlines() if "output:" in line]
    assert any("data/training/tiny/stage3-" in line for line in outputs)
    assert not any("data/training/tiny/stage0-" in line for line in outputs)
    assert any("results/toy-val/mine/" in line for line in outputs)
