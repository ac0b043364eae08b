"""Importing datasets that are on this machine: recognised, checked, linked, never copied."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

import vosflow.catalog
from tests.unit.publisher_trees import make_youtubevos_tree
from tests.unit.trees import make_davis_tree, make_mose_tree
from vosflow.catalog import Dataset, load_datasets
from vosflow.config import parse_config
from vosflow.datasets import build_manifest
from vosflow.datasets.imports import import_checkpoint, import_dataset
from vosflow.datasets.listing import catalog_rows
from vosflow.errors import VosflowError
from vosflow.sources import dataset_source

VIDEOS = {"one": (1,), "two": (1, 2)}


@pytest.fixture(autouse=True)
def small_catalog(monkeypatch):
    """The catalog, with as few videos as these tests make, and no hash for the archives."""
    counts = {"davis2017": ("val", 2, 8, 3), "mose": ("valid", 2, 6, 3)}
    changed = {}
    for name, (split, videos, frames, objects) in counts.items():
        data = load_datasets()[name].model_dump()
        data["splits"] = {split: {**data["splits"][split], "videos": videos, "frames": frames, "objects": objects}}
        for archive in data["archives"].values():
            archive.update(sha256=None, size_bytes=None)
        changed[name] = Dataset.model_validate(data)
    everything = {**load_datasets(), **changed}
    monkeypatch.setattr(vosflow.catalog, "load_datasets", lambda: everything)


@pytest.fixture
def take(tmp_path):
    def take(given: Path, dataset: str = "davis2017", archive: str | None = None) -> list[str]:
        return import_dataset(given, dataset, archive, tmp_path / "data", tmp_path / "data/locks")

    return take


def davis(folder: Path) -> Path:
    return make_davis_tree(folder, VIDEOS)


def root_of(tmp_path: Path) -> Path:
    return vosflow.catalog.find_dataset("davis2017").root("val", tmp_path / "data/datasets/davis2017")


@pytest.mark.parametrize("made, given", [("DAVIS", "."), ("DAVIS", "DAVIS"), ("my-davis", "my-davis")])
def test_folder_at_any_depth(tmp_path, take, made, given):
    davis(tmp_path / "mine" / made)
    (line,) = take(tmp_path / "mine" / given)
    root = root_of(tmp_path)
    assert root.resolve() == tmp_path / "mine" / made and "davis2017 trainval-480p" in line
    marker = json.loads((tmp_path / "data/datasets/davis2017/trainval-480p.json").read_text())
    assert marker["archive"] == "DAVIS-2017-trainval-480p.zip" and str(tmp_path / "mine") in marker["imported_from"]
    manifest = build_manifest("davis2017", "val", root)
    assert [video.name for video in manifest.videos] == ["one", "two"] and manifest.notes == ()
    assert not [
        path for path in (tmp_path / "data").rglob("*") if path.is_file() and path.suffix not in (".json", ".lock")
    ]


def test_imported_folder_is_planned_and_watched(tmp_path, take):
    davis(tmp_path / "DAVIS")
    take(tmp_path / "DAVIS")
    config = parse_config(
        {"runs": [{"dataset": "davis2017/val", "tracker": "static"}], "paths": {"data": str(tmp_path / "data")}}
    )
    source = dataset_source(config, "davis2017/val")
    before = source.state
    (tmp_path / "DAVIS/JPEGImages/480p/one/00003.jpg").unlink()
    assert source.watched and source.state != before


def test_folder_by_folder_and_again(tmp_path, take):
    for name in ("first", "second"):
        davis(tmp_path / name)
        take(tmp_path / name)
        assert root_of(tmp_path).resolve() == tmp_path / name
    assert (tmp_path / "first/JPEGImages").is_dir()
    assert sorted(os.listdir(tmp_path / "data/datasets/davis2017")) == ["trainval-480p", "trainval-480p.json"]


@pytest.mark.parametrize("spoil", ["video", "frame"])
def test_other_counts_are_refused(tmp_path, take, spoil):
    davis(tmp_path / "DAVIS")
    if spoil == "video":
        shutil.rmtree(tmp_path / "DAVIS/JPEGImages/480p/two")
        (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("one")
    else:
        (tmp_path / "DAVIS/JPEGImages/480p/two/00003.jpg").unlink()
    with pytest.raises(VosflowError, match=f"not what its publisher describes: .*{spoil}s instead of") as caught:
        take(tmp_path / "DAVIS")
    assert "paths: datasets: {davis2017:" in caught.value.remedy
    assert os.listdir(tmp_path / "data/datasets/davis2017") == []
    assert (tmp_path / "DAVIS/JPEGImages/480p/one").is_dir()


def test_what_is_not_recognised(tmp_path, take):
    (tmp_path / "photos").mkdir()
    with pytest.raises(VosflowError, match="nothing of DAVIS 2017 was found in it") as caught:
        take(tmp_path / "photos")
    assert "DAVIS/JPEGImages/480p" in caught.value.expected
    with pytest.raises(VosflowError, match="no such file or folder"):
        take(tmp_path / "nowhere")


def test_folders_that_look_alike_are_told_apart_by_their_names(tmp_path, take):
    """Inside, valid and train of YouTube-VOS are the same; so are the images of valid_all_frames."""
    for name in ("valid", "mine"):
        make_youtubevos_tree(tmp_path / name)
    with pytest.raises(VosflowError, match="it may be train or valid or valid_all_frames") as caught:
        take(tmp_path / "mine", "youtubevos2019")
    assert "--archive with one of train, valid" in caught.value.remedy
    for given, archive in (("valid", None), ("mine", "valid")):
        with pytest.raises(VosflowError, match="2 videos instead of 507"):  # recognised, and too small
            take(tmp_path / given, "youtubevos2019", archive)


def zip_of(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted(folder.rglob("*.*")):
            file.write(member, member.relative_to(folder.parent))
    return path


def test_archive_is_linked_and_recorded(tmp_path, take):
    archive = zip_of(davis(tmp_path / "DAVIS"), tmp_path / "DAVIS-2017-trainval-480p.zip")
    (line,) = take(archive)
    place = tmp_path / "data/downloads/DAVIS-2017-trainval-480p.zip"
    assert os.readlink(place) == str(archive) and "no hash is published, so this one is recorded" in line
    assert place.with_name(place.name + ".fetched").exists()
    assert (tmp_path / "data/locks" / f"{place.name}.json").exists()
    (row,) = catalog_rows(tmp_path / "data", "davis2017 trainval-480p")
    assert row.here == "imported"


def test_archive_without_the_dataset_in_it(tmp_path, take):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file.txt").write_text("x")
    archive = zip_of(tmp_path / "other", tmp_path / "DAVIS-2017-trainval-480p.zip")
    with pytest.raises(VosflowError, match="does not hold DAVIS/JPEGImages/480p"):
        take(archive)
    assert not (tmp_path / "data/downloads/DAVIS-2017-trainval-480p.zip").is_symlink()


def test_archive_under_another_name(tmp_path, take):
    archive = zip_of(davis(tmp_path / "DAVIS"), tmp_path / "mine.zip")
    with pytest.raises(VosflowError, match="called like no archive of davis2017") as caught:
        take(archive)
    assert "--archive with one of trainval-480p, trainval-full, test-dev-480p, test-dev-full" in caught.value.remedy
    take(archive, "davis2017", "trainval-480p")
    assert (tmp_path / "data/downloads/DAVIS-2017-trainval-480p.zip").exists()


def test_folder_of_archives_and_lists(tmp_path, take):
    """What someone downloaded, under the publisher's names."""
    make_mose_tree(tmp_path / "mose/valid")
    (tmp_path / "mose/valid/meta_valid.json").rename(tmp_path / "mose/meta_valid.json")
    zip_of(tmp_path / "mose/valid", tmp_path / "mose/valid.tar.gz")
    shutil.rmtree(tmp_path / "mose/valid")
    lines = take(tmp_path / "mose", "mose")
    assert sorted(os.listdir(tmp_path / "data/locks")) == ["MOSE-meta_valid.json.json", "MOSE-valid.tar.gz.json"]
    assert len(lines) == 2


