"""SuperGlue as a point tracker: both networks, and which matches become points of a mask."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points import superglue_network
from vosflow.trackers.sam_pt.points.superglue import SuperGlue, SuperGlueSettings, to_gray
from vosflow.trackers.sam_pt.points.superglue_network import Keypoints, assign, sample_descriptors, suppress_neighbours

HEIGHT, WIDTH = 40, 60


def weights_by_name(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Deterministic weights that depend on names and shapes only."""
    weights = {}
    for name, like in network.state_dict().items():
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(like.shape)
        noise = torch.from_numpy(np.asarray(noise, np.float32))
        if name.endswith("num_batches_tracked") or name == "bin_score":
            weights[name] = like.clone()
        elif name.endswith("running_var"):
            weights[name] = 0.5 + noise.abs()
        elif like.ndim > 1:
            weights[name] = noise * ((6 if "final" in name else 1.4) / like[0].numel() ** 0.5)
        else:
            weights[name] = 0.05 * noise
    return weights


def texture(seed: int = 0) -> torch.Tensor:
    """A gray image [104, 136]."""
    return torch.from_numpy(np.random.default_rng(seed).random((13, 17)).repeat(8, 0).repeat(8, 1).astype(np.float32))


@pytest.fixture(scope="module")
def networks() -> tuple[superglue_network.SuperPoint, superglue_network.SuperGlue]:
    detector, matcher = superglue_network.SuperPoint().eval(), superglue_network.SuperGlue().eval()
    for network in (detector, matcher):
        network.load_state_dict(weights_by_name(network))
    return detector, matcher


GOLDEN = {
    "keypoints": (424, 413),
    "positions": [[8.0, 4.0], [16.0, 4.0], [24.0, 4.0]],
    "scores": [0.036561, 0.03079, 0.039054],
    "descriptor": [-0.061314, -0.070047, 0.091967],
    "matches": 70,
    "pairs": [[0, 0], [4, 2], [10, 5], [14, 14], [30, 15], [32, 33], [34, 35], [41, 40]],
    "probabilities": [0.005702, 0.00631, 0.007209, 0.004918, 0.00711, 0.003765, 0.003575, 0.003588],
}


@torch.no_grad()
def test_networks_agree_with_another_implementation(networks):
    """The numbers are those of transformers 5.23 with the same weights (its heads' channels rearranged, keypoints near
    the right and lower border removed as the paper has it)."""
    detector, matcher = networks
    image, moved = texture(), texture().roll((-3, -5), (0, 1))
    first, second = (detector.detect(pixels, 3, 0.015, 4) for pixels in (image, moved))
    assert (len(first.positions), len(second.positions)) == GOLDEN["keypoints"]
    assert first.positions[:3].tolist() == GOLDEN["positions"]
    assert first.scores[:3].tolist() == pytest.approx(GOLDEN["scores"], abs=1e-5)
    assert first.descriptors[0, :3].tolist() == pytest.approx(GOLDEN["descriptor"], abs=1e-5)
    pairs, probabilities = matcher.match(first, second, 20, 0.0)
    assert pairs.tolist()[: len(GOLDEN["pairs"])] == GOLDEN["pairs"] and len(pairs) == GOLDEN["matches"]
    assert probabilities.tolist()[: len(GOLDEN["pairs"])] == pytest.approx(GOLDEN["probabilities"], abs=1e-4)


@torch.no_grad()
def test_threshold_and_symmetry(networks):
    detector, matcher = networks
    first, second = (detector.detect(texture(seed), 3, 0.015, 4) for seed in (0, 1))
    pairs, probabilities = matcher.match(first, second, 20, 0.0)
    strict, _ = matcher.match(first, second, 20, float(probabilities.median()))
    assert len(pairs) > 2 and strict.tolist() == pairs[probabilities > probabilities.median()].tolist()
    assert len(set(pairs[:, 0].tolist())) == len(set(pairs[:, 1].tolist())) == len(pairs), "nobody is matched twice"
    nothing = replace(first, positions=first.positions[:0], scores=first.scores[:0], descriptors=first.descriptors[:0])
    for one, other in ((first, nothing), (nothing, second), (nothing, nothing)):
        pairs, probabilities = matcher.match(one, other, 20, 0.0)
        assert pairs.shape == (0, 2) and probabilities.shape == (0,)


