"""scripts/check_dataset.py: a sound dataset passes; all that is wrong with another is told, not only one thing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit import publisher_trees as trees
from tests.unit.scripts import run_script
from tests.unit.trees import make_davis_tree, make_mose_tree, rectangles, save_frame, save_label_map
from vosflow.catalog import find_split
from vosflow.datasets import check
from vosflow.datasets.check import ODD, WRONG, check_split, layout_problems

FRAMES, MASKS = "JPEGImages/480p", "Annotations/480p"


@pytest.fixture
def davis(tmp_path, monkeypatch) -> Path:
    """A small DAVIS 2017 whose counts are those that the publisher is made to say."""
    facts = find_split("davis2017", "val").model_copy(update={"videos": 2, "frames": 8, "objects": 3})
    monkeypatch.setattr(check, "find_split", lambda dataset, split: facts)
    monkeypatch.setattr(check, "davis_frames", lambda dataset, split: {"bear": 4, "cows": 4})
    return make_davis_tree(tmp_path / "DAVIS")


def found(root: Path, kind: str = WRONG, **options) -> list[tuple[str, str]]:
    result = check_split("davis2017", "val", root, **options)
    assert result.sound == (not any(f.kind == WRONG for f in result.findings) and not any(map(differs, result.counts)))
    return [(finding.video, finding.text) for finding in result.findings if finding.kind == kind]


def differs(count) -> bool:
    return count.differs


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_dataset(davis, full):
    told = []
    result = check_split("davis2017", "val", davis, full=full, told=told.append)
    assert result.sound and result.findings == () and sorted(told) == ["bear", "cows"]
    assert [(count.what, count.found, count.expected) for count in result.counts] == [
        ("videos", 2, 2),
        ("frames", 8, 8),
        ("objects", 3, 3),
    ]


def test_everything_that_is_wrong_is_told(davis):
    (davis / FRAMES / "bear/00003.jpg").unlink()
    save_label_map(davis / MASKS / "cows/00001.png", rectangles((1, 2), height=25))
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(davis / MASKS / "cows/00002.png")
    (davis / MASKS / "cows/00003.png").unlink()
    problems = found(davis)
    assert ("bear", "it has 3 frames, 4 by its publisher") in problems
    assert ("bear", "mask 00003.png has no frame") in problems
    assert ("cows", "the mask is 32x25 pixels, its frame 32x24") in problems
    assert ("cows", "the mask is a RGB image, not one of ids") in problems
    assert ("cows", "1 frames have no mask, the first is 00003") in problems
    assert check_split("davis2017", "val", davis).counts[1].differs


def test_only_a_full_check_decodes_images(davis):
    path = davis / FRAMES / "cows/00002.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    mask = davis / MASKS / "bear/00002.png"
    data = bytearray(mask.read_bytes())
    data[-26:-18] = bytes(8)  # in the middle of the pixels
    mask.write_bytes(data)
    assert found(davis) == []
    texts = dict(found(davis, full=True))
    assert "cannot be decoded" in texts["cows"] and "unreadable" in texts["bear"]


def test_workers_find_the_same(davis):
    (davis / FRAMES / "cows/00001.jpg").write_bytes(b"")
    alone = check_video_texts(davis, 1)
    assert alone and alone == check_video_texts(davis, 2)


def check_video_texts(root: Path, workers: int) -> list[tuple[str, str]]:
    return sorted(found(root, full=True, workers=workers))


def test_what_is_odd_is_not_wrong(davis):
    save_frame(davis / FRAMES / "stranger/00000.jpg")
    for frame in range(4):
        save_label_map(davis / MASKS / f"cows/{frame:05d}.png", rectangles((1, 7), frame))
    assert found(davis) == []
    odd = found(davis, ODD)
    assert ("", "1 videos there are not of this split (stranger, ...)") in odd
    assert ("cows", "its object ids are not 1, 2, 3, ...: 1, 7") in odd


def test_empty_first_mask_and_missing_video(davis):
    save_label_map(davis / MASKS / "bear/00000.png", rectangles(()))
    (davis / "ImageSets/2017/val.txt").write_text("bear\ngone")
    texts = dict(found(davis))
    assert "no object to track" in texts["bear"] and "frames of video gone are missing" in texts["gone"]


def test_davis_knows_the_frames_of_every_video():
    assert check.davis_frames("davis2017", "val")["bike-packing"] == 69
    assert "bike-packing" not in check.davis_frames("davis2016", "val")


def test_other_publishers(tmp_path):
    sav = check_split("sav", "val", trees.make_sav_tree(tmp_path / "sav_val"), full=True)
    assert sav.findings == () and [count.found for count in sav.counts] == [2, 34, 4]
    youtube = check_split("youtubevos2018", "valid", trees.make_youtubevos_tree(tmp_path / "valid"))
    assert [count.found for count in youtube.counts] == [2, 9, 3], "objects by meta.json, no mask is decoded"
    uvo = check_split("uvo", "val", trees.make_uvo_tree(tmp_path / "UVOv1.0", extra=2), full=True)
    assert [count.found for count in uvo.counts] == [2, 24] and uvo.sound
    lvos = check_split("lvos_v2", "valid", trees.make_lvos_tree(tmp_path / "lvos"), full=True)
    assert [count.found for count in lvos.counts] == [2, 12, 4] and not lvos.sound


# ---- the layout of what a user gives ---------------------------------------------------------------------------------


def test_layout_with_missing_videos(tmp_path):
    trees.make_sav_tree(tmp_path / "sav_val")
    assert layout_problems("sav", "val", tmp_path) == ("2 videos instead of 155",)


def test_layout_whose_videos_come_in_another_file(tmp_path):
    make_mose_tree(tmp_path / "valid")
    (tmp_path / "valid/meta_valid.json").unlink()
    assert layout_problems("mose", "valid", tmp_path) == ()


def test_layout_with_a_missing_frame(tmp_path, monkeypatch):
    make_davis_tree(tmp_path / "DAVIS")
    make_davis_tree(tmp_path / "DAVIS", split="train")
    monkeypatch.setattr(check, "davis_frames", lambda dataset, split: {"bear": 5, "cows": 4})
    assert layout_problems("davis2017", "trainval-480p", tmp_path) == (
        "2 videos instead of 60",
        "8 frames instead of 4209",
        "4 frames instead of 5 in video bear",
    )


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_script("check_dataset.py", *arguments, env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"})


def test_command(tmp_path):
    make_davis_tree(tmp_path / "data/datasets/davis2017/trainval-480p/DAVIS")
    done = run("davis2017/val", "--data", tmp_path / "data", "--workers", "1")
    assert done.returncode == 1, done.stderr
    assert "not as published" in done.stdout and "1999" in done.stdout and "104 by its publisher" in done.stdout
    every = run("davis2017", "--data", tmp_path / "data", "--workers", "1")  # train.txt is missing, val is checked
    assert every.returncode == 1 and "davis2017/train: error:" in every.stderr
    assert "104 by its publisher" in every.stdout
    demo = run("demo", "--root", tmp_path / "nowhere")
    assert demo.returncode == 1 and "the folder is missing" in demo.stderr and "Traceback" not in demo.stderr
    unknown = run("davis2o17/val")
    assert unknown.returncode == 1 and "did you mean 'davis2017'?" in unknown.stderr
