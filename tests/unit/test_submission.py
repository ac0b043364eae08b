"""Submissions: what is checked, what is packed, and that the bytes are the same each time."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.scripts import run_script
from tests.unit.test_ytvis import HEIGHT as TALL
from tests.unit.test_ytvis import WIDTH as WIDE
from tests.unit.test_ytvis import found, square
from tests.unit.trees import HEIGHT, WIDTH, rectangles, save_label_map
from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, PER_OBJECT, ImageFolder, Manifest, Prompt, VideoEntry, save_manifest
from vosflow.submission.check import check_predictions, required_frames
from vosflow.submission.formats import FORMATS, chosen_split, find_format
from vosflow.submission.pack import write_submission

FRAMES = tuple(f"{t:05d}" for t in range(4))
OBJECTS = {"bear": (1,), "cows": (1, 2)}


def entry(name: str, **facts) -> VideoEntry:
    frames = ImageFolder(f"JPEGImages/{name}", ".jpg", FRAMES)
    return VideoEntry(name, frames, HEIGHT, WIDTH, facts.pop("objects", OBJECTS.get(name, (1,))), (), **facts)


def manifest(dataset: str = "davis2017", split: str = "test-dev", **facts) -> Manifest:
    return Manifest(dataset, split, "nowhere", (entry("bear"), entry("cows")), **facts)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Label maps of both videos, all frames."""
    for video, objects in OBJECTS.items():
        for shift, frame in enumerate(FRAMES):
            save_label_map(tmp_path / "masks" / video / f"{frame}.png", rectangles(objects, shift))
    return tmp_path / "masks"


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def problems(masks: Path, truth: Manifest | None = None, **options) -> list[str]:
    truth = truth or manifest()
    return check_predictions(truth, masks, FORMATS[truth.dataset], **options).problems


@pytest.mark.parametrize("dataset", ["davis2017", "mose", "mosev2"])
def test_videos_stand_at_the_root_with_all_frames(masks, tmp_path, dataset):
    done = write_submission(manifest(dataset), masks, tmp_path / "out.zip", FORMATS[dataset])
    assert names(done.path) == [f"{video}/{frame}.png" for video in OBJECTS for frame in FRAMES]
    with zipfile.ZipFile(done.path) as archive:
        for name in archive.namelist():
            assert archive.read(name) == (masks / name).read_bytes()  # nothing is rewritten


@pytest.mark.parametrize("dataset", ["youtubevos2018", "youtubevos2019", "lvos_v1", "lvos_v2"])
def test_only_the_required_frames_below_annotations(masks, tmp_path, dataset):
    videos = (entry("bear", required=FRAMES[::2]), entry("cows", required=FRAMES[1:2]))
    (masks / "cows" / f"{FRAMES[0]}.png").unlink()  # before the first object appears
    done = write_submission(
        replace(manifest(dataset), videos=videos), masks, tmp_path / "new" / "out.zip", FORMATS[dataset]
    )
    expected = ["bear/00000.png", "bear/00002.png", "cows/00001.png"]
    assert names(done.path) == [f"Annotations/{name}" for name in expected]


@pytest.mark.parametrize(
    ("facts", "late", "expected"),
    [
        ({}, False, FRAMES),
        ({"prompts": (Prompt(1, FRAMES[2], "a.png"), Prompt(2, FRAMES[1], "b.png"))}, True, FRAMES[1:]),
        ({"prompts": (Prompt(1, FRAMES[2], "a.png"),)}, False, FRAMES),  # MOSE v2 pairs frames by their position
        ({"object_frames": {1: FRAMES[1:2], 2: (FRAMES[3], "00009")}}, True, (FRAMES[1], FRAMES[3])),
        ({"object_frames": {1: FRAMES[1:2]}, "required": FRAMES[:1]}, True, FRAMES[:1]),
    ],
)
def test_which_frames_are_required(facts, late, expected):
    assert required_frames(replace(entry("bear"), **facts), late) == expected


