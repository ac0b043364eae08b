"""LVOS and YouTube-VOS: objects with frames of their own, and means over seen and unseen groups."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.scored_clips import disc
from tests.unit.scored_folders import (
    lvos_name,
    lvos_object,
    random_label_maps,
    reference_F,
    reference_J,
    rows_of,
    score_clips,
    score_folders,
)
from vosflow.errors import VosflowError
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import Evaluation

SIZE = (24, 36)
ONE, OTHER = disc(12, 10, 6, *SIZE), disc(12, 28, 5, *SIZE)
NOTHING = np.zeros(SIZE, np.uint8)


def score_lvos(folder: Path, clips: dict, ranges: dict, unseen: list[str] | None) -> Evaluation:
    """`ranges`: video -> object -> (first place, number of frames)."""
    meta = {
        video: {"objects": {str(number): lvos_object(*span) for number, span in objects.items()}}
        for video, objects in ranges.items()
    }
    return score_clips(folder, clips, "lvos", meta=meta, unseen=unseen, name=lvos_name)


def score_youtube(folder: Path, clips: dict, objects: dict, seen: tuple[str, ...] = ("ape", "cat")) -> Evaluation:
    """`objects`: video -> object -> (category, annotated frames)."""
    meta = {
        video: {
            "objects": {
                str(number): {"category": category, "frames": [f"{t:05d}" for t in frames]}
                for number, (category, frames) in of_video.items()
            }
        }
        for video, of_video in objects.items()
    }
    if seen:
        train = folder / "train" / "meta.json"
        train.parent.mkdir(parents=True)
        things = {str(n): {"category": name, "frames": ["00000"]} for n, name in enumerate(seen, 1)}
        train.write_text(json.dumps({"videos": {"t": {"objects": things}}}))
    return score_clips(folder, clips, "youtube-vos", meta=meta)


def slow_means(clips: dict, counted: dict) -> dict[tuple[str, int], tuple[float, float, float]]:
    """J, F and V of each object, straight from the rules; `counted`: (video, object) -> places of its frames."""
    found = {}
    for (video, number), places in counted.items():
        truth, guess = clips[video]
        J = [reference_J(truth[t] == number, guess[t] == number) for t in places]
        F = [reference_F(truth[t] == number, guess[t] == number) for t in places]
        both = [(j + f) / 2 for j, f in zip(J, F, strict=True)]
        variance = sum((value - sum(both) / len(both)) ** 2 for value in both) / len(both)
        found[video, number] = sum(J) / len(J), sum(F) / len(F), math.sqrt(round(variance, 4))
    return found


def average(values) -> float:
    return float(np.mean(list(values)))


# --- LVOS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_lvos_equals_a_slow_reference(tmp_path: Path, seed: int) -> None:
    names = ("a", "b", "c")
    clips = {
        name: (random_label_maps(seed + index, 9, (1, 2, 4)), random_label_maps(seed + index + 5, 9, (1, 2, 3)))
        for index, name in enumerate(names)
    }
    ranges = {"a": {1: (0, 9), 2: (3, 6)}, "b": {1: (0, 5)}, "c": {1: (2, 4), 2: (0, 9), 4: (0, 9)}}
    evaluation = score_lvos(tmp_path, clips, ranges, ["b", "a", "z"])
    spans = {(video, number): span for video, objects in ranges.items() for number, span in objects.items()}
    counted = {key: range(start + 1, start + count - 1) for key, (start, count) in spans.items()}
    expected = slow_means(clips, counted)

    found = {(o.video, o.object): (o.J.mean, o.F.mean, *o.extra) for o in evaluation.summary.objects}
    assert found.keys() == expected.keys()
    for key in expected:
        assert found[key] == pytest.approx(expected[key], abs=1e-12)
    groups = {o.video: o.group for o in evaluation.summary.objects}
    assert groups == {"a": "unseen", "b": "unseen", "c": "seen"}
    J, F, V = (
        {
            group: average(values[measure] for (video, _), values in expected.items() if groups[video] == group)
            for group in ("seen", "unseen")
        }
        for measure in range(3)
    )
    totals = {
        "J&F-Mean": (J["seen"] + F["seen"] + J["unseen"] + F["unseen"]) / 4,
        "J-Mean": (J["seen"] + J["unseen"]) / 2,
        "J-seen-Mean": J["seen"],
        "J-unseen-Mean": J["unseen"],
        "F-Mean": (F["seen"] + F["unseen"]) / 2,
        "F-seen-Mean": F["seen"],
        "F-unseen-Mean": F["unseen"],
        "J&F-objects-Mean": average((j + f) / 2 for j, f, _ in expected.values()),
        "V-Mean": (V["seen"] + V["unseen"]) / 2,
        "V-seen-Mean": V["seen"],
        "V-unseen-Mean": V["unseen"],
    }
    assert evaluation.summary.totals == pytest.approx(totals, abs=1e-12)
    assert list(evaluation.summary.totals) == list(totals)


def test_lvos_drops_the_first_and_the_last_frame_of_each_object(tmp_path: Path) -> None:
    both = ONE + 2 * OTHER
    evaluation = score_lvos(tmp_path, {"v": ([both] * 6, [both] * 6)}, {"v": {1: (0, 6), 2: (2, 3)}}, ["w"])
    frames = {n: [s.frame for s in evaluation.scores if s.object == n] for n in (1, 2)}
    assert frames == {1: [lvos_name(t) for t in (1, 2, 3, 4)], 2: [lvos_name(3)]}


def test_lvos_predictions_of_other_frames_need_not_exist(tmp_path: Path) -> None:
    clips = {"v": ([ONE] * 6, [ONE] * 6)}
    score_lvos(tmp_path, clips, {"v": {1: (1, 4)}}, ["w"])
    for place in (0, 1, 4, 5):
        (tmp_path / "predictions" / "v" / f"{lvos_name(place)}.png").unlink()
    evaluation = score_folders(tmp_path / "valid" / "Annotations", tmp_path / "predictions", "lvos")
    assert rows_of(evaluation, "v", 1) == [(1, 1), (1, 1)]


def test_masks_of_0_and_255_are_warned_of(tmp_path: Path) -> None:
    """The rules ignore unknown ids: without a warning it would look as if the tracker had found nothing."""
    ranges = {"v": {1: (0, 6)}, "w": {1: (0, 6)}, "x": {1: (0, 6)}}
    clips = {"v": ([ONE] * 6, [255 * ONE] * 6), "w": ([ONE] * 6, [ONE] * 6), "x": ([ONE] * 6, [0 * ONE] * 6)}
    evaluation = score_lvos(tmp_path, clips, ranges, ["w"])
    assert evaluation.strange == {"v": (255,)}  # not the empty one: nothing was found there
    assert rows_of(evaluation, "v", 1) == [(0, 0)] * 4


def test_lvos_V_is_zero_without_variation_and_rounded_before_the_root(tmp_path: Path) -> None:
    truth = [ONE] * 6
    guess = [NOTHING, ONE, ONE, ONE, NOTHING, NOTHING]
    evaluation = score_lvos(tmp_path, {"v": (truth, truth), "w": (truth, guess)}, {n: {1: (0, 6)} for n in "vw"}, ["w"])
    assert evaluation.summary.totals["V-seen-Mean"] == 0
    assert evaluation.summary.totals["V-unseen-Mean"] == math.sqrt(0.1875)  # 1, 1, 1, 0


def test_lvos_counts_an_object_that_is_away_within_its_range_as_one(tmp_path: Path) -> None:
    masks = [ONE, NOTHING, NOTHING, ONE]
    evaluation = score_lvos(tmp_path, {"v": (masks, masks)}, {"v": {1: (0, 4)}}, ["w"])
    assert rows_of(evaluation, "v", 1) == [(1, 1), (1, 1)]


def test_groups_are_averaged_first(tmp_path: Path) -> None:
    """Three objects right and one wrong, which is the only unseen one: half, not three quarters."""
    three = ONE + 2 * OTHER
    three[0, :3] = 3
    clips = {"v": ([three] * 4, [three] * 4), "w": ([ONE] * 4, [NOTHING] * 4)}
    ranges = {"v": {n: (0, 4) for n in (1, 2, 3)}, "w": {1: (0, 4)}}
    totals = score_lvos(tmp_path, clips, ranges, ["w"]).summary.totals
    assert totals["J&F-Mean"] == 0.5
    assert totals["J&F-objects-Mean"] == 0.75


def test_a_group_without_objects_makes_no_number(tmp_path: Path) -> None:
    totals = score_lvos(tmp_path, {"v": ([ONE] * 4, [ONE] * 4)}, {"v": {1: (0, 4)}}, ["another"]).summary.totals
    assert totals["J-seen-Mean"] == totals["F-seen-Mean"] == totals["J&F-objects-Mean"] == 1
    assert all(math.isnan(totals[name]) for name in ("J&F-Mean", "J-Mean", "F-Mean", "J-unseen-Mean", "V-Mean"))


def test_unknown_groups_leave_the_mean_over_objects(tmp_path: Path) -> None:
    totals = score_lvos(tmp_path, {"v": ([ONE] * 4, [ONE] * 4)}, {"v": {1: (0, 4)}}, None).summary.totals
    assert totals["J&F-objects-Mean"] == 1
    assert math.isnan(totals["J&F-Mean"]) and math.isnan(totals["J-seen-Mean"])
    manifest = annotated_folder(tmp_path / "valid" / "Annotations", protocol="lvos")
    assert "unseen_videos.txt" in manifest.notes[0]


def test_groups_of_some_objects_only(tmp_path: Path) -> None:
    clips = {name: ([ONE] * 4, [ONE] * 4) for name in "vw"}
    score_lvos(tmp_path, clips, {name: {1: (0, 4)} for name in "vw"}, ["w"])
    manifest = annotated_folder(tmp_path / "valid" / "Annotations", protocol="lvos")
    manifest = replace(manifest, videos=(manifest.videos[0], replace(manifest.videos[1], groups={})))
    with pytest.raises(VosflowError, match="does not know the group of object 1 of video w"):
        load_protocol("lvos").check(manifest)


def test_manifests_without_frames_of_objects(tmp_path: Path) -> None:
    score_clips(tmp_path, {"v": ([ONE] * 4, [ONE] * 4)}, "davis2017")
    manifest = annotated_folder(tmp_path / "valid" / "Annotations", protocol="davis2017")
    for name in ("lvos", "youtube-vos"):
        with pytest.raises(VosflowError, match=f"{name} does not know the objects of video v"):
            load_protocol(name).check(manifest)
    with pytest.raises(VosflowError, match="the objects of video v are not known"):
        load_protocol("mosev2").check(manifest)


def test_two_frames_are_too_few_for_lvos(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="object 1 of video v has 2 annotated frames"):
        score_lvos(tmp_path, {"v": ([ONE] * 4, [ONE] * 4)}, {"v": {1: (0, 2)}}, ["w"])


def test_a_frame_of_the_range_without_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="the ground truth of video v lacks 1 of 4 frames") as error:
        score_lvos(tmp_path, {"v": ([ONE] * 5, [ONE] * 5)}, {"v": {1: (1, 6)}}, ["w"])
    assert error.value.path.endswith(f"{lvos_name(5)}.png")


# --- YouTube-VOS ------------------------------------------------------------------------------------------------------


def test_youtube_vos_equals_a_slow_reference(tmp_path: Path) -> None:
    clips = {
        name: (random_label_maps(index, 8, (1, 2, 7)), random_label_maps(index + 9, 8, (1, 2, 7)))
        for index, name in enumerate("ab")
    }
    objects = {
        "a": {1: ("ape", (0, 2, 4, 6)), 2: ("zebra", (2, 4, 6))},
        "b": {1: ("zebra", (0, 5)), 2: ("cat", (0, 1, 2, 3, 4)), 7: ("ape", (6, 7))},
    }
    evaluation = score_youtube(tmp_path, clips, objects)
    counted = {(video, n): places[1:] for video, things in objects.items() for n, (_, places) in things.items()}
    expected = slow_means(clips, counted)
    seen = {key: objects[key[0]][key[1]][0] != "zebra" for key in expected}
    four = [
        average(values[measure] for key, values in expected.items() if seen[key] == group)
        for group in (True, False)
        for measure in (0, 1)
    ]
    totals = evaluation.summary.totals
    assert totals["G"] == totals["J&F-Mean"] == pytest.approx(sum(four) / 4, abs=1e-12)
    names = ("J-seen-Mean", "F-seen-Mean", "J-unseen-Mean", "F-unseen-Mean")
    assert [totals[name] for name in names] == pytest.approx(four, abs=1e-12)
    assert evaluation.protocol.headline == next(iter(totals)) == "G"


def test_youtube_vos_groups_by_object_not_by_video(tmp_path: Path) -> None:
    both = ONE + 2 * OTHER
    objects = {"v": {1: ("ape", range(3)), 2: ("zebra", range(3))}}
    evaluation = score_youtube(tmp_path, {"v": ([both] * 3, [ONE] * 3)}, objects)
    assert {o.object: o.group for o in evaluation.summary.objects} == {1: "seen", 2: "unseen"}
    totals = evaluation.summary.totals
    assert (totals["J-seen-Mean"], totals["J-unseen-Mean"], totals["G"]) == (1, 0, 0.5)


def test_youtube_vos_frames_begin_after_the_first_of_the_object_and_end_with_its_last(tmp_path: Path) -> None:
    objects = {"v": {1: ("ape", (2, 4, 5))}}
    evaluation = score_youtube(tmp_path, {"v": ([ONE] * 6, [ONE] * 6)}, objects)
    assert [s.frame for s in evaluation.scores] == ["00004", "00005"]


def test_youtube_vos_extra_ids_and_255_are_ignored(tmp_path: Path) -> None:
    truth = np.where(OTHER, 255, ONE).astype(np.uint8)
    guess = np.where(OTHER, 9, ONE).astype(np.uint8)
    evaluation = score_youtube(tmp_path, {"v": ([truth] * 3, [guess] * 3)}, {"v": {1: ("ape", range(3))}})
    assert rows_of(evaluation, "v", 1) == [(1, 1), (1, 1)]
    assert {s.object for s in evaluation.scores} == {1}


def test_youtube_vos_without_the_training_categories(tmp_path: Path) -> None:
    objects = {"v": {1: ("ape", range(3))}}
    totals = score_youtube(tmp_path, {"v": ([ONE] * 3, [ONE] * 3)}, objects, seen=()).summary.totals
    assert math.isnan(totals["G"]) and totals["J&F-objects-Mean"] == 1


def test_youtube_vos_object_with_one_frame(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="object 1 of video v has 1 annotated frames, none is left"):
        score_youtube(tmp_path, {"v": ([ONE] * 3, [ONE] * 3)}, {"v": {1: ("ape", (2,))}})
