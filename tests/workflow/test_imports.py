"""What was imported is used by the workflow as if it had been fetched: nothing is fetched, or made, again."""

from __future__ import annotations

import os
import subprocess
import sys

import yaml

from tests.unit.trees import make_davis_tree
from tests.workflow.project import Project

STUDY = {
    "runs": [{"dataset": "davis2017/val", "tracker": "static"}],
    "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
}


def test_imported_folder_is_tracked_and_scored(tmp_path):
    project = Project.make(tmp_path / "my project", {"a": 3})  # a path with a space
    catalog = project.folder / "vosflow/catalog/datasets.yaml"
    facts = yaml.safe_load(catalog.read_text())
    del facts["davis2017"]["splits"]["train"]
    facts["davis2017"]["splits"]["val"].update(videos=2, frames=8, objects=3)
    catalog.write_text(yaml.safe_dump(facts))
    project.write_config(STUDY)
    make_davis_tree(tmp_path / "mine", {"one": (1,), "two": (1, 2)})

    command = [sys.executable, "scripts/fetch.py", "--import", tmp_path / "mine", "--dataset", "davis2017"]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = project.snakemake("score_all")
    assert "fetch_archive" not in answer.stdout and "extract_archive" not in answer.stdout
    assert (project.folder / "results/davis2017-val/static/global_results.csv").exists()
    place = project.folder / "data/datasets/davis2017/trainval-480p/DAVIS"
    assert place.is_symlink() and os.readlink(place) == str(tmp_path / "mine")

    (tmp_path / "mine/JPEGImages/480p/one/00003.jpg").write_bytes(
        (tmp_path / "mine/JPEGImages/480p/one/00002.jpg").read_bytes()
    )
    assert "write_manifest" in project.snakemake("-n").stdout  # what is linked is watched