def test_only_maxima_survive():
    """Against the definition: passes that look at each pixel's square."""
    heat = torch.rand(1, 20, 24, generator=torch.Generator().manual_seed(0))
    radius = 3

    def square(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    values, kept = heat[0].numpy(), np.zeros((20, 24), bool)
    for _ in range(3):
        hidden = np.zeros_like(kept)
        for y, x in np.argwhere(kept):
            hidden[square(y, x)] = True
        rest = np.where(hidden, 0, values)
        kept |= np.array([[rest[y, x] == rest[square(y, x)].max() for x in range(24)] for y in range(20)]) & ~hidden
    found = suppress_neighbours(heat, radius)[0].numpy()
    assert np.array_equal(found, np.where(kept, values, 0)) and 3 < kept.sum() < 40


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=20)
def test_assignment(rows, columns, seed):
    """Against Sinkhorn's algorithm as one finds it in books: rows and columns of a matrix are scaled in turn."""
    scores = np.random.default_rng(seed).normal(0, 2, (rows, columns))
    plan = np.full((rows + 1, columns + 1), np.exp(1.0))
    plan[:-1, :-1] = np.exp(scores)
    by_row = np.r_[np.ones(rows), columns] / (rows + columns)
    by_column = np.r_[np.ones(columns), rows] / (rows + columns)
    for _ in range(20):
        plan *= (by_row / plan.sum(1))[:, None]
        plan *= by_column / plan.sum(0)
    found = assign(torch.from_numpy(scores), torch.tensor(1.0), 20).numpy()
    assert found == pytest.approx(plan[:-1, :-1] * (rows + columns), abs=1e-5)


def test_descriptors_of_the_first_and_the_last_cell():
    coarse = torch.nn.functional.normalize(torch.randn(1, 256, 4, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    found = sample_descriptors(coarse, torch.tensor([[3.5, 3.5], [47.0, 31.0]]))
    assert torch.allclose(found, torch.stack([coarse[0, :, 0, 0], coarse[0, :, -1, -1]]), atol=1e-5)


def test_gray():
    assert (to_gray(np.array([[[255, 0, 0], [10, 20, 30]]], np.uint8), "cpu") * 255).tolist() == [[76, 18]]


# ---- which matches become points ------------------------------------------------------------------------------------


class Scripted(SuperGlue):
    """Keypoints and matches as written down; counts how often it looks."""

    def __init__(self, keypoints: list, matches: dict, compat: str = "published") -> None:
        super().__init__(SuperGlueSettings(compat=compat), {}, "cpu")
        self._detector, self._matcher, self.calls = self, self, []
        self._at, self._pairs = keypoints, matches

    def detect(self, image: torch.Tensor, *_: object) -> Keypoints:
        frame = int(image[0, 0] * 255 + 0.5)
        positions = torch.tensor(self._at[frame]).float().reshape(-1, 2)
        return Keypoints(positions, torch.full((len(positions),), float(frame)), torch.empty(0), HEIGHT, WIDTH)

    def match(self, first: Keypoints, second: Keypoints, iterations: int, threshold: float):
        assert (iterations, threshold) == (20, 0.2)
        pair = int(first.scores[0]), int(second.scores[0])
        self.calls.append(pair)
        return torch.tensor(self._pairs[pair]).long().reshape(-1, 2), None


def gray_clip(frames: int) -> Clip:
    """Frames whose brightness, as `to_gray` has it, is their number."""
    shades = np.arange(1, frames + 1, dtype=np.uint8)[:, None, None, None]
    return Clip.of_array(np.broadcast_to(shades, (frames, HEIGHT, WIDTH, 3)))


LEFT = np.zeros((1, HEIGHT, WIDTH), bool)
LEFT[:, :, :30] = True
# Of four keypoints on frame 0, two are in the left half; on frame 1, the second has crossed over, and so has the third.
KEYPOINTS = [[[10, 10], [20, 20], [40, 10], [50, 20]], [[11, 11], [31, 20], [25, 10], [51, 21]]]
MATCHES = {(0, 1): [[0, 0], [1, 1], [2, 2], [3, 3]]}


def chance(objects: int = 1, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, k]) for k in range(objects)]


def drawn(tracks, frame: int) -> set[tuple[float, float]]:
    return {tuple(point) for point in tracks.positions[frame][tracks.visible[frame]].tolist()}


def test_published_takes_targets_where_the_mask_was():
    tracker = Scripted(KEYPOINTS, MATCHES)
    tracks = tracker.track_masks(gray_clip(2), LEFT, [0], 8, chance())
    assert tracks.positions.shape == (2, 8, 2) and tracks.positions.dtype == np.float32
    assert not tracks.visible[0].any() and (tracks.positions[0] == -1).all()
    assert tracks.visible[1].sum() == 2, "as many as there are matches"
    assert drawn(tracks, 1) <= {(11, 11), (25, 10)} and (tracks.positions[1][~tracks.visible[1]] == -1).all()
    outside = tracker.track_masks(gray_clip(2), ~LEFT, [0], 8, chance())
    assert drawn(outside, 1) <= {(31, 20), (51, 21)} and tracker.calls == [(0, 1)], "matches are kept"


def test_published_draws_with_replacement():
    many = [[x, y] for x in range(6, 26) for y in (6, 16)]
    tracker = Scripted([many, many], {(0, 1): [[k, k] for k in range(40)]})
    tracks = tracker.track_masks(gray_clip(2), LEFT, [0], 30, chance())
    assert tracks.visible[1].all() and len(drawn(tracks, 1)) < 30


