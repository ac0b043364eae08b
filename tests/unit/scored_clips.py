"""Tiny clips with ground truth and predictions, and what the original toolkits score on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.masks import DAVIS_PALETTE

HEIGHT, WIDTH = 120, 300  # boundary tolerance: ceil(0.008 * 323.1) = 3 pixels

Clip = tuple[list[np.ndarray], list[np.ndarray]]  # ground truth, prediction: label maps uint8 [H, W] per frame


def disc(y: float, x: float, radius: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A disc, bool [height, width]; it may reach over the border."""
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def paint(*objects: tuple[int, np.ndarray]) -> np.ndarray:
    """A label map of (id, mask) pairs, later ones on top."""
    label_map = np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id, mask in objects:
        label_map[mask] = object_id
    return label_map


def davis2017_clips() -> dict[str, Clip]:
    """One clip per trait of the protocol. The first and last predictions are nonsense: they must not be opened."""
    clips: dict[str, Clip] = {}

    truth = [paint((1, disc(60, 80 + 9 * t, 30)), *[(2, disc(40, 220, 22))] * (t not in (3, 4))) for t in range(9)]
    guess = [paint((1, disc(60 + t, 78 + 10 * t, 29)), *[(2, disc(43, 222 - t, 21))] * (t != 3)) for t in range(9)]
    clips["returns"] = truth, guess  # object 2 is away on frames 3 and 4, and predicted on 4

    truth = [paint((1, disc(50, 60 + 5 * t, 25)), (3, disc(70, 200, 30))) for t in range(6)]
    guess = [paint((1, disc(50, 64 + 5 * t, 25)), (3, disc(66, 200, 30))) for t in range(6)]
    guess[2][10:14, 10:14] = 2  # the phantom object, predicted once
    clips["gap"] = truth, guess

    truth = [paint((255, disc(60, 100, 40)), (1, disc(60, 100, 34))) for _ in range(5)]
    guess = [paint((1, disc(60, 101 + t, 38))) for t in range(5)]
    clips["void"] = truth, guess

    truth = [paint((1, disc(60, 60, 20)), *[(2, disc(60, 200, 25))] * (t > 1)) for t in range(4)]
    guess = [paint((1, disc(61, 62, 20))) for _ in range(4)]
    clips["late"] = truth, guess  # object 2 is above the largest id of frame 0

    full, corner, nothing = paint(), paint(), paint()
    full[:] = 1
    corner[-1, -1] = 1
    edge = paint((1, disc(0, 0, 20)), (1, disc(HEIGHT, WIDTH, 25)))
    clips["extreme"] = (
        [full, full, corner, nothing, edge, full, corner, full],
        [full, nothing, nothing, nothing, paint((1, disc(2, 2, 20)), (1, disc(HEIGHT, WIDTH, 20))), edge, corner, full],
    )

    for _, guess in clips.values():
        guess[0] = guess[-1] = np.full((HEIGHT, WIDTH), 99, np.uint8)
    clips["short"] = tuple([paint((1, disc(60, 60 + shift * t, 12))) for t in range(3)] for shift in (9, 14))
    return clips


def davis2016_clips() -> dict[str, Clip]:
    """Ground truth of 0 and 255; predictions of any ids."""
    truth = [paint((255, disc(60, 60 + 4 * t, 30))) for t in range(8)]
    guess = [paint((1, disc(60, 63 + 6 * t, 30)), (7, disc(45, 63 + 6 * t, 8))) for t in range(8)]
    other = [paint((255, disc(70, 200 - 3 * t, 40))) for t in range(5)]
    return {"bear": (truth, guess), "cow": (other, [np.where(x > 0, 255, 0).astype(np.uint8) for x in other])}


def write_clips(folder: Path, clips: dict[str, Clip]) -> tuple[Path, Path]:
    """Write clips as palette PNG files; returns the folders of annotations and of predictions."""
    annotations, predictions = folder / "Annotations" / "480p", folder / "predictions"
    for video, (truth, guess) in clips.items():
        for target, label_maps in ((annotations / video, truth), (predictions / video, guess)):
            target.mkdir(parents=True)
            for index, label_map in enumerate(label_maps):
                save_label_map(target / f"{index:05d}.png", label_map)
    return annotations, predictions


def save_label_map(path: Path, label_map: np.ndarray) -> None:
    image = Image.fromarray(label_map)
    image.putpalette(DAVIS_PALETTE)
    image.save(path)
