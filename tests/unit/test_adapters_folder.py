"""A user's own folders of frames and masks: what their manifests say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.small_manifests import FRAMES, MASKS, davis, in_folder
from tests.unit.trees import (
    HEIGHT,
    WIDTH,
    make_davis2016_tree,
    make_davis_tree,
    rectangles,
    save_frame,
    save_label_map,
)
from vosflow.datasets import folder_description
from vosflow.datasets.folder import folder_manifest
from vosflow.errors import VosflowError
from vosflow.manifest import Prompt
from vosflow.video import Video


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
