"""PIPs: what the method done plainly gives, for less work. Plainly is in plain_points.py.

Goldens made with the authors' own code are not in the repository. Against them (full size, random weights, 4 clips of 6
to 12 frames of 64 x 96, 8 or 10 points) positions differed by 5e-5 pixels at most, and visibilities nowhere.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.unit import plain_points
from tests.unit.tiny_points import FLOAT_NOISE, assert_same, loaded, make_frames, save_weights, scale_, track
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import pips_features, pips_network, sampling
from vosflow.trackers.sam_pt.points.base import Tracks
from vosflow.trackers.sam_pt.points.both_ways import track_both_ways
from vosflow.trackers.sam_pt.points.pips import Pips, choose_next_start

FRAMES = make_frames(10, 64, 72)
QUERIES = [(0, 20, 30), (4, 71, 40.25), (9, 10.5, 50)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(state dict, checkpoint) of a narrow network."""
    with pytest.MonkeyPatch.context() as patch:
        _narrow(patch)
        torch.manual_seed(3)
        network = pips_network.PipsNetwork(4)
        # Points move by a tenth of a pixel: more, and sines of 1000 times the motion make float noise chaotic.
        state = scale_(network, {"to_delta.5.": 0.008, "vis_predictor": 20.0})
        return state, save_weights(network, tmp_path_factory.mktemp("pips") / "pips.pth")


def _narrow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pips_network, "WIDTH", 48)
    patch.setattr(pips_network, "DEPTH", 2)


@pytest.fixture
def tracker(weights, monkeypatch):
    """PIPs with these weights."""
    _narrow(monkeypatch)
    return loaded(Pips, weights[1], iters=2)


def _plain(state, frames, query):
    with torch.no_grad():
        return plain_points.both_ways(
            lambda part, xy: plain_points.pips(state, part, xy, stride=4, iters=2), frames, np.array(query, np.float32)
        )


def test_tracks_are_those_of_the_plain_method(weights, tracker):
    tracks = track(tracker, FRAMES, QUERIES)
    for n, query in enumerate(QUERIES):
        positions, visible = _plain(weights[0], FRAMES, query)
        np.testing.assert_allclose(tracks.positions[:, n], positions, rtol=0, atol=FLOAT_NOISE)
        np.testing.assert_array_equal(tracks.visible[:, n], visible)
    moved = np.abs(np.diff(tracks.positions, axis=0)).max(axis=(0, 2))
    assert (moved > 50 * FLOAT_NOISE).all(), "the points rest, so the comparison says little"
    assert 0 < tracks.visible.mean() < 1


def test_points_do_not_influence_each_other(tracker):
    together = track(tracker, FRAMES, QUERIES)
    for n, query in enumerate(QUERIES):
        alone = track(tracker, FRAMES, [query])
        assert_same(alone, Tracks(together.positions[:, [n]], together.visible[:, [n]]))


def test_each_frame_is_encoded_once_and_kept_for_later_calls(tracker):
    encoded = []
    encode = tracker._maps._encode
    tracker._maps._encode = lambda frame: encoded.append(frame) or encode(frame)
    first = track(tracker, FRAMES, QUERIES[:1])
    assert len(encoded) == len(FRAMES)
    assert_same(track(tracker, FRAMES, QUERIES[:1]), first)
    track(tracker, FRAMES[3:9], QUERIES[:1])
    assert len(encoded) == len(FRAMES), "parts of a clip use the same maps"


def test_little_room_for_maps_changes_nothing(tracker, monkeypatch):
    roomy = track(tracker, FRAMES[:6], QUERIES[:2])
    monkeypatch.setattr(pips_features, "KEPT_BYTES", 1)
    monkeypatch.setattr(sampling, "PLACES_AT_ONCE", 16)
    tracker._maps = pips_features.FeatureMaps(tracker._encode)
    assert_same(track(tracker, FRAMES[:6], QUERIES[:2]), roomy)
    assert len(tracker._maps._kept) == 1


def test_queries_stay_where_they_are_given(tracker):
    tracks = track(tracker, FRAMES, QUERIES)
    for n, (t, x, y) in enumerate(QUERIES):
        assert tracks.positions[t, n].tolist() == [x, y]
        assert tracks.visible[t, n]
    assert tracks.positions.dtype == np.float32 and tracks.visible.dtype == bool


@pytest.mark.parametrize(("frames", "queries"), [(1, [(0, 5, 6)]), (2, [(1, 5, 6)]), (3, [])])
def test_short_clips_and_no_queries(tracker, frames, queries):
    tracks = track(tracker, FRAMES[:frames], queries)
    assert tracks.positions.shape == (frames, len(queries), 2)
    assert np.isfinite(tracks.positions).all()


