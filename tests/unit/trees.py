"""Small datasets on disk for tests: frames of noise, label maps of rectangles, in the layouts of the publishers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vosflow.masks import DAVIS_PALETTE

HEIGHT, WIDTH = 24, 32


def rectangles(objects: Iterable[int], shift: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A label map uint8 [H, W] with one rectangle per object, side by side, moved right by `shift` pixels."""
    label_map = np.zeros((height, width), np.uint8)
    for place, object_id in enumerate(objects):
        left = 1 + 7 * place + shift
        label_map[4 : height - 6, left : left + 5] = object_id
    return label_map


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Have `change` edit the content of a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def save_frame(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Write a JPEG file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=90)


def save_label_map(path: Path, label_map: np.ndarray) -> None:
    """Write a palette PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label_map, mode="L")
    image.putpalette(DAVIS_PALETTE)
    image.save(path, format="PNG")


def make_davis_tree(
    folder: Path,
    videos: Mapping[str, Iterable[int]] | None = None,
    *,
    frames: int = 4,
    split: str = "val",
    first_mask_only: bool = False,
) -> Path:
    """A dataset in the layout of DAVIS 2017, 480p, whose objects move to the right by one pixel per frame.

    Args:
        videos: the object ids of each video; default bear with object 1, and cows with objects 1 and 2.
        first_mask_only: masks of the first frame only, as in test-dev.

    Returns:
        `folder`, which holds JPEGImages, Annotations and ImageSets.
    """
    videos = {"bear": (1,), "cows": (1, 2)} if videos is None else videos
    for name, objects in videos.items():
        for frame in range(frames):
            save_frame(folder / f"JPEGImages/480p/{name}/{frame:05d}.jpg", frame)
            if frame == 0 or not first_mask_only:
                save_label_map(folder / f"Annotations/480p/{name}/{frame:05d}.png", rectangles(objects, frame))
    lists = folder / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("\n".join(videos))  # no line break at the end, as published
    return folder


def make_davis2016_tree(folder: Path, videos: Iterable[str] = ("bear", "boat"), *, frames: int = 3) -> Path:
    """A dataset in the layout of DAVIS 2016: masks of 0 and 255, lists of frame pairs."""
    lines = []
    for name in videos:
        for frame in range(frames):
            save_frame(folder / f"JPEGImages/480p/{name}/{frame:05d}.jpg", frame)
            mask = np.where(rectangles((1,), frame) > 0, 255, 0).astype(np.uint8)
            path = folder / f"Annotations/480p/{name}/{frame:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask, mode="L").save(path)
            lines.append(f"/JPEGImages/480p/{name}/{frame:05d}.jpg /Annotations/480p/{name}/{frame:05d}.png ")
    lists = folder / "ImageSets" / "480p"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "val.txt").write_text("\n".join(lines))
    return folder


def make_mose_tree(folder: Path, videos: Mapping[str, Iterable[int]] | None = None, *, frames: int = 3) -> Path:
    """A dataset in the layout of MOSE valid: masks of the first frame, and meta_valid.json beside the images."""
    videos = {"b0c1d2e3": (1, 2), "0a1b2c3d": (1,)} if videos is None else videos
    for name, objects in videos.items():
        for frame in range(frames):
            save_frame(folder / f"JPEGImages/{name}/{frame:05d}.jpg", frame)
        save_label_map(folder / f"Annotations/{name}/00000.png", rectangles(objects))
    meta = {"videos": {name: {"objects": {}} for name in videos}}
    (folder / "meta_valid.json").write_text(json.dumps(meta))
    return folder
