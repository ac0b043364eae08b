"""The catalog: complete, consistent with itself and with the code, and strict."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.unit.scripts import run_script
from vosflow.catalog import (
    CheckpointEntry,
    Dataset,
    Network,
    _load,
    find_archive,
    find_checkpoint,
    find_dataset,
    find_split,
    load_checkpoints,
    load_datasets,
    load_published,
)
from vosflow.datasets import build_manifest
from vosflow.datasets.check import davis_frames
from vosflow.datasets.demo import write_demo_dataset
from vosflow.datasets.fetch import describe
from vosflow.datasets.listing import catalog_rows
from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import BUILT_IN as PROTOCOLS
from vosflow.method import parse_settings
from vosflow.trackers.registry import BUILT_IN as TRACKERS
from vosflow.trackers.registry import load_tracker
from vosflow.weights import parts_of

HOUSE = Path(__file__).resolve().parents[2]
SHA256 = "0" * 64


def remote_files():
    """All files of the catalog by id, each once (several weights may come in the same archive)."""
    files = {f"{name} {id}": file for name, dataset in load_datasets().items() for id, file in dataset.archives.items()}
    files |= load_checkpoints()
    files |= {entry.package.file: entry.package for entry in load_checkpoints().values() if entry.package}
    return files


def test_every_split_names_an_adapter():
    for dataset in load_datasets().values():
        for split in dataset.splits.values():
            assert importlib.util.find_spec(f"vosflow.datasets.{split.adapter}") is not None
            assert split.protocol in PROTOCOLS if split.has_ground_truth else split.protocol is None


def test_file_names_are_unique():
    names = [entry.file for entry in remote_files().values()]
    converted = [entry.weights_file for entry in load_checkpoints().values() if entry.pickled]
    assert len([*names, *converted]) == len({*names, *converted})


def test_every_file_has_a_source_and_honest_evidence():
    walled = {name for name, dataset in load_datasets().items() if dataset.register_at}
    for name, entry in remote_files().items():
        assert entry.source, name
        packed = isinstance(entry, CheckpointEntry) and entry.package is not None
        elsewhere = entry.evidence == "made_here" or packed or name.split()[0] in walled
        assert entry.sources or elsewhere, name
        hashed = bool(entry.hashed_by or entry.sha256_prefix)
        assert (entry.evidence == "unknown") == (not hashed), name
        for source in entry.sources:
            assert describe(source)


def test_weights_in_archives_and_pickles_have_hashes():
    """The hash of the archive is not known; of a pickle, unknown classes are left out because its hash is known."""
    for entry in load_checkpoints().values():
        assert entry.hashed_by or not (entry.package or entry.pickled)


def test_packages_of_one_name_are_one_package():
    packages = [entry.package for entry in load_checkpoints().values() if entry.package]
    facts = {(package.file, package.sources, package.size_bytes, package.sha256) for package in packages}
    assert len(facts) == len({package.file for package in packages})


def test_every_network_that_is_asked_for_is_there():
    networks = {entry.network for entry in load_checkpoints().values()}
    assert networks == set(typing.get_args(Network))
    for kind in (load_tracker(name) for name in TRACKERS):
        parts = parts_of(kind, kind.Settings())
        asked = {kind.network} if kind.needs_checkpoint and parts is None else set()
        assert asked <= networks
        assert all(find_checkpoint(part.checkpoint).network == part.network for part in (parts or {}).values())


def test_coverage_of_hashes(capsys):
    """Prints which files are compared with what; `pytest -s` shows it."""
    ways: dict[str, list[str]] = {}
    for name, entry in remote_files().items():
        if entry.hashed_by:
            way = f"a hash ({entry.evidence})"
        else:
            way = "the first digits of its hash" if entry.sha256_prefix else "its first download (locked on first use)"
        ways.setdefault(way, []).append(name)
    with capsys.disabled() if os.environ.get("SHOW_COVERAGE") else contextlib.nullcontext():
        total = sum(map(len, ways.values()))
        print(f"\n{total} files of the catalog are compared with")
        for way, names in sorted(ways.items()):
            print(f"  {way}: {len(names)} ({', '.join(sorted(names))})")
    assert "files of the catalog are compared with" in capsys.readouterr().out or os.environ.get("SHOW_COVERAGE")
    assert sum(len(names) for way, names in ways.items() if way.startswith("a hash")) >= 45


def test_no_source_is_used_for_two_files():
    """One file may serve two datasets, as LVOS's list of unseen videos; then they know the same hash of it."""
    users: dict[str, set[tuple]] = {}
    for entry in remote_files().values():
        for source in entry.sources:
            users.setdefault(describe(source), set()).add((entry.sha256, entry.md5, entry.git_blob_sha1, entry.file))
    twice = {place: files for place, files in users.items() if len({file[:3] for file in files}) > 1}
    assert twice == {}
    assert all(len(files) == 1 or any(next(iter(files))[:3]) for files in users.values())


