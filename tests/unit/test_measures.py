"""J and F against an obvious, slow version: whole frames, no cropping, one object at a time."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.scored_clips import disc
from vosflow.evaluation.measures import boundary, boundary_radius, disk, score_frame, score_masks


def slow_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixel by pixel: is it unlike its right, lower or lower right neighbour?"""
    height, width = mask.shape
    edges = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            if y == height - 1 and x == width - 1:
                continue
            if y == height - 1:
                neighbours = [mask[y, x + 1]]
            elif x == width - 1:
                neighbours = [mask[y + 1, x]]
            else:
                neighbours = [mask[y, x + 1], mask[y + 1, x], mask[y + 1, x + 1]]
            edges[y, x] = any(bool(n) != bool(mask[y, x]) for n in neighbours)
    return edges


def slow_disk(radius: int) -> np.ndarray:
    size = 2 * radius + 1
    kernel = np.zeros((size, size), np.uint8)
    for y in range(size):
        for x in range(size):
            kernel[y, x] = (y - radius) ** 2 + (x - radius) ** 2 <= radius**2
    return kernel


def slow_score(truth: np.ndarray, guess: np.ndarray) -> tuple[float, float]:
    """The definition, on whole frames, with the float64 operations of davis2017-evaluation."""
    union = np.sum(truth | guess)
    J = 1.0 if union == 0 else np.sum(truth & guess) / union
    kernel = slow_disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    truth_edge, guess_edge = slow_boundary(truth), slow_boundary(guess)
    if not truth_edge.any() and not guess_edge.any():
        precision = recall = 1.0
    elif not truth_edge.any():
        precision, recall = 0.0, 1.0
    elif not guess_edge.any():
        precision, recall = 1.0, 0.0
    else:
        precision = np.sum(guess_edge * cv2.dilate(truth_edge, kernel)) / float(np.sum(guess_edge))
        recall = np.sum(truth_edge * cv2.dilate(guess_edge, kernel)) / float(np.sum(truth_edge))
    F = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return float(J), float(F)


@st.composite
def label_map_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps of one size: rectangles and single pixels anywhere, often cut by the border or filling the frame.

    Long thin frames make the boundary tolerance larger than one pixel without many pixels.
    """
    shapes = [(1, 1), (1, 9), (8, 1), (2, 2), (5, 7), (13, 11), (17, 24), (4, 400), (260, 5), (12, 640)]
    height, width = draw(st.sampled_from(shapes))
    pair = []
    for _ in range(2):
        label_map = np.zeros((height, width), np.uint8)
        for _ in range(draw(st.integers(0, 4))):
            top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
            bottom, right = draw(st.integers(top, height)), draw(st.integers(left, width))
            label_map[top : bottom + 1, left : right + 1] = draw(st.integers(0, 3))
        if draw(st.booleans()):
            noise = np.random.default_rng(draw(st.integers(0, 2**16)))
            where = noise.random((height, width)) < draw(st.sampled_from([0.02, 0.3, 1.0]))
            label_map[where] = noise.integers(0, 4, where.sum())
        pair.append(label_map)
    return pair[0], pair[1]


@settings(max_examples=300, deadline=None)
@given(label_map_pairs())
def test_equals_the_slow_version_bit_for_bit(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, guess = pair
    J, F = score_frame(truth, guess, [1, 2, 3])
    assert J.dtype == F.dtype == np.float64
    expected = [slow_score(truth == object_id, guess == object_id) for object_id in (1, 2, 3)]
    assert list(zip(J.tolist(), F.tolist(), strict=True)) == expected


@settings(max_examples=60, deadline=None)
@given(label_map_pairs())
def test_a_frame_is_scored_like_its_masks(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, guess = pair
    J, F = score_frame(truth, guess, [2, 1])
    assert (J[0], F[0]) == score_masks(truth == 2, guess == 2)
    assert (J[1], F[1]) == score_masks(truth == 1, guess == 1)


@pytest.mark.parametrize("size", [(480, 854), (480, 910), (97, 131)])
def test_equals_the_slow_version_at_video_size(size: tuple[int, int]) -> None:
    height, width = size
    truth = disc(height / 2, width / 2, height / 5, *size) | disc(3, width - 9, height / 9, *size)
    guess = disc(height / 2 + 4, width / 2 - 7, height / 5 + 2, *size) | disc(height - 2, 30, height / 9, *size)
    assert score_masks(truth, guess) == slow_score(truth, guess)


# Made once with db_eval_iou and f_measure of davis2017-evaluation, on 854x480 pixels (tolerance 8 pixels).
TOOLKIT = {
    "disc of radius 60, shifted by 10 pixels": (60, (0, 10), 0.8089896642897204, 0.6528925619834711),
    "disc of radius 10, shifted by 6 pixels": (10, (0, 6), 0.46420323325635104, 1.0),
    "disc of radius 150, shifted by 5 and 10 pixels": (150, (5, 10), 0.9093684153654978, 0.5332225913621262),
}


@pytest.mark.parametrize("case", TOOLKIT)
def test_equals_the_original_toolkit(case: str) -> None:
    radius, (down, right), J, F = TOOLKIT[case]
    truth, guess = disc(240, 427, radius, 480, 854), disc(240 + down, 427 + right, radius, 480, 854)
    assert score_masks(truth, guess) == (J, F)


def frame(fill: bool = False, *pixels: tuple[int, int]) -> np.ndarray:
    mask = np.full((20, 30), fill)
    for y, x in pixels:
        mask[y, x] = not fill
    return mask


EXTREME = {
    "both empty": (frame(), frame(), 1.0, 1.0),
    "prediction empty": (disc(10, 10, 4, 20, 30), frame(), 0.0, 0.0),
    "ground truth empty": (frame(), disc(10, 10, 4, 20, 30), 0.0, 0.0),
    "ground truth fills the frame, prediction empty: no boundary on either side": (frame(True), frame(), 0.0, 1.0),
    "both fill the frame": (frame(True), frame(True), 1.0, 1.0),
    "all but one pixel of a filled frame": (frame(True), frame(True, (10, 10)), 599 / 600, 0.0),
    "one pixel, the same": (frame(False, (7, 7)), frame(False, (7, 7)), 1.0, 1.0),
    "one pixel, beside it": (frame(False, (7, 7)), frame(False, (7, 8)), 0.0, 1.0),
    "last pixel and nothing": (frame(False, (19, 29)), frame(), 0.0, 0.0),
    "last pixel, the same": (frame(False, (19, 29)), frame(False, (19, 29)), 1.0, 1.0),
    "first and last pixel": (frame(False, (0, 0)), frame(False, (19, 29)), 0.0, 0.0),
}


@pytest.mark.parametrize("case", EXTREME)
def test_extreme_masks(case: str) -> None:
    truth, guess, J, F = EXTREME[case]
    assert score_masks(truth, guess) == (J, F) == slow_score(truth, guess)


def test_boundary_lies_up_and_left() -> None:
    mask = np.zeros((5, 6), np.uint8)
    mask[2:4, 2:4] = 1
    assert boundary(mask).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_last_pixel_has_three_boundary_pixels() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[3, 3] = 1
    assert np.argwhere(boundary(mask)).tolist() == [[2, 2], [2, 3], [3, 2]]


@pytest.mark.parametrize(
    "size, radius", [((480, 854), 8), ((480, 910), 9), ((480, 1152), 10), ((720, 1280), 12), ((1080, 1920), 18)]
)
def test_tolerance(size: tuple[int, int], radius: int) -> None:
    assert boundary_radius(*size) == radius


def test_disk_is_not_the_ellipse_of_opencv() -> None:
    assert disk(8).sum() == 197
    assert np.array_equal(disk(8), slow_disk(8))


@pytest.mark.parametrize(
    "truth, guess",
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8)),
        (np.zeros((4, 5), np.int32), np.zeros((4, 5), np.uint8)),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)),
    ],
)
def test_other_arrays_are_refused(truth: np.ndarray, guess: np.ndarray) -> None:
    with pytest.raises(ValueError, match="label maps"):
        score_frame(truth, guess, [1])


def test_masks_must_be_boolean() -> None:
    with pytest.raises(ValueError, match="boolean"):
        score_masks(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.uint8))