def test_the_same_bytes_whenever_and_wherever(masks, tmp_path):
    first = write_submission(manifest(), masks, tmp_path / "a.zip", FORMATS["davis2017"], workers=4).path.read_bytes()
    copy = tmp_path / "elsewhere" / "copied"
    shutil.copytree(masks, copy, copy_function=shutil.copyfile)
    for path in copy.rglob("*.png"):
        os.utime(path, (time.time() - 10**7,) * 2)
        path.chmod(0o600)
    second = write_submission(manifest(), copy, tmp_path / "b.zip", FORMATS["davis2017"]).path.read_bytes()
    assert first == second
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0) and info.external_attr >> 16 == 0o100644


@pytest.mark.parametrize("mode", ["L", "few colours"])
def test_masks_that_are_no_8_bit_palette_png_are_rewritten_and_this_is_said(masks, tmp_path, mode):
    values = rectangles((1, 2))
    image = Image.fromarray(values)
    if mode == "few colours":  # Pillow writes 2 bits per pixel then
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    image.save(masks / "cows/00001.png")
    done = write_submission(manifest(), masks, tmp_path / "out.zip", FORMATS["davis2017"])
    assert any("no 8-bit palette PNG and are written as such, values unchanged: 1" in note for note in done.notes)
    with zipfile.ZipFile(done.path) as archive, archive.open("cows/00001.png") as file:
        content = file.read()
    assert (content[24], content[25]) == (8, 3)
    (tmp_path / "packed.png").write_bytes(content)
    with Image.open(tmp_path / "packed.png") as packed:
        assert packed.mode == "P" and np.array_equal(np.array(packed), values)


def test_what_is_missing(masks):
    shutil.rmtree(masks / "bear")
    for frame in FRAMES[1:3]:
        (masks / "cows" / f"{frame}.png").unlink()
    assert problems(masks) == [
        "bear: 4 of 4 frames are missing (there is no folder), the first is 00000.png",
        "cows: 2 of 4 frames are missing, the first is 00001.png",
    ]


