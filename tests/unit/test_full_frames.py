"""DAVIS in the camera's resolution, beside 480p: for trackers that read it, fetched and keyed for them alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.unit.trees import (
    HEIGHT,
    WIDTH,
    make_davis2016_tree,
    make_davis_tree,
    rectangles,
    save_frame,
    save_label_map,
)
from vosflow.config import parse_config
from vosflow.datasets import build_manifest, imports
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.manifest import load_manifest, save_manifest
from vosflow.method import Method
from vosflow.records import RunFolder
from vosflow.study import Study
from vosflow.trackers.static import StaticTracker
from vosflow.video import Video

SEEN: list[tuple[int, ...]] = []


class FullTracker(StaticTracker):
    """Reads what it may, and repeats the prompt."""

    reads_full_frames = True

    def track(self, video):
        SEEN.append((video.read_full_frame(0) if video.has_full_frames else video.read_frame(0)).shape)
        yield from super().track(video)


def make_full(root: Path, inside: str = "JPEGImages/Full-Resolution", frames: int = 4) -> Path:
    for video in ("bear", "cows", "boat"):
        for frame in range(frames):
            save_frame(root / f"{inside}/{video}/{frame:05d}.jpg", frame, 3 * HEIGHT, 2 * WIDTH)
        first = root / inside.replace("JPEGImages", "Annotations") / video / "00000.png"
        save_label_map(first, rectangles((1, 2), height=3 * HEIGHT, width=2 * WIDTH))
    return root


def track(manifest, folder: Path, tracker: str) -> dict[str, str]:
    return track_videos(Method.of(tracker), manifest, ["bear"], folder)


def test_they_are_found_beside_480p(tmp_path):
    davis = make_full(make_davis_tree(tmp_path / "DAVIS"))
    save_manifest(build_manifest("davis2017", "val", davis), tmp_path / "manifest.json")
    manifest = load_manifest(tmp_path / "manifest.json")
    assert manifest.video("bear").full_frames.folder == "JPEGImages/Full-Resolution/bear"
    video = Video.of(manifest, "bear")
    assert video.has_full_frames and (video.height, video.width) == (HEIGHT, WIDTH)
    assert video.read_full_frame(1).shape == (3 * HEIGHT, 2 * WIDTH, 3) and video.read_frame(1).shape[0] == HEIGHT
    assert video.has_full_prompts and video.read_prompt(video.prompts[0]).shape == (HEIGHT, WIDTH)
    mask = video.read_full_prompt(video.prompts[0])
    np.testing.assert_array_equal(mask, rectangles((1,), height=3 * HEIGHT, width=2 * WIDTH) == 1)
    old = make_full(make_davis2016_tree(tmp_path / "2016", ("bear", "boat")), "JPEGImages/1080p", frames=3)
    boat = build_manifest("davis2016", "val", old).video("boat")
    assert boat.full_frames.names == ("00000", "00001", "00002")
    assert boat.full_masks.path("", "00000").as_posix() == "Annotations/1080p/boat/00000.png"


def test_only_who_reads_them_is_tracked_again(tmp_path):
    SEEN.clear()
    davis = make_davis_tree(tmp_path / "DAVIS")
    reader = f"{__name__}:FullTracker"
    small = build_manifest("davis2017", "val", davis)
    before = {tracker: track(small, tmp_path / tracker[-6:], tracker) for tracker in ("static", reader)}
    make_full(davis)
    large = build_manifest("davis2017", "val", davis)
    after = {tracker: track(large, tmp_path / tracker[-6:], tracker) for tracker in ("static", reader)}
    assert before["static"] == after["static"] and before[reader] != after[reader]
    assert SEEN == [(HEIGHT, WIDTH, 3), (3 * HEIGHT, 2 * WIDTH, 3)]
    (davis / "JPEGImages/Full-Resolution/bear/00002.jpg").write_bytes(
        (davis / "JPEGImages/Full-Resolution/bear/00001.jpg").read_bytes()
    )
    assert track(build_manifest("davis2017", "val", davis), tmp_path / reader[-6:], reader) != after[reader], (
        "a new frame"
    )
    assert RunFolder(tmp_path / "static").is_finished("bear", after["static"]["bear"])
    before = track(build_manifest("davis2017", "val", davis), tmp_path / reader[-6:], reader)
    mask = rectangles((1,), height=3 * HEIGHT, width=2 * WIDTH)
    save_label_map(davis / "Annotations/Full-Resolution/bear/00000.png", mask)
    assert track(build_manifest("davis2017", "val", davis), tmp_path / reader[-6:], reader) != before, "a new mask"


def test_a_frame_that_is_missing_is_named(tmp_path):
    davis = make_full(make_davis_tree(tmp_path / "DAVIS"))
    (davis / "JPEGImages/Full-Resolution/cows/00003.jpg").unlink()
    with pytest.raises(VosflowError, match="frame 00003 of video cows is missing in the camera's resolution") as caught:
        build_manifest("davis2017", "val", davis)
    assert str(caught.value.path).endswith("Full-Resolution/cows/00003.jpg")


def test_a_mask_that_is_missing_or_of_another_shape_is_named(tmp_path):
    davis = make_full(make_davis_tree(tmp_path / "DAVIS"))
    mask = davis / "Annotations/Full-Resolution/bear/00000.png"
    save_label_map(mask, rectangles((1,), height=2 * HEIGHT, width=2 * WIDTH))
    video = Video.of(build_manifest("davis2017", "val", davis), "bear")
    with pytest.raises(VosflowError, match="the mask is 64x48 pixels") as caught:
        video.read_full_prompt(video.prompts[0])
    assert caught.value.path == str(mask)
    mask.unlink()
    with pytest.raises(VosflowError, match="mask 00000 of video bear is missing in the camera's resolution") as caught:
        build_manifest("davis2017", "val", davis)
    assert caught.value.path == str(mask)


def test_they_are_fetched_for_who_reads_them(tmp_path):
    def needs(*trackers: str) -> tuple[Study, list[str]]:
        runs = [{"dataset": "davis2017/val", "tracker": t, "name": t[-5:]} for t in trackers]
        study = Study(parse_config({"runs": runs, "paths": {"data": str(tmp_path)}}))
        return study, study.data_files

    marker = f"{tmp_path}/datasets/davis2017/trainval-full.json"
    assert marker not in needs("static")[1]
    study, files = needs("static", f"{__name__}:FullTracker")
    assert marker in files
    (source,) = {run.dataset.id: run.dataset for run in study.runs}.values()
    make_davis_tree(Path(source.root))
    make_full(tmp_path / "datasets/davis2017/trainval-full/DAVIS")
    manifest = build_manifest("davis2017", "val", source.root, lists=source.lists)
    video = Video.of(manifest, "cows")
    assert video.read_full_frame(0).shape[0] == video.read_full_prompt(video.prompts[1]).shape[0] == 3 * HEIGHT


def test_a_folder_with_both_is_imported_as_both(tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "_import_folders", lambda folders, dataset, data: sorted(folders))
    davis = make_full(make_davis_tree(tmp_path / "DAVIS"))
    found = imports.import_dataset(davis, "davis2017", None, tmp_path / "data", tmp_path / "locks")
    assert found == ["trainval-480p", "trainval-full"]


def test_frames_without_masks_are_a_note_and_not_used(tmp_path):
    davis = make_full(make_davis_tree(tmp_path / "DAVIS"))
    shutil.rmtree(davis / "Annotations/Full-Resolution")
    manifest = build_manifest("davis2017", "val", davis)
    assert manifest.video("bear").full_frames is None
    assert any("Annotations/Full-Resolution is missing beside it" in note for note in manifest.notes)
