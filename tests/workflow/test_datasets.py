"""Datasets of the catalog in the layouts of their publishers, through the whole workflow: scored, or never scored."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path

import pytest

from tests.unit.trees import make_davis2016_tree, make_davis_tree, make_mose_tree
from tests.workflow.project import Project

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("catalog")
    project = Project.make(folder / "project", {"a": 3})
    make_davis2016_tree(folder / "davis2016", frames=5)
    make_davis_tree(folder / "test-dev", split="test-dev", first_mask_only=True)
    make_mose_tree(folder / "mose")
    config = {
        "runs": [{"dataset": ["davis2016/val", "davis2017/test-dev", "mose/valid"], "tracker": "static"}],
        "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
        "paths": {
            "datasets": {
                "davis2016": str(folder / "davis2016"),
                "davis2017": str(folder / "test-dev"),
                "mose": str(folder / "mose"),
            }
        },
    }
    project.write_config(config)
    project.snakemake()
    return project


def table(project: Project) -> dict[str, dict[str, str]]:
    text = (project.folder / "results/tables/summary.csv").read_text()
    return {row["dataset"]: row for row in csv.DictReader(io.StringIO(text))}


def test_davis2016_is_scored(project):
    row = table(project)["davis2016/val"]
    assert 0 < float(row["J&F"]) <= 1
    header = (project.folder / "results/davis2016-val/static/scores.csv").read_text().splitlines()[0]
    assert header == "video,object,frame,J,F"


@pytest.mark.parametrize("dataset", ["davis2017/test-dev", "mose/valid"])
def test_without_public_ground_truth_there_is_no_score(project, dataset):
    row = table(project)[dataset]
    assert row["J&F"] == row["J"] == row["F"] == "" and "no public ground truth" in row["notes"]
    folder = project.folder / "results" / dataset.replace("/", "-") / "static"
    assert not (folder / "scores.csv").exists()
    masks = sorted(str(path.relative_to(folder / "masks")) for path in (folder / "masks").rglob("*.png"))
    assert len(masks) == int(row["frames"]) and all(len(Path(mask).parts) == 2 for mask in masks)
    assert "no public ground truth" in (project.folder / "results/report/index.html").read_text()


def test_an_archive_is_extracted_and_used(project, tmp_path):
    """The path of a fetched dataset, from the downloaded archive on: what `fetch_archive` would have left."""
    make_davis_tree(tmp_path / "DAVIS")
    downloads = project.folder / "data/downloads"
    downloads.mkdir(parents=True)
    with zipfile.ZipFile(downloads / "DAVIS-2017-trainval-480p.zip", "w") as archive:
        for path in sorted((tmp_path / "DAVIS").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    config = {
        "runs": [{"dataset": "davis2017/val", "tracker": "static"}],
        "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
    }
    project.write_config(config)
    planned = re.findall(r"^(\w+) +\d+$", project.snakemake("-n", "--quiet", "rules").stdout, re.MULTILINE)
    assert "fetch_archive" not in planned and "extract_archive" in planned
    project.snakemake()
    assert (project.folder / "data/datasets/davis2017/trainval-480p.json").exists()
    assert float(table(project)["davis2017/val"]["J&F"]) > 0
