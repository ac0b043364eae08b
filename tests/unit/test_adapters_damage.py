"""Adapters: each kind of damage is named, also by the script."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from tests.unit.scripts import run_script
from tests.unit.small_manifests import FRAMES, MASKS, davis, in_folder
from tests.unit.trees import (
    HEIGHT,
    WIDTH,
    make_davis_tree,
    make_mose_tree,
    rectangles,
    save_frame,
    save_label_map,
)
from vosflow.datasets import build_manifest
from vosflow.datasets.folder import folder_manifest
from vosflow.errors import VosflowError
from vosflow.manifest import load_manifest


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


def test_script(tmp_path):
    make_davis_tree(tmp_path / "demo")
    output = tmp_path / "results" / "manifest.json"
    options = ("--dataset", "demo", "--split", "val", "--output", output)
    assert run_script("write_manifest.py", *options, "--root", tmp_path / "demo").returncode == 0
    assert [video.name for video in load_manifest(output).videos] == ["bear", "cows"]

    folders = {
        name: str(tmp_path / "demo" / kind) for name, kind in (("base_video_dir", FRAMES), ("input_mask_dir", MASKS))
    }
    mine = ("--dataset", "mine", "--split", "all", "--output", output, "--folder", json.dumps(folders))
    done = run_script("write_manifest.py", *mine)
    assert done.returncode == 0, done.stderr
    assert load_manifest(output).dataset == "mine"

    root = make_mose_tree(tmp_path / "valid")
    given = (root / "meta_valid.json").rename(tmp_path / "list.json")
    mose = ("--dataset", "mose", "--split", "valid", "--output", output, "--root", root, "--list", "videos", given)
    assert run_script("write_manifest.py", *mose).returncode == 0 and len(load_manifest(output).videos) == 2

    failed = run_script("write_manifest.py", *options)
    assert failed.returncode == 1 and "--root or --folder?" in failed.stderr and "Traceback" not in failed.stderr
