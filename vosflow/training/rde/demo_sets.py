"""Training sets drawn by the demo generator, in the layouts of the real ones: for trying out all stages on a CPU."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.datasets.demo import JPEG_QUALITY, render_clip
from vosflow.datasets.training_sets import FLAT_SETS
from vosflow.errors import cannot_write
from vosflow.masks import DAVIS_PALETTE

DAVIS_LIST = "ImageSets/2017/train.txt"
FIRST_SEED = 500_000  # far from those of the demo dataset and of other trainings
STILL_IMAGES = 320
VIDEOS = {"bl30k": 80, "davis": 60, "youtube": 40}
FRAMES, STRIDE = 10, 2
STEPS = {"bl30k": 30, "davis": 100, "youtube": 100}  # difficulty of the scenes: BL30K is the easier one


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
            for number in range(count):
                _write_video(aside / name, f"{number:05d}", seed, STEPS[name])
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
        (frame,), (labels,) = render_clip(FIRST_SEED + number, frames=1, start=number % 30)
        areas = np.bincount(labels.ravel(), minlength=2)[1:]
        chosen = 1 + int(rng.choice(np.flatnonzero(areas >= 0.5 * areas.max())))
        rows, columns = _around(labels == chosen, rng)
        # The sets that an epoch takes five times get few images.
        place = places[number % 4] if number % 20 else places[4 + number // 20 % 2]
        _save(frame[rows, columns], place / f"{number:05d}.jpg")
        mask = np.where(labels[rows, columns] == chosen, np.uint8(255), np.uint8(0))
        Image.fromarray(mask).save(place / f"{number:05d}.png")


def _around(mask: np.ndarray, rng: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a square in the picture, around a mask but not centred on it."""
    height, width = mask.shape
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    side = min(height, max(96, 2 * int(max(np.ptp(rows), np.ptp(columns)))))
    top, left = (int(places.mean()) - int(side * rng.uniform(0.3, 0.7)) for places in (rows, columns))
    top, left = min(max(0, top), height - side), min(max(0, left), width - side)
    return slice(top, top + side), slice(left, left + side)


def _write_video(root: Path, name: str, seed: int, difficulty: int) -> None:
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    frames, label_maps = render_clip(seed, frames=FRAMES, start=seed % 16, stride=STRIDE, difficulty=difficulty)
    for index, (frame, labels) in enumerate(zip(frames, label_maps, strict=True)):
        _save(frame, images / f"{index:05d}.jpg")
        picture = Image.fromarray(labels)
        picture.putpalette(DAVIS_PALETTE)
        picture.save(masks / f"{index:05d}.png")


def _save(frame: np.ndarray, path: Path) -> None:
    Image.fromarray(frame).save(path, quality=JPEG_QUALITY, subsampling=0)