def test_extracted_folder_beside_its_list(tmp_path, take):
    make_mose_tree(tmp_path / "mose/valid")
    (tmp_path / "mose/valid/meta_valid.json").rename(tmp_path / "mose/meta_valid.json")
    assert len(take(tmp_path / "mose", "mose")) == 2
    assert (tmp_path / "data/downloads/MOSE-meta_valid.json").is_symlink()
    assert (tmp_path / "data/datasets/mose/valid/valid").resolve() == tmp_path / "mose/valid"


def test_folder_called_like_an_archive_that_it_is_not(tmp_path, take):
    """`valid` of YouTube-VOS without its meta.json is not `valid_all_frames`, though that holds nothing but images."""
    make_youtubevos_tree(tmp_path / "valid")
    (tmp_path / "valid/meta.json").unlink()
    with pytest.raises(VosflowError, match="called like archive valid, but there is no valid/meta.json"):
        take(tmp_path / "valid", "youtubevos2019")
    assert not (tmp_path / "data/datasets").exists()
    take(tmp_path / "valid", "youtubevos2019", "valid_all_frames")  # if that is what it is said to be


def test_killed_import_leaves_no_marker_of_something_else(tmp_path, take, monkeypatch):
    davis(tmp_path / "first")
    take(tmp_path / "first")
    davis(tmp_path / "second")

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("vosflow.datasets.imports.write_json", killed)  # between the folder and its marker
    with pytest.raises(KeyboardInterrupt):
        take(tmp_path / "second")
    assert os.listdir(tmp_path / "data/datasets/davis2017") == ["trainval-480p"]
    monkeypatch.undo()


