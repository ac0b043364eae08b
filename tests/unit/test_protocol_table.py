"""The same masks, different numbers: where the publishers' rules part.

Each value was computed with the toolkits themselves on these masks at 854x480: davis2017-evaluation (which the other
protocols of DAVIS and MOSE v1 follow), vos-benchmark 0.1.0 (whose evaluator SA-V's is), MOSE v2's published scorer and
lvos-evaluation (its Python code). They are stated to five digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.scored_clips import disc
from tests.unit.scored_folders import lvos_name, lvos_object, score_clips, score_objects
from vosflow.errors import VosflowError
from vosflow.evaluation.run import Evaluation

SIZE = (480, 854)
NOTHING = np.zeros(SIZE, bool)
FULL = np.ones(SIZE, bool)
LIKE_DAVIS = ("davis2017", "mose", "vos-benchmark", "sav", "lvos", "youtube-vos", "mosev2-fixed")


def circle(radius: float, shift: float = 0) -> np.ndarray:
    return disc(240, 400 + shift, radius, *SIZE)


def score(folder: Path, protocol: str, truth: list[np.ndarray], guess: list[np.ndarray]) -> Evaluation:
    """Score label maps of object 1 (and what else is in them) by any protocol, its annotations being those of object 1.

    Its own range, where a protocol has one, begins where it first shows.
    """
    start = next((t for t, label_map in enumerate(truth) if (label_map == 1).any()), 0)
    count = len(truth) - start
    if protocol == "sav":
        frames = range(len(truth))
        return score_objects(
            folder, {"v": {1: ({t: truth[t] == 1 for t in frames}, {t: guess[t] == 1 for t in frames})}}
        )
    if protocol in ("mosev2", "mosev2-fixed"):
        meta = {"v": {"length": len(truth), "objects": {"1": {}}}}
        return score_clips(folder, {"v": (truth, guess)}, protocol, meta=meta)
    if protocol == "lvos":
        meta = {"v": {"objects": {"1": lvos_object(start, count)}}}
        return score_clips(folder, {"v": (truth, guess)}, protocol, meta=meta, unseen=["w"], name=lvos_name)
    if protocol == "youtube-vos":
        names = [f"{t:05d}" for t in range(start, len(truth))]
        meta = {"v": {"objects": {"1": {"category": "ape", "frames": names}}}}
        return score_clips(folder, {"v": (truth, guess)}, protocol, meta=meta)
    return score_clips(folder, {"v": (truth, guess)}, protocol)


def means(evaluation: Evaluation) -> tuple[float, ...]:
    """J and F of object 1 (MOSE v2: F-dot too)."""
    (summary,) = (o for o in evaluation.summary.objects if o.object == 1)
    extra = summary.extra[:1] if evaluation.protocol.name == "mosev2" else ()
    return summary.J.mean, summary.F.mean, *extra


SHAPES = {  # ground truth, prediction, J and F, and those of MOSE v2 with F-dot
    "disc of radius 60, shifted 10 px": (
        circle(60),
        circle(60, 10),
        (0.80899, 0.65289),
        (0.80900, 0.64663, 0.64663),
    ),
    "disc of radius 60, nothing predicted": (circle(60), NOTHING, (0, 0), (8.9e-5, 0, 0)),
    "disc of radius 10, nothing predicted": (circle(10), NOTHING, (0, 0), (0.00314, 0, 0)),
    "disc of radius 10, shifted 6 px": (circle(10), circle(10, 6), (0.46420, 1), (0.46544, 1, 0.33333)),
    "disc of radius 150, predicted smaller": (
        circle(150),
        disc(245, 406, 148, *SIZE),
        (0.93329, 0.80309),
        (0.93329, 0.76840, 0.76840),
    ),
    "full frame, nothing predicted": (FULL, NOTHING, (0, 1), (1 / (480 * 854 + 1), 1, 1)),
}


@pytest.mark.parametrize("protocol", [*LIKE_DAVIS, "mosev2"])
@pytest.mark.parametrize("case", SHAPES)
def test_shapes(tmp_path: Path, case: str, protocol: str) -> None:
    truth, guess, davis, mosev2 = SHAPES[case]
    found = means(score(tmp_path, protocol, [truth] * 3, [guess] * 3))
    assert found == pytest.approx(mosev2 if protocol == "mosev2" else davis, abs=6e-6)


APPEARS = [NOTHING] * 6 + [circle(30)] * 6  # counted: frames 1 to 10, on 5 of them the object is there
APPEARS[0] = np.zeros(SIZE, np.uint8)
APPEARS[0][:2] = 2  # another object, so that davis2017 knows two
ABSENCES = {
    # protocol: absent from both masks, never predicted, predicted from frame 0 on
    "davis2017": (1, 0.5, 0.5),
    "mose": (1, 0.5, 0.5),
    "vos-benchmark": (None, 0, 0.5),
    "sav": (None, 0, 0.5),
    "mosev2": (1, 0.5, 0.5),
    "mosev2-fixed": (1, 0.5, 0.5),
    "lvos": (1, 0, 1),
    "youtube-vos": (1, 0, 1),
}


@pytest.mark.parametrize("protocol", ABSENCES)
def test_an_object_that_appears_half_way_and_is_never_predicted(tmp_path: Path, protocol: str) -> None:
    found = means(score(tmp_path, protocol, APPEARS, [NOTHING] * 12))
    assert found[:2] == pytest.approx((ABSENCES[protocol][1],) * 2, abs=2e-4)


@pytest.mark.parametrize("protocol", ABSENCES)
def test_an_object_that_appears_half_way_and_is_predicted_from_the_beginning(tmp_path: Path, protocol: str) -> None:
    found = means(score(tmp_path, protocol, APPEARS, [circle(30)] * 12))
    assert found[:2] == pytest.approx((ABSENCES[protocol][2],) * 2, abs=2e-4)


@pytest.mark.parametrize("protocol", ABSENCES)
def test_frames_on_which_an_object_is_in_neither_mask(tmp_path: Path, protocol: str) -> None:
    """It is there on frames 0 and 3 (of 0 to 4), and predicted on 3: from frame 3 on every protocol counts it."""
    masks = [circle(30), NOTHING, NOTHING, circle(30), NOTHING, NOTHING]
    evaluation = score(tmp_path, protocol, masks, masks)
    absent = [(s.J, s.F) for s in evaluation.scores if int(s.frame) in (1, 2, lvos_number_of(1), lvos_number_of(2))]
    expected = ABSENCES[protocol][0]
    assert absent == ([] if expected is None else [(expected, expected)] * 2)
    assert means(evaluation)[:2] == (1, 1)


def lvos_number_of(place: int) -> int:
    return int(lvos_name(place))


@pytest.mark.parametrize("protocol", ABSENCES)
def test_an_extra_predicted_id(tmp_path: Path, protocol: str) -> None:
    truth = circle(30).astype(np.uint8)
    guess = truth.copy()
    guess[:20, :20] = 2
    if protocol in ("davis2017", "mose"):
        with pytest.raises(VosflowError, match="does not have: 2"):
            score(tmp_path, protocol, [truth] * 4, [guess] * 4)
        return
    evaluation = score(tmp_path, protocol, [truth] * 4, [guess] * 4)
    assert {s.object for s in evaluation.scores} == {1}
    assert means(evaluation)[:2] == (1, 1)


@pytest.mark.parametrize("protocol", ABSENCES)
def test_255_in_the_ground_truth(tmp_path: Path, protocol: str) -> None:
    guess = circle(30).astype(np.uint8)
    truth = guess.copy()
    truth[:20, :20] = 255
    evaluation = score(tmp_path, protocol, [truth] * 4, [guess] * 4)
    of_255 = {(s.J, s.F) for s in evaluation.scores if s.object == 255}
    assert of_255 == ({(0, 0)} if protocol == "vos-benchmark" else set())
    assert means(evaluation)[:2] == (1, 1)


@pytest.mark.parametrize("protocol", ABSENCES)
def test_an_object_of_the_first_frame_only(tmp_path: Path, protocol: str) -> None:
    masks = [circle(30), NOTHING, NOTHING, NOTHING]
    if protocol == "sav":
        with pytest.raises(VosflowError, match="on none of the frames that count"):
            score(tmp_path, protocol, masks, masks)
    elif protocol == "vos-benchmark":
        with pytest.raises(VosflowError, match="nothing to score"):
            score(tmp_path, protocol, masks, masks)
    else:
        assert means(score(tmp_path, protocol, masks, masks))[:2] == (1, 1)


@pytest.mark.parametrize("protocol", ABSENCES)
def test_a_video_of_two_frames(tmp_path: Path, protocol: str) -> None:
    masks = [circle(30)] * 2
    if protocol in ("mosev2", "mosev2-fixed"):
        assert means(score(tmp_path, protocol, masks, masks))[:2] == (0, 0)
    elif protocol == "youtube-vos":
        assert means(score(tmp_path, protocol, masks, masks)) == (1, 1)
    else:
        with pytest.raises(VosflowError, match="none is left to score|none counts|nothing to score"):
            score(tmp_path, protocol, masks, masks)
