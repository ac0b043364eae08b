"""PIPs++: what the method done plainly gives, for less work. Plainly is in plain_points.py.

There is no golden of the authors' code. Their README gives names and sizes of the largest parameters, and their sum.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit import plain_points
from tests.unit.tiny_points import FLOAT_NOISE, assert_same, loaded, make_frames, save_weights, scale_, track
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.points import pips_plus_plus_network as network_module
from vosflow.trackers.sam_pt.points.base import Tracks
from vosflow.trackers.sam_pt.points.pips_plus_plus import PipsPlusPlus, windows

FRAMES = make_frames(8, 64, 72, seed=1)
QUERIES = [(0, 20, 30), (0, 50.5, 12.25), (3, 40, 40), (7, 10, 50)]
KNOBS = {"stride": 4, "iters": 3}  # at stride 8, frames this small would be read by grid_sample as NaN


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(state dict, checkpoint) of a narrow network."""
    with pytest.MonkeyPatch.context() as patch:
        _narrow(patch)
        torch.manual_seed(5)
        network = network_module.PipsPlusPlusNetwork(4)
        # Louder correlations, and steps of about a pixel.
        state = scale_(network, {"fnet.conv3": 3.0, "dense": 0.1})
        return state, save_weights(network, tmp_path_factory.mktemp("pips") / "plus_plus.pth")


def _narrow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(network_module, "BLOCKS", (24, 24, 40, 40))


@pytest.fixture
def track_by(weights, monkeypatch):
    """Tracks by PIPs++ with these weights and settings."""
    _narrow(monkeypatch)
    return lambda frames, queries, **knobs: track(loaded(PipsPlusPlus, weights[1], **KNOBS, **knobs), frames, queries)


def _plain(state, frames, query, most=128):
    with torch.no_grad():
        return plain_points.both_ways(
            lambda part, xy: plain_points.pips_plus_plus(state, part, xy, 4, 3, most),
            frames,
            np.array(query, np.float32),
        )


# In shorter windows still, normalisation over their frames makes float noise large.
@pytest.mark.parametrize("most", [128, 8, 5])
def test_tracks_are_those_of_the_plain_method(weights, track_by, most):
    tracks = track_by(FRAMES, QUERIES, max_sequence_length=most)
    for n, query in enumerate(QUERIES):
        positions, _ = _plain(weights[0], FRAMES, query, most)
        np.testing.assert_allclose(tracks.positions[:, n], positions, rtol=0, atol=FLOAT_NOISE)
    moved = np.abs(np.diff(tracks.positions, axis=0)).max(axis=(0, 2))
    assert (moved > 0.1).all(), "the points rest, so the comparison says little"
    assert tracks.visible.all()


def test_length_of_windows_matters(track_by):
    """Else the cases above could not tell a wrong window from a right one."""
    whole, short = (track_by(FRAMES, QUERIES, max_sequence_length=most) for most in (128, 5))
    assert np.abs(whole.positions - short.positions).max() > 0.01


def test_points_do_not_influence_each_other(track_by):
    together = track_by(FRAMES[:4], QUERIES[:3], max_sequence_length=3)
    for n, query in enumerate(QUERIES[:3]):
        alone = track_by(FRAMES[:4], [query], max_sequence_length=3)
        assert_same(alone, Tracks(together.positions[:, [n]], together.visible[:, [n]]))


def test_each_frame_is_encoded_once_for_all_windows_and_both_ways(weights, monkeypatch):
    _narrow(monkeypatch)
    tracker = loaded(PipsPlusPlus, weights[1], **KNOBS, max_sequence_length=5)
    encoded = []
    encode = tracker._maps._encode
    tracker._maps._encode = lambda frame: encoded.append(frame) or encode(frame)
    track(tracker, FRAMES, QUERIES)
    assert len(encoded) == len(FRAMES)


@effort(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(2, 12))
def test_windows_cover_the_clip(frames, most):
    found = windows(frames, most)
    if frames == 1:
        assert not found
        return
    assert (found[0][0], found[-1][1]) == (0, frames)
    assert all(stop - start == min(most, frames) for start, stop in found)
    overlaps = [stop - start for (_, stop), (start, _) in zip(found[:-1], found[1:], strict=True)]
    assert all(overlap == 1 for overlap in overlaps[:-1]) and all(overlap >= 1 for overlap in overlaps)


@pytest.mark.parametrize(("frames", "queries"), [(1, [(0, 5, 6)]), (2, [(1, 5, 6), (0, 7, 8)]), (3, [])])
def test_short_clips_and_no_queries(track_by, frames, queries):
    tracks = track_by(FRAMES[:frames], queries)
    assert tracks.positions.shape == (frames, len(queries), 2)
    assert np.isfinite(tracks.positions).all()
    for n, (t, x, y) in enumerate(queries):
        assert tracks.positions[t, n].tolist() == [x, y]


@pytest.mark.parametrize("compat", ["fixed", "published"])
def test_resized_frames(weights, track_by, compat):
    """`published` puts points at x * 96/64 and y * 144/72, where x * 144/72 and y * 96/64 would be right."""
    tracks = track_by(FRAMES[:3], QUERIES[:2], image_size=(96, 144), compat=compat)
    scale = np.array([2, 1.5] if compat == "fixed" else [1.5, 2])
    images = torch.tensor(FRAMES[:3]).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(images, (96, 144), mode="bilinear").permute(0, 2, 3, 1).numpy()
    for n, query in enumerate(QUERIES[:2]):
        positions, _ = _plain(weights[0], resized, (0, *(query[1:] * scale)))
        np.testing.assert_allclose(tracks.positions[:, n], positions / scale, rtol=0, atol=FLOAT_NOISE)


def test_official_names_and_size():
    with torch.device("meta"):
        network = network_module.PipsPlusPlusNetwork(8)
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    # From the table in the README of aharley/pips2: "total params: 17.57 M".
    assert round(sum(sizes.values()) / 1e6, 2) == 17.57
    published = {
        "fnet.layer4.0.conv1.weight": 147_456,
        "fnet.conv2.weight": 958_464,
        "delta_block.first_block_conv.conv.weight": 275_712,
        "delta_block.basicblock_list.4.conv1.conv.weight": 393_216,
        "delta_block.basicblock_list.6.conv1.conv.weight": 1_572_864,
        "delta_block.basicblock_list.7.conv2.conv.weight": 3_145_728,
    }
    assert {name: sizes[name] for name in published} == published


def test_weights_of_pips_are_refused(tmp_path):
    path = tmp_path / "pips.pth"
    torch.save({"model_state_dict": {"delta_block.to_delta.0.weight": torch.zeros(512, 519)}}, path)
    with pytest.raises(VosflowError, match="does not fit PIPs\\+\\+.*unexpected: delta_block.to_delta.0.weight"):
        loaded(PipsPlusPlus, Checkpoint("pips", path, "1" * 64))


def test_bad_sizes_are_refused(track_by):
    with pytest.raises(VosflowError, match="72 x 31 pixels are too small for PIPs"):
        track_by(FRAMES[:, :31], QUERIES[:1])
    with pytest.raises(ValidationError):
        PipsPlusPlus.Settings(image_size=(512, 0))
