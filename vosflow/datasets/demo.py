"""The demo dataset: eight videos of moving shapes, drawn from a seed, in the folder layout of DAVIS 2017.

It holds one video of each kind of scene (`demo_scenes`); training draws others of the same kinds from other seeds. The
same seed gives the same pixels on every machine (`demo_drawing`).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.datasets.demo_drawing import FRAMES, HEIGHT, WIDTH, render
from vosflow.datasets.demo_scenes import KINDS, make_scene
from vosflow.errors import VosflowError
from vosflow.masks import DAVIS_PALETTE

JPEG_QUALITY = 92
DEMO_SEEDS = {kind: 3 for kind in KINDS}
"""The videos of the demo dataset: name (also the kind of scene) and seed."""


def render_clip(
    seed: int,
    *,
    kind: str | None = None,
    frames: int = FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    start: int = 0,
    stride: int = 1,
    difficulty: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """A clip drawn from a seed >= 0.

    Args:
        kind: a key of `KINDS`; by default the seed chooses one.
        frames: number of frames, at most 40.
        width, height: size in pixels.
        start, stride: the clip shows frames start, start + stride, ... of the scene.
        difficulty: 0 to 100, see `make_scene`.

    Returns:
        RGB frames uint8 [T, H, W, 3] and label maps uint8 [T, H, W]. Objects are numbered from 1.
    """
    if kind is None:
        kind = list(KINDS)[seed % len(KINDS)]
    scene = make_scene(kind, seed, difficulty=difficulty)
    return render(scene, [start + stride * i for i in range(frames)], width, height)


def write_demo_dataset(folder: str | Path) -> None:
    """Write the demo dataset to `folder`, in the layout of DAVIS 2017; what was there before is replaced.

    The files appear at once or not at all (written aside, then renamed).

    Raises:
        VosflowError: the folder cannot be written.
    """
    folder = Path(folder)
    aside, old = (folder.with_name(f".{folder.name}.{state}") for state in ("writing", "old"))
    try:
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
        for video, seed in DEMO_SEEDS.items():
            _write_video(aside, video, *render_clip(seed, kind=video))
        video_list = aside / "ImageSets/2017/val.txt"
        video_list.parent.mkdir(parents=True)
        video_list.write_text("".join(f"{video}\n" for video in DEMO_SEEDS), encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(aside, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise VosflowError(
            f"the demo dataset cannot be written ({error})",
            path=folder,
            expected="a writable place with 10 MB to spare",
            remedy="free space, check permissions, or name another folder",
        ) from error


def _write_video(root: Path, video: str, frames: np.ndarray, label_maps: np.ndarray) -> None:
    images, annotations = root / "JPEGImages/480p" / video, root / "Annotations/480p" / video
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for index, (frame, label_map) in enumerate(zip(frames, label_maps, strict=True)):
        # Without chroma subsampling, decoders have no freedom left: all give the same pixels.
        Image.fromarray(frame).save(images / f"{index:05d}.jpg", quality=JPEG_QUALITY, subsampling=0)
        picture = Image.fromarray(label_map)
        picture.putpalette(DAVIS_PALETTE)
        picture.save(annotations / f"{index:05d}.png")
