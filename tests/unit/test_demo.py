"""The demo dataset: the same pixels everywhere, the layout of DAVIS 2017, and videos that are worth tracking."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.scripts import run_script
from vosflow.datasets import demo
from vosflow.datasets.demo import DEMO_SEEDS, render_clip
from vosflow.datasets.demo_drawing import FRAMES, HEIGHT, WIDTH, polygon_coverage, value_at
from vosflow.datasets.demo_scenes import KINDS, make_scene
from vosflow.errors import VosflowError
from vosflow.masks import DAVIS_PALETTE, read_label_map

# Made with this file's own `digest` on 2026-11-21 (x86-64, numpy 2.4.6, Pillow 13.0.0). A change of the pictures
# changes every figure of the demo study and makes the trained sam2_demo weights a misfit: do not update lightly.
FRAMES_SHA256 = "f4a7a281a52f47c21b47540e6154f1a4c629b36bc8acc657238d3d62816bb2cf"
LABEL_MAPS_SHA256 = "423734a131d487cef0a1186b456632b1fa4c2783b362dcb3c158df81a955a36b"
DECODED_JPEG_SHA256 = "966c5894d4e895b355042df207a92cd46fd71e90cc4e3d5c361475a543de6ef6"
SQUARE_CLIP_SHA256 = "fc806a8ed84cd4d2e654cc30ab6231bd5993fe079555622bd93b574eb754268f"


def digest(*arrays: np.ndarray) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.shape} {array.dtype}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def clips() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {video: render_clip(seed, kind=video) for video, seed in DEMO_SEEDS.items()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    demo.write_demo_dataset(folder)
    return folder


def areas(label_maps: np.ndarray) -> np.ndarray:
    """Pixels of each object in each frame, [O, T]."""
    return np.stack([(label_maps == label).sum((1, 2)) for label in range(1, label_maps.max() + 1)])


def test_pixels_are_those_of_every_other_machine(clips):
    assert digest(*(frames for frames, _ in clips.values())) == FRAMES_SHA256
    assert digest(*(label_maps for _, label_maps in clips.values())) == LABEL_MAPS_SHA256


def test_training_size_pixels_are_those_of_every_other_machine():
    clip = render_clip(1_000_003, frames=5, width=128, height=128, start=2, stride=3, difficulty=60)
    assert digest(*clip) == SQUARE_CLIP_SHA256


def test_files_have_the_layout_of_davis_2017(dataset, clips):
    assert (dataset / "ImageSets/2017/val.txt").read_text().split() == list(clips)
    names = [f"{i:05d}" for i in range(FRAMES)]
    for video, (_, label_maps) in clips.items():
        assert sorted(p.name for p in (dataset / "JPEGImages/480p" / video).iterdir()) == [f"{n}.jpg" for n in names]
        assert sorted(p.name for p in (dataset / "Annotations/480p" / video).iterdir()) == [f"{n}.png" for n in names]
        stored, palette = read_label_map(dataset / "Annotations/480p" / video / "00007.png")
        assert np.array_equal(stored, label_maps[7])
        assert palette[: 3 * 8] == DAVIS_PALETTE[: 3 * 8]


def test_decoded_jpeg_pixels_are_those_of_every_other_machine(dataset, clips):
    decoded = [np.asarray(Image.open(dataset / f"JPEGImages/480p/{video}/00021.jpg")) for video in clips]
    assert digest(*decoded) == DECODED_JPEG_SHA256
    difference = np.array(decoded).astype(int) - np.array([frames[21] for frames, _ in clips.values()])
    assert float(np.abs(difference).mean()) < 4.5


def test_dataset_is_small(dataset):
    assert sum(path.stat().st_size for path in dataset.rglob("*") if path.is_file()) < 10_000_000


def test_writing_replaces_the_whole_folder(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "DEMO_SEEDS", {"fast": 1})
    folder = tmp_path / "deep" / "demo"
    folder.mkdir(parents=True)
    (folder / "old.txt").write_text("left by an older version")
    demo.write_demo_dataset(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["Annotations", "ImageSets", "JPEGImages"]
    assert [p.name for p in folder.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("script", ["make_demo_dataset.py", "make_demo_training_sets.py"])
def test_called_by_hand_it_replaces_nothing(script, tmp_path):
    (tmp_path / "mine.txt").write_text("years of annotations")
    done = run_script(script, "--output", tmp_path)
    assert done.returncode == 1 and f"{tmp_path}: the folder holds something else" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "old.txt").write_text("still good")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_write_video", fail)
    with pytest.raises(VosflowError, match="No space left"):
        demo.write_demo_dataset(folder)
    assert (folder / "old.txt").read_text() == "still good"


def test_every_object_is_well_visible_on_the_first_frame(clips):
    for video, (_, label_maps) in clips.items():
        first = areas(label_maps)[:, 0]
        assert 2 <= len(first) <= 4, video
        assert (first >= 60).all(), video


def test_every_object_moves_and_can_be_told_from_the_background(clips):
    for video, (frames, label_maps) in clips.items():
        for label in range(1, label_maps.max() + 1):
            seen = [np.argwhere(m == label).mean(0) for m in label_maps if (m == label).sum() > 60]
            assert np.ptp(np.array(seen), axis=0).max() > 30, (video, label)
            inside = frames[0][label_maps[0] == label].astype(int)
            outside = frames[0][label_maps[0] == 0].astype(int)
            contrast = np.abs(inside.mean(0) - outside.mean(0)).sum() + np.abs(inside.std(0) - outside.std(0)).sum()
            assert contrast > 40, (video, label)


def test_objects_cross_and_hide_each_other(clips):
    area = areas(clips["crossing"][1])
    assert (area.min(1) < area.max(1) / 4).any()
    assert (area[:, -1] > 200).all()


def test_objects_vanish_behind_the_wall_and_come_back(clips):
    area = areas(clips["behind-the-wall"][1])
    gone = area < 30
    assert gone.any(1).sum() >= 2
    for hidden, size in zip(gone, area, strict=True):
        if hidden.any():
            assert size[np.nonzero(hidden)[0].max() + 1 :].max(initial=0) > 200


def test_objects_leave_and_return(clips):
    area = areas(clips["leave-and-return"][1])
    absent = area == 0
    assert (absent.sum(1) >= 4).sum() >= 2
    assert (area[:, -3:].max(1) > 200).all()


def test_sizes_change_by_a_factor_of_four_in_zoom(clips):
    area = areas(clips["zoom"][1])
    assert (area.max(1) > 4 * area[:, 0]).any()


def test_chameleon_changes_its_colour(clips):
    frames, label_maps = clips["chameleon"]
    colour = [[frames[t][label_maps[t] == label].mean(0) for t in (0, FRAMES - 1)] for label in (1, 2, 3)]
    assert max(np.abs(start - end).sum() for start, end in colour) > 120


def test_twins_look_alike_and_one_has_no_label():
    scene = make_scene("twins", DEMO_SEEDS["twins"])
    stranger, first, second, other = scene.actors[:4]
    assert (stranger.label, first.label, second.label) == (0, 1, 2)
    assert first.look is second.look is stranger.look
    assert other.look is not first.look


def test_fast_objects_move_faster_than_their_size(clips):
    label_maps = clips["fast"][1]
    centres = [np.argwhere(m == 1).mean(0) if (m == 1).sum() > 60 else None for m in label_maps]
    steps = [np.hypot(*(b - a)) for a, b in zip(centres, centres[1:], strict=False) if a is not None and b is not None]
    assert max(steps) > 15


@pytest.mark.parametrize("kind", KINDS)
def test_other_seeds_give_other_videos_of_the_same_kind(kind):
    frames, label_maps = render_clip(77, kind=kind, frames=2, start=5, stride=20)
    again, _ = render_clip(77, kind=kind, frames=2, start=5, stride=20)
    other, _ = render_clip(78, kind=kind, frames=2, start=5, stride=20)
    assert frames.shape == (2, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
    assert label_maps.shape == (2, HEIGHT, WIDTH) and label_maps.dtype == np.uint8
    assert np.array_equal(frames, again)
    assert np.abs(frames.astype(int) - other).mean() > 10


def test_a_part_of_a_clip_is_that_part_of_the_whole(clips):
    frames, label_maps = clips["crowd"]
    part = render_clip(DEMO_SEEDS["crowd"], kind="crowd", frames=3, start=4, stride=9)
    assert np.array_equal(part[0], frames[[4, 13, 22]])
    assert np.array_equal(part[1], label_maps[[4, 13, 22]])


def test_easy_scenes_have_no_complications():
    easy, hard = (make_scene("behind-the-wall", 5, difficulty=d) for d in (0, 100))
    assert all(actor.label for actor in easy.actors)
    assert len(hard.actors) > len(easy.actors)


def test_pixels_do_not_depend_on_the_process():
    code = (
        "import sys; from vosflow.datasets.demo import render_clip; import hashlib;"
        "a, b = render_clip(5, frames=2); print(hashlib.sha256(a.tobytes() + b.tobytes()).hexdigest())"
    )
    root = str(Path(demo.__file__).parents[2])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": root, "NPY_DISABLE_CPU_FEATURES": "AVX2"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    frames, label_maps = render_clip(5, frames=2)
    assert result.stdout.strip() == hashlib.sha256(frames.tobytes() + label_maps.tobytes()).hexdigest()


@given(st.lists(st.tuples(st.integers(-300, 900), st.integers(-300, 900)), min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_triangle_coverage_is_its_area(corners):
    """Inside the window, the covered area is the shoelace area, up to the four scan lines per row."""
    corners = np.array(corners, np.int64).clip(0, 640)
    x, y = corners.T
    area = abs(int(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2 / 64**2
    coverage = polygon_coverage(x, y, 10, 10)
    assert coverage.shape == (10, 10) and coverage.min() >= 0 and coverage.max() <= 256
    assert abs(coverage.sum() / 256 - area) < 2.6  # 1/8 pixel of height error per edge, 10 pixels wide


def test_rectangle_coverage_is_exact():
    x, y = np.array([80, 224, 224, 80]), np.array([64, 64, 160, 160])  # columns 1.25 to 3.5, rows 1 to 2.5
    expected = np.zeros((4, 5), int)
    expected[1] = [0, 192, 256, 128, 0]
    expected[2] = [0, 96, 128, 64, 0]
    assert np.array_equal(polygon_coverage(x, y, 5, 4), expected)
    assert np.array_equal(polygon_coverage(x[::-1], y[::-1], 5, 4), expected)


@given(st.lists(st.integers(-50_000, 50_000), min_size=1, max_size=6), st.integers(1, 13))
def test_curves_pass_through_their_keys(values, step):
    curve = tuple((step * i, value) for i, value in enumerate(values))
    assert [value_at(curve, t) for t, _ in curve] == values
    assert value_at(curve, -3) == values[0] and value_at(curve, step * len(values) + 3) == values[-1]
