"""Which settings of SAM-PT make a run another method than a published one: not those that change no mask of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.unit.test_sam_pt import TOYS, late_manifest, track, weights  # noqa: F401
from vosflow.catalog import PublishedRow
from vosflow.report.published import FOLLOWING_EACH_POINT, SAM_PT_BATCHES, SAM_PT_SWITCHES, _other_settings
from vosflow.report.results import non_default_settings
from vosflow.trackers.sam_pt.parts import POINT_TRACKERS
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.video import Video

HEAD = {"preset": "head", "point_tracker": "pips", "sam": "vit_h", "positive_points_per_mask": 8}
ANEW = {"use_point_reinit": True, "negative_points_per_mask": 72}
UVO = {"point_tracker_mask_batch_size": 100, "masks_batch_size": 100}
OTHER_VALUES = {
    "reinit_variant": "reinit-on-similar-mask-area",
    "reinit_horizon": 4,
    "reinit_point_tracker_horizon": 12,
    "patch_size": 1,
    "patch_similarity_threshold": 0.9,
    "max_other_objects_positive_points": 1,
    "negative_point_selection_method": "random",
}


def differing(here: dict, there: dict | None, objects: tuple[int, ...]) -> set[str]:
    """Settings that are named as a difference between a run and a published number; videos of so many objects."""
    settings = Settings(**here).model_dump(mode="json")
    description = {"settings": settings, "videos": [{"objects": count} for count in objects]}
    changed = non_default_settings("sam_pt", settings)
    run = SimpleNamespace(tracker="sam_pt", changed_settings=changed, description=description)
    row = {"tracker": "sam_pt", "checkpoint": "", "dataset": "davis2017", "split": "val", "metric": "J&F"}
    row = PublishedRow(method="SAM-PT", value=76.3, source="a paper", settings=there or {}, **row)
    text = "".join(_other_settings(run, row))
    return {name for name in Settings.model_fields if f" {name}=" in text}


@pytest.mark.parametrize(
    ("here", "there", "objects", "names"),
    [
        ({}, {}, (1, 5), set()),
        (HEAD, {}, (1, 5), set()),
        (HEAD, {}, (1, 6), {"masks_batch_size"}),
        (HEAD, {"masks_batch_size": 50}, (1, 50), set()),
        (HEAD, {}, (0, 0), {"masks_batch_size"}),  # as many as SAM proposes
        (
            {**HEAD, **ANEW},
            ANEW,
            (1, 5),
            {"reinit_variant", "reinit_horizon", "reinit_point_tracker_horizon"},
        ),
        (HEAD, ANEW, (1, 5), {"use_point_reinit", "negative_points_per_mask"}),
        ({"preset": "head"}, {}, (3,), {"point_tracker", "positive_points_per_mask", "sam"}),
        ({"point_tracker_mask_batch_size": 2}, {}, (9,), set()),
        ({"masks_batch_size": 100}, UVO, (0,), set()),
        ({"point_tracker": "cotracker", "point_tracker_mask_batch_size": 2}, {}, (2,), {"point_tracker"}),
        (
            {"point_tracker": "cotracker", "point_tracker_mask_batch_size": 2},
            {},
            (3,),
            {"point_tracker", "point_tracker_mask_batch_size"},
        ),
        ({"max_num_masks": 50}, {}, (1, 5), set()),
        ({"max_num_masks": 50}, {}, (0,), {"max_num_masks"}),
        ({"patch_size": 5}, {}, (1,), set()),
        (
            {"patch_size": 5, "use_patch_matching_filtering": True},
            {},
            (1,),
            {"patch_size", "use_patch_matching_filtering"},
        ),
        ({"seed": 3, "precision": "bfloat16"}, {}, (1,), set()),
        ({"sam_iou_threshold": 0.5}, {}, (1,), {"sam_iou_threshold"}),
    ],
)
def test_settings_without_effect_do_not_count(here, there, objects, names):
    if "point_tracker" in names:  # each has others
        names = names | {"point_tracker_settings"}
    assert differing(here, there, objects) == names


@pytest.mark.parametrize("name", SAM_PT_SWITCHES)
def test_they_are_without_effect(tmp_path, weights, name):  # noqa: F811
    """No mask changes with them, and one does where what they hang on is on."""
    video = Video.of(late_manifest(tmp_path, frames=12), "late")
    switch, other = SAM_PT_SWITCHES[name], {name: OTHER_VALUES[name]}

    def masks(**settings) -> bytes:
        few = {"positive_points_per_mask": 3, "negative_points_per_mask": 2, "iterative_refinement_iterations": 1}
        found = track(video, weights, **{**few, **settings}).values()
        return b"".join(one.tobytes() for one in found)

    off = {switch: 0 if switch == "negative_points_per_mask" else False}
    assert masks(**off) == masks(**off, **other)
    on = {switch: 9 if switch == "negative_points_per_mask" else True}
    if name != "reinit_point_tracker_horizon":  # but for CoTracker, what a point does later is not seen before
        assert masks(**on) != masks(**on, **other)


def test_names_and_defaults_are_those_of_sam_pt():
    fields = Settings.model_fields
    assert {*SAM_PT_SWITCHES, *SAM_PT_SWITCHES.values()} <= fields.keys()
    assert {name: fields[name].default for name in SAM_PT_BATCHES} == SAM_PT_BATCHES
    assert set(FOLLOWING_EACH_POINT) == set(POINT_TRACKERS) - {"cotracker", "cotracker3"}
