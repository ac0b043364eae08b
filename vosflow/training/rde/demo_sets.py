"""Training sets drawn by the demo generator, in the layouts of the real ones: for trying out all stages on a CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.datasets.demo import FRAMES, JPEG_QUALITY, render_clip
from vosflow.datasets.training_sets import FLAT_SETS
from vosflow.errors import cannot_write
from vosflow.masks import DAVIS_PALETTE

DAVIS_LIST = "ImageSets/2017/train.txt"
FIRST_SEED = 500_000  # far from those of the demo dataset and of other trainings
STILL_IMAGES = 320
VIDEOS = {"bl30k": 400, "davis": 60, "youtube": 240}
DIFFICULTIES = {"bl30k": 0, "davis": 30, "youtube": 30}  # of the scenes: BL30K is the easier one
FRAMES_EACH = 8
SIDE = 104  # of all pictures: parts of scenes, which a small crop can show at the scale of the demo videos
SMALLEST = 1_000  # pixels, of what is in the middle: small crops show it in a few features at stride 16


def write_demo_sets(folder: str | Path) -> None:
    """Write static/, bl30k/, davis/ and youtube/ to `folder`; what was there before is replaced.

    Raises:
        DiskError: the folder cannot be written.
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
        _write_still_images(aside / "static")
        seed = FIRST_SEED + STILL_IMAGES
        for name, count in VIDEOS.items():
            written = 0
            while written < count:
                written += _write_video(aside / name, f"{written:05d}", seed, DIFFICULTIES[name])
                seed += 1
        (aside / "davis" / DAVIS_LIST).parent.mkdir(parents=True)
        names = "".join(f"{number:05d}\n" for number in range(VIDEOS["davis"]))
        (aside / "davis" / DAVIS_LIST).write_text(names, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _write_still_images(root: Path) -> None:
    """One object each, with others beside it that look no less like one, in the folders that the real set has."""
    places = [root / "fss" / "demo", *(root / name for name in FLAT_SETS)]
    for place in places:
        place.mkdir(parents=True)
    for number in range(STILL_IMAGES):
        rng = np.random.default_rng(FIRST_SEED + number)
        (frame,), (labels,) = render_clip(FIRST_SEED + number, frames=1, start=number % 30, difficulty=0)
        areas = np.bincount(labels.ravel(), minlength=2)[1:]
        chosen = 1 + int(rng.choice(np.flatnonzero(areas >= 0.5 * areas.max())))
        rows, columns = _window(labels == chosen, rng.integers(-SIDE // 5, SIDE // 5, 2))
        # The sets that an epoch takes five times get few images.
        place = places[number % 4] if number % 20 else places[4 + number // 20 % 2]
        _save(frame[rows, columns], place / f"{number:05d}.jpg")
        mask = np.where(labels[rows, columns] == chosen, np.uint8(255), np.uint8(0))
        Image.fromarray(mask).save(place / f"{number:05d}.png")


def _write_video(root: Path, name: str, seed: int, difficulty: int) -> bool:
    """A part of a scene about one object, or about it and its neighbour; False if no object is large enough."""
    start = seed % (FRAMES - FRAMES_EACH)
    frames, label_maps = render_clip(seed, frames=FRAMES_EACH, start=start, difficulty=difficulty)
    large = [k for k in range(1, 1 + int(label_maps[0].max())) if np.count_nonzero(label_maps[0] == k) >= SMALLEST]
    if not large:
        return False
    chosen = _with_neighbour(label_maps[0], large, int(np.random.default_rng(seed).choice(large)))
    rows, columns = _window(np.isin(label_maps[: FRAMES_EACH // 2], chosen).any(axis=0))
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index, (frame, labels) in enumerate(zip(frames, label_maps, strict=True)):
        _save(frame[rows, columns], images / f"{index:05d}.jpg")
        picture = Image.fromarray(labels[rows, columns])
        picture.putpalette(DAVIS_PALETTE)
        picture.save(masks / f"{index:05d}.png")
    return True


def _with_neighbour(label_map: np.ndarray, objects: Sequence[int], chosen: int) -> list[int]:
    """The chosen object and the nearest of the others, if both fit into one picture."""
    centres = {k: np.argwhere(label_map == k).mean(axis=0) for k in objects}
    others = [(float(np.abs(centres[k] - centres[chosen]).max()), k) for k in objects if k != chosen]
    return [chosen, *(k for distance, k in sorted(others)[:1] if distance < 0.75 * SIDE)]


def _window(mask: np.ndarray, moved: Sequence[int] = (0, 0)) -> tuple[slice, slice]:
    """Rows and columns of a square of `SIDE` in a picture, its centre `moved` away from that of the mask's box."""
    window = []
    for places, size, by in zip(mask.nonzero(), mask.shape, moved, strict=True):
        first = (int(places.min()) + int(places.max()) + 1 - SIDE) // 2 + int(by)
        first = min(max(0, first), size - SIDE)
        window.append(slice(first, first + SIDE))
    return window[0], window[1]


def _save(frame: np.ndarray, path: Path) -> None:
    Image.fromarray(frame).save(path, quality=JPEG_QUALITY, subsampling=0)