def test_checkpoints_have_networks_of_the_sam2_package():
    package = Path(importlib.util.find_spec("sam2").origin).parent
    for name, entry in load_checkpoints().items():
        if entry.network == "sam2" and name != "sam2_demo":
            assert (package / entry.config).is_file()


@pytest.mark.parametrize(
    "dataset, split, counts",
    [  # counted in fperazzi/davis-2017@7f9de7af data/db_info.yaml
        ("davis2016", "train", (30, 2079)),
        ("davis2016", "val", (20, 1376)),
        ("davis2017", "train", (60, 4209)),
        ("davis2017", "val", (30, 1999)),
        ("davis2017", "test-dev", (30, 2086)),
        ("mose", "valid", (311, None)),
        ("mose", "train-holdout", (200, None)),
        ("lvos_v2", "valid", (140, None)),
        ("sav", "val", (155, None)),
        ("youtubevos2019", "valid", (507, None)),
    ],
)
def test_counts(dataset, split, counts):
    facts = find_split(dataset, split)
    assert (facts.videos, facts.frames) == counts


def test_counts_of_the_demo_are_those_of_its_files(tmp_path):
    write_demo_dataset(tmp_path / "demo")
    assert build_manifest("demo", "val", tmp_path / "demo").notes == ()


def test_root_of_a_split():
    assert find_dataset("davis2017").root("test-dev", "data") == Path("data/test-dev-480p/DAVIS")
    assert find_dataset("mose").root("valid", "data") == Path("data/valid/valid")
    assert find_dataset("demo").root("val", "data") == Path("data")
    entry = {"file": "f", "evidence": "unknown", "source": "s"}
    split = {"adapter": "davis2017", "archives": ["frames", "masks"], "has_ground_truth": False, "source": "s"}
    archives = {"frames": entry, "masks": {**entry, "file": "g"}}
    apart = Dataset(name="X", access="open", licence="none", archives=archives, splits={"val": split})
    assert apart.root("val", "data") == Path("data")


def test_published_rows_are_of_the_catalog():
    rows = load_published()
    assert {row.metric for row in rows} >= {"J&F", "G", "J&F-dot", "AR100", "FPS"}
    for row in rows:
        if row.metric != "FPS" or row.dataset:
            find_split(row.dataset, row.split)
        if row.metric == "FPS":
            assert row.hardware
        if "=" in row.checkpoint:
            given = dict(item.split("=") for item in row.checkpoint.split(", "))
            assert all(find_checkpoint(name) for name in given.values()) and list(given) == sorted(given)
            settings = parse_settings(load_tracker(row.tracker), row.tracker, row.settings)
            assert given.keys() == parts_of(load_tracker(row.tracker), settings).keys()
        elif row.checkpoint:
            assert find_checkpoint(row.checkpoint).network == {"sam2long": "sam2"}.get(row.tracker, row.tracker)
        assert row.evaluator in ("", "server", "unknown", *PROTOCOLS)
        assert find_split(row.dataset, row.split).has_ground_truth or row.evaluator == "server" if row.dataset else True
    keys = [(r.method, r.variant, *r.settings.items(), r.dataset, r.split, r.metric, r.source, r.value) for r in rows]
    assert len(keys) == len(set(keys))


def test_published_rows_can_be_checked_by_a_reader():
    """No source that only we have."""
    for row in load_published():
        assert re.search(r"@[0-9a-f]{8}|arXiv|issue|paper|release note", row.source), row.source
        assert "not published" not in row.source


def test_published_j_and_f_agree_with_their_mean():
    """As in the README of RDE-VOS, but for the typo that the catalog corrects."""
    rows = [row for row in load_published() if row.checkpoint.startswith("rde")]
    values = {(row.checkpoint, row.dataset, row.split, row.metric, row.source): row.value for row in rows}
    means = [key for key in values if key[3] == "J&F" and (*key[:3], "J", key[4]) in values and key[0]]
    assert len(means) == 6
    for checkpoint, dataset, split, _, source in means:
        J, F = (values[checkpoint, dataset, split, metric, source] for metric in "JF")
        assert values[checkpoint, dataset, split, "J&F", source] == pytest.approx((J + F) / 2, abs=0.11)


@pytest.mark.parametrize(
    "word, where",
    [
        ("issue 330", "not_comparable"),  # the paper's models are not the released weights
        ("issue 400", "not_comparable"),  # 136 videos of LVOS v2
        ("issue 738", "note"),
        ("iou_thre 0.3", "note"),  # SAM2Long's paper and README differ
        ("point tracker PIPS", "note"),  # SAM-PT's tables
        ("README prints 92.9, a typo", "note"),
        ("two users get 82.1", "note"),
        ("contradicts the paper of its authors", "not_comparable"),  # SeC's table on SAM2Long
        ("with which settings (iou_thre) is not said", "not_comparable"),
    ],
)
def test_corrections_of_what_circulates_stand_beside_the_numbers(word, where):
    assert any(word in getattr(row, where) for row in load_published())


