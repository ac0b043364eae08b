"""Video instance segmentation by SAM-PT: proposals on the first frame, overlapping masks, scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.unit.clips import make_videos
from tests.unit.test_sam_pt import TOYS, track, weights  # noqa: F401
from vosflow.engine import track_videos
from vosflow.instances import read_instances
from vosflow.manifest import INSTANCES
from vosflow.method import Method
from vosflow.trackers.sam_pt.session import NEVER_SCORED, score_objects
from vosflow.video import Video

SEEN = {"hides": 100, "speed": 2.0}


@pytest.fixture
def manifest(tmp_path):
    """One video of two boxes, without prompts, in the manner of UVO."""
    manifest = make_videos(tmp_path / "data", {"a": 5})
    entry = dataclasses.replace(manifest.videos[0], prompts=(), objects=(), ground_truth=None)
    return dataclasses.replace(manifest, videos=(entry,), layout=INSTANCES)


def test_proposals_are_tracked_and_scored(manifest, weights):  # noqa: F811
    video = Video.of(manifest, "a")
    found = track(video, weights, point_tracker_settings=SEEN)
    assert list(found) == list(video.frame_names)
    assert all(set(masks) == {1, 2} for masks in found.values())
    assert all(mask.dtype == bool and mask.shape == (48, 64) for mask in found["00003"].values())
    assert (found["00003"][1] & found["00003"][2]).any(), "masks may overlap"
    assert set(video.scores) == {1, 2} and all(0 < score < 1 for score in video.scores.values())


def test_as_many_proposals_as_wished(manifest, weights):  # noqa: F811
    video = Video.of(manifest, "a")
    found = track(video, weights, point_tracker_settings=SEEN, max_num_masks=1)
    assert all(set(masks) <= {1} for masks in found.values()) and set(video.scores) == {1}


def test_masks_have_the_size_of_the_video(manifest, weights):  # noqa: F811
    found = track(Video.of(manifest, "a"), weights, size=24, point_tracker_settings={"hides": 100, "speed": 1.0})
    assert found["00000"][2].shape == (48, 64)


def test_windows_are_tracked_from_the_first_frame(manifest, weights):  # noqa: F811
    video = Video.of(manifest, "a")
    found = track(video, weights, use_point_reinit=True, reinit_horizon=3, point_tracker_settings=SEEN)
    assert set(found["00000"]) == {1, 2}, "nobody gave masks: SAM is asked on the first frame, too"
    assert len(found) == 5


@pytest.mark.parametrize(("compat", "expected"), [("published", NEVER_SCORED), ("fixed", 0.6)])
def test_one_frame_without_points_ruins_a_published_score(compat, expected):
    ious = np.array([[0.5, 0.5], [np.nan, 0.6], [0.7, 0.7]])
    assert score_objects(ious, compat) == pytest.approx([expected, 0.6])


@pytest.mark.parametrize("compat", ["published", "fixed"])
def test_an_object_that_was_never_seen_ranks_last(compat):
    assert score_objects(np.full((3, 1), np.nan), compat) == [NEVER_SCORED]


def test_the_engine_writes_them(manifest, weights, tmp_path):  # noqa: F811
    method = Method.of("sam_pt", {**TOYS, "compat": "fixed"}, weights)
    track_videos(method, manifest, ["a"], tmp_path / "run")
    instances = read_instances(tmp_path / "run/masks", manifest.videos[0])
    assert set(instances.scores) == {1, 2} and len(instances.counts) == 5


def test_a_frame_without_objects(manifest, weights, tmp_path):  # noqa: F811
    video = Video.of(manifest, "a")
    found = track(video, weights, sam="tests.unit.toy_sam_pt:BlindSam")
    assert found == {name: {} for name in video.frame_names} and video.scores == {}
    assert video.remarks == ["SAM proposed no object on the first frame."]
