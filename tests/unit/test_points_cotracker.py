"""CoTracker 1 as a point tracker: against a plain version, and what it takes and refuses."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.unit import plain_cotracker as plain
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import cotracker_network
from vosflow.trackers.sam_pt.points.cotracker import CoTracker, Settings
from vosflow.trackers.sam_pt.points.cotracker_windows import add_support, list_windows

SIZE = (64, 96)  # that frames are resized to here
LATE = np.float32([[0, 20, 22], [6, 60, 30], [3, 12, 40], [0, 70, 20]])
EARLY = LATE * np.float32([0, 1, 1])


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Networks of 32 channels and 2 pairs of blocks, instead of 384 and 6."""
    monkeypatch.setattr(cotracker_network, "WIDTH", 32)
    monkeypatch.setattr(cotracker_network, "DEPTH", 2)
    with torch.inference_mode():
        yield


def save_weights(folder: Path, name: str = "weights.pth", prefix: str = "") -> Checkpoint:
    weights = plain.make_weights(cotracker_network.CoTrackerNetwork(8, 4))
    torch.save({"model": {prefix + key: value for key, value in weights.items()}}, folder / name)
    return Checkpoint("mine", folder / name, "0")


def load(folder: Path, **settings) -> CoTracker:
    tracker = CoTracker(Settings(**{"interp_shape": SIZE, **settings}), {"point_tracker": save_weights(folder)}, "cpu")
    tracker.load()
    return tracker


@pytest.mark.parametrize(
    "frames, size, stride, window",
    [(11, SIZE, 4, 8), (5, SIZE, 4, 8), (13, SIZE, 4, 12), (9, (128, 128), 8, 16)],
    ids=["several windows", "shorter than a window", "windows of 12", "stride 8"],
)
def test_equals_the_plain_version(tmp_path, frames, size, stride, window):
    clip = plain.moving_squares(frames, 48, 80)
    queries = LATE.copy()
    queries[:, 0] = np.minimum(queries[:, 0], frames - 1)
    weights = plain.make_weights(cotracker_network.CoTrackerNetwork(window, stride))
    positions, visible = plain.track_v1(weights, clip, queries, size, stride, window)
    tracks = load(tmp_path, interp_shape=size, stride=stride, window_length=window).track(
        Clip.of_array(clip), queries, None
    )
    assert tracks.positions.dtype == np.float32 and tracks.visible.dtype == bool
    assert np.abs(positions - queries[:, 1:]).max() > 0.3, "the points must move for this to say anything"
    assert np.abs(tracks.positions - positions).max() < 1e-3
    assert (tracks.visible == (visible > 0.7)).all() and 0 < tracks.visible.mean() < 1


def test_a_point_is_unset_only_before_its_first_window(tmp_path):
    """A window writes all its frames, so that little is taken from the reversed clip: what upstream does."""
    tracker = load(tmp_path, support_grid_size=0)
    clip = Clip.of_array(plain.moving_squares(14, 48, 80))
    reads: list[list[int]] = []
    follow = tracker._network.follow
    tracker._network.follow = lambda maps, *rest: follow(lambda frames: (reads.append(frames), maps(frames))[1], *rest)
    tracker.track(clip, np.float32([[7, 30, 30]]), None)
    assert reads == [list(range(8)), list(range(4, 12)), list(range(8, 14)) + [13, 13]]
    reads.clear()
    tracker.track(clip, np.float32([[8, 30, 30]]), None)  # first window from frame 4: 0 to 3 are unset
    assert [frames[0] for frames in reads] == [4, 8, 0, 4, 8], "then the same on the reversed clip, from its start"


def test_there_is_no_way_back_for_points_on_the_first_frame(tmp_path):
    clip = plain.moving_squares(11, 48, 80)
    tracker = load(tmp_path)
    runs: list[int] = []
    follow = tracker._network.follow
    tracker._network.follow = lambda *args: (runs.append(1), follow(*args))[1]
    tracks = tracker.track(Clip.of_array(clip), EARLY, None)
    assert len(runs) == 1
    weights = plain.make_weights(cotracker_network.CoTrackerNetwork(8, 4))
    positions, _ = plain.track_v1(weights, clip, EARLY, SIZE, 4, 8)  # both ways, always
    assert np.abs(tracks.positions - positions).max() < 1e-3


def test_frames_are_encoded_once_for_both_ways_and_all_calls(tmp_path, monkeypatch):
    frames = plain.moving_squares(11, 48, 80)
    alone = load(tmp_path).track(Clip.of_array(frames), LATE[:2], None)
    tracker, encoded = load(tmp_path), []
    encode = tracker._maps._encode
    monkeypatch.setattr(tracker._maps, "_encode", lambda frame: (encoded.append(1), encode(frame))[1])
    tracker.track(Clip.of_array(frames), LATE[2:], None)
    shared = tracker.track(Clip.of_array(frames), LATE[:2], None)
    assert len(encoded) == 11
    assert (shared.positions == alone.positions).all() and (shared.visible == alone.visible).all()


