"""From a publisher's server to scores: small archives of every layout, fetched over loopback (or imported, where their
publisher asks who you are), extracted, described, tracked by `static`, and scored where ground truth is public."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vosflow.catalog
from tests.unit import publisher_trees, trees
from tests.unit.loopback import Server
from vosflow.catalog import Dataset, load_datasets
from vosflow.datasets import build_manifest, imports
from vosflow.datasets.archive import extract_archive
from vosflow.datasets.fetch import fetch_archive
from vosflow.datasets.imports import import_dataset
from vosflow.engine import track_shard
from vosflow.errors import VosflowError
from vosflow.evaluation.run import evaluate_run
from vosflow.manifest import load_manifest, save_manifest
from vosflow.method import Method


@dataclass(frozen=True)
class Case:
    """A split, its archives as {id: (what makes its content, the folder in the archive)}, its lists as {id: text}."""

    dataset: str
    split: str
    archives: dict[str, tuple[Callable[[Path], object], str]]
    lists: dict[str, str] = field(default_factory=dict)
    scored: bool = True


def names_of(*videos: str) -> str:
    return json.dumps({"videos": {video: {} for video in videos}})


CASES = [
    Case("davis2016", "val", {"data": (trees.make_davis2016_tree, "DAVIS")}),
    Case("davis2017", "val", {"trainval-480p": (trees.make_davis_tree, "DAVIS")}),
    Case(
        "davis2017",
        "test-dev",
        {"test-dev-480p": (lambda f: trees.make_davis_tree(f, split="test-dev", first_mask_only=True), "DAVIS")},
        scored=False,
    ),
    Case(
        "mose",
        "train-holdout",
        {"train": (publisher_trees.make_mose_train_tree, "train")},
        {"holdout_list": "b0c1d2e3"},
    ),
    Case(
        "mose",
        "valid",
        {"valid": (trees.make_mose_tree, "valid")},
        {"meta_valid": names_of("b0c1d2e3", "0a1b2c3d")},
        scored=False,
    ),
    Case(
        "lvos_v2",
        "valid",
        {"valid": (lambda f: publisher_trees.make_lvos_tree(f, meta=None), "valid")},
        {"unseen_videos": "vid2BBBB"},
    ),
    Case(
        "mosev2",
        "valid",
        {"valid": (trees.make_mose_tree, "valid")},
        {"meta_valid": names_of("b0c1d2e3", "0a1b2c3d")},
        scored=False,
    ),
    Case("lvos_v1", "valid", {"valid": (publisher_trees.make_lvos_tree, "valid")}),
    Case("sav", "val", {"val": (publisher_trees.make_sav_tree, "sav_val")}),
    Case("youtubevos2018", "valid", {"valid": (publisher_trees.make_youtubevos_tree, "valid")}, scored=False),
    Case("youtubevos2019", "valid", {"valid": (publisher_trees.make_youtubevos_tree, "valid")}, scored=False),
    Case(
        "youtubevos2019",
        "valid_all_frames",
        {
            "valid": (publisher_trees.make_youtubevos_tree, "valid"),
            "valid_all_frames": (publisher_trees.make_all_frames_tree, "valid_all_frames"),
        },
        scored=False,
    ),
]


def pack(folder: Path, path: Path) -> Path:
    """An archive of the kind that the name says, with everything in `folder`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for member in sorted(folder.rglob("*")):
                file.write(member, member.relative_to(folder))
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as file:
            file.add(folder, "./")  # as `tar -C folder .` does
    return path


@pytest.fixture
def servers(monkeypatch):
    """Lets the catalog find a file of a dataset on this machine."""
    monkeypatch.setattr(imports, "_numbers_of_videos", lambda dataset, archive: [])  # these have a few videos only
    running: list[Server] = []
    everything = {name: dataset.model_dump() for name, dataset in load_datasets().items()}

    def serve(dataset: str, archive: str, content: bytes) -> None:
        running.append(Server())
        running[-1].data = content
        facts = everything[dataset]
        facts["archives"][archive].update(
            sources=[{"kind": "http", "url": running[-1].url}],
            **dict.fromkeys(("sha256", "md5", "size_bytes", "git_blob_sha1")),
        )
        parsed = {**load_datasets(), dataset: Dataset.model_validate(facts)}
        monkeypatch.setattr(vosflow.catalog, "load_datasets", lambda: parsed)

    yield serve
    for server in running:
        server.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.dataset}-{case.split}")
def test_from_an_archive_to_scores(tmp_path, servers, case):
    data, published = tmp_path / "data", tmp_path / "published"
    entry = load_datasets()[case.dataset]
    place = data / "datasets" / case.dataset
    for archive, (make, inside) in case.archives.items():
        make(tmp_path / archive / inside)
        published.mkdir(exist_ok=True)
        file = pack(tmp_path / archive, published / entry.archives[archive].file)
        get(case.dataset, archive, file, data, servers)
        extract_archive(data / "downloads" / file.name, place / archive, place / f"{archive}.json")
    for archive, text in case.lists.items():
        (published / entry.archives[archive].file).write_text(text)
        get(case.dataset, archive, published / entry.archives[archive].file, data, servers)
    facts = entry.splits[case.split]
    lists = {
        role: data / "downloads" / entry.archives[archive].file
        for role, archive in facts.lists.items()
        if archive in case.lists
    }
    manifest = build_manifest(case.dataset, case.split, entry.root(case.split, place), lists=lists)
    assert any("expected from the catalog" in note for note in manifest.notes)  # it is small, and that is told
    save_manifest(manifest, tmp_path / "manifest.json")
    manifest = load_manifest(tmp_path / "manifest.json")
    track_shard(Method.of("static"), manifest, tmp_path / "run", shard=1, shards=1)
    assert {folder.name for folder in (tmp_path / "run/masks").iterdir()} == {v.name for v in manifest.videos}
    if case.scored:
        result = evaluate_run(manifest, tmp_path / "run/masks", tmp_path / "scores")
        assert len(result.scores) > 0 and (tmp_path / "scores/global_results.csv").exists()
    else:
        with pytest.raises(VosflowError, match="its ground truth is not public"):
            evaluate_run(manifest, tmp_path / "run/masks")


def get(dataset: str, archive: str, file: Path, data: Path, serve) -> None:
    """Fetch a file, or, where it must be asked for, be refused and import it."""
    locks = data / "locks"
    serve(dataset, archive, file.read_bytes())
    if load_datasets()[dataset].access == "open":
        assert fetch_archive(dataset, archive, data, locks=locks).compared_with == "nothing"
        return
    with pytest.raises(VosflowError, match="registered people only"):
        fetch_archive(dataset, archive, data, locks=locks)
    import_dataset(file, dataset, None, data, locks)
    assert fetch_archive(dataset, archive, data, locks=locks).source == str(file)
