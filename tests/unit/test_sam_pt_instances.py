"""Video instance segmentation by SAM-PT: proposals on the first frame, overlapping masks, scores."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit.clips import make_videos
from tests.unit.test_sam_pt import TOYS, track, weights  # noqa: F401
from tests.unit.toy_sam_pt import ToySam
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.engine import track_videos
from vosflow.instances import read_instances
from vosflow.manifest import INSTANCES
from vosflow.method import Method
from vosflow.records import RunFolder
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.sams.base import Proposals
from vosflow.trackers.sam_pt.session import NEVER_SCORED, Session, score_objects
from vosflow.trackers.sam_pt.settings import Settings
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


def test_proposals_are_shared(manifest, weights, tmp_path):  # noqa: F811
    """Whatever tracks them: cold, warm and without a cache the same proposals lead to the same masks and scores."""
    store = ArtefactStore(tmp_path / "cache", gigabytes=1)

    def run(artefacts, **settings):
        video = Video.of(manifest, "a")
        video.artefacts = artefacts
        ToySam.asked = 0
        masks = track(video, weights, **{"point_tracker_settings": SEEN, **settings})
        found = {(name, k): mask.tobytes() for name, of in masks.items() for k, mask in of.items()}
        return (found, video.scores), artefacts.counts.get("proposals"), ToySam.asked

    other = {"point_tracker": "tests.unit.toy_sam_pt:ToyMatcher", "point_tracker_settings": {}, "seed": 1}
    slow = {"point_tracker_settings": {**SEEN, "speed": 1.0}}
    cold = run(Artefacts(store))
    assert cold[1:] == ({"made": 1, "reused": 0}, 1) and cold[0] == run(Artefacts())[0]
    for settings in ({}, other, slow, {"iterative_refinement_iterations": 0}):
        warm = run(Artefacts(store), **settings)
        assert warm[1:] == ({"made": 0, "reused": 1}, 0)
        assert warm[0] == run(Artefacts(), **settings)[0]
    for settings in ({"size": 24}, {"max_num_masks": 1}):
        assert run(Artefacts(store), **settings)[1:] == ({"made": 1, "reused": 0}, 1), "other proposals"
    _, counts, asked = run(Artefacts(store), sam="tests.unit.toy_sam_pt:BlindSam")
    assert counts == {"made": 1, "reused": 0}, "another SAM's"
    assert run(Artefacts(store), sam="tests.unit.toy_sam_pt:BlindSam")[0] == ({}, {}), "none is an answer, too"


def test_proposals_come_back_as_they_were_made(manifest, weights, tmp_path, monkeypatch):  # noqa: F811
    """Also where the width is no multiple of 8, bit by bit."""
    masks = np.random.default_rng(0).random((3, 38, 50)) < 0.5
    monkeypatch.setattr(ToySam, "propose", lambda self, frame, most: Proposals(masks, np.ones(3, np.float32)))
    store = ArtefactStore(tmp_path / "cache", gigabytes=1)
    checkpoints = {"sam": Checkpoint("sam", tmp_path / "sam.pt", "sam")}
    settings = Settings(**{**TOYS, "longest_size": 50})
    for made in (1, 0):
        video = Video.of(manifest, "a")
        video.artefacts = Artefacts(store)
        sam = ToySam(checkpoints, "cpu", "float32")
        found = Session(video, settings, SimpleNamespace(weights={}), sam, checkpoints, "cpu").propose()
        assert found.dtype == bool and found.flags.c_contiguous and np.array_equal(found, masks)
        assert video.artefacts.counts["proposals"] == {"made": made, "reused": 1 - made}


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


def test_runs_share_proposals_through_the_engine(manifest, weights, tmp_path):  # noqa: F811
    """Of two runs with one SAM and two point trackers the second one finds them, and records say so."""
    store, records = ArtefactStore(tmp_path / "cache", gigabytes=1), []
    for name in ("ToyPoints", "ToyMatcher"):
        method = Method.of("sam_pt", {**TOYS, "point_tracker": f"tests.unit.toy_sam_pt:{name}"}, weights)
        for folder, kept in ((name, store), (f"{name} alone", None)):
            track_videos(method, manifest, ["a"], tmp_path / folder, store=kept)
        texts = [(tmp_path / folder / "masks/a/instances.jsonl").read_bytes() for folder in (name, f"{name} alone")]
        assert texts[0] == texts[1]
        records.append(RunFolder(tmp_path / name).read_record("a")["artefacts"])
    assert records[0]["proposals"] == {"made": 1, "reused": 0}
    assert records[1]["proposals"] == {"made": 0, "reused": 1} and records[1]["image_embedding"]["made"] == 0


def test_a_frame_without_objects(manifest, weights):  # noqa: F811
    video = Video.of(manifest, "a")
    found = track(video, weights, sam="tests.unit.toy_sam_pt:BlindSam")
    assert found == {name: {} for name in video.frame_names} and video.scores == {}
    assert video.remarks == ["SAM proposed no object on the first frame."]