def test_points_of_a_call_influence_each_other(tmp_path):
    clip, tracker = Clip.of_array(plain.moving_squares(9, 48, 80)), load(tmp_path)
    together, apart = tracker.track(clip, EARLY, None), tracker.track(clip, EARLY[:2], None)
    assert np.abs(together.positions[:, :2] - apart.positions).max() > 1e-3


@pytest.mark.parametrize("frames", [1, 3])
def test_short_clips_and_no_points(tmp_path, frames):
    clip, tracker = Clip.of_array(plain.moving_squares(frames, 48, 80)), load(tmp_path)
    assert tracker.track(clip, np.zeros((0, 3), np.float32), None).positions.shape == (frames, 0, 2)
    tracks = tracker.track(clip, EARLY, None)
    assert tracks.positions.shape == (frames, 4, 2) and np.isfinite(tracks.positions).all()


def test_windows_cover_the_clip_and_repeat_its_last_frame():
    assert list(list_windows(3, 8)) == [(0, [0, 1, 2, 2, 2, 2, 2, 2])]
    assert [start for start, _ in list_windows(8, 8)] == [0]
    assert [start for start, _ in list_windows(9, 8)] == [0, 4]
    assert list(list_windows(17, 16))[-1] == (8, [*range(8, 17), *[16] * 7])


def test_support_grids():
    queries = np.float32([[5, 1, 2]])
    points = add_support(queries, 2, 12, 13, 384, 512)
    grid = [[8, 8], [504, 8], [8, 376], [504, 376]]
    assert points.tolist() == [[5, 1, 2], *([0, *xy] for xy in grid), *([12, *xy] for xy in grid)]
    assert add_support(queries, 1, 12, 12, 384, 512)[1:].tolist() == [[0, 256, 192]]
    assert add_support(queries, 0, 12, 12, 384, 512).tolist() == queries.tolist()


def test_names_and_shapes_are_those_of_the_published_weights(monkeypatch):
    """150 tensors, 24,149,859 numbers; the digest is over the names and shapes of cotracker_stride_4_wind_8.pth."""
    monkeypatch.undo()
    with torch.device("meta"):
        state = cotracker_network.CoTrackerNetwork(8, 4).state_dict()
    lines = "\n".join(sorted(f"{name} {list(value.shape)}" for name, value in state.items()))
    assert (len(state), sum(value.numel() for value in state.values())) == (150, 24_149_859)
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "2a59312a4ffa29be"


def test_weights_saved_in_training_are_understood(tmp_path):
    checkpoint = save_weights(tmp_path, prefix="module.")
    CoTracker(Settings(interp_shape=SIZE), {"point_tracker": checkpoint}, "cpu").load()


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"norm.weight": torch.ones(128), "time_emb": torch.ones(1, 8, 456)}, tmp_path / "other.pth")
    tracker = CoTracker(Settings(), {"point_tracker": Checkpoint("x", tmp_path / "other.pth", "0")}, "cpu")
    with pytest.raises(VosflowError, match="does not fit CoTracker.*missing: .*unexpected: time_emb") as error:
        tracker.load()
    assert str(tmp_path / "other.pth") in str(error.value)


def test_weights_named_for_another_stride_or_window_are_refused(tmp_path):
    checkpoint = save_weights(tmp_path, "cotracker_stride_4_wind_12.pth")
    with pytest.raises(
        VosflowError, match="called cotracker_stride_4_wind_12, but the settings say stride 4, window_length 8"
    ):
        CoTracker(Settings(interp_shape=SIZE), {"point_tracker": checkpoint}, "cpu").load()
    CoTracker(Settings(interp_shape=SIZE, window_length=12), {"point_tracker": checkpoint}, "cpu").load()


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"stride": 8}, "published weights"),
        ({"window_length": 16}, "published weights"),
        ({"interp_shape": (384, 510)}, "multiples of 4"),
        ({"interp_shape": (32, 512)}, "64 or more"),
        ({"visibility_threshold": 1.5}, "less than or equal to 1"),
        ({"window": 8}, "Extra inputs"),
    ],
)
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(ValidationError, match=reason):
        Settings(**settings)


def test_planning_needs_no_torch():
    code = "import sys, vosflow.trackers.sam_pt.points.cotracker, vosflow.trackers.sam_pt.points.cotracker3 as c; "
    subprocess.run([sys.executable, "-c", code + "c.Settings(); assert 'torch' not in sys.modules"], check=True)