def test_fixed_takes_matches_of_what_the_mask_holds():
    tracker = Scripted(KEYPOINTS, MATCHES, "fixed")
    tracks = tracker.track_masks(gray_clip(2), LEFT, [0], 3, chance())
    assert drawn(tracks, 0) == {(10, 10), (20, 20)} and drawn(tracks, 1) == {(11, 11), (31, 20)}
    assert tracks.visible.tolist() == [[True, True, False]] * 2
    outside = tracker.track_masks(gray_clip(2), ~LEFT, [0], 1, chance())
    assert drawn(outside, 1) < {(25, 10), (51, 21)}


def test_masks_on_different_frames():
    keypoints = [*KEYPOINTS, [[12, 12]]]
    matches = {**MATCHES, (0, 2): [[1, 0]], (2, 0): [[0, 1]], (2, 1): []}
    tracker = Scripted(keypoints, matches, "fixed")
    masks = LEFT.repeat(2, 0)
    tracks = tracker.track_masks(gray_clip(3), masks, [0, 2], 1, chance(2))
    assert sorted(tracker.calls) == [(0, 1), (0, 2), (2, 0), (2, 1)]
    assert tracks.visible[:, 1].tolist() == [True, False, True]
    assert tracks.positions[0, 1].tolist() == [20, 20] and tracks.positions[2].tolist() == [[12, 12], [12, 12]]


def test_chance_comes_from_the_generators_alone():
    many = [[x, y] for x in range(6, 26) for y in (6, 16)]
    matches = {(0, 1): [[k, k] for k in range(40)]}

    def positions(seed: int) -> np.ndarray:
        tracker = Scripted([many, many], matches, "fixed")
        np.random.seed(seed + 7)  # NumPy's global generator must not matter
        return tracker.track_masks(gray_clip(2), LEFT, [0], 5, chance(seed=seed)).positions

    assert np.array_equal(positions(1), positions(1)) and not np.array_equal(positions(1), positions(2))


def test_nothing_to_match():
    tracker = Scripted([[[10, 10]], [[40, 10]]], {(0, 1): [[0, 0]]})
    tracks = tracker.track_masks(gray_clip(2), np.zeros_like(LEFT), [0], 2, chance())
    assert not tracks.visible.any() and (tracks.positions == -1).all()
    with pytest.raises(VosflowError, match="too small for SuperGlue"):
        tracker.track_masks(Clip.of_array(np.zeros((2, 8, 60, 3), np.uint8)), LEFT, [0], 2, chance())


# ---- weights --------------------------------------------------------------------------------------------------------


def loaded(tmp_path, detector: dict, matcher: dict) -> SuperGlue:
    checkpoints = {}
    for role, weights in (("keypoints", detector), ("point_tracker", matcher)):
        torch.save(weights, tmp_path / f"{role}.pth")
        checkpoints[role] = Checkpoint(role, tmp_path / f"{role}.pth", role)
    tracker = SuperGlue(SuperGlueSettings(), checkpoints, "cpu")
    tracker.load()
    return tracker


def test_published_files_load(networks, tmp_path):
    """As the publisher saved them: some names of the files, and no counters."""
    detector, matcher = (network.state_dict() for network in networks)
    assert {"conv1a.weight", "conv4b.bias", "convPa.weight", "convPb.bias", "convDa.bias", "convDb.weight"} <= set(
        detector
    )
    assert matcher["kenc.encoder.0.weight"].shape == (32, 3, 1) and matcher["kenc.encoder.12.bias"].shape == (256,)
    assert matcher["gnn.layers.17.attn.proj.2.weight"].shape == (256, 256, 1)
    assert matcher["gnn.layers.0.attn.merge.bias"].shape == (256,) and matcher["bin_score"].shape == ()
    assert matcher["gnn.layers.0.mlp.1.running_var"].shape == (512,) and "gnn.layers.0.mlp.3.weight" in matcher
    assert len(detector) == 24 and matcher["final_proj.weight"].shape == (256, 256, 1)
    without = {name: value for name, value in matcher.items() if "num_batches" not in name}
    tracker = loaded(tmp_path, detector, without)
    frames = (torch.stack([texture(), texture().roll(3, 1)])[..., None] * 255).byte().expand(-1, -1, -1, 3).numpy()
    masks = np.ones((1, 104, 136), bool)
    tracker.settings = SuperGlueSettings(match_threshold=0, keypoint_threshold=0.02)
    tracks = tracker.track_masks(Clip.of_array(frames), masks, [0], 4, chance())
    assert tracks.visible[1].any() and (tracks.positions[1][tracks.visible[1]] >= 4).all()


def test_other_weights_are_refused(networks, tmp_path):
    detector, matcher = (network.state_dict() for network in networks)
    with pytest.raises(VosflowError, match="does not fit SuperPoint .24 missing: conv1a.bias"):
        loaded(tmp_path, matcher, matcher)
    with pytest.raises(VosflowError, match="does not fit SuperGlue .*unexpected: conv1a.bias") as caught:
        loaded(tmp_path, detector, detector)
    assert caught.value.path.endswith("point_tracker.pth")
