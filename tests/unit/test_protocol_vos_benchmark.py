"""vos-benchmark and SA-V, whose evaluator is the same: against the toolkit itself, on random videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vos_benchmark.benchmark import VideoEvaluator
from vos_benchmark.evaluator import Evaluator

from tests.unit.scored_clips import disc
from tests.unit.scored_folders import frame_name, random_label_maps, rows_of, score_clips, score_folders, score_objects
from vosflow.errors import VosflowError
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.predictions import Predictions
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import Evaluation, evaluate

SIZE = (24, 36)
ONE, OTHER = disc(12, 10, 6, *SIZE), disc(8, 20, 5, *SIZE)
NOTHING = np.zeros(SIZE, bool)


def percents(evaluation: Evaluation, video: str) -> tuple[dict[int, float], dict[int, float]]:
    """J and F of a video's objects as the toolkit gives them."""
    objects = [o for o in evaluation.summary.objects if o.video == video]
    return {o.object: o.J.mean * 100 for o in objects}, {o.object: o.F.mean * 100 for o in objects}


@pytest.mark.parametrize("seed", range(4))
def test_vos_benchmark_equals_the_toolkit(tmp_path: Path, seed: int) -> None:
    ids = [(1, 2, 3), (1, 5, 255), (2, 7, 9), (1, 2, 200)][seed]
    clips = {
        f"v{frames}": (
            random_label_maps(100 * seed + frames, frames, ids),
            random_label_maps(100 * seed + frames + 50, frames, (*ids[1:], 11)),  # one id too few and one too many
        )
        for frames in (1, 2, 3, 12)
    }
    evaluation = score_clips(tmp_path, clips, "vos-benchmark")
    toolkit = VideoEvaluator(str(tmp_path / "valid" / "Annotations"), str(tmp_path / "predictions"))
    expected = {name: toolkit(name)[1:] for name in clips}
    assert {name: percents(evaluation, name) for name in clips} == expected
    J = np.mean([value for iou, _ in expected.values() for value in iou.values()])
    F = np.mean([value for _, boundary in expected.values() for value in boundary.values()])
    totals = evaluation.summary.totals
    assert list(totals) == ["J&F-Mean", "J-Mean", "F-Mean"]
    assert [100 * value for value in totals.values()] == pytest.approx([(J + F) / 2, J, F], abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_sav_equals_the_evaluator_on_each_object_alone(tmp_path: Path, seed: int) -> None:
    """Objects overlap, start late and end early; predictions have frames between the annotated ones."""
    clips, expected = {}, {}
    for video in ("a", "b"):
        objects = {}
        for number in range(3):
            truth = random_label_maps(1000 * seed + 10 * number + len(clips), 12, (1,))
            guess = random_label_maps(1000 * seed + 10 * number + len(clips) + 5, 12, (1,))
            annotated = range(number, 12 - number, 2)
            if not any(truth[t].any() for t in annotated[1:-1]):
                truth[annotated[1]] = ONE
            objects[number] = (
                {t: truth[t] > 0 for t in annotated},
                {t: guess[t] > 0 for t in range(12)},
            )
            evaluator = Evaluator()
            for t in annotated[1:-1]:
                evaluator.feed_frame(mask=guess[t] > 0, gt=truth[t] > 0)
            expected[video, number] = tuple(values[1] for values in evaluator.conclude())
        clips[video] = objects
    evaluation = score_objects(tmp_path, clips)
    found = {(o.video, o.object): (o.J.mean * 100, o.F.mean * 100) for o in evaluation.summary.objects}
    assert found == expected


def test_an_object_of_uncounted_frames_only_does_not_count(tmp_path: Path) -> None:
    truth = [np.where(OTHER, 2, ONE).astype(np.uint8), ONE, ONE, np.where(OTHER, 3, ONE).astype(np.uint8)]
    evaluation = score_clips(tmp_path, {"v": (truth, [ONE] * 4)}, "vos-benchmark")
    assert {s.object for s in evaluation.scores} == {1}


def test_the_list_of_an_object_begins_with_its_first_false_positive(tmp_path: Path) -> None:
    truth = [ONE * 1, ONE * 1, ONE * 1, ONE + 2 * OTHER * ~ONE, ONE * 1]
    guess = [ONE * 1, ONE * 1, ONE + 2 * OTHER * ~ONE, ONE + 2 * OTHER * ~ONE, ONE * 1]
    evaluation = score_clips(tmp_path, {"v": (truth, guess)}, "vos-benchmark")
    assert rows_of(evaluation, "v", 1) == [(1, 1)] * 3
    assert rows_of(evaluation, "v", 2) == [(0, 0), (1, 1)]


def test_videos_with_nothing_to_score_take_no_part(tmp_path: Path) -> None:
    clips = {"short": ([ONE] * 2, [NOTHING] * 2), "long": ([ONE] * 3, [ONE] * 3), "empty": ([NOTHING] * 4, [ONE] * 4)}
    assert {s.video for s in score_clips(tmp_path, clips, "vos-benchmark").scores} == {"long"}


def test_nothing_to_score_at_all(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="nothing to score"):
        score_clips(tmp_path, {"short": ([ONE] * 2, [ONE] * 2)}, "vos-benchmark")


# --- what SA-V's evaluator does not take ------------------------------------------------------------------------------


def test_sav_object_that_is_never_seen(tmp_path: Path) -> None:
    truth = {0: ONE, 4: NOTHING, 8: NOTHING, 12: ONE}  # on uncounted frames only
    with pytest.raises(VosflowError, match="object 7 of video v is on none of the frames that count") as error:
        score_objects(tmp_path, {"v": {7: (truth, truth)}})
    assert error.value.path.endswith("v/007")


def test_sav_object_with_two_frames(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="object 0 of video v has 2 ground-truth frames"):
        score_objects(tmp_path, {"v": {0: ({0: ONE, 4: ONE}, {0: ONE, 4: ONE})}})


def test_sav_missing_prediction_of_one_object(tmp_path: Path) -> None:
    masks = {t: ONE for t in range(5)}
    with pytest.raises(VosflowError, match="lacks 1 of 6 masks") as error:
        score_objects(tmp_path, {"v": {0: (masks, masks), 1: (masks, {0: ONE, 1: ONE, 2: ONE})}})
    assert error.value.path.endswith("predictions/v/001/00003.png")


def test_sav_missing_ground_truth(tmp_path: Path) -> None:
    masks = {t: ONE for t in range(5)}
    score_objects(tmp_path, {"v": {0: (masks, masks), 1: (masks, masks)}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    (tmp_path / "Annotations" / "v" / "001" / "00002.png").unlink()
    with pytest.raises(VosflowError, match="object 1 of video v lacks 1 of 5"):
        load_protocol("sav").needs(manifest.videos[0], manifest.root)


def test_sav_first_and_last_masks_of_each_object_are_not_opened(tmp_path: Path) -> None:
    masks = {t: ONE for t in (0, 4, 8, 12)}
    score_objects(tmp_path, {"v": {0: (masks, masks)}})
    for number in (0, 12):
        (tmp_path / "predictions" / "v" / "000" / f"{frame_name(number)}.png").unlink()
    evaluation = score_folders(tmp_path / "Annotations", tmp_path / "predictions", "sav")
    assert [s.frame for s in evaluation.scores] == ["00004", "00008"]


def test_sav_whose_objects_all_have_all_frames(tmp_path: Path) -> None:
    """Manifests of datasets leave `object_frames` out then."""
    masks = {t: ONE for t in range(4)}
    first = score_objects(tmp_path, {"v": {0: (masks, masks), 3: (masks, masks)}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    manifest = replace(manifest, videos=tuple(replace(video, object_frames={}) for video in manifest.videos))
    predictions = Predictions(tmp_path / "predictions", manifest.layout)
    assert evaluate(manifest, predictions, load_protocol("sav")).scores == first.scores


def test_sav_from_memory_without_the_mask_of_an_object(tmp_path: Path) -> None:
    masks = {t: ONE for t in range(4)}
    score_objects(tmp_path, {"v": {0: (masks, masks), 3: (masks, masks)}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    scorer = load_protocol("sav").scorer(manifest.videos[0], manifest.root)
    with pytest.raises(VosflowError, match="object 3 of video v has no mask on frame 00001"):
        scorer.add("00001", {0: ONE})
