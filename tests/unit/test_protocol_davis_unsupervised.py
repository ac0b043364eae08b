"""DAVIS 2017, unsupervised: proposals matched with objects over the whole video."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.unit.scored_clips import disc
from tests.unit.scored_folders import random_label_maps, reference_F, reference_J, rows_of, score_clips
from vosflow.errors import VosflowError

NAME = "davis2017-unsupervised"
SIZE = (24, 36)
LEFT, RIGHT = disc(12, 8, 5, *SIZE), disc(12, 27, 5, *SIZE)
NOTHING = np.zeros(SIZE, np.uint8)


def reference(truth: list[np.ndarray], guess: list[np.ndarray]) -> float:
    """The largest sum over objects of their mean (J + F) / 2 that any assignment of proposals reaches."""
    objects = int(truth[0][truth[0] != 255].max())
    proposals = max(objects, *(int(label_map.max()) for label_map in guess))
    quality = np.zeros((objects, proposals))
    for i, j in np.ndindex(quality.shape):
        values = []
        for real, predicted in zip(truth, guess, strict=True):
            a, b = real == i + 1, (predicted == j + 1) & (real != 255)
            values.append((reference_J(a, b) + reference_F(a, b)) / 2)
        quality[i, j] = np.mean(values)
    choices = itertools.permutations(range(proposals), objects)
    return max(sum(quality[i, j] for i, j in enumerate(choice)) for choice in choices)


@pytest.mark.parametrize("seed, proposals", [(0, (1, 2, 3)), (1, (1, 2, 3, 4)), (2, (2,)), (3, (1, 3))])
def test_the_best_of_all_assignments(tmp_path: Path, seed: int, proposals: tuple[int, ...]) -> None:
    truth = random_label_maps(seed, 4, (1, 2))
    truth[0][0, 0], truth[0][1, 1] = 1, 2
    for label_map in truth:
        label_map[random_label_maps(seed + 7, 1, (1,))[0] > 0] = 255
        label_map[0, 0], label_map[1, 1] = 1, 2  # both objects are on the first frame
    guess = random_label_maps(seed + 20, 4, proposals)
    objects = score_clips(tmp_path, {"v": (truth, guess)}, NAME).summary.objects
    assert [o.object for o in objects] == [1, 2]
    assert sum((o.J.mean + o.F.mean) / 2 for o in objects) == pytest.approx(reference(truth, guess), abs=1e-12)


def test_ids_of_proposals_do_not_matter(tmp_path: Path) -> None:
    truth, guess = LEFT + 2 * RIGHT, 20 * LEFT + RIGHT
    evaluation = score_clips(tmp_path, {"v": ([truth] * 3, [guess] * 3)}, NAME)
    assert rows_of(evaluation, "v", 1) == rows_of(evaluation, "v", 2) == [(1, 1)] * 3
    assert evaluation.summary.totals["J&F-Mean"] == 1


def test_a_match_holds_for_the_whole_video(tmp_path: Path) -> None:
    truth, swapped = LEFT + 2 * RIGHT, 2 * LEFT + RIGHT
    evaluation = score_clips(tmp_path, {"v": ([truth] * 4, [truth, swapped, swapped, swapped])}, NAME)
    assert rows_of(evaluation, "v", 1) == rows_of(evaluation, "v", 2) == [(0, 0), (1, 1), (1, 1), (1, 1)]


def test_boundaries_count_in_the_match(tmp_path: Path) -> None:
    holes = np.zeros(SIZE, bool)
    holes[9:16:2, 5:12:2] = True
    holed, shifted = LEFT & ~holes, disc(12, 9, 5, *SIZE)
    assert reference_J(LEFT, holed) > reference_J(LEFT, shifted)
    assert reference_J(LEFT, holed) + reference_F(LEFT, holed) < reference_J(LEFT, shifted) + reference_F(LEFT, shifted)
    evaluation = score_clips(tmp_path, {"v": ([LEFT] * 2, [holed, 2 * shifted])}, NAME)
    assert rows_of(evaluation, "v", 1)[0] == (0, 0)  # the match is proposal 2
    assert rows_of(evaluation, "v", 1)[1][1] == reference_F(LEFT, shifted)


def test_all_frames_count(tmp_path: Path) -> None:
    evaluation = score_clips(tmp_path, {"v": ([LEFT] * 3, [NOTHING, LEFT, NOTHING])}, NAME)
    assert [s.frame for s in evaluation.scores] == ["00000", "00001", "00002"]
    assert evaluation.summary.totals["J-Mean"] == pytest.approx(1 / 3)
    assert len(score_clips(tmp_path / "one", {"v": ([LEFT], [LEFT])}, NAME).scores) == 1


def test_void_pixels_are_taken_out_of_both_masks_before_the_boundary(tmp_path: Path) -> None:
    void = disc(12, 8, 8, *SIZE) & ~LEFT
    truth = np.where(void, 255, LEFT).astype(np.uint8)
    evaluation = score_clips(tmp_path, {"v": ([truth] * 3, [LEFT | void] * 3)}, NAME)
    assert rows_of(evaluation, "v", 1) == [(1, 1)] * 3


@pytest.mark.parametrize("largest", [21, 255])
def test_more_than_twenty_proposals(tmp_path: Path, largest: int) -> None:
    guess = LEFT.astype(np.uint8)
    guess[0, 0] = largest
    with pytest.raises(VosflowError, match=f"has id {largest}: there may be at most 20") as error:
        score_clips(tmp_path, {"v": ([LEFT] * 2, [LEFT, guess])}, NAME)
    assert error.value.path.endswith("v/00001.png")


def test_left_over_proposals_cost_nothing_and_missing_ones_are_empty(tmp_path: Path) -> None:
    clips = {
        "more": ([LEFT] * 3, [LEFT + 2 * RIGHT] * 3),
        "fewer": ([LEFT + 2 * RIGHT] * 3, [RIGHT] * 3),
    }
    evaluation = score_clips(tmp_path, clips, NAME)
    assert rows_of(evaluation, "more", 1) == [(1, 1)] * 3
    assert rows_of(evaluation, "fewer", 1) == [(0, 0)] * 3
    assert rows_of(evaluation, "fewer", 2) == [(1, 1)] * 3


def test_proposals_that_nobody_made_cannot_be_matched(tmp_path: Path) -> None:
    """The object is away on most frames: an empty proposal would score better than the only one there is."""
    truth = [LEFT * 1, NOTHING, NOTHING, NOTHING]
    guess = [LEFT * 1, LEFT * 1, LEFT * 1, LEFT * 1]
    evaluation = score_clips(tmp_path, {"v": (truth, guess)}, NAME)
    assert rows_of(evaluation, "v", 1) == [(1, 1), (0, 0), (0, 0), (0, 0)]