@effort(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=7), min_size=1, max_size=5),
    st.sampled_from([0.9, 0.5, 0.0, 1.0]),
)
def test_next_window_starts_on_the_last_surely_visible_frame(visibility, threshold):
    frames = min(map(len, visibility))
    table = np.array([row[:frames] for row in visibility], np.float32).T
    expected = [plain_points.next_start(column, 0, frames - 1, threshold) for column in table.T]
    assert choose_next_start(table, threshold).tolist() == expected


@effort(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_correlations_are_those_read_from_whole_maps(seed, count):
    rng = torch.Generator().manual_seed(seed)
    frames, points = 3, 4
    maps = torch.randn(frames, 17, 21, 8, generator=rng)
    features = torch.randn(points, frames, count, 8, generator=rng)
    xy = torch.rand(points, frames, 2, generator=rng) * 40 - 10
    xy[0] = xy[0].round()
    found = sampling.correlate(sampling.build_pyramid(maps), features, xy).view(points, frames, count, -1)
    for n in range(points):
        for k in range(count):
            expected = plain_points.correlations(maps.permute(0, 3, 1, 2), features[n, :, k], xy[n])
            torch.testing.assert_close(found[n, :, k], expected, rtol=0, atol=1e-4)


def test_bilinear_samples_are_those_of_grid_sample():
    maps, xy = torch.rand(2, 9, 11, 5), torch.rand(2, 50, 2) * 16 - 3
    grid = 2 * xy[:, None] / torch.tensor([10, 8]) - 1
    expected = F.grid_sample(maps.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=True)
    torch.testing.assert_close(sampling.sample_bilinear(maps, xy), expected[:, :, 0].permute(0, 2, 1))


def test_both_ways_asks_for_the_way_back_only_if_need_be():
    asked = []

    def one_way(clip, queries):
        asked.append((len(queries), int(clip[0].max())))
        positions = np.zeros((len(clip), len(queries), 2), np.float32)
        for t in range(len(clip)):
            positions[t] = queries[:, 1:] + clip[t].max()
        return Tracks(positions, np.ones(positions.shape[:2], bool))

    clip = Clip.of_array(np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3))
    track_both_ways(one_way, clip, np.array([[0, 1, 1]], np.float32))
    assert asked == [(1, 0)]
    tracks = track_both_ways(one_way, clip, np.array([[0, 1, 1], [3, 7, 8]], np.float32))
    assert asked[1:] == [(2, 0), (1, 4)]
    assert tracks.positions[:, 1, 0].tolist() == [7, 8, 9, 10, 11]


def test_official_names_and_size():
    with torch.device("meta"):
        network = pips_network.PipsNetwork(4)
    names = network.state_dict().keys()
    assert sum(parameter.numel() for parameter in network.parameters()) == 28_677_713  # as many as in the authors'
    assert {"fnet.layer2.0.downsample.0.weight", "delta_block.to_delta.12.1.fn.3.bias", "norm.weight"} <= names


def test_files_of_the_authors_and_converted_ones_load(weights, tracker, tmp_path, monkeypatch):
    _narrow(monkeypatch)
    expected = track(tracker, FRAMES[:4], QUERIES[:1])
    parallel = tmp_path / "parallel.pth"
    torch.save({f"module.{name}": value for name, value in weights[0].items()}, parallel)
    converted = tmp_path / "pips.safetensors"
    whole = {f"model_state_dict/{name}": value for name, value in weights[0].items()}
    save_file({**whole, "optimizer_state_dict/state/0/exp_avg": torch.zeros(3)}, converted)
    for path in (parallel, converted):
        other = loaded(Pips, Checkpoint("other", path, "1" * 64), iters=2)
        assert_same(track(other, FRAMES[:4], QUERIES[:1]), expected)


def test_weights_of_another_network_are_refused(weights, tmp_path, monkeypatch):
    _narrow(monkeypatch)
    state = dict(weights[0])
    del state["vis_predictor.0.bias"]
    path = tmp_path / "other.pth"
    torch.save({"model_state_dict": {**state, "cnet.conv1.bias": torch.zeros(3)}}, path)
    with pytest.raises(VosflowError, match="(?s)other.pth.*1 missing: vis_predictor.0.bias; 1 unexpected: cnet.conv1"):
        loaded(Pips, Checkpoint("other", path, "1" * 64))


def test_tiny_frames_are_refused(tracker):
    with pytest.raises(VosflowError, match="40 x 31 pixels are too small for PIPs"):
        track(tracker, FRAMES[:, :31, :40], QUERIES[:1])
