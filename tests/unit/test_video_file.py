"""Video files: decoded once, whole or not at all, and tracked like any folder of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.unit.scripts import run_script
from tests.unit.trees import rectangles, save_label_map
from vosflow.config import parse_config
from vosflow.datasets.folder import folder_manifest
from vosflow.datasets.video_file import MARKER, extract_frames, video_folders
from vosflow.errors import VosflowError
from vosflow.sources import dataset_source
from vosflow.video import Video

HEIGHT, WIDTH = 48, 64


def make_video(path: Path, frames: int = 6, fps: float = 12.5) -> Path:
    """A Motion JPEG video in an AVI file: each frame is brighter than the one before."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for frame in range(frames):
        writer.write(np.full((HEIGHT, WIDTH, 3), (20 * frame, 0, 0), np.uint8))  # BGR: blue
    writer.release()
    return path


def test_every_frame_is_extracted_in_order(tmp_path):
    extracted = extract_frames(make_video(tmp_path / "clip.avi"), tmp_path / "frames")
    assert (extracted.frames, extracted.height, extracted.width, extracted.fps) == (6, HEIGHT, WIDTH, 12.5)
    names = sorted(path.name for path in (tmp_path / "frames").glob("*.jpg"))
    assert names == [f"{frame:05d}.jpg" for frame in range(6)]
    blue = [cv2.imread(str(tmp_path / "frames" / name)).mean(axis=(0, 1))[0] for name in names]
    assert blue == pytest.approx([20 * frame for frame in range(6)], abs=6)


def test_extraction_happens_once(tmp_path):
    video = make_video(tmp_path / "clip.avi")
    first = extract_frames(video, tmp_path / "frames")
    before = (tmp_path / "frames/00000.jpg").stat().st_mtime_ns
    assert extract_frames(video, tmp_path / "frames") == first
    assert (tmp_path / "frames/00000.jpg").stat().st_mtime_ns == before
    (tmp_path / "frames/00003.jpg").unlink()
    extract_frames(video, tmp_path / "frames")
    assert (tmp_path / "frames/00003.jpg").is_file(), "a lost frame is made again"
    make_video(video, frames=4)
    assert extract_frames(video, tmp_path / "frames").frames == 4, "another video replaces the frames"
    assert len(list((tmp_path / "frames").glob("*.jpg"))) == 4


def test_png_frames_with_plain_numbers(tmp_path):
    """As UVO's annotations name them."""
    extract_frames(make_video(tmp_path / "clip.avi", frames=11), tmp_path / "clip", suffix=".png", digits=1)
    assert (tmp_path / "clip/0.png").is_file() and (tmp_path / "clip/10.png").is_file()


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/mine.txt").touch()
    with pytest.raises(VosflowError, match="holds something else"):
        extract_frames(make_video(tmp_path / "clip.avi"), tmp_path / "frames")
    assert (tmp_path / "frames/mine.txt").exists()


def test_what_is_no_video(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(VosflowError, match="no frame of it can be decoded"):
        extract_frames(tmp_path / "clip.mp4", tmp_path / "frames")
    with pytest.raises(VosflowError, match="there is no such video"):
        extract_frames(tmp_path / "gone.mp4", tmp_path / "frames")
    assert not (tmp_path / "frames").exists() and not list(tmp_path.glob(".*"))


def test_a_video_and_its_first_mask_are_a_dataset(tmp_path):
    video = make_video(tmp_path / "clip.avi")
    save_label_map(tmp_path / "first.png", rectangles((1, 2), height=HEIGHT, width=WIDTH))
    manifest = folder_manifest(video, tmp_path / "first.png", fps=12.5)
    (entry,) = manifest.videos
    assert entry.name == "clip" and entry.objects == (1, 2) and len(entry.frames.names) == 6
    assert (tmp_path / "clip.frames/frames/clip" / MARKER).is_file()
    prompt = Video.of(manifest, "clip").read_prompt(entry.prompts[1])
    assert np.array_equal(prompt, rectangles((1, 2), height=HEIGHT, width=WIDTH) == 2)


def test_frames_can_be_put_elsewhere_and_another_mask_taken(tmp_path):
    video = make_video(tmp_path / "clip.avi")
    for objects, name in (((1,), "one.png"), ((1, 2, 3), "three.png")):
        save_label_map(tmp_path / name, rectangles(objects, height=HEIGHT, width=WIDTH))
        manifest = folder_manifest(video, tmp_path / name, frames_dir=tmp_path / "place")
        assert manifest.videos[0].objects == objects
    assert not (tmp_path / "clip.frames").exists()
    with pytest.raises(VosflowError, match="mask of the first frame is missing"):
        video_folders(video, tmp_path / "gone.png")


def test_config_takes_a_video_file(tmp_path):
    video, mask = make_video(tmp_path / "clip.avi"), tmp_path / "first.png"
    mask.touch()
    own = {"base_video_dir": str(video), "input_mask_dir": str(mask), "frames_dir": str(tmp_path / "place")}
    config = {"runs": [{"dataset": "mine/clip", "tracker": "static"}], "datasets": {"mine/clip": own}}
    source = dataset_source(parse_config(config), "mine/clip")
    assert source.requires == (str(video), str(mask)) and source.watched == ()
    assert "--folder" in source.arguments and str(tmp_path / "place") in source.arguments[-1]


def test_command(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        make_video(tmp_path / "videos" / f"{name}.avi", frames=3)
    done = run_script("extract_frames.py", tmp_path / "videos", "--output", tmp_path / "frames")
    assert done.returncode == 0 and "2 videos, 6 frames" in done.stderr
    assert len(list((tmp_path / "frames").glob("*/*.jpg"))) == 6
    make_video(tmp_path / "a.avi", frames=2)  # its frames would take the place of the other's
    done = run_script("extract_frames.py", tmp_path / "videos", tmp_path / "a.avi", "--output", tmp_path / "frames")
    assert done.returncode == 1 and "two videos are called a" in done.stderr
    assert len(list((tmp_path / "frames/a").glob("*.jpg"))) == 3
