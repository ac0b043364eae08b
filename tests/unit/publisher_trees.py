"""Small datasets in the layouts of MOSE, LVOS, SA-V, YouTube-VOS, UVO and BDD100K, as their archives unpack."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from tests.unit.trees import HEIGHT, WIDTH, rectangles, save_frame, save_label_map


def make_mose_train_tree(folder: Path, videos: Iterable[str] = ("0a1b2c3d", "b0c1d2e3"), *, frames: int = 4) -> Path:
    """`train` of MOSE: masks of every frame. No list of videos: that is a file of its own."""
    for name in videos:
        for frame in range(frames):
            save_frame(folder / f"JPEGImages/{name}/{frame:05d}.jpg", frame)
            save_label_map(folder / f"Annotations/{name}/{frame:05d}.png", rectangles((1, 2), frame))
    return folder


def make_sample_submission(folder: Path, videos: Iterable[str], *, frames: int = 3) -> Path:
    """MOSE's sample_submission_valid_all: label maps of every frame, videos at the root."""
    for name in videos:
        for frame in range(frames):
            save_label_map(folder / f"{name}/{frame:05d}.png", rectangles((1, 2), frame))
    return folder


LVOS_STARTS = {"vid1AAAA": {1: 0, 2: 0}, "vid2BBBB": {1: 0, 2: 2}}
"""On which frame (counted from 0) each object starts; object 2 of the second video is late."""


def make_lvos_tree(folder: Path, *, frames: int = 6, meta: str | None = "valid_meta.json") -> Path:
    """`valid` of LVOS: 8-digit names from 1 in steps of 5, every mask from an object's start on, the meta file beside.

    Object 1 of the first video leaves after its fourth frame, and its range ends there.
    """
    videos = {}
    for name, starts in LVOS_STARTS.items():
        for frame in range(frames):
            number = f"{1 + 5 * frame:08d}"
            save_frame(folder / f"JPEGImages/{name}/{number}.jpg", frame)
            present = [k if start <= frame else 0 for k, start in starts.items()]
            save_label_map(folder / f"Annotations/{name}/{number}.png", rectangles(present, frame))
        ranges = {k: (start, 3 if (name, k) == ("vid1AAAA", 1) else frames - 1) for k, start in starts.items()}
        videos[name] = {
            "objects": {
                str(k): {
                    "frame_range": {
                        "start": f"{1 + 5 * first:08d}",
                        "end": f"{1 + 5 * last:08d}",
                        "frame_nums": str(last - first + 1),
                    }
                }
                for k, (first, last) in ranges.items()
            }
        }
    if meta:
        (folder / meta).write_text(json.dumps({"videos": videos}))
    return folder


