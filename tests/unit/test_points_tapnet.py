"""TapNet as a point tracker: against Haiku, and its parts against plain versions of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.unit.tiny_points import loaded
from tests.unit.tiny_tap import QUERIES, haiku_weights, moving_texture, tapnet_shapes
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.datasets.convert import convert_checkpoint
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import tapnet_network
from vosflow.trackers.sam_pt.points.tapnet import TapNet
from vosflow.trackers.sam_pt.points.tapnet_network import shift_over_time

# Positions [T, N, 2] and probabilities of being visible [T, N] of the same weights, clip and queries in JAX 0.10.2 with
# dm-haiku 0.0.17: a network put together from Haiku's modules as the authors' is, so that names and layout are Haiku's.
POSITIONS = [
    [[60.0, 40.0], [164.259, 100.173], [132.359, 43.139]],
    [[57.539, 31.943], [153.122, 95.625], [146.757, 84.444]],
    [[47.129, 28.125], [150.5, 90.25], [140.396, 80.294]],
    [[35.151, 24.357], [140.612, 84.746], [20.0, 100.0]],
]
PROBABILITIES = [[0.05, 0.0526, 0.0521], [0.0491, 0.0479, 0.0448], [0.0486, 0.0476, 0.0446], [0.0484, 0.0467, 0.0386]]


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Weights as published, with the state of an optimizer, converted."""
    folder = tmp_path_factory.mktemp("tapnet")
    params, state = tapnet_shapes()
    content = {"params": haiku_weights(params), "state": haiku_weights(state), "global_step": np.int64(7)}
    content["opt_state"] = {"mu": content["params"]}
    np.save(folder / "checkpoint.npy", np.array(content, dtype=object), allow_pickle=True)
    convert_checkpoint(folder / "checkpoint.npy", folder / "checkpoint.safetensors")
    return folder / "checkpoint.safetensors"


def make(path: Path, **chosen: object) -> TapNet:
    return loaded(TapNet, Checkpoint("mine", path, path.name), **chosen)


@pytest.fixture(scope="module")
def tracker(file) -> TapNet:
    return make(file, visibility_threshold=0.048)


def test_as_in_haiku(tracker):
    tracks = tracker.track(Clip.of_array(moving_texture()), QUERIES, Artefacts())
    assert tracks.positions == pytest.approx(np.array(POSITIONS), abs=2e-3) and tracks.positions.dtype == np.float32
    assert tracks.visible.tolist() == (np.array(PROBABILITIES) > 0.048).tolist()
    for number, (frame, *place) in enumerate(QUERIES.tolist()):
        assert tracks.positions[int(frame), number].tolist() == pytest.approx(place, abs=1e-4)


def test_points_do_not_influence_each_other(tracker, monkeypatch):
    clip = Clip.of_array(moving_texture())
    together = tracker.track(clip, QUERIES, Artefacts())
    monkeypatch.setattr("vosflow.trackers.sam_pt.points.tap.POINTS_AT_ONCE", 2)
    monkeypatch.setattr("vosflow.trackers.sam_pt.points.tap.FRAMES_AT_ONCE", 3)
    order = [2, 0, 1]
    in_parts = tracker.track(clip, QUERIES[order], Artefacts())
    assert in_parts.positions == pytest.approx(together.positions[:, order], abs=1e-3)
    nothing = tracker.track(clip, np.empty((0, 3), np.float32), Artefacts())
    assert nothing.positions.shape == (4, 0, 2) and nothing.visible.shape == (4, 0)


@torch.no_grad()
def test_frames_at_once_change_nothing(tracker, monkeypatch):
    clip = torch.rand(5, 1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    together = tracker._network.encode(clip)
    monkeypatch.setattr(tapnet_network, "FRAMES_AT_ONCE", 2)
    assert torch.allclose(tracker._network.encode(clip), together, atol=1e-5)
    alone = tracker._network.encode(clip[2:3])
    assert not torch.allclose(alone[0], together[2], atol=1e-2), "a frame's features depend on its neighbours"


def test_features_are_computed_once_per_clip(file, tmp_path):
    store, clip = ArtefactStore(tmp_path, gigabytes=1), Clip.of_array(moving_texture(3))
    first, cold = make(file), Artefacts(store)
    tracks = first.track(clip, QUERIES[:1], cold)
    first.track(clip, QUERIES[1:2], cold)
    assert cold.counts == {"point_features": {"made": 1, "reused": 0}}
    warm = Artefacts(store)
    again = make(file).track(clip, QUERIES[:1], warm)
    assert warm.counts == {"point_features": {"made": 0, "reused": 1}}
    assert again.positions.tobytes() == tracks.positions.tobytes()
    first.track(clip.part(0, 2), QUERIES[:1], cold)
    assert cold.counts == {"point_features": {"made": 2, "reused": 0}}, "its ends are elsewhere"


def test_shift_over_time():
    clip = torch.arange(3 * 16.0).reshape(3, 16, 1, 1)
    found = shift_over_time(clip)[:, :, 0, 0].tolist()
    for t, channels in enumerate(found):
        later = clip[t + 1, 14:, 0, 0].tolist() if t < 2 else [0, 0]
        earlier = clip[t - 1, :2, 0, 0].tolist() if t else [0, 0]
        assert channels == [*later, *clip[t, 2:14, 0, 0].tolist(), *earlier]


def test_other_weights_are_refused(tmp_path):
    save_file({"params/tapir/~/occlusion_out/b": np.zeros(2, np.float32)}, tmp_path / "tapir.safetensors")
    with pytest.raises(VosflowError, match="does not fit TapNet.*unexpected: params/tapir/~/occlusion_out/b"):
        make(tmp_path / "tapir.safetensors")
