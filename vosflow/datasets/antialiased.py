"""Masks whose greys are no ids: antialiased, resized with interpolation, blurred, or once a JPEG.

As a label map, such a mask has an object for each grey along the borders of the one that was meant. No rule of a
publisher forbids these: ids may be any, and BDD100K has up to 100 objects. So what is told apart here is where values
lie. An object has an inside, or stands by itself. A grey of an antialiased border lies between a lower and a higher
value; one that JPEG leaves behind may also lie alone. Both turn up again and again around an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError

FEWEST_VALUES = 4  # above 0: with three greys and an object, half the size of a mask of 0 and 255 by averaging
ALONE = 4  # pixels, from which on a value that lies in single ones is no object
FEWEST_PLACES = 12  # all greys together
MANY, NEARLY_ALL = 20, 0.95
SHOWN = 6


def refuse_antialiased(values: np.ndarray, path: str | Path) -> None:
    """Refuse a label map, uint8 [H, W], that is plainly antialiased; `path` is its file.

    It is one if more than half of its values above 0, and three at least, are greys of borders: most of their pixels
    lie between a lower and a higher value, or alone. And these turn up in two places or more on average, or are nearly
    all there is. Tiny objects that cover each other may look like that, but each is in one place: of 112,000 crowds
    drawn at random, of objects of 1 to 9 pixels, one was refused, of 168 objects smaller than a pixel. Not found are
    averages by a factor near 1, and JPEG of quality 98 and more: too few greys.

    Raises:
        VosflowError: says how many such values there are, and what to do.
    """
    counts = np.bincount(values.ravel(), minlength=256)
    present = np.flatnonzero(counts[1:]) + 1
    if len(present) < FEWEST_VALUES:
        return
    between, alone, first = _places(values)
    odd = np.where(counts < ALONE, _count(values, between), _count(values, between | alone))
    greys = [value for value in present if 2 * odd[value] >= counts[value]]
    if len(greys) < FEWEST_VALUES - 1 or 2 * len(greys) <= len(present):
        return
    scattered = _count(values, first)[greys].sum() >= max(FEWEST_PLACES, 2 * len(greys))
    if scattered or (len(greys) >= MANY and len(greys) >= NEARLY_ALL * len(present)):
        raise VosflowError(
            f"the mask is antialiased, or was a JPEG: {len(greys)} of its {len(present)} values above 0 lie only along "
            f"borders between others ({_some(greys)})",
            path=path,
            expected="ids of objects, with nothing in between: else each of these greys is tracked as an object",
            remedy="threshold the masks of one object and save them as PNG, with Pillow: "
            f"Image.open(file).point(lambda value: 255 * (value > {present[-1] // 2})).save(file); for masks of 0 and "
            "255 say `binary: true` in a config then. Make label maps of several objects anew: resized with NEAREST, "
            "they keep their ids; if all of these are ids, save the mask with a palette",
        )


def _places(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixels lie between a lower and a higher value, have none of their own around them, or none before them.

    bool [H, W] each. Around them are the eight neighbours; before them are those in the row above and to the left, so
    that the last counts pieces, and a few of them more than once.
    """
    height, width = values.shape
    padded = np.pad(values.astype(np.int16), 1, constant_values=-1)
    lower, higher = np.zeros((2, height, width), bool)
    first, alone = np.ones((2, height, width), bool)
    for place in (0, 1, 2, 3, 5, 6, 7, 8):
        neighbour = padded[place // 3 : place // 3 + height, place % 3 : place % 3 + width]
        lower |= (neighbour < values) & (neighbour >= 0)
        higher |= neighbour > values
        alone &= neighbour != values
        if place == 3:
            first &= alone
    return lower & higher, alone, first


def _count(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """How many pixels of each value are marked, int [256]."""
    return np.bincount(values[where], minlength=256)


def _some(values: Sequence[int]) -> str:
    shown = values[:: max(1, -(-len(values) // SHOWN))]
    return ", ".join(map(str, shown)) + (", ..." if len(shown) < len(values) else "")
