"""TAPIR as a point tracker: against Haiku, and its parts against plain versions of them."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.unit.tiny_points import loaded
from tests.unit.tiny_tap import BLOCKS, QUERIES, haiku_weights, moving_texture, tapir_shapes
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import tapir_network
from vosflow.trackers.sam_pt.points.tap import SIDE, features_at, soft_argmax
from vosflow.trackers.sam_pt.points.tapir import Tapir, TapirSettings
from vosflow.trackers.sam_pt.points.tapir_network import TapirNetwork, compare_patches

# Positions [T, N, 2] and probabilities of being visible [T, N] of the same weights, clip and queries in JAX 0.10.2 with
# dm-haiku 0.0.17: a network put together from Haiku's modules as the authors' is, so that names and layout are Haiku's.
GOLDEN = {
    (0, False): (
        [
            [[59.783, 40.642], [46.341, 40.16], [64.932, 10.126]],
            [[129.414, 44.323], [68.545, 44.16], [36.173, 105.84]],
            [[178.64, 17.572], [151.005, 90.889], [28.423, 103.57]],
            [[120.333, 36.057], [144.438, 84.6], [20.879, 99.897]],
        ],
        [[0.0884, 0.0604, 0.0636], [0.0936, 0.1058, 0.0852], [0.1487, 0.136, 0.1404], [0.2292, 0.2853, 0.3776]],
    ),
    (1, False): (
        [
            [[59.704, 40.471], [46.309, 39.75], [64.964, 9.705]],
            [[129.29, 44.227], [68.332, 44.038], [36.288, 105.934]],
            [[178.537, 17.423], [151.03, 90.9], [28.233, 103.709]],
            [[120.125, 36.006], [144.12, 84.564], [20.884, 99.932]],
        ],
        [[0.087, 0.0551, 0.0681], [0.1028, 0.13, 0.0985], [0.1651, 0.1766, 0.218], [0.1755, 0.2721, 0.3473]],
    ),
    (1, True): (
        [
            [[61.339, 40.625], [48.335, 39.78], [67.147, 9.67]],
            [[128.093, 43.708], [67.934, 43.616], [36.054, 105.529]],
            [[178.672, 17.43], [150.752, 90.661], [28.79, 103.307]],
            [[121.381, 36.064], [144.123, 84.723], [20.369, 100.512]],
        ],
        [[0.0982, 0.0855, 0.1068], [0.1028, 0.1822, 0.1422], [0.1233, 0.0952, 0.1076], [0.1002, 0.1601, 0.1195]],
    ),
}


@pytest.fixture(autouse=True)
def _small_mixer(monkeypatch) -> None:
    monkeypatch.setattr(tapir_network, "BLOCKS", BLOCKS)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[int, Path]:
    """Weights by pyramid level, as `vosflow.datasets.convert` leaves them."""
    folder = tmp_path_factory.mktemp("tapir")
    paths = {level: folder / f"{level}.safetensors" for level in (0, 1)}
    for level, path in paths.items():
        modules = haiku_weights(tapir_shapes(level))
        modules["tapir/~/conv_stats_conv2"] = {"w": np.zeros((3, 3, 1, 1), np.float32)}  # which no version runs
        tensors = {f"params/{module}/{leaf}": v for module, leaves in modules.items() for leaf, v in leaves.items()}
        save_file(tensors, path)
    return paths


def make(path: Path, **chosen: object) -> Tapir:
    return loaded(Tapir, Checkpoint("mine", path, path.name), **chosen)


@pytest.fixture(scope="module")
def tracker(files) -> Tapir:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tapir_network, "BLOCKS", BLOCKS)
        return make(files[0])


@pytest.mark.parametrize("level, causal", GOLDEN)
def test_as_in_haiku(files, level, causal):
    positions, probabilities = GOLDEN[level, causal]
    tracker, clip = make(files[level], causal=causal), Clip.of_array(moving_texture())
    for threshold in (0.1, 0.25):
        tracker.settings = TapirSettings(visibility_threshold=threshold)
        tracks = tracker.track(clip, QUERIES, Artefacts())
        assert tracks.positions == pytest.approx(np.array(positions), abs=2e-3)
        assert tracks.positions.dtype == np.float32
        assert tracks.visible.tolist() == (np.array(probabilities) > threshold).tolist()


def test_points_do_not_influence_each_other(tracker, monkeypatch):
    clip = Clip.of_array(moving_texture())
    together = tracker.track(clip, QUERIES, Artefacts())
    monkeypatch.setattr("vosflow.trackers.sam_pt.points.tap.POINTS_AT_ONCE", 2)
    monkeypatch.setattr(tapir_network, "FRAMES_AT_ONCE", 3)
    monkeypatch.setattr("vosflow.trackers.sam_pt.points.tap.FRAMES_AT_ONCE", 3)
    order = [2, 0, 1]
    in_parts = tracker.track(clip, QUERIES[order], Artefacts())
    assert in_parts.positions == pytest.approx(together.positions[:, order], abs=1e-3)
    assert np.array_equal(in_parts.visible, together.visible[:, order])
    nothing = tracker.track(clip, np.empty((0, 3), np.float32), Artefacts())
    assert nothing.positions.shape == (4, 0, 2) and nothing.visible.shape == (4, 0)


def test_features_are_computed_once_per_frame(files, tmp_path):
    store, frames = ArtefactStore(tmp_path, gigabytes=1), moving_texture(2)
    clip, queries = Clip.of_array(frames), QUERIES[:1]
    first, cold = make(files[0]), Artefacts(store)
    tracks = first.track(clip, queries, cold)
    assert cold.counts == {"point_features": {"made": 2, "reused": 0}}
    first.track(clip.reversed().part(0, 1), queries, cold)
    assert cold.counts == {"point_features": {"made": 2, "reused": 0}}, "those of the last clip are at hand"
    warm = Artefacts(store)
    again = make(files[0]).track(clip, queries, warm)
    assert warm.counts == {"point_features": {"made": 0, "reused": 2}}
    other = Artefacts(store)
    make(files[1]).track(clip.part(0, 1), queries, other)
    assert other.counts == {"point_features": {"made": 1, "reused": 0}}, "other weights are another key"
    assert again.positions.tobytes() == tracks.positions.tobytes()
    without = make(files[0]).track(clip, queries, Artefacts())
    assert without.positions.tobytes() == tracks.positions.tobytes()


def test_groups_and_windows_share_features_without_a_cache(files):
    """Each frame is encoded once, and what is shared has the bits of what is computed."""
    tracker, alone, clip = make(files[0]), make(files[0]), Clip.of_array(moving_texture(3))
    encode, encoded = tracker._network.encode, []
    tracker._network.encode = lambda frame: encoded.append(len(frame)) or encode(frame)
    for start, queries in ((0, QUERIES[:1]), (0, QUERIES[:1] + 1), (1, QUERIES[:1])):
        part = clip.part(start, start + 2)
        shared = tracker.track(part, queries, Artefacts())
        alone._digests = []
        computed = alone.track(part, queries, Artefacts())
        assert shared.positions.tobytes() == computed.positions.tobytes()
        assert np.array_equal(shared.visible, computed.visible)
    assert encoded == [1] * 3


def test_features_of_another_clip_are_let_go_first(files, monkeypatch):
    """Those of two long clips may be more than a GPU holds."""
    tracker, clip = make(files[0]), Clip.of_array(moving_texture(3))
    tracker.track(clip.part(0, 2), QUERIES[:1], Artefacts())
    (held, _), encode = map(weakref.ref, tracker._features), Tapir._encode_frame
    alive = []
    monkeypatch.setattr(
        Tapir, "_encode_frame", lambda self, *given: alive.append(held() is not None) or encode(self, *given)
    )
    tracker.track(clip.part(1, 3), QUERIES[:1], Artefacts())
    (held, _) = map(weakref.ref, tracker._features)
    tracker.track(clip.part(0, 1), QUERIES[:1], Artefacts())
    assert alive == [True, False]


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_what_is_causal_sees_no_later_frames(files, causal):
    network = make(files[1], causal=causal)._network
    generator = torch.Generator().manual_seed(0)
    high, low = (torch.randn(6, side, side, c, generator=generator) / c**0.5 for side, c in ((64, 128), (32, 256)))
    queries = torch.tensor([[1.0, 100, 90], [0, 30, 200]])
    before, _ = network.track(high, low, queries)
    high[4:], low[4:] = high[4:].flip(0), low[4:].flip(1)
    after, _ = network.track(high, low, queries)
    unchanged = torch.isclose(before, after, atol=1e-4).all(-1).all(0)
    assert unchanged[:2].all() or causal is False
    assert unchanged[:4].all() == causal and not unchanged[4:].any()


# ---- its parts ------------------------------------------------------------------------------------------------------


def read_at(grid: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear between cells whose centres are whole numbers, 0 outside. [h, w, C] -> [C]."""
    found = np.zeros(grid.shape[-1])
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
                found += grid[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return found


@given(st.integers(0, 1000), st.floats(-9, 17), st.floats(-9, 15))
@settings(max_examples=30)
def test_patches_are_read_between_cells(seed, x, y):
    generator = torch.Generator().manual_seed(seed)
    features, looks = torch.randn(2, 6, 8, 5, generator=generator), torch.randn(1, 2, 5, generator=generator)
    positions = torch.tensor([[[x, y], [4.3, 2.6]]])
    found = compare_patches(features, positions, looks)
    plain = [
        [
            read_at(features[t].numpy(), px - 0.5 + dx, py - 0.5 + dy) @ looks[0, t].numpy()
            for dy in range(-3, 4)
            for dx in range(-3, 4)
        ]
        for t, (px, py) in enumerate(positions[0].tolist())
    ]
    assert found.shape == (1, 2, 49)
    assert found[0].numpy() == pytest.approx(np.array(plain), abs=1e-3)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_soft_argmax(seed):
    heat = np.random.default_rng(seed).random((12, 16)) ** 8
    top = np.unravel_index(heat.argmax(), heat.shape)
    near = [(y, x) for y in range(12) for x in range(16) if (y - top[0]) ** 2 + (x - top[1]) ** 2 < 25]
    total = sum(heat[cell] for cell in near)
    plain = [sum((x + 0.5) * heat[y, x] for y, x in near) / total, sum((y + 0.5) * heat[y, x] for y, x in near) / total]
    assert soft_argmax(torch.from_numpy(heat)).tolist() == pytest.approx(plain)


def test_features_under_queries():
    """At a cell's centre they are the cell's, on the query's own frame; beyond the border, those of the border."""
    features = torch.randn(3, 32, 32, 4, generator=torch.Generator().manual_seed(0))
    cell = SIDE / 32
    queries = torch.tensor([[1, 5.5 * cell, 7.5 * cell], [2, 6 * cell, 7.5 * cell], [0, 0, 0]])
    between = (features[2, 7, 5] + features[2, 7, 6]) / 2
    assert torch.allclose(features_at(features, queries), torch.stack([features[1, 7, 5], between, features[0, 0, 0]]))


# ---- weights --------------------------------------------------------------------------------------------------------


def test_the_authors_torch_file_loads(tmp_path, files):
    """Some names of tapir_checkpoint_panning.pt; all others follow from what Haiku's become."""
    network = make(files[0])._network
    names = set(network.state_dict())
    assert {
        "resnet_torch.initial_conv.weight",
        "resnet_torch.block_groups.3.blocks.0.proj_conv.weight",
        "resnet_torch.block_groups.0.blocks.1.bn_1.bias",
        "torch_cost_volume_track_mods.occ_out.weight",
        "torch_pips_mixer.blocks.1.conv_channels_mixer.mlp2_up.weight",
        "torch_pips_mixer.blocks.0.mlp1_up_1.bias",
        "torch_pips_mixer.layer_norm.weight",
    } <= names and "torch_pips_mixer.layer_norm.bias" not in names
    torch.save(network.state_dict(), tmp_path / "tapir.pt")
    clip, queries = Clip.of_array(moving_texture(1)), QUERIES[:1]
    theirs = make(tmp_path / "tapir.pt").track(clip, queries, Artefacts())
    assert theirs.positions.tobytes() == make(files[0]).track(clip, queries, Artefacts()).positions.tobytes()


def test_other_weights_are_refused(tmp_path, files):
    weights = make(files[0])._network.state_dict()
    torch.save({**weights, "extra_convs.blocks.0.conv.bias": torch.zeros(1024)}, tmp_path / "bootstapir.pt")
    with pytest.raises(
        VosflowError, match="does not fit TAPIR.*1 unexpected: extra_convs.blocks.0.conv.bias"
    ) as caught:
        make(tmp_path / "bootstapir.pt")
    assert "BootsTAPIR is another network" in caught.value.expected and caught.value.path.endswith("bootstapir.pt")
    save_file({"params/tap_net/~/occlusion_out/b": np.zeros(1, np.float32)}, tmp_path / "tapnet.safetensors")
    with pytest.raises(VosflowError, match="unexpected: params/tap_net/~/occlusion_out/b"):
        make(tmp_path / "tapnet.safetensors")
    with pytest.raises(VosflowError, match="missing"):
        make(tmp_path / "nowhere.pt")


def test_shapes_of_the_published_network(monkeypatch):
    """30.9 million parameters, 124 MB, as published: the panning weights have one level less than the causal ones."""
    monkeypatch.setattr(tapir_network, "BLOCKS", 12)
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in TapirNetwork(level, causal=False).parameters()) for level in (0, 1)]
    assert round(sizes[0] * 4 / 1e6) == 124 and sizes[1] - sizes[0] == 49 * 512
