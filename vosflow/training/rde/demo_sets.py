"""Training sets drawn by the demo generator, in the layouts of the real ones: for trying out all stages on a CPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.datasets.demo import JPEG_QUALITY, render_clip
from vosflow.datasets.demo_drawing import FRAMES, HEIGHT, WIDTH, Curve, Scene, render
from vosflow.datasets.demo_scenes import KINDS, make_scene
from vosflow.datasets.training_sets import DAVIS_LIST, FLAT_SETS
from vosflow.errors import cannot_write
from vosflow.masks import DAVIS_PALETTE

FIRST_SEED = 500_000  # of the still images; all seeds are far from those of the demo dataset and of other trainings
STILL_IMAGES = 320
VIDEOS = {"bl30k": 300, "davis": 40, "youtube": 200}
SEEDS = {"bl30k": 510_000, "davis": 520_000, "youtube": 530_000}  # of their first videos
DIFFICULTIES = {"bl30k": 0, "davis": 30, "youtube": 30}  # of the scenes: BL30K is the easier one
FRAMES_EACH = 10
SLOWER = 2  # than in the demo videos: what moves by half its size in a frame, a small network does not learn in minutes
SIDE = 104  # of all pictures: parts of scenes, which a small crop can show at the scale of the demo videos
SMALLEST = 1_000  # pixels, of what is in the middle: small crops show it in a few features at stride 16


def write_demo_sets(folder: str | Path, workers: int = 1) -> None:
    """Write static/, bl30k/, davis/ and youtube/ to `folder`; what was there before is replaced.

    Args:
        workers: processes that draw; the files do not depend on it.

    Raises:
        DiskError: the folder cannot be written.
    """
    folder = Path(folder)
    aside = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
        for name in ("fss/demo", *FLAT_SETS):
            (aside / "static" / name).mkdir(parents=True)
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(partial(_write_still_image, aside / "static"), range(STILL_IMAGES), chunksize=8))
            written = {name: _write_videos(pool, aside / name, name, count) for name, count in VIDEOS.items()}
        (aside / "davis" / DAVIS_LIST).parent.mkdir(parents=True)
        (aside / "davis" / DAVIS_LIST).write_text("".join(f"{name}\n" for name in written["davis"]), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(aside, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _write_still_image(root: Path, number: int) -> None:
    """One object, with others beside it that look no less like one, in the folders that the real set has."""
    rng = np.random.default_rng(FIRST_SEED + number)
    (frame,), (labels,) = render_clip(FIRST_SEED + number, frames=1, start=number % 30, difficulty=0)
    areas = np.bincount(labels.ravel(), minlength=2)[1:]
    chosen = 1 + int(rng.choice(np.flatnonzero(areas >= 0.5 * areas.max())))
    rows, columns = _window(labels == chosen, rng.integers(-SIDE // 5, SIDE // 5, 2))
    # The sets that an epoch takes five times get few images.
    place = root / ("fss/demo", *FLAT_SETS)[number % 4 if number % 20 else 4 + number // 20 % 2]
    _save(frame[rows, columns], place / f"{number:05d}.jpg")
    mask = np.where(labels[rows, columns] == chosen, np.uint8(255), np.uint8(0))
    Image.fromarray(mask).save(place / f"{number:05d}.png")


def _write_videos(pool: Executor, root: Path, kind: str, count: int) -> list[str]:
    """Write `count` videos of a training set; returns their names."""
    written: list[str] = []
    tried = 0
    while missing := count - len(written):
        numbers = range(tried, tried + missing)
        large = pool.map(partial(_write_video, root, kind), numbers, chunksize=4)
        written += [_name(number) for number, is_large in zip(numbers, large, strict=True) if is_large]
        tried += missing
    return written


def _write_video(root: Path, kind: str, number: int) -> bool:
    """A part of a scene about one object, or about it and its neighbour; False if no object is large enough."""
    seed = SEEDS[kind] + number
    scene = _slowed(make_scene(list(KINDS)[seed % len(KINDS)], seed, difficulty=DIFFICULTIES[kind]))
    start = seed % (SLOWER * FRAMES - FRAMES_EACH)
    frames, label_maps = render(scene, range(start, start + FRAMES_EACH), WIDTH, HEIGHT)
    large = [k for k in range(1, 1 + int(label_maps[0].max())) if np.count_nonzero(label_maps[0] == k) >= SMALLEST]
    if not large:
        return False
    chosen = _with_neighbour(label_maps[0], large, int(np.random.default_rng(seed).choice(large)))
    rows, columns = _window(np.isin(label_maps[: FRAMES_EACH // 2], chosen).any(axis=0))
    images, masks = root / "JPEGImages" / _name(number), root / "Annotations" / _name(number)
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index, (frame, labels) in enumerate(zip(frames, label_maps, strict=True)):
        _save(frame[rows, columns], images / f"{index:05d}.jpg")
        picture = Image.fromarray(labels[rows, columns])
        picture.putpalette(DAVIS_PALETTE)
        picture.save(masks / f"{index:05d}.png")
    return True


def _slowed(scene: Scene) -> Scene:
    """A scene in which all takes `SLOWER` times as long."""

    def slowed(curve: Curve) -> Curve:
        return tuple((SLOWER * frame, value) for frame, value in curve)

    actors = tuple(
        replace(
            actor,
            **{name: slowed(getattr(actor, name)) for name in ("x", "y", "radius", "angle")},
            tint=tuple(map(slowed, actor.tint)),
            wobble_speed=actor.wobble_speed // SLOWER,
        )
        for actor in scene.actors
    )
    light = tuple(map(slowed, scene.light))
    return replace(scene, actors=actors, pan_x=slowed(scene.pan_x), pan_y=slowed(scene.pan_y), light=light)


def _name(number: int) -> str:
    return f"{number:05d}"


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
