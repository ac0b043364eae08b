"""CoTracker 3 (online) as a point tracker: against a plain version, as no output of its authors' code is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit import plain_cotracker as plain
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import cotracker3_network
from vosflow.trackers.sam_pt.points.cotracker3 import CoTracker3, Settings

SIZE = (64, 96)  # that frames are resized to here
THRESHOLD = 0.01  # with these weights, between visible and not
LATE = np.float32([[0, 20, 22], [9, 60, 30], [3, 12, 40]])


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Networks of 32 channels and 2 rounds of attention, instead of 384 and 3, on small frames."""
    monkeypatch.setattr(cotracker3_network, "WIDTH", 32)
    monkeypatch.setattr(cotracker3_network, "DEPTH", 2)
    monkeypatch.setattr(cotracker3_network, "RESOLUTION", SIZE)
    with torch.inference_mode():
        yield


def load(folder: Path) -> CoTracker3:
    torch.save(plain.make_weights(cotracker3_network.CoTracker3Network()), folder / "weights.pth")
    settings = Settings(visibility_threshold=THRESHOLD)
    tracker = CoTracker3(settings, {"point_tracker": Checkpoint("mine", folder / "weights.pth", "0")}, "cpu")
    tracker.load()
    return tracker


@pytest.mark.parametrize("frames", [18, 4], ids=["several windows", "shorter than half a window"])
def test_equals_the_plain_version(tmp_path, frames):
    clip = plain.moving_squares(frames, 48, 80)
    queries = LATE.copy()
    queries[:, 0] = np.minimum(queries[:, 0], frames - 1)
    weights = plain.make_weights(cotracker3_network.CoTracker3Network())
    positions, visible = plain.track_v3(weights, clip, queries, SIZE)
    visible = visible > THRESHOLD
    own = queries[:, 0].astype(int), np.arange(len(queries))
    positions[own], visible[own] = queries[:, 1:], True
    tracks = load(tmp_path).track(Clip.of_array(clip), queries, None)
    assert tracks.positions.dtype == np.float32 and tracks.visible.dtype == bool
    assert np.abs(positions - queries[:, 1:]).max() > 1, "the points must move for this to say anything"
    assert np.abs(tracks.positions - positions).max() < 1e-3
    assert (tracks.visible == visible).all()


def test_there_is_no_way_back_for_points_on_the_first_frame(tmp_path):
    tracker, runs = load(tmp_path), []
    follow = tracker._network.follow
    tracker._network.follow = lambda *args: (runs.append(1), follow(*args))[1]
    clip = Clip.of_array(plain.moving_squares(3, 48, 80))
    tracker.track(clip, LATE * np.float32([0, 1, 1]), None)
    assert len(runs) == 1
    tracker.track(clip, LATE * np.float32([0, 1, 1]) + np.float32([1, 0, 0]), None)
    assert len(runs) == 3


def test_windows_before_the_first_point_are_left_out_and_change_nothing(tmp_path):
    tracker = load(tmp_path)
    maps = torch.stack([tracker._encode(frame) for frame in plain.moving_squares(20, 48, 80)])
    queries, reads = torch.tensor([[17.0, 40, 30]]), []
    positions, _, _ = tracker._network.follow(lambda frames: (reads.append(frames[0]), maps[frames])[1], 20, queries)
    assert reads == [8], "of the windows from 0 and 8, the first does not hold frame 17"
    weights = plain.make_weights(cotracker3_network.CoTracker3Network())
    states = plain.follow_v3(weights, maps.permute(0, 3, 1, 2), queries, SIZE)
    assert (positions - states[..., :2] * 4)[17:].abs().max() < 1e-3


def test_points_of_a_call_influence_each_other(tmp_path):
    clip, tracker = Clip.of_array(plain.moving_squares(4, 48, 80)), load(tmp_path)
    early = LATE * np.float32([0, 1, 1])
    together, apart = tracker.track(clip, early, None), tracker.track(clip, early[:2], None)
    assert np.abs(together.positions[:, :2] - apart.positions).max() > 1e-3


def test_one_frame_and_no_points(tmp_path):
    clip, tracker = Clip.of_array(plain.moving_squares(1, 48, 80)), load(tmp_path)
    assert tracker.track(clip, np.zeros((0, 3), np.float32), None).positions.shape == (1, 0, 2)
    tracks = tracker.track(clip, LATE[:1], None)
    assert (tracks.positions == LATE[:1, 1:]).all() and tracks.visible.all()


def test_as_many_numbers_as_in_the_published_weights(monkeypatch):
    """188 tensors, 101,613,840 bytes: the published file has 101,695,610, the offline one, of the same network but for
    the 44 further frames of time_emb, 195,328 more (44 * 1110 * 4 = 195,360, in units of 64).
    """
    monkeypatch.undo()
    with torch.device("meta"):
        state = cotracker3_network.CoTracker3Network().state_dict()
    assert (len(state), sum(value.nbytes for value in state.values())) == (188, 101_613_840)


def test_weights_of_the_offline_network_are_refused(tmp_path):
    weights = plain.make_weights(cotracker3_network.CoTracker3Network())
    weights["time_emb"] = torch.zeros(1, 60, 1110)
    torch.save(weights, tmp_path / "scaled_offline.pth")
    tracker = CoTracker3(Settings(), {"point_tracker": Checkpoint("x", tmp_path / "scaled_offline.pth", "0")}, "cpu")
    with pytest.raises(VosflowError, match=r"time_emb \[1, 60, 1110\] instead of \[1, 16, 1110\]"):
        tracker.load()
