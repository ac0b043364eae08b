"""Reading frames, prompts and label maps: exact values, and errors that name the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import HEIGHT, WIDTH, make_videos, moving_boxes, save_label_map
from vosflow.datasets.frames import frame_size
from vosflow.errors import VosflowError
from vosflow.manifest import load_manifest, save_manifest
from vosflow.mask_writer import VideoMaskWriter
from vosflow.masks import DAVIS_PALETTE, merge_objects, read_label_map
from vosflow.video import Video


@pytest.fixture
def manifest(tmp_path):
    return make_videos(tmp_path, {"a": 4})


def refusal(action) -> str:
    with pytest.raises(VosflowError) as caught:
        action()
    return str(caught.value)


def test_a_manifest_survives_the_disk(manifest, tmp_path):
    save_manifest(manifest, tmp_path / "m.json")
    assert load_manifest(tmp_path / "m.json") == manifest
    (tmp_path / "m.json").write_text("{}")
    assert "m.json" in refusal(lambda: load_manifest(tmp_path / "m.json"))


def test_an_unknown_video_is_refused(manifest):
    assert "'b'" in refusal(lambda: Video.of(manifest, "b"))


def test_prompts_and_palette(manifest):
    video = Video.of(manifest, "a")
    _, label_maps = moving_boxes(4)
    for prompt in video.prompts:
        assert np.array_equal(video.read_prompt(prompt), label_maps[0] == prompt.object)
    assert video.palette()[:9] == DAVIS_PALETTE[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert video.read_frame(0).shape == (HEIGHT, WIDTH, 3)


def test_binary_prompts_are_anything_above_zero(manifest, tmp_path):
    video = Video.of(manifest, "a")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 3:9] = 255
    save_label_map(tmp_path / "binary.png", mask)
    assert video.read_prompt(replace(video.prompts[0], mask="binary.png", encoding="binary")).sum() == 36


def test_a_missing_frame(manifest, tmp_path):
    (tmp_path / "JPEGImages/480p/a/00002.jpg").unlink()
    message = refusal(lambda: Video.of(manifest, "a").read_frame(2))
    assert "00002.jpg" in message and "missing" in message and "what to do" in message


@pytest.mark.parametrize("keep", [0, 100, 400])
def test_an_unreadable_jpeg(manifest, tmp_path, keep):
    path = tmp_path / "JPEGImages/480p/a/00002.jpg"
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(lambda: Video.of(manifest, "a").read_frame(2))
    assert "00002.jpg" in message and "unreadable" in message and "complete JPEG" in message


def test_a_frame_of_another_size(manifest, tmp_path):
    Image.new("RGB", (10, 12)).save(tmp_path / "JPEGImages/480p/a/00001.jpg")
    message = refusal(lambda: Video.of(manifest, "a").read_frame(1))
    assert "10x12" in message and f"{WIDTH}x{HEIGHT}" in message


def test_frames_of_16_bits_are_refused_not_shown_white(tmp_path):
    rgb = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    for name, pixels in (("rgb", rgb), ("grey", rgb[..., 0]), ("deep", rgb[..., 0].astype(np.uint16) * 257)):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "00000.png")
    assert frame_size([tmp_path / "rgb/00000.png"], "v") == frame_size([tmp_path / "grey/00000.png"], "v")
    message = refusal(lambda: frame_size([tmp_path / "deep/00000.png"], "v"))
    assert "deep/00000.png" in message and "more than 8 bits" in message


def test_a_mask_of_another_size(manifest, tmp_path):
    save_label_map(tmp_path / "Annotations/480p/a/00000.png", np.ones((9, 7), np.uint8))
    video = Video.of(manifest, "a")
    message = refusal(lambda: video.read_prompt(video.prompts[0]))
    assert "00000.png" in message and "7x9" in message and f"{WIDTH}x{HEIGHT}" in message


def test_an_rgb_mask(manifest, tmp_path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "Annotations/480p/a/00000.png")
    video = Video.of(manifest, "a")
    message = refusal(lambda: video.read_prompt(video.prompts[0]))
    assert "00000.png" in message and "RGB" in message and "palette (P) or grey (L)" in message


def test_an_empty_prompt(manifest, tmp_path):
    save_label_map(tmp_path / "Annotations/480p/a/00000.png", np.ones((HEIGHT, WIDTH), np.uint8))
    video = Video.of(manifest, "a")
    message = refusal(lambda: video.read_prompt(video.prompts[1]))
    assert "object 2 is empty on frame 00000" in message


@pytest.mark.parametrize("keep", [0, 20, 120])
def test_a_truncated_png(manifest, tmp_path, keep):
    path = tmp_path / "Annotations/480p/a/00000.png"
    path.write_bytes(path.read_bytes()[:keep])
    video = Video.of(manifest, "a")
    message = refusal(lambda: video.read_prompt(video.prompts[0]))
    assert "00000.png" in message and "unreadable" in message


def test_label_maps_keep_indices(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_label_map(tmp_path / "p.png", values)
    Image.fromarray(values).save(tmp_path / "l.png")
    Image.fromarray(values > 9).save(tmp_path / "1.png")
    assert np.array_equal(read_label_map(tmp_path / "p.png")[0], values)
    assert np.array_equal(read_label_map(tmp_path / "l.png")[0], values)
    assert np.array_equal(read_label_map(tmp_path / "1.png")[0], values > 9)
    assert read_label_map(tmp_path / "l.png")[1] is None


def test_where_masks_overlap_the_smallest_id_wins():
    masks = {3: np.ones((2, 3), bool), 1: np.zeros((2, 3), bool), 2: np.eye(2, 3, dtype=bool)}
    assert merge_objects(masks, 2, 3).tolist() == [[2, 3, 3], [3, 2, 3]]


def test_masks_appear_all_at_once_or_not_at_all(tmp_path):
    label_map = np.zeros((4, 5), np.uint8)
    with VideoMaskWriter(tmp_path, "v", layout="label_maps") as writer:
        writer.write("00000", label_map)
        assert not (tmp_path / "v").exists()
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["00000.png"]
    with pytest.raises(RuntimeError), VideoMaskWriter(tmp_path, "v", layout="label_maps") as writer:
        writer.write("00001", label_map)
        raise RuntimeError
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["00000.png"], "the old masks stay"
    with VideoMaskWriter(tmp_path, "v", layout="label_maps") as writer:
        writer.write("00007", label_map)
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["00007.png"], "the new masks replace the old"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_leftovers_of_killed_jobs_go_and_those_of_other_videos_stay(tmp_path):
    """Names of videos may hold dots, and end like one another."""
    mine, others = (
        tmp_path / ".host.1.writing.a",
        [tmp_path / f".host.1.writing.{name}" for name in ("a.b", "b.a", "aa")],
    )
    for folder in (mine, *others):
        folder.mkdir()
    with VideoMaskWriter(tmp_path, "a", layout="label_maps") as writer:
        assert not mine.exists()
        writer.write("00000", np.zeros((4, 5), np.uint8))
    assert all(folder.exists() for folder in others)
