"""Datasets of the catalog in the layouts of their publishers, through the whole workflow: scored, or never scored."""

from __future__ import annotations

import contextlib
import csv
import functools
import http.server
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit.publisher_trees import (
    make_all_frames_tree,
    make_bdd100k_tree,
    make_lvos_tree,
    make_mose_train_tree,
    make_sample_submission,
    make_sav_tree,
    make_youtubevos_tree,
)
from tests.unit.trees import make_davis2016_tree, make_davis_tree, make_mose_tree
from tests.workflow.project import Project
from vosflow.datasets.bdd100k_masks import convert_split
from vosflow.digest import file_digest

DATASETS = {  # adapter by adapter, each with an archive of another kind; and what its numbers are
    "davis2016/val": "ground truth",
    "davis2017/test-dev": "",
    "mose/train-holdout": "ground truth",
    "mose/valid-sample": "agreement with the sample submission",
    "mosev2/valid": "",
    "lvos_v1/valid": "ground truth",
    "lvos_v2/valid": "ground truth",
    "sav/val": "ground truth",
    "youtubevos2018/valid_all_frames": "",
    "youtubevos2019/valid": "",
    "bdd100k_mots/val": "ground truth",
}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def loopback(folder: Path) -> Iterator[str]:
    """Serve the files of a folder; yields the address."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def publish(folder: Path) -> None:
    """Archives and lists in the layouts of their publishers, under the names of the catalog."""
    trees = folder / "trees"
    make_davis2016_tree(trees / "davis2016/DAVIS", frames=5)
    make_davis_tree(trees / "davis2017/DAVIS", split="test-dev", first_mask_only=True)
    make_mose_train_tree(trees / "mose_train/train", ("0a1b2c3d", "b0c1d2e3", "c0c1d2e3"))
    make_mose_tree(trees / "mose/valid")
    videos = [path.name for path in (trees / "mose/valid/JPEGImages").iterdir()]
    make_sample_submission(trees / "sample", videos)
    (trees / "mose/valid/meta_valid.json").rename(folder / "MOSE-meta_valid.json")
    (folder / "MOSE-sample-val-list.txt").write_text("b0c1d2e3\n0a1b2c3d\n")
    make_lvos_tree(trees / "lvos/valid", frames=8)
    (trees / "lvos/valid/valid_meta.json").rename(folder / "LVOS-v2-valid_meta.json")
    (folder / "LVOS-v2-unseen_videos.txt").write_text("vid2BBBB")
    make_mose_tree(trees / "mosev2/valid")
    (trees / "mosev2/valid/meta_valid.json").rename(folder / "MOSEv2-meta_valid.json")
    make_lvos_tree(trees / "lvos_v1/valid", frames=8)
    (trees / "lvos_v1/valid/valid_meta.json").rename(folder / "LVOS-v1-valid_meta.json")
    (folder / "LVOS-v1-unseen_videos.txt").write_text("vid1AAAA")
    make_sav_tree(trees / "sav/sav_val")
    make_youtubevos_tree(trees / "youtube/valid")
    make_all_frames_tree(trees / "youtube_all/valid_all_frames")
    make_youtubevos_tree(trees / "youtube2019/valid")
    for tree, name in {
        "davis2016": "DAVIS-data.zip",
        "davis2017": "DAVIS-2017-test-dev-480p.zip",
        "mose_train": "MOSE-train.tar.gz",
        "mose": "MOSE-valid.tar.gz",
        "sample": "MOSE-sample_submission_valid_all.zip",
        "mosev2": "MOSEv2-valid.tar.gz",
        "lvos_v1": "LVOS-v1-valid.zip",
        "lvos": "LVOS-v2-valid.zip",
        "sav": "sav_val.tar",
        "youtube": "YouTubeVOS-2018-valid.zip",
        "youtube_all": "YouTubeVOS-2018-valid_all_frames.zip",
        "youtube2019": "YouTubeVOS-2019-valid.zip",
    }.items():
        stem, _, kind = name.partition(".")
        kind = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}[kind]
        shutil.make_archive(str(folder / stem), kind, trees / tree)


def at(address: str, folder: Path, catalog: dict) -> dict:
    """The catalog with every file that lies in `folder` at `address`, and with its size and hash."""
    for dataset in catalog.values():
        for entry in dataset.get("archives", {}).values():
            file = folder / entry["file"]
            if file.is_file():
                entry["sources"] = [{"kind": "http", "url": f"{address}/{file.name}"}]
                entry["evidence"] = "publisher"
                entry.update(size_bytes=file.stat().st_size, sha256=file_digest(file))
                for other in ("md5", "git_blob_sha1"):
                    entry.pop(other, None)
                dataset["access"] = "open"
    return catalog


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A study of everything, from nothing: fetched, extracted, tracked and scored in one go."""
    folder = tmp_path_factory.mktemp("publishers")
    publish(folder)
    list(convert_split(make_bdd100k_tree(folder / "bdd100k"), "val"))  # by hand, as its publisher wants a login
    project = Project.make(tmp_path_factory.mktemp("catalog") / "project", {"a": 3})
    project.write_config(
        {
            "runs": [{"dataset": list(DATASETS), "tracker": "static"}],
            "execution": {"device": "cpu", "shards": 1, "evaluation_workers": 1},
            "paths": {"datasets": {"bdd100k_mots": str(folder / "bdd100k")}},
        }
    )
    path = project.folder / "vosflow/catalog/datasets.yaml"
    with loopback(folder) as address:
        path.write_text(yaml.safe_dump(at(address, folder, yaml.safe_load(path.read_text()))))
        project.snakemake()
    return project