@pytest.mark.parametrize(
    "find, arguments, remedy",
    [
        (find_dataset, ("davis2o17",), "did you mean 'davis2017'?"),
        (find_split, ("davis2017", "vall"), "did you mean 'val'?"),
        (find_archive, ("mose", "vaild"), "did you mean 'valid'?"),
        (find_checkpoint, ("sam2.1_hiera_large",), "did you mean 'sam2.1_large'?"),
        (find_checkpoint, ("xyz",), "scripts/fetch.py --list"),
    ],
)
def test_unknown_names(find, arguments, remedy):
    with pytest.raises(VosflowError) as caught:
        find(*arguments)
    assert remedy in caught.value.remedy


def test_unknown_keys_are_refused(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text("x:\n  name: X\n  access: open\n  licence: none\n  splits: {}\n  size: 3\n")
    with pytest.raises(VosflowError, match=r"x\.size"):
        _load(path, Dataset)


def test_splits_use_known_archives():
    split = {"adapter": "davis2017", "archives": ["a"], "has_ground_truth": False, "source": "s"}
    with pytest.raises(ValidationError, match="archive a, which is not among"):
        Dataset(name="X", access="open", licence="none", splits={"val": split})


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "abc"},
        {"file": "a/b"},
        {"sources": [{"kind": "http", "url": "ftp://host/file"}]},
        {"sources": [{"kind": "gdrive", "url": "https://host/file"}]},
        {"path": "a", "sources": [{"kind": "gdrive", "id": "1"}]},
        {"path": None},
        {"network": "sam9"},
        {"sha256_prefix": "abc"},
        {"package": {"file": "a.zip", "member": "m", "evidence": "unknown", "source": "s"}},
    ],
)
def test_wrong_checkpoints_are_refused(change):
    entry = {"file": "f", "network": "sam2", "config": "c", "licence": "l", "evidence": "unknown", "source": "s"}
    CheckpointEntry(**entry, path="a", sha256=SHA256)
    with pytest.raises(ValidationError):
        CheckpointEntry(**{**entry, "path": "a", **change})


def test_list_says_what_is_there(tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "DAVIS-data.zip").touch()
    (tmp_path / "downloads" / "DAVIS-2017-test-dev-480p.zip.part").touch()
    rows = {row.id: row for row in catalog_rows(tmp_path)}
    assert {*(name.split()[0] for name in rows)} >= {*load_datasets(), *load_checkpoints()}
    assert (rows["davis2016 data"].here, rows["davis2017 trainval-480p"].here) == ("yes", "no")
    assert rows["davis2017 test-dev-480p"].here == "unfinished" and rows["sam2_demo"].here == "yes"
    facts = rows["davis2017 trainval-480p"]
    assert (facts.megabytes, facts.checked_by) == ("833", "sha256 (third party recorded)")
    assert facts.place == tmp_path / "downloads/DAVIS-2017-trainval-480p.zip" and facts.access == "open"
    assert rows["pips"].megabytes == "~328" and rows["sav val"].access == "registration"
    assert {row.id.split()[0] for row in catalog_rows(tmp_path, "DAVIS")} == {"davis2016", "davis2017"}


def test_list_as_a_table(tmp_path):
    done = run_script("fetch.py", "--list", "rde", "--data", tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rde +rde_s012_yv +open +MIT .* no *$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ files, \d+ here", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (["--archive", "trainval-480p"], "nothing to fetch"),
        (["--dataset", "davis2017", "--checkpoint", "rde_s03"], "one thing is fetched at a time"),
        (["--dataset", "davis2017"], "no archive of davis2017 is named\n  expected:   one of trainval-480p, "),
    ],
)
def test_fetch_script_refuses_half_a_request(request_, words):
    done = run_script("fetch.py", *request_)
    assert done.returncode == 1 and words in done.stderr


def test_fetch_script_has_nothing_to_do_for_files_of_the_repository(tmp_path):
    done = run_script("fetch.py", "--checkpoint", "sam2_demo", "--data", tmp_path)
    assert done.returncode == 1 and "part of this repository" in done.stderr and not list(tmp_path.iterdir())


def test_planning_imports_nothing_heavy():
    code = (
        "import sys, vosflow.catalog, vosflow.datasets; vosflow.catalog.load_datasets();"
        "heavy = ('numpy', 'PIL', 'torch', 'pandas', 'cv2', 'requests', 'gdown');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE)
    assert done.stdout.strip() == "[]"


def test_frames_of_every_video_of_davis():
    for dataset, split in [("davis2016", "train"), ("davis2016", "val"), ("davis2017", "train"), ("davis2017", "val")]:
        facts = find_split(dataset, split)
        frames = davis_frames(dataset, split)
        assert (len(frames), sum(frames.values())) == (facts.videos, facts.frames)
    assert sum(davis_frames("davis2017", "test-dev").values()) == 2086 and davis_frames("mose", "train") == {}