def make_sav_tree(folder: Path, *, split: str = "val", frames: int = 17) -> Path:
    """`sav_val`: frames at 24 fps, masks of every fourth, one file per object from 000; objects overlap.

    Object 1 of the second video has no file for the last annotated frame.
    """
    videos = ("sav_000001", "sav_000002")
    for name in videos:
        for frame in range(frames):
            save_frame(folder / f"JPEGImages_24fps/{name}/{frame:05d}.jpg", frame)
        for number in (0, 1):
            for frame in range(0, frames, 4):
                if (name, number, frame) == ("sav_000002", 1, 16):
                    continue
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                mask[4:18, 2 + frame // 4 : 14 + 6 * number] = 1
                save_label_map(folder / f"Annotations_6fps/{name}/{number:03d}/{frame:05d}.png", mask)
    (folder / f"sav_{split}.txt").write_text("".join(f"{name}\n" for name in videos))
    return folder


YOUTUBE_OBJECTS: Mapping[str, Mapping[int, tuple[str, int]]] = {
    "003234408d": {1: ("penguin", 5), 3: ("person", 15)},  # ids with a gap, none on frame 0
    "0062f687f1": {1: ("person", 0)},
}
"""The category of each object, and the number of the frame (at 30 fps) on which it first appears."""


def make_youtubevos_tree(folder: Path, *, masks: str = "first", last: int = 20) -> Path:
    """`valid` of YouTube-VOS at 6 fps: masks where objects first appear (or, as in `train`, "all"), and meta.json."""
    videos = {}
    for name, objects in YOUTUBE_OBJECTS.items():
        first = min(start for _, start in objects.values())
        for frame in range(first, last + 1, 5):
            save_frame(folder / f"JPEGImages/{name}/{frame:05d}.jpg", frame)
            present = [
                k if (start == frame if masks == "first" else start <= frame) else 0
                for k, (_, start) in objects.items()
            ]
            if any(present):
                save_label_map(folder / f"Annotations/{name}/{frame:05d}.png", rectangles(present, frame // 5))
        videos[name] = {
            "objects": {
                str(k): {"category": category, "frames": [f"{frame:05d}" for frame in range(start, last + 1, 5)]}
                for k, (category, start) in objects.items()
            }
        }
    (folder / "meta.json").write_text(json.dumps({"videos": videos}))
    return folder


def make_all_frames_tree(folder: Path, *, last: int = 20) -> Path:
    """`valid_all_frames` of YouTube-VOS: images of every frame at 30 fps, from 00000 on."""
    for name in YOUTUBE_OBJECTS:
        for frame in range(last + 1):
            save_frame(folder / f"JPEGImages/{name}/{frame:05d}.jpg", frame)
    return folder


def make_uvo_tree(folder: Path, *, frames: int = 12, extra: int = 0) -> Path:
    """UVOv1.0 with frames made from its videos: 0.png, 1.png, ...; run-length masks in a JSON file of YouTube-VIS.

    There are two videos, with 5 and 1 annotations; the last of the first video is away on every other frame.
    `extra` frames more are on disk than in the file.
    """
    names = ("ytA-_1", "ytB")
    for name in names:
        for frame in range(frames + extra):
            path = folder / f"uvo_videos_dense_frames/{name}/{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(frame).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    things = [(7, number) for number in range(5)] + [(3, 0)]
    annotations = []
    for place, (video, number) in enumerate(things):
        masks = []
        for frame in range(frames):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
            mask[3 : 9 + number, 2 + number : 9 + number] = 1
            code = rle.encode(mask)
            away = number == 4 and frame % 2
            masks.append(None if away else {"size": list(code["size"]), "counts": code["counts"].decode()})
        annotations.append({"id": place + 1, "video_id": video, "category_id": 1, "iscrowd": 0, "segmentations": masks})
    videos = [
        {"id": key, "height": HEIGHT, "width": WIDTH, "file_names": [f"{name}/{k}.png" for k in range(frames)]}
        for key, name in zip((7, 3), names, strict=True)
    ]
    content = {"videos": videos, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "VideoDenseSet").mkdir(parents=True)
    (folder / "VideoDenseSet/UVO_video_val_dense.json").write_text(json.dumps(content))
    return folder


def make_bdd100k_tree(folder: Path, *, frames: int = 4) -> Path:
    """images/ and labels/ of BDD100K MOTS 2020: one video: three objects, one late, a crowd, an ignored one."""
    video = "0000f77c-6257be58"
    instances = [(300, 0b1100, 1), (513, 0, 2), (70000 % 65536, 0b0100, 1), (9, 0b0010, 1), (10, 0b0001, 1)]
    for frame in range(1, frames + 1):
        name = f"{video}/{video}-{frame:07d}"
        save_frame(folder / f"images/seg_track_20/val/{name}.jpg", frame)
        pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        for place, (number, attributes, start) in enumerate(instances):
            if frame >= start:
                left = place * WIDTH // len(instances)
                pixels[2 + frame : 9 + frame, left : left + 5] = (3, attributes, number >> 8, number & 255)
        path = folder / f"labels/seg_track_20/bitmasks/val/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder
