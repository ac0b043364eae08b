"""J and F of one frame: known values, extreme masks, tolerances. That counting is right, test_kernel shows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import disk as skimage_disk
from vos_benchmark.evaluator import Evaluator

from tests.unit import slow_measures
from tests.unit.scored_clips import disc
from vosflow.evaluation.measures import (
    Element,
    boundary_radius,
    boundary_scores,
    count_frame,
    count_masks,
    count_pairs,
    disk,
    region_scores,
    score_frame,
    score_masks,
)

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


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16))
def test_equals_vos_benchmark_on_random_videos(seed: int) -> None:
    """Its rules and ours agree for objects that are in the ground truth from the first frame on."""
    noise = np.random.default_rng(seed)
    height, width = noise.integers(2, 300, 2)
    evaluator, ours = Evaluator(), []
    for frame in range(3):
        truth, guess = (blobs(noise, height, width) for _ in range(2))
        if frame == 0:
            truth[:1, :2] = (1, 2)
        evaluator.feed_frame(guess, truth)
        ours.append(score_frame(truth, guess, (1, 2)))
    assert [evaluator.object_iou[object_id] for object_id in (1, 2)] == np.transpose([J for J, _ in ours]).tolist()
    assert [evaluator.boundary_f[object_id] for object_id in (1, 2)] == np.transpose([F for _, F in ours]).tolist()


def blobs(noise: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A label map of a few discs of ids 0 to 2, some of them cut by the border."""
    label_map = np.zeros((height, width), np.uint8)
    for _ in range(noise.integers(0, 6)):
        y, x, radius = noise.random(3) * (height, width, max(height, width) / 3)
        label_map[disc(y, x, radius, height, width)] = noise.integers(0, 3)
    return label_map


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
    assert score_masks(truth, guess) == (J, F) == slow_measures.score(truth, guess)


def test_boundary_lies_up_and_left() -> None:
    mask = np.zeros((5, 6), bool)
    mask[2:4, 2:4] = True
    edges = slow_measures.boundary(mask)
    assert edges.astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    assert count_masks(mask, mask).truth_length == [8]


def test_last_pixel_has_three_boundary_pixels() -> None:
    mask = np.zeros((4, 4), bool)
    mask[3, 3] = True
    assert np.argwhere(slow_measures.boundary(mask)).tolist() == [[2, 2], [2, 3], [3, 2]]
    assert count_masks(mask, mask).guess_length == [3]


@pytest.mark.parametrize(
    "size, radius", [((480, 854), 8), ((480, 910), 9), ((480, 1152), 10), ((720, 1280), 12), ((1080, 1920), 18)]
)
def test_tolerance(size: tuple[int, int], radius: int) -> None:
    assert boundary_radius(*size) == radius


def kernel_of(element: Element) -> np.ndarray:
    """The element as skimage and cv2 hold it, uint8 [2 reach + 1, 2 reach + 1], the centre in the middle."""
    reach = element.reach
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8)
    for dy, first, last in element.rows:
        kernel[reach + dy, reach + first : reach + last + 1] = 1
    return kernel


@pytest.mark.parametrize("radius", range(19))
def test_disks_of_integer_radius(radius: int) -> None:
    assert np.array_equal(kernel_of(disk(radius)), skimage_disk(radius))
    assert disk(radius) == disk(float(radius))
    assert radius != 8 or kernel_of(disk(8)).sum() == 197  # cv2's ellipse has fewer


@pytest.mark.parametrize("radius", [0.008 * np.hypot(480, 854), 7.837, 1.2, 2.5, 4.999, 9.7, 17.6, 0.6, 0.55, 0.35])
def test_disks_of_other_radius_are_off_centre(radius: float) -> None:
    """What one pixel becomes when it is dilated; skimage's set is empty for the last two."""
    image = np.zeros((41, 41), np.uint8)
    image[20, 20] = 1
    ys, xs = np.nonzero(cv2.dilate(image, skimage_disk(radius)))
    found = {(dy, dx) for dy, first, last in disk(radius).rows for dx in range(first, last + 1)}
    assert found == set(zip((20 - ys).tolist(), (20 - xs).tolist(), strict=True))


def test_the_disk_of_mose_v2() -> None:
    element = disk(0.008 * np.hypot(480, 854))
    assert kernel_of(element).sum() == 191
    assert {dy for dy, _, _ in element.rows} == set(range(-7, 8))  # one row less than disk(8) at top and bottom
    assert dict((dy, dx) for dy, *dx in element.rows)[5] == [-6, 5]  # not symmetric


def test_scores_of_several_tolerances() -> None:
    truth, guess = disc(20, 20, 12, 40, 50), disc(20, 25, 12, 40, 50)
    counts = count_masks(truth, guess, disk(1), disk(5))
    F = boundary_scores(counts)
    assert F.shape == (2, 1)
    for tolerance, radius in enumerate((1, 5)):
        slow = slow_measures.score(truth, guess, slow_measures.disk_offsets(radius))
        assert (region_scores(counts)[0], F[tolerance, 0]) == slow


def test_scores_of_pairs() -> None:
    truth = np.where(disc(20, 15, 10, 40, 60), np.uint8(1), np.uint8(0))
    guess = np.where(disc(20, 17, 9, 40, 60), np.uint8(2), np.uint8(0))
    guess[disc(20, 45, 9, 40, 60)] = 5
    counts = count_pairs(truth, guess, (1, 9), (2, 5, 7), disk(2))
    J, F = region_scores(counts), boundary_scores(counts)
    assert F.shape == (1, 2, 3)
    for row, truth_id in enumerate((1, 9)):
        for column, guess_id in enumerate((2, 5, 7)):
            slow = slow_measures.score(truth == truth_id, guess == guess_id, slow_measures.disk_offsets(2))
            assert (J[row, column], F[0, row, column]) == slow


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


def test_frames_are_counted_once_for_all_tolerances() -> None:
    """The order and number of tolerances change no count."""
    truth, guess = (blobs(np.random.default_rng(seed), 60, 80) for seed in (1, 4))
    both = count_frame(truth, guess, (1, 2), disk(7.3), disk(2))
    for tolerance, element in enumerate((disk(7.3), disk(2))):
        alone = count_frame(truth, guess, (1, 2), element)
        assert alone.truth_matched[0].tolist() == both.truth_matched[tolerance].tolist()
        assert alone.guess_matched[0].tolist() == both.guess_matched[tolerance].tolist()
