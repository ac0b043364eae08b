"""J and F straight from the rules: slow, obvious, one object at a time. The kernel is tested against this."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

Offsets = Iterable[tuple[int, int]]


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels unlike their right, lower or lower right neighbour, as far as these exist; bool [H, W] to the same."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1] |= mask[:-1] != mask[1:]
    edges[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edges


def disk_offsets(radius: int) -> list[tuple[int, int]]:
    """(dy, dx) no farther than `radius` from the centre."""
    around = range(-radius, radius + 1)
    return [(dy, dx) for dy in around for dx in around if dx * dx + dy * dy <= radius * radius]


def covered(edges: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Pixels from which one of `offsets` leads to a pixel of `edges`: what cv2.dilate gives. bool [H, W]."""
    height, width = edges.shape
    offsets = list(offsets)
    reach = max((abs(offset) for pair in offsets for offset in pair), default=0)
    padded = np.pad(edges, reach)
    near = np.zeros(edges.shape, bool)
    for dy, dx in offsets:
        near |= padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return near


def counts(truth: np.ndarray, guess: np.ndarray, offsets: Offsets) -> tuple[int, ...]:
    """What `FrameCounts` holds, of one object and one tolerance, in its order."""
    offsets = list(offsets)
    truth_edges, guess_edges = boundary(truth), boundary(guess)
    truth_matched = truth_edges & covered(guess_edges, offsets)
    guess_matched = guess_edges & covered(truth_edges, offsets)
    arrays = (truth, guess, truth & guess, truth_edges, guess_edges, truth_matched, guess_matched)
    return tuple(int(array.sum()) for array in arrays)


def score(truth: np.ndarray, guess: np.ndarray, offsets: Offsets | None = None) -> tuple[float, float]:
    """J and F with the float64 operations of davis2017-evaluation; by default with the tolerance of DAVIS."""
    if offsets is None:
        offsets = disk_offsets(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    areas = counts(truth, guess, offsets)
    truth_area, guess_area, intersection, truth_length, guess_length, truth_matched, guess_matched = areas
    union = truth_area + guess_area - intersection
    J = 1.0 if union == 0 else intersection / union
    if guess_length == 0 and truth_length > 0:
        precision, recall = 1.0, 0.0
    elif guess_length > 0 and truth_length == 0:
        precision, recall = 0.0, 1.0
    elif guess_length == 0 and truth_length == 0:
        precision, recall = 1.0, 1.0
    else:
        precision, recall = guess_matched / guess_length, truth_matched / truth_length
    F = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return J, F
