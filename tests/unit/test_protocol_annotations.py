"""Manifests from bare folders and meta files, and what every protocol says of itself."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.scored_clips import davis2017_clips, disc, write_clips
from tests.unit.scored_folders import lvos_object, score_clips, score_folders, score_objects
from vosflow import digest
from vosflow.errors import VosflowError
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.manifest import PER_OBJECT, load_manifest, save_manifest
from vosflow.study import Run

SIZE = (24, 36)
ONE = disc(12, 10, 6, *SIZE)
CLIPS = {"v": ([ONE] * 4, [ONE] * 4), "w": ([ONE] * 3, [ONE] * 3)}
MOSE_META = {"v": {"length": 4, "objects": {"1": {}}}, "w": {"length": 3, "objects": {"1": {}, "4": {}}}}


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    score_clips(tmp_path, CLIPS, "davis2017")
    return tmp_path / "valid" / "Annotations"


def write_meta(path: Path, videos: object) -> Path:
    path.write_text(json.dumps({"videos": videos}))
    return path


# --- meta files -------------------------------------------------------------------------------------------------------


def test_meta_beside_the_annotations_or_named(annotations: Path, tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "elsewhere.json", MOSE_META)
    manifest = annotated_folder(annotations, protocol="mosev2", meta=meta)
    assert {video.name: video.objects for video in manifest.videos} == {"v": (1,), "w": (1, 4)}
    write_meta(annotations.parent / "meta_valid.json", MOSE_META)
    assert annotated_folder(annotations, protocol="mosev2") == manifest


@pytest.mark.parametrize("protocol", ["mosev2", "mosev2-fixed", "lvos", "youtube-vos"])
def test_missing_meta(annotations: Path, protocol: str) -> None:
    with pytest.raises(VosflowError, match=f"protocol {protocol} needs the dataset's meta file") as error:
        annotated_folder(annotations, protocol=protocol)
    assert "--meta" in error.value.remedy


def test_meta_for_a_protocol_that_reads_none(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="protocol davis2017 reads no meta file"):
        annotated_folder(annotations, protocol="davis2017", meta=write_meta(tmp_path / "meta.json", MOSE_META))


def test_meta_with_more_videos_than_folders(annotations: Path, tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta.json", {**MOSE_META, "x": MOSE_META["v"]})
    with pytest.raises(VosflowError, match="video x has no ground truth"):
        annotated_folder(annotations, protocol="mosev2", meta=meta)
    (tmp_path / "list.txt").write_text("w\n")
    chosen = annotated_folder(annotations, protocol="mosev2", meta=meta, videos=tmp_path / "list.txt")
    assert [video.name for video in chosen.videos] == ["w"]


def test_meta_without_a_listed_video(annotations: Path, tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta.json", {"v": MOSE_META["v"]})
    (tmp_path / "list.txt").write_text("v w\n")
    with pytest.raises(VosflowError, match="video w is not in the meta file") as error:
        annotated_folder(annotations, protocol="mosev2", meta=meta, videos=tmp_path / "list.txt")
    assert error.value.path == str(meta)


@pytest.mark.parametrize("text", ["", "[1]", '{"clips": {}}', '{"videos": {"v": {"objects": {"one": {}}}}}'])
def test_broken_meta(annotations: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(VosflowError) as error:
        annotated_folder(annotations, protocol="mosev2", meta=tmp_path / "meta.json")
    assert error.value.path == str(tmp_path / "meta.json")


def test_lvos_ranges_and_groups(annotations: Path) -> None:
    objects = {"1": lvos_object(0, 3), "2": lvos_object(1, 2)}
    meta = write_meta(annotations.parent / "valid_meta.json", {"v": {"objects": objects}})
    (annotations.parent / "unseen_videos.txt").write_text("x\nv\n")
    (video,) = annotated_folder(annotations, protocol="lvos", meta=meta).videos
    assert video.object_frames == {1: ("00000001", "00000006", "00000011"), 2: ("00000006", "00000011")}
    assert video.groups == {1: "unseen", 2: "unseen"}


# --- folders of objects -----------------------------------------------------------------------------------------------


def test_folders_of_objects(tmp_path: Path) -> None:
    first, second = {t: ONE for t in (0, 4, 8, 12)}, {t: ONE for t in (4, 8, 12, 16)}
    score_objects(tmp_path, {"v": {0: (first, first), 12: (second, second)}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    (video,) = manifest.videos
    assert manifest.layout == PER_OBJECT
    assert video.objects == (0, 12)
    assert video.ground_truth.names == ("00000", "00004", "00008", "00012", "00016")
    assert video.object_frames[12] == ("00004", "00008", "00012", "00016")
    save_manifest(manifest, tmp_path / "manifest.json")
    assert load_manifest(tmp_path / "manifest.json") == manifest


def test_label_maps_given_to_sav(annotations: Path) -> None:
    with pytest.raises(VosflowError, match="video v has no folders of objects") as error:
        annotated_folder(annotations, protocol="sav")
    assert "another protocol" in error.value.remedy


def test_odd_names_of_object_folders(tmp_path: Path) -> None:
    masks = {t: ONE for t in range(3)}
    score_objects(tmp_path, {"v": {1: (masks, masks)}})
    (tmp_path / "Annotations" / "v" / "001").rename(tmp_path / "Annotations" / "v" / "1")
    with pytest.raises(VosflowError, match="'1' is not an object's folder"):
        annotated_folder(tmp_path / "Annotations", protocol="sav")


def test_label_map_protocols_refuse_folders_of_objects(tmp_path: Path) -> None:
    masks = {t: ONE for t in range(3)}
    score_objects(tmp_path, {"v": {1: (masks, masks)}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    for name in ("davis2017", "vos-benchmark", "lvos", "mosev2"):
        with pytest.raises(VosflowError, match="its layout is per_object"):
            load_protocol(name).check(manifest)


# --- missing predictions that count as empty --------------------------------------------------------------------------


def test_missing_predictions_count_as_empty_on_demand(tmp_path: Path) -> None:
    score_clips(tmp_path, {"v": ([ONE] * 5, [ONE] * 5)}, "vos-benchmark")
    (tmp_path / "predictions" / "v" / "00002.png").unlink()
    folders = tmp_path / "valid" / "Annotations", tmp_path / "predictions"
    evaluation = score_folders(*folders, "vos-benchmark", strict=False)
    assert evaluation.missing == {"v": 1}
    assert [s.J for s in evaluation.scores] == [1, 0, 1]


# --- what protocols say of themselves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_protocol_describes_itself(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert len(protocol.about) > 80
    assert re.search(r"^\d\. ", inspect.getdoc(type(protocol)), re.MULTILINE), "numbered rules"


@pytest.mark.parametrize("name", ["mosev2", "youtube-vos", "mose", "lvos", "vos-benchmark", "sav", "mosev2-fixed"])
def test_what_a_reader_must_know_of_a_number_is_noted(name: str) -> None:
    assert load_protocol(name).notes


SHARED = [("mose", "davis"), ("davis2017-unsupervised", "davis"), ("lvos", "object_frames"), ("sav", None)]


@pytest.mark.parametrize("name, helper", SHARED)
def test_code_digests_cover_shared_modules(name: str, helper: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of a helper rescores the runs of the protocols that use it, and no others."""
    run = SimpleNamespace(protocol=name)
    before = Run.evaluation_code.fget(run)
    real = digest._module_logic

    def edited(module: str, *rest: object) -> tuple[str, list[str]]:
        logic, imports = real(module, *rest)
        helpers = [f"vosflow.evaluation.protocols.{helper or 'object_frames'}"]
        return (logic + "edited" if module in helpers else logic), imports

    monkeypatch.setattr(digest, "_module_logic", edited)
    assert (Run.evaluation_code.fget(run) != before) == (helper is not None)


def test_a_gap_in_the_ids_is_noted(tmp_path: Path) -> None:
    clips = {name: davis2017_clips()[name] for name in ("gap", "returns", "void")}
    annotations, _ = write_clips(tmp_path, clips)
    for protocol, noted in (("davis2017", True), ("mose", True), ("davis2016", False), ("vos-benchmark", False)):
        notes = annotated_folder(annotations, protocol=protocol).notes
        assert [("though a larger id is: gap_2. " in note, "J = F = 1" in note) for note in notes] == [
            (True, True)
        ] * noted
