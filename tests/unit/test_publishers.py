"""Adapters of MOSE train, LVOS, SA-V, YouTube-VOS and UVO: what their quirks become in the manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit import publisher_trees as trees
from tests.unit.trees import HEIGHT, WIDTH, edit_json, make_mose_tree, rectangles, save_frame, save_label_map
from vosflow import sources
from vosflow.catalog import find_split
from vosflow.config import parse_config
from vosflow.datasets import build_manifest, videos
from vosflow.errors import VosflowError
from vosflow.manifest import Prompt, load_manifest, save_manifest
from vosflow.video import Video


def build(dataset: str, split: str, root: Path, **lists: Path):
    """The manifest, through its file, without the notes on counts and of the catalog."""
    manifest = build_manifest(dataset, split, root, lists=lists)
    path = root.parent / "manifest.json"
    save_manifest(manifest, path)
    assert load_manifest(path) == manifest
    own = [note for note in manifest.notes if "expected from the catalog" not in note]
    return replace(manifest, notes=tuple(own))


# ---- MOSE -----------------------------------------------------------------------------------------------------------


def test_mose_hold_out_takes_the_videos_of_a_text_file(tmp_path):
    root = trees.make_mose_train_tree(tmp_path / "train", ("0a1b2c3d", "b0c1d2e3", "c0c1d2e3"))
    (tmp_path / "list.txt").write_text("b0c1d2e3\n0a1b2c3d\n")
    manifest = build("mose", "train-holdout", root, videos=tmp_path / "list.txt")
    assert [video.name for video in manifest.videos] == ["0a1b2c3d", "b0c1d2e3"]
    assert manifest.protocol == "mose" and manifest.agreement_with is None
    assert manifest.videos[0].ground_truth.names == manifest.videos[0].frames.names
    assert any("not trained on MOSE" in note for note in manifest.notes)


def test_mose_hold_out_video_that_is_not_there(tmp_path):
    root = trees.make_mose_train_tree(tmp_path / "train")
    (tmp_path / "list.txt").write_text("ffffffff\n")
    with pytest.raises(VosflowError, match="frames of video ffffffff are missing"):
        build("mose", "train-holdout", root, videos=tmp_path / "list.txt")


def test_mosev2_train_takes_all_folders(tmp_path):
    manifest = build("mosev2", "train", trees.make_mose_train_tree(tmp_path / "train", ("z", "a")))
    assert [video.name for video in manifest.videos] == ["a", "z"] and manifest.protocol == "mosev2"


@pytest.mark.parametrize("inside", ["", "submission"])
def test_mose_sample_submission_is_no_ground_truth(tmp_path, inside):
    make_mose_tree(tmp_path / "mose/valid/valid")
    names = [path.name for path in (tmp_path / "mose/valid/valid/JPEGImages").iterdir()]
    trees.make_sample_submission(tmp_path / "mose/sample_submission" / inside, names)
    manifest = build("mose", "valid-sample", tmp_path / "mose", videos=tmp_path / "mose/valid/valid/meta_valid.json")
    assert manifest.agreement_with == "the sample submission" and manifest.protocol == "davis2017"
    assert any("no scores" in note for note in manifest.notes)
    video = manifest.video("b0c1d2e3")
    assert (
        video.ground_truth.path(manifest.root, "00002").is_file() and "sample_submission" in video.ground_truth.folder
    )
    assert video.prompts[0].mask == "valid/valid/Annotations/b0c1d2e3/00000.png"


def test_many_videos_are_read_in_processes(tmp_path, monkeypatch):
    root = trees.make_mose_train_tree(tmp_path / "train", ("a", "b", "c"), frames=2)
    alone = build_manifest("mosev2", "train", root)
    monkeypatch.setattr(videos, "MANY", 2)
    assert build_manifest("mosev2", "train", root, workers=2) == alone
    (root / "Annotations/b/00001.png").write_bytes(b"")
    with pytest.raises(VosflowError, match="unreadable") as caught:
        build_manifest("mosev2", "train", root, workers=2)
    assert caught.value.path.endswith("b/00001.png")


def test_an_edited_catalog_entry_writes_the_manifest_again(monkeypatch):
    config = parse_config({"runs": [{"dataset": "mose/valid", "tracker": "static"}]})
    before = sources.dataset_source(config, "mose/valid").code
    facts = find_split("mose", "valid")
    for changes, same in (({"source": "another wording"}, True), ({"late_objects": True}, False)):
        edited = facts.model_copy(update=changes)
        monkeypatch.setattr(sources, "find_split", lambda dataset, split, edited=edited: edited)
        assert (sources.dataset_source(config, "mose/valid").code == before) is same


# ---- LVOS -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lvos(tmp_path) -> Path:
    (tmp_path / "unseen.txt").write_text("vid2BBBB\nanother1")
    return trees.make_lvos_tree(tmp_path / "valid")


def test_lvos_prompts_are_first_appearances(lvos):
    manifest = build("lvos_v2", "valid", lvos, unseen=lvos.parent / "unseen.txt")
    late = manifest.video("vid2BBBB")
    assert manifest.late_objects and manifest.protocol == "lvos" and late.fps == 6
    assert late.frames.names == tuple(f"{1 + 5 * k:08d}" for k in range(6))
    assert late.prompts == (
        Prompt(1, "00000001", "Annotations/vid2BBBB/00000001.png"),
        Prompt(2, "00000011", "Annotations/vid2BBBB/00000011.png"),
    )
    assert late.groups == {1: "unseen", 2: "unseen"} and manifest.video("vid1AAAA").groups == {1: "seen", 2: "seen"}


def test_lvos_objects_are_scored_in_their_own_range(lvos):
    manifest = build("lvos_v2", "valid", lvos, unseen=lvos.parent / "unseen.txt")
    names = manifest.videos[0].frames.names
    assert manifest.video("vid1AAAA").object_frames == {1: names[:4], 2: names}
    assert manifest.video("vid2BBBB").object_frames == {1: names, 2: names[2:]}
    assert not [note for note in manifest.notes if "AAAA" in note or "BBBB" in note]


def test_lvos_without_meta_says_what_it_scores_instead(lvos):
    (lvos / "valid_meta.json").unlink()
    manifest = build("lvos_v1", "valid", lvos)
    names = manifest.videos[0].frames.names
    assert manifest.video("vid1AAAA").object_frames == {1: names, 2: names}
    assert manifest.video("vid2BBBB").object_frames == {1: names, 2: names[2:]}
    assert any("no valid_meta.json" in note for note in manifest.notes)
    assert any("no list of unseen videos" in note for note in manifest.notes)
    assert manifest.videos[0].groups == {}


def test_lvos_meta_in_another_place(lvos):
    given = (lvos / "valid_meta.json").rename(lvos.parent / "LVOS-v2-valid_meta.json")
    manifest = build("lvos_v2", "valid", lvos, meta=given)
    assert manifest.video("vid1AAAA").object_frames[1] == manifest.videos[0].frames.names[:4]


def test_lvos_meta_that_disagrees_with_the_masks_is_a_note(lvos):
    def change(content):
        objects = content["videos"]["vid2BBBB"]["objects"]
        objects["2"]["frame_range"].update(
            start="00000016", frame_nums="5"
        )  # 16, 21, 26; 31 is not there; 36 is the end
        objects["3"] = {"frame_range": {"start": "00000001", "end": "00000026", "frame_nums": "6"}}

    edit_json(lvos / "valid_meta.json", change)
    notes = "\n".join(build("lvos_v2", "valid", lvos).notes)
    assert "object 2 appears on frame 00000011, and on frame 00000016 by the publisher's meta file" in notes
    assert "object 3 is in the publisher's meta file, but no mask shows it" in notes
    assert "1 frames of object 2 in the meta file are not there (first 00000031)" in notes


def test_lvos_range_may_end_on_a_frame_that_is_not_there(lvos):
    """Scoring drops the last of the range, whether it has a file or not: it must stay in the list."""

    def change(content):
        content["videos"]["vid2BBBB"]["objects"]["2"]["frame_range"].update(end="00000031", frame_nums="5")

    edit_json(lvos / "valid_meta.json", change)
    manifest = build("lvos_v2", "valid", lvos)
    assert manifest.video("vid2BBBB").object_frames[2] == (*manifest.videos[0].frames.names[2:], "00000031")
    assert not [note for note in manifest.notes if "not there" in note]


def test_lvos_meta_without_ranges(lvos):
    edit_json(lvos / "valid_meta.json", lambda content: content["videos"]["vid1AAAA"]["objects"].update({"1": {}}))
    with pytest.raises(VosflowError, match="object 1 of video vid1AAAA has no readable frame_range") as caught:
        build("lvos_v2", "valid", lvos)
    assert caught.value.path == str(lvos / "valid_meta.json")


def test_lvos_test_has_no_ground_truth(tmp_path):
    root = trees.make_lvos_tree(tmp_path / "test", meta=None)
    manifest = build("lvos_v2", "test", root)
    assert manifest.protocol is None and manifest.notes == ()
    assert all(video.ground_truth is None and video.object_frames == {} for video in manifest.videos)


# ---- SA-V -----------------------------------------------------------------------------------------------------------


def test_sav_frames_and_masks_have_different_rates(tmp_path):
    manifest = build("sav", "val", trees.make_sav_tree(tmp_path / "sav_val"))
    assert (manifest.protocol, manifest.layout, manifest.late_objects) == ("sav", "per_object", False)
    video = manifest.video("sav_000001")
    assert video.fps == 24 and len(video.frames.names) == 17
    assert video.ground_truth.names == ("00000", "00004", "00008", "00012", "00016")
    assert video.objects == (0, 1) and video.object_frames == {}
    assert video.prompts[0] == Prompt(0, "00000", "Annotations_6fps/sav_000001/000/00000.png", "binary")
    masks = [Video.of(manifest, "sav_000001").read_prompt(prompt) for prompt in video.prompts]
    assert (masks[0] & masks[1]).any(), "objects may overlap"


def test_sav_object_with_frames_of_its_own(tmp_path):
    manifest = build("sav", "val", trees.make_sav_tree(tmp_path / "sav_val"))
    frames = manifest.video("sav_000002").object_frames
    assert frames[1] == ("00000", "00004", "00008", "00012") and frames[0] == (*frames[1], "00016")


def test_sav_object_without_a_first_mask(tmp_path):
    root = trees.make_sav_tree(tmp_path / "sav_val")
    (root / "Annotations_6fps/sav_000001/001/00000.png").unlink()
    with pytest.raises(VosflowError, match=r"001[/\\]00000.png"):
        build("sav", "val", root)


def test_sav_list_is_the_split(tmp_path):
    root = trees.make_sav_tree(tmp_path / "sav_test", split="test")
    assert len(build("sav", "test", root).videos) == 2
    with pytest.raises(VosflowError, match="list of videos cannot be read"):
        build("sav", "val", root)


# ---- YouTube-VOS ----------------------------------------------------------------------------------------------------


def test_youtube_objects_start_where_meta_says(tmp_path):
    manifest = build("youtubevos2019", "valid", trees.make_youtubevos_tree(tmp_path / "valid"))
    assert manifest.protocol is None and manifest.late_objects
    video = manifest.video("003234408d")
    assert video.frames.names == ("00005", "00010", "00015", "00020") and video.objects == (1, 3)
    assert [(prompt.object, prompt.frame) for prompt in video.prompts] == [(1, "00005"), (3, "00015")]
    assert video.required == ("00005", "00010", "00015", "00020")
    assert video.object_frames[3] == ("00015", "00020")
    assert video.groups == {} and any("seen in training is unknown" in note for note in manifest.notes)


def test_youtube_groups_are_from_the_training_set(tmp_path):
    root = trees.make_youtubevos_tree(tmp_path / "valid/valid")
    training = {"videos": {"a": {"objects": {"1": {"category": "person"}, "2": {"category": "dog"}}}}}
    (tmp_path / "train/train").mkdir(parents=True)
    (tmp_path / "train/train/meta.json").write_text(json.dumps(training))
    manifest = build("youtubevos2019", "valid", root)
    assert manifest.video("003234408d").groups == {1: "unseen", 3: "seen"}
    assert any("2 categories" in note and "65 expected" in note for note in manifest.notes)


@pytest.mark.parametrize("frames", ["valid_all_frames/valid_all_frames", "all_frames/valid_all_frames"])
def test_youtube_all_frames_are_tracked_and_some_required(tmp_path, frames):
    trees.make_youtubevos_tree(tmp_path / "y/valid")
    trees.make_all_frames_tree(tmp_path / "y" / frames)
    manifest = build("youtubevos2018", "valid_all_frames", tmp_path / "y")
    video = manifest.video("003234408d")
    assert video.fps == 30 and len(video.frames.names) == 21 and video.frames.names[0] == "00000"
    assert video.required == ("00005", "00010", "00015", "00020")
    assert video.prompts[0] == Prompt(1, "00005", "valid/Annotations/003234408d/00005.png")


def test_youtube_all_frames_without_frames(tmp_path):
    trees.make_youtubevos_tree(tmp_path / "y/valid")
    with pytest.raises(VosflowError, match="holds JPEGImages"):
        build("youtubevos2018", "valid_all_frames", tmp_path / "y")


def test_youtube_train_has_ground_truth(tmp_path):
    manifest = build("youtubevos2019", "train", trees.make_youtubevos_tree(tmp_path / "train", masks="all"))
    video = manifest.video("003234408d")
    assert manifest.protocol == "youtube-vos" and video.groups == {1: "seen", 3: "seen"}
    assert video.ground_truth.names == video.frames.names


def test_youtube_listed_frame_is_missing(tmp_path):
    root = trees.make_youtubevos_tree(tmp_path / "valid")
    (root / "JPEGImages/003234408d/00010.jpg").unlink()
    with pytest.raises(VosflowError, match="frame 00010 of video 003234408d, which the publisher's meta file lists"):
        build("youtubevos2019", "valid", root)


def test_youtube_object_without_frames(tmp_path):
    root = trees.make_youtubevos_tree(tmp_path / "valid")
    edit_json(root / "meta.json", lambda content: content["videos"]["0062f687f1"]["objects"]["1"].update(frames=[]))
    with pytest.raises(VosflowError, match="object 1 of video 0062f687f1 has no list of frames"):
        build("youtubevos2019", "valid", root)


def test_youtube_mask_that_meta_does_not_know(tmp_path):
    root = trees.make_youtubevos_tree(tmp_path / "valid")
    save_label_map(root / "Annotations/0062f687f1/00000.png", rectangles((1, 2)))
    notes = build("youtubevos2019", "valid", root).notes
    assert any("object 2 is in a mask, but not in the publisher's meta file" in note for note in notes)


# ---- UVO ------------------------------------------------------------------------------------------------------------


def test_uvo_has_annotations_and_no_prompts(tmp_path):
    manifest = build("uvo", "val", trees.make_uvo_tree(tmp_path / "UVOv1.0", extra=1))
    assert (manifest.layout, manifest.protocol) == ("instances", "uvo")
    assert manifest.annotations == "VideoDenseSet/UVO_video_val_dense.json"
    video = manifest.video("ytA-_1")
    assert video.external_id == 7 and (video.height, video.width) == (HEIGHT, WIDTH)
    assert video.objects == () and video.prompts == () and video.ground_truth is None
    assert video.frames.names == tuple(str(k) for k in range(12)), "10 after 9, and no frame that is not in the file"


def test_uvo_tiny_is_one_video_and_four_annotations(tmp_path):
    root = trees.make_uvo_tree(tmp_path / "UVOv1.0")
    manifest = build("uvo", "val-tiny", root)
    assert [video.external_id for video in manifest.videos] == [7]
    content = json.loads((root / manifest.annotations).read_text())
    assert [thing["id"] for thing in content["annotations"]] == [1, 2, 3, 4]
    assert content["categories"]


def test_uvo_in_the_folders_of_its_archives(tmp_path):
    trees.make_uvo_tree(tmp_path / "uvo/annotations/UVOv1.0")
    made = tmp_path / "uvo/annotations/UVOv1.0/uvo_videos_dense_frames"
    made.rename(tmp_path / "uvo/uvo_videos_dense_frames")
    manifest = build("uvo", "val", tmp_path / "uvo")
    assert manifest.annotations.startswith("annotations/UVOv1.0/")
    assert manifest.videos[0].frames.path(manifest.root, "0").is_file()


def test_uvo_without_frames_says_how_to_make_them(tmp_path):
    root = trees.make_uvo_tree(tmp_path / "UVOv1.0")
    (root / "uvo_videos_dense_frames").rename(root / "elsewhere")
    with pytest.raises(VosflowError) as caught:
        build("uvo", "val", root)
    assert "scripts/extract_frames.py" in caught.value.remedy


def short(content):
    content["annotations"][0]["segmentations"].pop()


def other_size(content):
    content["annotations"][0]["segmentations"][0]["size"] = [5, 5]


def stranger(content):
    content["annotations"][0]["video_id"] = 99


@pytest.mark.parametrize("change, problem", [(short, "11 masks for 12"), (other_size, "[5, 5]"), (stranger, "99")])
def test_uvo_annotations_fit_their_videos(tmp_path, change, problem):
    root = trees.make_uvo_tree(tmp_path / "UVOv1.0")
    edit_json(root / "VideoDenseSet/UVO_video_val_dense.json", change)
    with pytest.raises(VosflowError, match="not annotations in the manner of YouTube-VIS") as caught:
        build("uvo", "val", root)
    assert problem in caught.value.problem


def test_uvo_frames_of_another_size(tmp_path):
    root = trees.make_uvo_tree(tmp_path / "UVOv1.0")
    for path in (root / "uvo_videos_dense_frames/ytB").iterdir():
        path.unlink()
        save_frame(path, 0, HEIGHT * 2, WIDTH * 2)
    with pytest.raises(VosflowError, match="as its publisher's masks|pixels"):
        build("uvo", "val", root)
