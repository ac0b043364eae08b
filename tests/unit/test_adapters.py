"""Adapters: what the manifests of the publishers' layouts say, and that each kind of damage is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.trees import (
    HEIGHT,
    WIDTH,
    make_davis2016_tree,
    make_davis_tree,
    make_mose_tree,
    rectangles,
    save_frame,
    save_label_map,
)
from vosflow.datasets import build_manifest, folder_description
from vosflow.datasets.folder import folder_manifest
from vosflow.errors import VosflowError
from vosflow.manifest import Prompt, load_manifest, save_manifest
from vosflow.video import Video

REPOSITORY = Path(__file__).resolve().parents[2]
MASKS, FRAMES = "Annotations/480p", "JPEGImages/480p"


def build(dataset: str, split: str, root: Path, **lists: Path):
    """The manifest without its notes on counts: trees of tests are small."""
    manifest = build_manifest(dataset, split, root, lists=lists)
    return replace(manifest, notes=tuple(note for note in manifest.notes if "expected from the catalog" not in note))


def davis(root: Path, split: str = "val"):
    return build("davis2017", split, root)


def in_folder(root: Path, **options):
    return folder_manifest(root / FRAMES, root / MASKS, **options)


# ---- DAVIS 2017 -----------------------------------------------------------------------------------------------------


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


# ---- content digests ------------------------------------------------------------------------------------------------


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


# ---- DAVIS 2016 -----------------------------------------------------------------------------------------------------


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


# ---- MOSE -----------------------------------------------------------------------------------------------------------


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


# ---- folders: the options of vos_inference.py ------------------------------------------------------------------------


def test_folder_without_options(tmp_path):
    root = make_davis_tree(tmp_path)
    manifest = in_folder(root)
    assert [video.name for video in manifest.videos] == ["bear", "cows"]
    assert manifest.video("cows").prompts == davis(root).video("cows").prompts
    assert manifest.video("cows").content == davis(root).video("cows").content
    assert manifest.protocol is None and manifest.video("cows").ground_truth is None


def test_folder_root_is_the_common_one(tmp_path, monkeypatch):
    make_davis_tree(tmp_path / "data")
    shutil.move(tmp_path / "data" / MASKS, tmp_path / "masks")
    monkeypatch.chdir(tmp_path)
    manifest = folder_manifest(f"data/{FRAMES}", "masks")
    assert manifest.root == "."
    assert manifest.videos[0].frames.folder == f"data/{FRAMES}/bear"
    assert manifest.videos[0].prompts[0].mask == "masks/bear/00000.png"
    assert Video.of(manifest, "bear").read_prompt(manifest.videos[0].prompts[0]).any()


def test_folder_takes_names_or_a_file_with_blank_lines(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,), "cows": (1,), "dogs": (1,)})
    (tmp_path / "list.txt").write_text("cows\n\n  bear \n")
    assert [video.name for video in in_folder(root, videos=tmp_path / "list.txt").videos] == ["cows", "bear"]
    assert [video.name for video in in_folder(root, videos=("dogs",)).videos] == ["dogs"]


def test_folder_frames_may_start_anywhere_and_step(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)}, frames=2)
    for kind, suffix in ((FRAMES, "jpg"), (MASKS, "png")):
        for old, new in (("00001", "00000011"), ("00000", "00000001")):
            (root / kind / "bear" / f"{old}.{suffix}").rename(root / kind / "bear" / f"{new}.{suffix}")
    video = in_folder(root).videos[0]
    assert video.frames.names == ("00000001", "00000011") and video.prompts[0].frame == "00000001"


def test_use_all_masks_takes_every_mask_of_the_first_objects(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1, 2)}, frames=4)
    (root / MASKS / "bear" / "00001.png").unlink()
    save_label_map(root / MASKS / "bear" / "00002.png", rectangles((2,)))
    prompts = in_folder(root, use_all_masks=True).videos[0].prompts
    found = [(prompt.frame, prompt.object) for prompt in prompts]
    assert found == [("00000", 1), ("00000", 2), ("00002", 2), ("00003", 1), ("00003", 2)]


def test_use_all_masks_may_start_after_the_first_frame(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)}, frames=3)
    (root / MASKS / "bear" / "00000.png").unlink()
    assert [prompt.frame for prompt in in_folder(root, use_all_masks=True).videos[0].prompts] == ["00001", "00002"]


def test_use_all_masks_refuses_new_objects_later(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)})
    save_label_map(root / MASKS / "bear" / "00002.png", rectangles((1, 2)))
    with pytest.raises(VosflowError, match="object 2 of video bear appears on frame 00002.*(?s:.*)late_objects"):
        in_folder(root, use_all_masks=True)
    assert in_folder(root).videos[0].objects == (1,)  # only the first frame is read


def test_late_objects_start_at_their_first_mask(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (3,)}, frames=4)
    save_label_map(root / MASKS / "bear" / "00002.png", rectangles((3, 1)))
    video = in_folder(root, late_objects=True).videos[0]
    assert video.objects == (1, 3)
    assert [(prompt.frame, prompt.object) for prompt in video.prompts] == [("00000", 3), ("00002", 1)]
    all_masks = in_folder(root, late_objects=True, use_all_masks=True)
    assert all_masks.late_objects
    assert [(prompt.frame, prompt.object) for prompt in all_masks.videos[0].prompts] == [
        ("00000", 3),
        ("00001", 3),
        ("00002", 1),
        ("00002", 3),
        ("00003", 3),
    ]


def per_object_tree(root: Path, frames: int = 3) -> Path:
    """Video bear with objects 2 and 10, which overlap."""
    for frame in range(frames):
        save_frame(root / FRAMES / f"bear/{frame:05d}.jpg", frame)
        for object_id, left in ((2, 3), (10, 6)):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[5:12, left : left + 6] = 255
            path = root / MASKS / "bear" / f"{object_id:03d}" / f"{frame:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask, mode="L").save(path)
    return root


def test_per_object_layout(tmp_path):
    root = per_object_tree(tmp_path)
    manifest = in_folder(root, per_obj_png_file=True, annotations=root / MASKS)
    (video,) = manifest.videos
    assert manifest.layout == "per_object" and video.objects == (2, 10)
    assert video.prompts == (
        Prompt(2, "00000", f"{MASKS}/bear/002/00000.png", "binary"),
        Prompt(10, "00000", f"{MASKS}/bear/010/00000.png", "binary"),
    )
    assert video.ground_truth.folder == f"{MASKS}/bear" and len(video.ground_truth.names) == 3
    masks = [Video.of(manifest, "bear").read_prompt(prompt) for prompt in video.prompts]
    assert (masks[0] & masks[1]).any()  # overlaps survive


def test_per_object_late_objects_may_miss_files(tmp_path):
    root = per_object_tree(tmp_path)
    (root / MASKS / "bear/010/00000.png").unlink()
    with pytest.raises(VosflowError, match="mask is missing"):
        in_folder(root, per_obj_png_file=True)
    video = in_folder(root, per_obj_png_file=True, late_objects=True).videos[0]
    assert [(prompt.frame, prompt.object) for prompt in video.prompts] == [("00000", 2), ("00001", 10)]


def test_per_object_empty_mask(tmp_path):
    root = per_object_tree(tmp_path)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(root / MASKS / "bear/010/00000.png")
    with pytest.raises(VosflowError, match="mask of object 10 is empty on frame 00000"):
        in_folder(root, per_obj_png_file=True)
    video = in_folder(root, per_obj_png_file=True, late_objects=True).videos[0]
    assert [(prompt.frame, prompt.object) for prompt in video.prompts] == [("00000", 2), ("00001", 10)]


@pytest.mark.parametrize("name, problem", [("rider", "not named by an object id"), ("10", "has two folders")])
def test_per_object_folder_names(tmp_path, name, problem):
    root = per_object_tree(tmp_path)
    (root / MASKS / "bear" / name).mkdir()
    with pytest.raises(VosflowError, match=problem):
        in_folder(root, per_obj_png_file=True)


def test_label_maps_are_not_taken_for_per_object_masks(tmp_path):
    with pytest.raises(VosflowError, match="has no object folders"):
        in_folder(make_davis_tree(tmp_path), per_obj_png_file=True)


def test_binary_masks_are_one_object(tmp_path):
    root = make_davis2016_tree(tmp_path)
    assert in_folder(root).videos[0].objects == (255,)  # as SAM 2 reads them
    manifest = in_folder(root, binary=True, annotations=root / MASKS, protocol="davis2016")
    assert manifest.videos[0].objects == (1,) and manifest.binary_ground_truth


def test_sparse_ground_truth(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)}, frames=5)
    shutil.copytree(root / MASKS, root / "sparse")
    (root / "sparse/bear/00003.png").unlink()
    manifest = in_folder(root, annotations=root / "sparse", protocol="davis2017")
    assert manifest.videos[0].ground_truth.names == ("00000", "00001", "00002", "00004")


def test_void_is_no_object_for_davis2017(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": (1,)})
    label_map = rectangles((1,))
    label_map[0, :3] = 255
    save_label_map(root / MASKS / "bear/00000.png", label_map)
    folders = {"base_video_dir": root / FRAMES, "input_mask_dir": root / MASKS}
    assert folder_manifest(**folders).videos[0].objects == (1, 255)
    with pytest.raises(VosflowError, match="object 255.*void(.|\n)*binary: true"):
        folder_manifest(**folders, annotations=root / MASKS, protocol="davis2017")


def test_protocol_needs_annotations(tmp_path):
    with pytest.raises(VosflowError, match="has no annotations"):
        in_folder(make_davis_tree(tmp_path), protocol="davis2017")


def test_description_of_a_folder_refuses_unknown_keys():
    assert folder_description('{"base_video_dir": "a", "input_mask_dir": "b", "fps": 24}').fps == 24
    with pytest.raises(VosflowError, match="late_object: Extra inputs"):
        folder_description('{"base_video_dir": "a", "input_mask_dir": "b", "late_object": true}')
    with pytest.raises(VosflowError, match="description of the dataset is wrong"):
        folder_description("nonsense")


# ---- damage: each names its file ------------------------------------------------------------------------------------


def remove_video(root):
    shutil.rmtree(root / FRAMES / "cows")


def remove_masks(root):
    shutil.rmtree(root / MASKS / "cows")


def remove_frames(root):
    for path in (root / FRAMES / "cows").iterdir():
        path.unlink()


def remove_one_frame(root):
    (root / FRAMES / "cows/00002.jpg").unlink()


def remove_first_frame(root):
    (root / FRAMES / "cows/00000.jpg").unlink()


def remove_last_frame(root):
    (root / FRAMES / "cows/00003.jpg").unlink()


def remove_mask(root):
    (root / MASKS / "cows/00003.png").unlink()


def remove_first_mask(root):
    (root / MASKS / "cows/00000.png").unlink()


def enlarge_mask(root):
    save_label_map(root / MASKS / "cows/00003.png", rectangles((1, 2), height=HEIGHT + 1))


def enlarge_prompt(root):
    save_label_map(root / MASKS / "cows/00000.png", rectangles((1, 2), width=WIDTH + 2))


def enlarge_frame(root):
    save_frame(root / FRAMES / "cows/00001.jpg", height=HEIGHT + 1)


def colour_mask(root):
    Image.open(root / MASKS / "cows/00003.png").convert("RGB").save(root / MASKS / "cows/00003.png")


def empty_prompt(root):
    save_label_map(root / MASKS / "cows/00000.png", rectangles(()))


def truncate_mask(root):
    path = root / MASKS / "cows/00003.png"
    path.write_bytes(path.read_bytes()[:-30])


def truncate_prompt(root):
    path = root / MASKS / "cows/00000.png"
    path.write_bytes(path.read_bytes()[:-30])


def damage_frame(root):
    (root / FRAMES / "cows/00003.jpg").write_bytes(b"\xff\xd8\xff")


def empty_frame(root):
    (root / FRAMES / "cows/00003.jpg").write_bytes(b"")


def name_a_frame(root):
    (root / FRAMES / "cows/00003.jpg").rename(root / FRAMES / "cows/frame3.jpg")


def double_a_frame(root):
    shutil.copy(root / FRAMES / "cows/00003.jpg", root / FRAMES / "cows/3.jpg")


def mix_suffixes(root):
    (root / FRAMES / "cows/00003.jpg").rename(root / FRAMES / "cows/00003.JPG")


def remove_list(root):
    (root / "ImageSets/2017/val.txt").unlink()


def empty_list(root):
    (root / "ImageSets/2017/val.txt").write_text("\n")


def double_in_list(root):
    (root / "ImageSets/2017/val.txt").write_text("bear\nbear\n")


def path_in_list(root):
    (root / "ImageSets/2017/val.txt").write_text("../bear\n")


@pytest.mark.parametrize(
    "damage, problem, place",
    [
        (remove_video, "frames of video cows are missing", f"{FRAMES}/cows"),
        (remove_masks, "masks of video cows are missing", f"{MASKS}/cows"),
        (remove_frames, "video cows has no frames", f"{FRAMES}/cows"),
        (remove_one_frame, "frame 00002.jpg of video cows is missing", f"{FRAMES}/cows/00002.jpg"),
        (remove_first_frame, "frame 00000.jpg of video cows is missing", f"{FRAMES}/cows/00000.jpg"),
        (remove_last_frame, "mask 00003.png of video cows has no frame", f"{MASKS}/cows"),
        (remove_mask, "ground truth of frame 00003 of video cows is missing", f"{MASKS}/cows/00003.png"),
        (remove_first_mask, "the ground truth of frame 00000 of video cows is missing", f"{MASKS}/cows/00000.png"),
        (enlarge_mask, "the mask is 32x25 pixels", f"{MASKS}/cows/00003.png"),
        (enlarge_prompt, "the mask is 34x24 pixels", f"{MASKS}/cows/00000.png"),
        (enlarge_frame, "the frame is 32x25 pixels", f"{FRAMES}/cows/00001.jpg"),
        (colour_mask, "the mask is a RGB image", f"{MASKS}/cows/00003.png"),
        (empty_prompt, "no object to track: the mask of its first frame, 00000, is empty", f"{MASKS}/cows"),
        (truncate_mask, "the mask is unreadable", f"{MASKS}/cows/00003.png"),
        (truncate_prompt, "the mask is unreadable", f"{MASKS}/cows/00000.png"),
        (damage_frame, "the image is unreadable", f"{FRAMES}/cows/00003.jpg"),
        (empty_frame, "the image is unreadable (empty file)", f"{FRAMES}/cows/00003.jpg"),
        (name_a_frame, "the file's name is not a number", f"{FRAMES}/cows/frame3.jpg"),
        (double_a_frame, "two files have the same frame number: 00003.jpg and 3.jpg", f"{FRAMES}/cows"),
        (mix_suffixes, "have different suffixes: .JPG, .jpg", f"{FRAMES}/cows"),
        (remove_list, "the list of videos cannot be read", "ImageSets/2017/val.txt"),
        (empty_list, "no videos", "ImageSets/2017/val.txt"),
        (double_in_list, "video bear is listed twice", "ImageSets/2017/val.txt"),
        (path_in_list, "'../bear' is not a video's name", "ImageSets/2017/val.txt"),
    ],
)
def test_damage_is_named(tmp_path, damage, problem, place):
    root = make_davis_tree(tmp_path)
    davis(root)
    damage(root)
    with pytest.raises(VosflowError) as caught:
        davis(root)
    assert problem in caught.value.problem
    assert caught.value.path == str(root / place)
    assert caught.value.expected and caught.value.remedy


def test_wrong_root_is_named_with_the_right_one(tmp_path):
    make_davis_tree(tmp_path / "DAVIS")
    with pytest.raises(VosflowError, match="no JPEGImages/480p in it(?s:.*)/DAVIS instead"):
        build_manifest("davis2017", "val", tmp_path)
    with pytest.raises(VosflowError, match="folder of the dataset is missing"):
        build_manifest("davis2017", "val", tmp_path / "nothing")


def test_no_mask_at_all_with_late_objects(tmp_path):
    root = make_davis_tree(tmp_path, {"bear": ()})
    with pytest.raises(VosflowError, match="no object to track: no mask with an object"):
        in_folder(root, late_objects=True)


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(VosflowError, match="folder is missing"):
        folder_manifest(tmp_path / "frames", tmp_path / "masks")


# ---- the script -----------------------------------------------------------------------------------------------------


def write_manifest(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / "scripts/write_manifest.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_script(tmp_path):
    make_davis_tree(tmp_path / "demo")
    output = tmp_path / "results" / "manifest.json"
    options = ("--dataset", "demo", "--split", "val", "--output", output)
    assert write_manifest(*options, "--root", tmp_path / "demo").returncode == 0
    assert [video.name for video in load_manifest(output).videos] == ["bear", "cows"]

    folders = {
        name: str(tmp_path / "demo" / kind) for name, kind in (("base_video_dir", FRAMES), ("input_mask_dir", MASKS))
    }
    done = write_manifest("--dataset", "mine", "--split", "all", "--output", output, "--folder", json.dumps(folders))
    assert done.returncode == 0, done.stderr
    assert load_manifest(output).dataset == "mine"

    root = make_mose_tree(tmp_path / "valid")
    given = (root / "meta_valid.json").rename(tmp_path / "list.json")
    mose = ("--dataset", "mose", "--split", "valid", "--output", output, "--root", root, "--list", "videos", given)
    assert write_manifest(*mose).returncode == 0 and len(load_manifest(output).videos) == 2

    failed = write_manifest(*options)
    assert failed.returncode == 1 and "--root or --folder?" in failed.stderr and "Traceback" not in failed.stderr
