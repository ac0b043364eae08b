"""Datasets that are not scored like DAVIS, and those that are not scored here at all, through the whole workflow."""

from __future__ import annotations

import csv
import io
import zipfile

import numpy as np
import pytest

from tests.unit.trees import make_mose_tree, rectangles, save_frame, save_label_map
from tests.workflow.project import Project

FRAMES = 6


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """Overlapping objects, one file each, scored as SA-V is; and MOSE valid, which a server scores."""
    folder = tmp_path_factory.mktemp("protocols")
    project = Project.make(folder / "project", {"a": 3})
    for video in ("park", "road"):
        for frame in range(FRAMES):
            save_frame(folder / f"own/frames/{video}/{frame:05d}.jpg", frame)
            for number in (0, 1):
                mask = np.roll(rectangles((1, 1)), number * 3 + frame, axis=1)
                save_label_map(folder / f"own/masks/{video}/{number:03d}/{frame:05d}.png", mask)
    make_mose_tree(folder / "mose")
    own = {"base_video_dir": str(folder / "own/frames"), "input_mask_dir": str(folder / "own/masks")}
    own |= {"annotations": own["input_mask_dir"], "protocol": "sav", "per_obj_png_file": True}
    project.write_config(
        {
            "runs": [{"dataset": ["objects/val", "mose/valid"], "tracker": "static"}],
            "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
            "paths": {"datasets": {"mose": str(folder / "mose")}},
            "datasets": {"objects/val": own},
        }
    )
    project.snakemake()
    return project


def test_overlapping_objects_are_scored_one_by_one(project):
    folder = project.folder / "results/objects-val/static"
    rows = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text())))
    assert {(row["video"], row["object"]) for row in rows} == {(v, o) for v in ("park", "road") for o in "01"}
    assert len(rows) == 4 * (FRAMES - 2)
    assert (folder / "masks/park/001/00003.png").is_file() and not (folder / "submission.zip").exists()
    assert "sav: 4 objects in 2 videos" in (folder / "logs/score_run.log").read_text()
    for name in ("tables/summary.md", "report/index.html"):
        assert (
            "SA-V evaluator counts an object only from its first sight"
            in (project.folder / "results" / name).read_text()
        )


def test_a_run_without_ground_truth_ends_in_a_checked_submission(project):
    folder = project.folder / "results/mose-valid/static"
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert len(archive.namelist()) == 6 and archive.namelist()[0].count("/") == 1
    assert "6 files of 2 videos, for MOSE v1 valid" in (folder / "logs/write_submission.log").read_text()
    first = (folder / "submission.zip").read_bytes()
    (folder / "submission.zip").unlink()
    project.snakemake("submissions")  # a deleted one is made again, with the same bytes
    assert (folder / "submission.zip").read_bytes() == first
