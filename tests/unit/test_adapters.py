"""Adapters: what the manifests of the publishers' layouts say."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.small_manifests import FRAMES, MASKS, build, davis
from tests.unit.trees import (
    HEIGHT,
    WIDTH,
    make_davis2016_tree,
    make_davis_tree,
    make_mose_tree,
    rectangles,
    save_label_map,
)
from vosflow.datasets import build_manifest
from vosflow.errors import VosflowError
from vosflow.manifest import Prompt, load_manifest, save_manifest
from vosflow.video import Video


def test_davis2017_val(tmp_path):
    manifest = davis(make_davis_tree(tmp_path, {"cows": (1, 2), "bear": (1,)}, frames=3))
    assert [video.name for video in manifest.videos] == ["cows", "bear"]  # the list's order
    assert (manifest.protocol, manifest.layout, manifest.late_objects) == ("davis2017", "label_maps", False)
    assert not manifest.binary_ground_truth and manifest.notes == ()
    cows = manifest.video("cows")
    assert (cows.height, cows.width, cows.objects) == (HEIGHT, WIDTH, (1, 2))
    assert cows.frames.names == cows.ground_truth.names == ("00000", "00001", "00002")
    assert cows.frames.path(tmp_path, "00002") == tmp_path / FRAMES / "cows" / "00002.jpg"
    assert cows.ground_truth.path(tmp_path, "00002") == tmp_path / MASKS / "cows" / "00002.png"
    assert cows.prompts == tuple(Prompt(k, "00000", f"{MASKS}/cows/00000.png", "label_map") for k in (1, 2))
    video = Video.of(manifest, "cows")
    assert np.array_equal(video.read_prompt(cows.prompts[1]), rectangles((1, 2)) == 2)


def test_davis2017_test_dev_has_no_ground_truth(tmp_path):
    manifest = davis(make_davis_tree(tmp_path, split="test-dev", first_mask_only=True), "test-dev")
    assert manifest.protocol is None
    assert all(video.ground_truth is None and video.ground_truth_content == "" for video in manifest.videos)


def test_void_is_no_object_in_davis(tmp_path):
    make_davis_tree(tmp_path, {"bear": (1, 255)})
    manifest = davis(tmp_path)
    assert manifest.video("bear").objects == (1,) and manifest.notes == ()


def test_gaps_in_object_ids_are_kept(tmp_path):
    manifest = davis(make_davis_tree(tmp_path, {"bear": (1, 3), "cows": (1, 2)}))
    assert manifest.video("bear").objects == (1, 3)
    (note,) = [note for note in manifest.notes if "J = F = 1" in note]
    assert note.startswith("bear: the first frame has no object 2, but a larger id")


def test_later_object_is_a_note(tmp_path):
    make_davis_tree(tmp_path, {"bear": (1, 2)})
    save_label_map(tmp_path / MASKS / "bear" / "00002.png", rectangles((1, 2, 3)))
    (note,) = davis(tmp_path).notes
    assert "bear" in note and "object 3" in note


def test_frames_are_sorted_by_number(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)}, frames=12)
    for kind, suffix in ((FRAMES, "jpg"), (MASKS, "png")):
        for path in sorted((root / kind / "bear").iterdir()):
            path.rename(path.with_name(f"{int(path.stem)}.{suffix}"))  # 10 comes before 2 as a word
    assert davis(root).video("bear").frames.names == tuple(str(number) for number in range(12))


def test_manifest_survives_the_file(tmp_path):
    manifest = davis(make_davis_tree(tmp_path / "DAVIS"))
    save_manifest(manifest, tmp_path / "manifest.json")
    assert load_manifest(tmp_path / "manifest.json") == manifest


def test_build_manifest_notes_counts(tmp_path, capsys):
    manifest = build_manifest("davis2017", "val", make_davis_tree(tmp_path))
    assert [note.split(" found")[0] for note in manifest.notes] == ["2 videos", "8 frames", "3 objects"]
    assert "2 videos found, 30 expected" in capsys.readouterr().err


def test_build_manifest_of_the_demo_layout(tmp_path):
    manifest = build_manifest("demo", "val", make_davis_tree(tmp_path))
    assert (manifest.dataset, manifest.split, manifest.protocol) == ("demo", "val", "davis2017")


def test_content_depends_on_files_not_on_places_or_times(tmp_path):
    first = davis(make_davis_tree(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").rglob("*.*g"):
        os.utime(path, (1, 1))
    second = davis(tmp_path / "b")
    assert replace(second, root=first.root) == first


def test_replaced_frame_and_prompt_change_the_content(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,), "cows": (1, 2)})
    before = davis(root)
    (root / FRAMES / "bear" / "00002.jpg").open("ab").write(b"x")
    save_label_map(root / MASKS / "cows" / "00000.png", rectangles((1, 2), shift=1))
    after = davis(root)
    assert before.video("bear").content != after.video("bear").content
    assert before.video("bear").ground_truth_content == after.video("bear").ground_truth_content
    assert before.video("cows").content != after.video("cows").content


def test_replaced_ground_truth_changes_only_its_own_content(tmp_path):
    root = make_davis_tree(tmp_path)
    before = davis(root)
    save_label_map(root / MASKS / "cows" / "00003.png", rectangles((1, 2), shift=5))
    after = davis(root)
    assert before.tracking_view("cows") == after.tracking_view("cows")
    assert before.video("cows").ground_truth_content != after.video("cows").ground_truth_content


def build_2016(root: Path):
    return build("davis2016", "val", root)


def test_davis2016_val(tmp_path):
    manifest = build_2016(make_davis2016_tree(tmp_path))
    assert (manifest.protocol, manifest.binary_ground_truth) == ("davis2016", True)
    bear = manifest.video("bear")
    assert bear.objects == (1,) and bear.frames.names == ("00000", "00001", "00002")
    assert bear.prompts == (Prompt(1, "00000", f"{MASKS}/bear/00000.png", "binary"),)
    assert np.array_equal(Video.of(manifest, "bear").read_prompt(bear.prompts[0]), rectangles((1,)) > 0)


def test_davis2016_refuses_a_list_of_names(tmp_path):
    make_davis2016_tree(tmp_path)
    (tmp_path / "ImageSets/480p/val.txt").write_text("bear\nboat\n")
    with pytest.raises(VosflowError, match="line 1 is not a pair"):
        build_2016(tmp_path)


@pytest.mark.parametrize("kept, where", [(slice(0, 5), "on disk but not in the list"), (slice(0, 6), None)])
def test_davis2016_frames_match_the_list(tmp_path, kept, where):
    make_davis2016_tree(tmp_path)
    path = tmp_path / "ImageSets/480p/val.txt"
    path.write_text("\n".join(path.read_text().splitlines()[kept]))
    if where is None:
        assert len(build_2016(tmp_path).videos) == 2
    else:
        with pytest.raises(VosflowError, match=f"frame 00002 of video boat is {where}"):
            build_2016(tmp_path)


def test_davis2016_listed_frame_is_missing(tmp_path):
    make_davis2016_tree(tmp_path)
    (tmp_path / FRAMES / "boat" / "00002.jpg").unlink()
    (tmp_path / MASKS / "boat" / "00002.png").unlink()
    with pytest.raises(VosflowError, match="frame 00002 of video boat is in the list but not there"):
        build_2016(tmp_path)


def build_mose(root: Path, **lists: Path):
    return build("mose", "valid", root, **lists)


def test_mose_valid(tmp_path):
    manifest = build_mose(make_mose_tree(tmp_path))
    assert [video.name for video in manifest.videos] == ["0a1b2c3d", "b0c1d2e3"]  # sorted, not as in the file
    assert manifest.protocol is None
    assert manifest.videos[1].objects == (1, 2) and manifest.videos[1].ground_truth is None


def test_mose_list_in_another_place(tmp_path):
    root = make_mose_tree(tmp_path / "valid")
    (root / "meta_valid.json").rename(tmp_path / "list.json")
    assert len(build_mose(root, videos=tmp_path / "list.json").videos) == 2
    with pytest.raises(VosflowError, match="list of videos cannot be read"):
        build_mose(root)


@pytest.mark.parametrize("text", ["not json", "[]", '{"videos": 3}', "{}"])
def test_mose_refuses_another_file(tmp_path, text):
    root = make_mose_tree(tmp_path)
    (root / "meta_valid.json").write_text(text)
    with pytest.raises(VosflowError, match="not a publisher's list of videos"):
        build_mose(root)
