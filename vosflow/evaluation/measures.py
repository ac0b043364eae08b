"""Region similarity J and boundary accuracy F of one frame.

Both are those of Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(CVPR 2016), with every convention of davischallenge's davis2017-evaluation: the same integer counts go through the same
float64 operations, so the values are bit-identical to that toolkit's. They are computed on a crop: outside the
bounding box of both masks and one pixel around it, no pixel counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

BOUNDARY_TOLERANCE = 0.008  # of the frame's diagonal


def score_frame(
    ground_truth: np.ndarray, prediction: np.ndarray, object_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of each object of one frame.

    Args:
        ground_truth, prediction: label maps, uint8 [H, W].
        object_ids: the n ids to score, each in 1..255. An id that is in neither label map scores J = F = 1.

    Returns:
        J and F, float64 [n] each, as fractions.

    Raises:
        ValueError: the two arrays are not uint8 label maps of one size.
    """
    if ground_truth.shape != prediction.shape or ground_truth.ndim != 2:
        raise ValueError(f"label maps of one size expected, got {ground_truth.shape} and {prediction.shape}")
    if ground_truth.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise ValueError(f"uint8 label maps expected, got {ground_truth.dtype} and {prediction.dtype}")
    J = np.empty(len(object_ids), np.float64)
    F = np.empty(len(object_ids), np.float64)
    for index, object_id in enumerate(object_ids):
        J[index], F[index] = score_masks(ground_truth == object_id, prediction == object_id)
    return J, F


def score_masks(ground_truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """J and F of one object.

    Args:
        ground_truth, prediction: masks, bool [H, W].

    Returns:
        J: intersection over union; 1 where both masks are empty.
        F: harmonic mean of boundary precision and recall; see `boundary_score`.

    Raises:
        ValueError: the two arrays are not boolean masks of one size.
    """
    if ground_truth.shape != prediction.shape or ground_truth.ndim != 2:
        raise ValueError(f"masks of one size expected, got {ground_truth.shape} and {prediction.shape}")
    if ground_truth.dtype != bool or prediction.dtype != bool:
        raise ValueError(f"boolean masks expected, got {ground_truth.dtype} and {prediction.dtype}")
    radius = boundary_radius(*ground_truth.shape)
    truth, guess = _crop(ground_truth.view(np.uint8), prediction.view(np.uint8))
    return region_score(truth, guess), boundary_score(truth, guess, radius)


def boundary_radius(height: int, width: int) -> int:
    """How far apart two boundary pixels may lie and still match, in pixels: 8 at 854x480."""
    return math.ceil(BOUNDARY_TOLERANCE * np.linalg.norm((height, width)))


def region_score(truth: np.ndarray, guess: np.ndarray) -> float:
    """J of two masks, uint8 [h, w] of 0 and 1."""
    union = cv2.countNonZero(truth | guess)
    return cv2.countNonZero(truth & guess) / union if union else 1.0


def boundary_score(truth: np.ndarray, guess: np.ndarray, radius: int) -> float:
    """F of two masks, uint8 [h, w] of 0 and 1.

    Precision is the share of the prediction's boundary pixels within `radius` of the ground truth's boundary, recall
    the reverse. What is "empty" is decided by boundaries, not by areas: without any boundary on both sides F is 1,
    on one side 0. So an empty prediction of a mask that fills the frame (it has no boundary) has J = 0 but F = 1.
    """
    truth_boundary, guess_boundary = boundary(truth), boundary(guess)
    truth_length, guess_length = cv2.countNonZero(truth_boundary), cv2.countNonZero(guess_boundary)
    if truth_length == 0 or guess_length == 0:
        return 1.0 if truth_length == guess_length else 0.0
    # Boundary pixels are both the sources and the only readers of the dilation, and cv2's default border adds nothing:
    # a crop that holds all of them gives the same matches as the whole frame.
    precision = cv2.countNonZero(guess_boundary & cv2.dilate(truth_boundary, disk(radius))) / guess_length
    recall = cv2.countNonZero(truth_boundary & cv2.dilate(guess_boundary, disk(radius))) / truth_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Boundary pixels of a mask, uint8 [h, w] of 0 and 1: those that differ from the right, lower or lower right pixel.

    The map of D. Martin's seg2bmap, as in davis2017-evaluation. It is not symmetric: at the upper and left side the
    boundary lies just outside the mask. The last row looks right only, the last column down only, the last pixel is
    never a boundary, and the frame's border makes none.
    """
    edges = np.zeros_like(mask)
    inner = mask[:-1, :-1]
    edges[:-1, :-1] = (inner ^ mask[:-1, 1:]) | (inner ^ mask[1:, :-1]) | (inner ^ mask[1:, 1:])
    edges[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edges[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edges


@lru_cache
def disk(radius: int) -> np.ndarray:
    """All pixels within `radius` of the centre, uint8 [2 radius + 1, 2 radius + 1] (cv2's ellipse has fewer)."""
    offset = np.arange(-radius, radius + 1)
    return (offset[:, None] ** 2 + offset**2 <= radius**2).astype(np.uint8)


def _crop(truth: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks on their common bounding box and one pixel around it.

    Where the frame goes on, the extra row or column is empty, and the special rule of `boundary` for the last row
    and column gives 0 there, as on the whole frame.
    """
    height, width = truth.shape
    left, top, box_width, box_height = cv2.boundingRect(truth | guess)
    rows = slice(max(top - 1, 0), min(top + box_height + 1, height))
    columns = slice(max(left - 1, 0), min(left + box_width + 1, width))
    return truth[rows, columns], guess[rows, columns]