def test_ids_sizes_modes_and_damage(masks):
    save_label_map(masks / "bear/00000.png", rectangles((1, 2, 7)))
    save_label_map(masks / "bear/00001.png", np.zeros((HEIGHT // 2, WIDTH), np.uint8))
    Image.open(masks / "bear/00002.png").convert("RGB").save(masks / "bear/00002.png")
    path = masks / "bear/00003.png"
    path.write_bytes(path.read_bytes()[:40])
    save_label_map(masks / "cows/00000.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    first, second, third, fourth, fifth = problems(masks)
    assert first == "bear/00000.png: ids 2, 7 not among the prompts' ids (1)"
    assert second == f"bear/00001.png: {WIDTH}x{HEIGHT // 2} pixels, the video has {WIDTH}x{HEIGHT}"
    assert third == "bear/00002.png: the mask is a RGB image"
    assert fourth.startswith("bear/00003.png: the mask is unreadable")
    assert fifth == "cows/00000.png: id 255 not among the prompts' ids (1, 2)"


def test_an_object_that_is_never_there(masks, tmp_path):
    for path in (masks / "cows").iterdir():
        save_label_map(path, rectangles((1,)))
    assert problems(masks) == ["cows: object 2 has no pixel on any frame"]
    done = write_submission(manifest(), masks, tmp_path / "out.zip", FORMATS["davis2017"], allow_empty_objects=True)
    assert any("objects that are never there: 1: cows: object 2" in note for note in done.notes)


def test_ten_problems_are_named_and_nothing_is_written(masks, tmp_path):
    for path in masks.rglob("*.png"):
        save_label_map(path, rectangles((1, 2, 3)))
    many = replace(manifest(), videos=tuple(entry(f"video{n}") for n in range(30)))
    with pytest.raises(VosflowError, match="problems: 30, the first 10 of them") as caught:
        write_submission(many, masks, tmp_path / "out.zip", FORMATS["davis2017"])
    text = str(caught.value)
    assert text.count("\n  - ") == 10 and "video9:" in text and "video10:" not in text
    assert "what to do" in text and caught.value.path == str(masks)
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


def test_one_video_is_rejected_by_servers(masks):
    assert problems(masks, replace(manifest(), videos=(entry("bear"),))) == [
        "there is one video only: a zip with a single folder is rejected"
    ]


def test_folders_of_other_videos_are_left_out_and_named(masks, tmp_path):
    save_label_map(masks / "dogs/00000.png", rectangles((1,)))
    (masks / "bear" / "results.csv").write_text("left by a toolkit")
    few = manifest(notes=("2 videos found, 30 expected",))
    done = write_submission(few, masks, tmp_path / "out.zip", FORMATS["davis2017"])
    assert len(names(done.path)) == 8 and "2 videos found, 30 expected" in done.notes
    assert any("no videos of the split, left out: 1, such as dogs" in note for note in done.notes)


def test_an_earlier_zip_is_replaced_only_by_a_checked_one(masks, tmp_path):
    (tmp_path / "out.zip").write_text("earlier")
    (masks / "bear/00000.png").unlink()
    with pytest.raises(VosflowError, match="problems: 1\n"):
        write_submission(manifest(), masks, tmp_path / "out.zip", FORMATS["davis2017"])
    assert (tmp_path / "out.zip").read_text() == "earlier"
    save_label_map(masks / "bear/00000.png", rectangles((1,)))
    write_submission(manifest(), masks, tmp_path / "out.zip", FORMATS["davis2017"])
    assert len(names(tmp_path / "out.zip")) == 8


def sav_manifest() -> Manifest:
    """Frames at 24 fps, ground truth on every second one; object 1 is annotated on one frame only."""
    truth = ImageFolder("Annotations_6fps/sav_1", ".png", FRAMES[::2])
    video = entry("sav_1", objects=(0, 1), ground_truth=truth, object_frames={1: FRAMES[2:3]})
    return Manifest("sav", "val", "nowhere", (video,), layout=PER_OBJECT)


@pytest.fixture
def sav_masks(tmp_path: Path) -> Path:
    for frame in FRAMES:
        for number in (0, 1):
            save_label_map(tmp_path / f"masks/sav_1/{number:03d}/{frame}.png", rectangles((1,), number))
    return tmp_path / "masks"


def test_sav_is_a_folder_of_one_file_per_object_and_frame(sav_masks, tmp_path):
    for _ in range(2):
        done = write_submission(sav_manifest(), sav_masks, tmp_path / "out", FORMATS["sav"])
        files = sorted(path.relative_to(done.path).as_posix() for path in done.path.rglob("*.png"))
        assert files == ["sav_1/000/00000.png", "sav_1/000/00002.png", "sav_1/001/00002.png"]
        with pytest.raises(VosflowError, match="is no empty folder"):
            write_submission(sav_manifest(), sav_masks, tmp_path / "out", FORMATS["sav"])
        shutil.rmtree(done.path)
        done.path.mkdir()  # an empty folder is fine


def test_sav_problems(sav_masks):
    save_label_map(sav_masks / "sav_1/000/00000.png", rectangles((1, 2)))
    (sav_masks / "sav_1/001/00002.png").unlink()
    save_label_map(sav_masks / "sav_1/005/00000.png", rectangles((1,)))
    assert problems(sav_masks, sav_manifest()) == [
        "sav_1/005: no such object among the prompts",
        "sav_1/000/00000.png: 3 values in the mask of one object",
        "sav_1: 1 of 1 frames of object 1 are missing, the first is 00002.png",
    ]


def uvo_manifest() -> Manifest:
    videos = tuple(
        VideoEntry(f"v{n}", ImageFolder(f"v{n}", ".png", FRAMES[:2]), TALL, WIDE, (), (), external_id=n) for n in (1, 2)
    )
    return Manifest("uvo", "val", "nowhere", videos, layout=INSTANCES)


def test_uvo_is_results_json_at_the_root(tmp_path):
    results = [found(1, 0.5, [square(0), None]), found(2, 0.25, [None, square(9)])]
    (tmp_path / "results.json").write_text(json.dumps(results))
    for place in (tmp_path, tmp_path / "results.json"):
        done = write_submission(uvo_manifest(), place, tmp_path.parent / "uvo.zip", FORMATS["uvo"])
        assert names(done.path) == ["results.json"]
        with zipfile.ZipFile(done.path) as archive:
            assert json.loads(archive.read("results.json")) == results
    assert (tmp_path.parent / "uvo.zip").stat().st_size < (tmp_path / "results.json").stat().st_size


def test_uvo_problems(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([found(1, 0.5, [square(0)]), found(7, 0.5, [None, None])]))
    assert problems(path, uvo_manifest()) == [
        "entry 0: it has 1 masks for the 2 frames of video 1",
        "entry 1: video_id 7 is not one of the 2 videos",
    ]
    path.write_text(json.dumps([found(1, float("-inf"), [None, None])]))
    assert problems(path, uvo_manifest()) == ["entry 0: the score -inf is not finite, and so no JSON"]
    path.write_text(json.dumps([found(1, 0.5, [None, None])]))
    findings = check_predictions(uvo_manifest(), path, FORMATS["uvo"])
    assert not findings.problems and findings.notes == ["1 of 2 videos have no instance, such as v2"]


def test_places_that_cannot_be_right(masks, tmp_path):
    wanted = FORMATS["davis2017"]
    with pytest.raises(VosflowError, match="lies in the folder of predictions"):
        write_submission(manifest(), masks, masks / "out.zip", wanted)
    with pytest.raises(VosflowError, match="there is a folder of this name"):
        write_submission(manifest(), masks, tmp_path, wanted)
    with pytest.raises(VosflowError, match="does not exist") as caught:
        write_submission(manifest(), tmp_path / "nothing", tmp_path / "out.zip", wanted)
    assert caught.value.path == str(tmp_path / "nothing")
    with pytest.raises(VosflowError, match="has the layout per_object"):
        write_submission(sav_manifest(), masks, tmp_path / "out.zip", wanted)


def test_formats_by_name():
    assert chosen_split("mose") == ("mose", "valid")
    assert chosen_split("youtubevos2019/valid_all_frames") == ("youtubevos2019", "valid_all_frames")
    assert find_format("davis2017", "val") is None and find_format("demo", "val") is None
    for name in ("davis2017/val", "demo", "davis2016/val"):
        with pytest.raises(VosflowError, match=f"no submission format for {name}") as caught:
            chosen_split(name)
        assert "mose/valid" in caught.value.expected


def test_the_script(masks, tmp_path):
    arguments = ["--dataset", "davis2017", "--predictions", masks, "--output", tmp_path / "out.zip"]
    missing = run_script("submit.py", *arguments, cwd=tmp_path)
    assert (
        missing.returncode == 1
        and "results/davis2017-test-dev/manifest.json: the manifest is missing" in missing.stderr
    )
    save_manifest(manifest(), tmp_path / "results/davis2017-test-dev/manifest.json")
    done = run_script("submit.py", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 files of 2 videos, for DAVIS 2017 test-dev" in done.stdout and "note: CodaLab" in done.stdout
    (masks / "bear/00001.png").unlink()
    failed = run_script("submit.py", *arguments, cwd=tmp_path)
    assert failed.returncode == 1 and "bear: 1 of 4 frames are missing" in failed.stderr
    assert "Traceback" not in failed.stderr
    mose = ("--dataset", "mose", "--manifest", "results/davis2017-test-dev/manifest.json")
    other = run_script("submit.py", *arguments[2:], *mose, cwd=tmp_path)
    assert other.returncode == 1 and "this is the manifest of davis2017/test-dev" in other.stderr
