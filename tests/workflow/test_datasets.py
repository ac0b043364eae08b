"""Datasets of the catalog in the layouts of their publishers, through the whole workflow: scored, or never scored."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import shutil
import threading
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.unit.trees import make_davis2016_tree, make_davis_tree, make_mose_tree
from tests.workflow.project import Project
from vosflow.digest import file_digest

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


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(project: Project, archive: Path, *, sha256: str, url: str | None = None) -> None:
    """Let the project's catalog find DAVIS 2017 at `url` (or nowhere) and expect this archive's size."""
    path = project.folder / "vosflow/catalog/datasets.yaml"
    catalog = yaml.safe_load(path.read_text())
    entry = catalog["davis2017"]["archives"]["trainval-480p"]
    entry["sources"] = [{"kind": "http", "url": url}] if url else [{"kind": "file", "path": "nowhere"}]
    entry.update(size_bytes=archive.stat().st_size, sha256=sha256)
    path.write_text(yaml.safe_dump(catalog))


def make_archive(folder: Path) -> Path:
    """An archive of the layout of DAVIS 2017."""
    make_davis_tree(folder / "DAVIS")
    path = folder / "DAVIS-2017-trainval-480p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in sorted((folder / "DAVIS").rglob("*.*")):
            archive.write(member, member.relative_to(folder))
    return path


DAVIS2017 = {
    "runs": [{"dataset": "davis2017/val", "tracker": "static"}],
    "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
}


def test_from_a_server_to_a_score(project, tmp_path):
    """Fetched over HTTP (loopback), checked, extracted, tracked, scored; an archive that is there is kept."""
    archive = make_archive(tmp_path)
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        serve(
            project, archive, sha256=file_digest(archive), url=f"http://127.0.0.1:{server.server_port}/{archive.name}"
        )
        project.write_config(DAVIS2017)
        project.snakemake()
    finally:
        server.shutdown()
        server.server_close()
    fetched = project.folder / "data/downloads" / archive.name
    assert file_digest(fetched) == file_digest(archive)
    assert float(table(project)["davis2017/val"]["J&F"]) > 0
    before = fetched.stat().st_mtime_ns
    project.snakemake("--forcerun", "fetch_archive")  # the server is gone: a download is never thrown away
    assert fetched.stat().st_mtime_ns == before


def test_an_archive_put_there_by_hand_is_checked(project, tmp_path):
    archive = make_archive(tmp_path)
    for made in ("data", "results/davis2017-val"):
        shutil.rmtree(project.folder / made, ignore_errors=True)
    downloads = project.folder / "data/downloads"
    downloads.mkdir(parents=True)
    shutil.copy(archive, downloads)
    project.write_config(DAVIS2017)
    serve(project, archive, sha256="0" * 64)
    answer = project.snakemake(check=False)
    assert answer.returncode != 0 and "the file that is already there is wrong" in answer.stdout
    assert file_digest(archive) in answer.stdout and "0" * 64 in answer.stdout, "both hashes are told"
    assert (downloads / archive.name).exists()
    serve(project, archive, sha256=file_digest(archive))
    project.snakemake()
    assert float(table(project)["davis2017/val"]["J&F"]) > 0
