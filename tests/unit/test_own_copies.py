"""Datasets as people have them on disk: other folder names, meta files elsewhere, marks of editors, leftovers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.publisher_trees import (
    make_lvos_tree,
    make_mose_train_tree,
    make_sample_submission,
    make_sav_tree,
    make_uvo_tree,
    make_youtubevos_tree,
)
from tests.unit.trees import (
    edit_json,
    make_davis2016_tree,
    make_davis_tree,
    make_mose_tree,
    rectangles,
    save_label_map,
)
from vosflow.config import parse_config
from vosflow.datasets import build_manifest
from vosflow.datasets.folder import folder_manifest
from vosflow.errors import VosflowError
from vosflow.manifest import Manifest
from vosflow.sources import DatasetSource, dataset_source


def planned(name: str, given: Path, data: Path | str = "data") -> DatasetSource:
    paths = {"datasets": {name.partition("/")[0]: str(given)}, "data": str(data)}
    return dataset_source(parse_config({"runs": [{"dataset": name, "tracker": "static"}], "paths": paths}), name)


def built(name: str, given: Path) -> Manifest:
    source = planned(name, given)
    assert source.requires == ()
    return build_manifest(source.dataset, source.split, source.root, lists=source.lists)


def test_davis_splits_in_folders_of_any_name(tmp_path):
    """As the scripts of STCN and XMem leave them: 2017/trainval and 2017/test-dev, without a folder DAVIS."""
    make_davis_tree(tmp_path / "trainval", {"bear": (1,)})
    make_davis_tree(tmp_path / "test-dev", {"car": (1,)}, split="test-dev", first_mask_only=True)
    assert [video.name for video in built("davis2017/val", tmp_path).videos] == ["bear"]
    assert [video.name for video in built("davis2017/test-dev", tmp_path).videos] == ["car"]


def test_of_two_copies_none_is_chosen(tmp_path):
    for name in ("one", "two"):
        make_davis_tree(tmp_path / name)
    assert planned("davis2017/val", tmp_path).root == str(tmp_path)


def test_sav_under_another_name(tmp_path):
    make_sav_tree(tmp_path / "my test set", split="test")
    assert len(built("sav/test", tmp_path).videos) == 2


def test_datasets_that_look_alike_are_not_searched_for(tmp_path):
    make_mose_tree(tmp_path / "somewhere")
    assert planned("mose/valid", tmp_path).root == str(tmp_path)


@pytest.mark.parametrize("inside", ["JPEGImages", "JPEGImages/480p"])
def test_too_deep_a_folder_is_named(tmp_path, inside):
    make_davis_tree(tmp_path / "DAVIS")
    with pytest.raises(VosflowError) as caught:
        built("davis2017/val", tmp_path / "DAVIS" / inside)
    assert caught.value.remedy == f"give {tmp_path / 'DAVIS'} instead"


def test_meta_file_in_the_folder_of_the_split(tmp_path):
    make_mose_tree(tmp_path / "MOSE/valid")
    source = planned("mose/valid", tmp_path / "MOSE")
    assert source.lists == {"videos": str(tmp_path / "MOSE/valid/meta_valid.json")} and source.requires == ()


def test_optional_list_that_was_fetched_is_used(tmp_path):
    make_lvos_tree(tmp_path / "valid")
    assert "unseen" not in planned("lvos_v2/valid", tmp_path, tmp_path / "data").lists
    fetched = tmp_path / "data/downloads/LVOS-v2-unseen_videos.txt"
    fetched.parent.mkdir(parents=True)
    fetched.write_text("vid1AAAA")
    source = planned("lvos_v2/valid", tmp_path, tmp_path / "data")
    assert source.lists["unseen"] == str(fetched) and source.requires == (f"{fetched}.fetched",)


def test_sample_submission_under_its_publishers_name(tmp_path):
    make_mose_tree(tmp_path / "valid", {"0a1b2c3d": (1, 2)})
    make_sample_submission(tmp_path / "sample_submission_valid_all", ["0a1b2c3d"])
    truth = built("mose/valid-sample", tmp_path).videos[0].ground_truth
    assert truth.folder == "sample_submission_valid_all/0a1b2c3d"


def test_links_in_a_circle_and_a_folder_without_its_frames(tmp_path):
    make_davis_tree(tmp_path)
    os.symlink("round.jpg", tmp_path / "round.jpg")
    os.symlink(".", tmp_path / "again")
    assert planned("davis2017/val", tmp_path).state


def test_videos_that_are_links_to_folders(tmp_path):
    make_davis_tree(tmp_path / "davis")
    (tmp_path / "frames").mkdir()
    for video in ("cows", "bear"):
        os.symlink(tmp_path / "davis/JPEGImages/480p" / video, tmp_path / "frames" / video)
    os.symlink("nowhere", tmp_path / "frames/gone")
    manifest = folder_manifest(tmp_path / "frames", tmp_path / "davis/Annotations/480p")
    assert [video.name for video in manifest.videos] == ["bear", "cows"]


def test_list_with_the_mark_of_an_editor(tmp_path):
    make_davis_tree(tmp_path)
    (tmp_path / "ImageSets/2017/val.txt").write_bytes(b"\xef\xbb\xbfbear\r\ncows\r\n")
    assert [video.name for video in built("davis2017/val", tmp_path).videos] == ["bear", "cows"]


def test_own_list_that_is_no_text(tmp_path):
    make_davis_tree(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"b\xe9r\n")
    own = {
        "base_video_dir": str(tmp_path / "JPEGImages/480p"),
        "input_mask_dir": str(tmp_path / "Annotations/480p"),
        "videos": str(tmp_path / "list.txt"),
    }
    config = parse_config({"runs": [{"dataset": "mine/val", "tracker": "static"}], "datasets": {"mine/val": own}})
    with pytest.raises(VosflowError, match="the list of videos cannot be read") as caught:
        dataset_source(config, "mine/val")
    assert caught.value.path == str(tmp_path / "list.txt")


def test_binary_masks_hold_no_other_objects(tmp_path):
    """255 in the masks of DAVIS 2016 is the object 1, not an object that nobody tracks."""
    assert not [note for note in built("davis2016/val", make_davis2016_tree(tmp_path)).notes if "255" in note]


def test_leftovers_beside_the_object_folders(tmp_path):
    make_sav_tree(tmp_path)
    save_label_map(tmp_path / "Annotations_6fps/sav_000001/.trash/00000.png", rectangles((1,)))
    (video, _) = built("sav/val", tmp_path).videos
    assert video.objects == (0, 1)
    (tmp_path / "Annotations_6fps/sav_000001/.trash").rename(tmp_path / "Annotations_6fps/sav_000001/old")
    with pytest.raises(VosflowError, match="not named by an object id"):
        built("sav/val", tmp_path)


def test_lvos_range_of_no_frames(tmp_path):
    make_lvos_tree(tmp_path)
    span = {"start": "00000001", "end": "00000026", "frame_nums": "-3"}
    edit_json(
        tmp_path / "valid_meta.json",
        lambda meta: meta["videos"]["vid1AAAA"]["objects"].update({"1": {"frame_range": span}}),
    )
    with pytest.raises(VosflowError, match="object 1 of video vid1AAAA has no readable frame_range .-3 frames"):
        built("lvos_v2/valid", tmp_path)


def test_youtubevos_category_that_is_no_text(tmp_path):
    make_youtubevos_tree(tmp_path / "train", masks="all")
    make_youtubevos_tree(tmp_path / "valid")

    def spoil(meta):
        for video in meta["videos"].values():
            for thing in video["objects"].values():
                thing["category"] = ["person"]

    edit_json(tmp_path / "train/meta.json", spoil)
    edit_json(tmp_path / "valid/meta.json", spoil)
    assert all(video.groups == {} for video in built("youtubevos2019/valid", tmp_path).videos)


def test_uvo_frame_that_is_no_name(tmp_path):
    make_uvo_tree(tmp_path)
    edit_json(
        tmp_path / "VideoDenseSet/UVO_video_val_dense.json",
        lambda content: content["videos"][0]["file_names"].__setitem__(0, 5),
    )
    with pytest.raises(VosflowError, match="file_names are not all text"):
        built("uvo/val", tmp_path)


def test_meta_file_that_nests_without_end(tmp_path):
    make_mose_train_tree(tmp_path)
    (tmp_path / "meta_train.json").write_text("[" * 100_000)
    with pytest.raises(VosflowError, match="not a publisher's list of videos"):
        built("mose/train", tmp_path)


def test_the_folder_of_one_video(tmp_path):
    make_davis_tree(tmp_path)
    frames, masks = tmp_path / "JPEGImages/480p", tmp_path / "Annotations/480p"
    with pytest.raises(VosflowError, match="it holds frames, and no folders of frames") as caught:
        folder_manifest(frames / "bear", masks / "bear")
    assert f"give the folder above, {frames};" in caught.value.remedy


def test_masks_of_one_file_per_object_taken_for_label_maps(tmp_path):
    make_sav_tree(tmp_path)
    with pytest.raises(VosflowError, match="has no object to track") as caught:
        folder_manifest(tmp_path / "JPEGImages_24fps", tmp_path / "Annotations_6fps")
    assert "set per_obj_png_file" in caught.value.remedy


def test_only_what_a_split_is_made_of_is_watched(tmp_path):
    """Whoever names the folder of all their datasets does not have all of them read at each planning."""
    make_youtubevos_tree(tmp_path / "valid")
    make_youtubevos_tree(tmp_path / "train", masks="all")
    make_davis_tree(tmp_path / "other")
    source = planned("youtubevos2019/valid", tmp_path)
    before = source.state
    (tmp_path / "other/JPEGImages/480p/bear/00000.jpg").unlink()
    (tmp_path / "train/JPEGImages/003234408d/00005.jpg").unlink()
    assert source.state == before
    states = {before}
    for change in (
        lambda: (tmp_path / "valid/JPEGImages/003234408d/00005.jpg").unlink(),
        lambda: (tmp_path / "train/meta.json").write_text("{}"),
        lambda: (tmp_path / "list.txt").write_text("a list that was not there"),
    ):
        change()
        states.add(source.state)
    assert len(states) == 4
