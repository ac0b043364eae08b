"""Tiny videos for tests: moving rectangles as frames and label maps, in DAVIS style, with their manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.manifest import ImageFolder, Manifest, Prompt, VideoEntry
from vosflow.masks import DAVIS_PALETTE

HEIGHT, WIDTH = 48, 64


def moving_boxes(frames: int, objects: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, H, W, 3] and label maps uint8 [T, H, W] of boxes that move to the right."""
    rng = np.random.default_rng(frames * 100 + objects)
    background = rng.integers(0, 80, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    images, label_maps = [], []
    for t in range(frames):
        image, label_map = background.copy(), np.zeros((HEIGHT, WIDTH), np.uint8)
        for k in range(objects):
            rows, columns = slice(4 + 14 * k, 14 + 14 * k), slice(5 + 2 * t, 20 + 2 * t)
            image[rows, columns] = (200, 60 + 60 * k, 30)
            label_map[rows, columns] = k + 1
        images.append(image)
        label_maps.append(label_map)
    return np.stack(images), np.stack(label_maps)


def save_label_map(path: Path, label_map: np.ndarray) -> None:
    """Write a palette PNG."""
    image = Image.fromarray(label_map)
    image.putpalette(DAVIS_PALETTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_videos(folder: Path, videos: dict[str, int], objects: int = 2) -> Manifest:
    """Write videos {name: frames} as {folder}/JPEGImages/480p and Annotations/480p, and return their manifest."""
    entries = []
    for name, count in videos.items():
        names = tuple(f"{t:05d}" for t in range(count))
        images, label_maps = moving_boxes(count, objects)
        for frame, image, label_map in zip(names, images, label_maps, strict=True):
            path = folder / "JPEGImages" / "480p" / name / f"{frame}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, quality=95)
            save_label_map(folder / "Annotations" / "480p" / name / f"{frame}.png", label_map)
        ids = tuple(range(1, objects + 1))
        first = f"Annotations/480p/{name}/{names[0]}.png"
        entries.append(
            VideoEntry(
                name=name,
                frames=ImageFolder(f"JPEGImages/480p/{name}", ".jpg", names),
                height=HEIGHT,
                width=WIDTH,
                objects=ids,
                prompts=tuple(Prompt(k, names[0], first) for k in ids),
                ground_truth=ImageFolder(f"Annotations/480p/{name}", ".png", names),
            )
        )
    lists = folder / "ImageSets" / "2017"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "val.txt").write_text("\n".join(videos))
    return Manifest("toy", "val", str(folder), tuple(entries), protocol="davis2017")