def table(project: Project) -> dict[str, dict[str, str]]:
    text = (project.folder / "results/tables/summary.csv").read_text()
    return {row["dataset"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.mark.parametrize("dataset", [name for name, compared in DATASETS.items() if compared])
def test_what_has_ground_truth_is_scored(project, dataset):
    row = table(project)[dataset]
    assert 0 < float(row["J&F"]) <= 1 and row["compared_with"] == DATASETS[dataset]
    assert (project.folder / "results" / dataset.replace("/", "-") / "static/scores.csv").is_file()


@pytest.mark.parametrize("dataset", [name for name, compared in DATASETS.items() if not compared])
def test_without_public_ground_truth_there_is_no_score(project, dataset):
    row = table(project)[dataset]
    assert row["J&F"] == row["J"] == row["F"] == "" and "no public ground truth" in row["notes"]
    folder = project.folder / "results" / dataset.replace("/", "-") / "static"
    assert not (folder / "scores.csv").exists()
    masks = sorted(str(path.relative_to(folder / "masks")) for path in (folder / "masks").rglob("*.png"))
    assert len(masks) == int(row["frames"]) and all(len(Path(mask).parts) == 2 for mask in masks)
    assert "no public ground truth" in (project.folder / "results/report/index.html").read_text()


def test_quirks_of_the_publishers_arrive_at_the_scores(project):
    def scored(dataset: str) -> set[tuple[str, str, str]]:
        text = (project.folder / "results" / dataset / "static/scores.csv").read_text()
        return {(row["video"], row["object"], row["frame"]) for row in csv.DictReader(io.StringIO(text))}

    sav = scored("sav-val")
    assert ("sav_000001", "0", "00004") in sav and not any(frame == "00005" for _, _, frame in sav), "every 4th frame"
    assert ("sav_000002", "1", "00012") not in sav, "the last one of an object with frames of its own is left out"
    lvos = scored("lvos_v2-valid")
    assert ("vid2BBBB", "2", "00000016") in lvos and ("vid2BBBB", "2", "00000011") not in lvos, "from its own start"
    late = scored("bdd100k_mots-val")
    assert {frame for _, number, frame in late if number == "2"} == {"0000003", "0000004"}, "after its first frame"
    assert ("vid1AAAA", "1", "00000011") in lvos and ("vid1AAAA", "1", "00000021") not in lvos, "to its own end"


def test_notes_on_datasets_arrive_in_tables_and_page(project):
    for name in ("tables/summary.md", "report/index.html"):
        text = (project.folder / "results" / name).read_text()
        assert "agreement with the sample submission" in text
        assert "were not trained on MOSE" in text
        assert "2 videos found, 155 expected from the catalog" in text


def serve(project: Project, archive: Path, *, sha256: str, url: str | None = None) -> None:
    """Let the project's catalog find DAVIS 2017 at `url` (or nowhere) and expect this archive's size."""
    path = project.folder / "vosflow/catalog/datasets.yaml"
    catalog = yaml.safe_load(path.read_text())
    entry = catalog["davis2017"]["archives"]["trainval-480p"]
    entry["sources"] = [{"kind": "http", "url": url}] if url else []
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
    with loopback(tmp_path) as address:
        serve(project, archive, sha256=file_digest(archive), url=f"{address}/{archive.name}")
        project.write_config(DAVIS2017)
        project.snakemake("summarize")
    fetched = project.folder / "data/downloads" / archive.name
    assert file_digest(fetched) == file_digest(archive)
    assert float(table(project)["davis2017/val"]["J&F"]) > 0
    before = fetched.stat().st_mtime_ns
    project.snakemake("summarize", "--forcerun", "fetch_archive")  # the server is gone: a download is never thrown away
    assert fetched.stat().st_mtime_ns == before
    serve(project, archive, sha256="1" * 64)  # the catalog is corrected: what is there is checked again
    answer = project.snakemake("summarize", check=False)
    assert "the file that is already there is wrong" in answer.stdout and fetched.stat().st_mtime_ns == before


def test_an_archive_put_there_by_hand_is_checked(project, tmp_path):
    archive = make_archive(tmp_path)
    for made in ("data", "results/davis2017-val"):
        shutil.rmtree(project.folder / made, ignore_errors=True)
    downloads = project.folder / "data/downloads"
    downloads.mkdir(parents=True)
    shutil.copy(archive, downloads)
    project.write_config(DAVIS2017)
    serve(project, archive, sha256="0" * 64)
    answer = project.snakemake("summarize", check=False)
    assert answer.returncode != 0 and "the file that is already there is wrong" in answer.stdout
    assert file_digest(archive) in answer.stdout and "0" * 64 in answer.stdout, "both hashes are told"
    assert (downloads / archive.name).exists()
    serve(project, archive, sha256=file_digest(archive))
    project.snakemake("summarize")
    assert float(table(project)["davis2017/val"]["J&F"]) > 0
