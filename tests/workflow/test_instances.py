"""A tracker of several networks that proposes objects, on a dataset without prompts, through the whole workflow."""

from __future__ import annotations

import csv
import json

import pytest

from tests.unit.publisher_trees import make_uvo_tree
from tests.workflow.project import Project

FRAMES = 4
POINTS = "cotracker_stride_4_wind_12"  # whose sha256 nobody published
# Finds the boxes of the tree's annotations as they are on the first frame; the brightness of a frame is an artefact.
BOXES = """
import numpy as np

from vosflow.trackers.base import Part, TrackerSettings


class Settings(TrackerSettings):
    boxes: int = 5


class Boxes:
    Settings = Settings
    needs_checkpoint = True
    uses_gpu = False
    proposes_objects = True

    @classmethod
    def parts(cls, settings):
        points = Part("cotracker", "cotracker_stride_4_wind_8")
        return {"sam": Part("mobile_sam", "mobile_sam"), "point_tracker": points}

    def __init__(self, settings, checkpoint, device):
        self.settings, self.weights = settings, checkpoint

    def load(self):
        assert self.weights["sam"].path.read_text() == "sam"

    def track(self, video):
        for index, name in enumerate(video.frame_names):
            frame = video.read_frame(index)
            facts = {"video": video.name, "frame": index}
            video.artefacts.get("brightness", facts, lambda frame=frame: {"mean": frame.mean((0, 1))})
            masks = np.zeros((self.settings.boxes, video.height, video.width), bool)
            for number, mask in enumerate(masks):
                mask[3 : 9 + number, 2 + number : 9 + number] = True
            yield name, {number + 1: mask for number, mask in enumerate(masks)}
        video.scores |= {number + 1: 1 - number / 10 for number in range(self.settings.boxes)}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("instances")
    project = Project.make(folder / "project", {"a": 3})
    (project.folder / "my_boxes.py").write_text(BOXES)
    (project.folder / "sam.pt").write_text("sam")
    (project.folder / "points.pt").write_text("points")
    make_uvo_tree(folder / "uvo", frames=FRAMES)
    project.write_config(config(str(folder / "uvo"), [5]))
    project.snakemake()
    return project


def config(uvo: str, boxes: list[int], **paths: str) -> dict:
    weights = {"sam": "my_sam", "point_tracker": POINTS}
    line = {"dataset": "uvo/val", "tracker": "my_boxes:Boxes", "checkpoint": weights, "settings": {"boxes": boxes}}
    given = {"datasets": {"uvo": uvo}, "checkpoints": {POINTS: "points.pt"}, **paths}
    return {
        "runs": [line],
        "execution": {"device": "cpu", "shards": 2, "evaluation_workers": 1},
        "checkpoints": {"my_sam": {"path": "sam.pt"}},
        "paths": given,
    }


def test_proposed_objects_are_gathered_scored_and_shown(project):
    folder = project.folder / "results/uvo-val/Boxes@boxes=5"
    with open(folder / "global_results.csv", newline="") as file:
        (totals,) = csv.DictReader(file)
    # Five of six objects are right at all thresholds; the one that is away on every other frame at the lowest of ten.
    assert float(totals["AR@100"]) == pytest.approx(5.1 / 6) and 0.5 < float(totals["AP"]) < 1.0
    assert len(json.loads((folder / "results.json").read_text())) == 10
    run = json.loads((folder / "run.json").read_text())
    assert set(run["checkpoint"]) == {"sam", "point_tracker"} and run["totals"]["objects"] == 10
    assert run["totals"]["artefacts"] == {"brightness": {"made": 2 * FRAMES, "reused": 0}}
    assert len(list((project.folder / "data/cache").rglob("*.safetensors"))) == 2 * FRAMES
    page = (project.folder / "results/report/index.html").read_text()
    for text in ("Checkpoint of point_tracker", "AR@100", "highest scores", "for non-commercial use only"):
        assert text in page, text
    logs = [path.read_text() for path in folder.glob("logs/track_*.log")]
    assert len(logs) == 2 and all("for non-commercial use only (CC-BY-NC-4.0)" in log for log in logs)


def test_another_run_reuses_artefacts_and_another_place_for_them_runs_nothing(project):
    uvo = str(project.folder.parent / "uvo")
    project.write_config(
        config(uvo, [5], cache="elsewhere") | {"execution": {**config(uvo, [5])["execution"], "cache_gigabytes": 1}}
    )
    assert "Nothing to be done" in project.snakemake("-n").stdout
    project.write_config(config(uvo, [5, 2]))
    told = project.snakemake("score_all").stdout
    assert told.count("for non-commercial use only") >= 1
    record = json.loads((project.folder / "results/uvo-val/Boxes@boxes=2/run.json").read_text())
    assert record["totals"]["artefacts"] == {"brightness": {"made": 0, "reused": 2 * FRAMES}}
    results = project.folder / "results/uvo-val/Boxes@boxes=5/results.json"
    before = results.read_bytes()
    results.unlink()
    project.snakemake("score_all")
    assert results.read_bytes() == before and not (project.folder / "elsewhere").exists()