def test_what_is_in_its_place_already_is_not_replaced_by_a_link_to_itself(tmp_path, take):
    """Else an import would delete what was extracted or downloaded."""
    extracted = davis(tmp_path / "data/datasets/davis2017/trainval-480p/DAVIS")
    archive = tmp_path / "data/downloads/DAVIS-2017-trainval-480p.zip"
    archive.parent.mkdir(parents=True)
    zip_of(extracted, archive)
    os.symlink(tmp_path / "data", tmp_path / "link")
    for place in (tmp_path / "data", tmp_path / "link"):
        for given in ("datasets/davis2017", "datasets/davis2017/trainval-480p/DAVIS", f"downloads/{archive.name}"):
            with pytest.raises(VosflowError, match="it is in the data folder already"):
                take(place / given)
    assert archive.is_file() and not archive.is_symlink() and (extracted / "JPEGImages").is_dir()


def test_weights_in_their_place_already(tmp_path):
    weights = tmp_path / "checkpoints/sam2_hiera_tiny.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    with pytest.raises(VosflowError, match="it is in the data folder already"):
        import_checkpoint(weights, "sam2_tiny", tmp_path, tmp_path / "locks")
    assert weights.read_bytes() == b"weights" and not weights.is_symlink()


def test_list_inside_the_extracted_folder(tmp_path, take):
    make_mose_tree(tmp_path / "mose/valid")
    assert len(take(tmp_path / "mose", "mose")) == 2
    assert os.readlink(tmp_path / "data/downloads/MOSE-meta_valid.json") == str(tmp_path / "mose/valid/meta_valid.json")


def test_imported_folder_that_is_gone(tmp_path, take):
    davis(tmp_path / "mine")
    take(tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine")
    with pytest.raises(VosflowError, match=f"it was imported from {tmp_path / 'mine'}, which is not there"):
        build_manifest("davis2017", "val", root_of(tmp_path))


def test_archive_of_another_version(tmp_path, take):
    """valid.tar.gz of MOSE v1 and v2 differ in nothing but their videos; so do those of other datasets."""
    make_mose_tree(tmp_path / "valid")
    archive = zip_of(tmp_path / "valid", tmp_path / "valid.tar.gz")
    with pytest.raises(VosflowError, match="there are 2 videos in it") as caught:
        take(archive, "mosev2", "valid")
    assert caught.value.expected == "433, as in valid.tar.gz of mosev2"
    assert not (tmp_path / "data/locks").exists()
    take(archive, "mose", "valid")  # of two, by this catalog
