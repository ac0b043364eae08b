"""RAFT as a point tracker: what torchvision's whole network gives pair by pair, for less work.

Goldens made with the authors' own code are not in the repository. Against them (official names of parameters, random
weights, 3 frames of 128 x 160, 10 points) positions differed by 2e-5 pixels at most, and visibilities nowhere.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torchvision.models.optical_flow import raft_large, raft_small

from tests.unit import plain_points
from tests.unit.tiny_points import FLOAT_NOISE, assert_same, loaded, make_frames, scale_, track
from vosflow.artefacts import Artefacts, ArtefactStore
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower
from vosflow.trackers.sam_pt.points import raft as raft_module
from vosflow.trackers.sam_pt.points import raft_network
from vosflow.trackers.sam_pt.points.raft import Raft
from vosflow.trackers.sam_pt.settings import Settings

FRAMES = make_frames(4, 128, 134, seed=2)  # 134: padded by 1 pixel on either side
QUERIES = [(0, 0.1, 0.1), (1, 133, 127), (3, 60, 50)]
ITERS = 2


@pytest.fixture(scope="module")
def network():
    """RAFT whose flows are of some pixels, and whose running statistics are not those of a new network."""
    torch.manual_seed(7)
    network = raft_large().eval()
    for name, buffer in network.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.5, 1.5)
    scale_(network, {"flow_head.conv2": 4.0})
    return network


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    """Its weights by torchvision's names."""
    return _save(network.state_dict(), tmp_path_factory.mktemp("raft") / "ported.pth")


def _save(state, path):
    torch.save(state, path)
    return Checkpoint(path.stem, path, path.stem)


@pytest.fixture
def tracker(checkpoint):
    """A new one for each test: it keeps flows."""
    return loaded(Raft, checkpoint, iters=ITERS)


def test_tracks_are_those_of_whole_flows(network, tracker):
    tracks = track(tracker, FRAMES, QUERIES)
    for n, query in enumerate(QUERIES):
        with torch.no_grad():
            positions, visible = plain_points.both_ways(
                lambda part, xy: plain_points.raft(network, part, xy, ITERS), FRAMES, np.array(query, np.float32)
            )
        np.testing.assert_allclose(tracks.positions[:, n], positions, rtol=0, atol=FLOAT_NOISE)
        np.testing.assert_array_equal(tracks.visible[:, n], visible)
    moved = np.abs(np.diff(tracks.positions, axis=0)).max(axis=(0, 2))
    assert (moved > 0.1).all(), "the points rest, so the comparison says little"
    assert 0 < tracks.visible.mean() < 1


def test_pairs_may_share_calls_and_artefacts(checkpoint, monkeypatch):
    def tracked():
        return track(loaded(Raft, checkpoint, iters=ITERS), FRAMES, QUERIES[:1])

    expected = tracked()
    monkeypatch.setattr(raft_network, "_pairs_at_once", lambda features, device: 2)
    assert_same(tracked(), expected)
    monkeypatch.setattr(raft_module, "PAIRS_PER_ARTEFACT", 2)
    assert_same(tracked(), expected)


def test_flows_are_computed_once_and_backwards_only_if_need_be(checkpoint, tmp_path):
    clip = Clip.of_array(FRAMES)
    on_disk = ArtefactStore(tmp_path, gigabytes=1)

    def tracked(queries):
        artefacts, tracker = Artefacts(on_disk), loaded(Raft, checkpoint, iters=ITERS)
        return tracker.track(clip, np.array(queries, np.float32), artefacts), artefacts.counts["flow"]

    first, counts = tracked(QUERIES[:1])
    assert counts == {"made": 1, "reused": 0}
    again, counts = tracked(QUERIES[:1])
    assert counts == {"made": 0, "reused": 1}
    assert again.positions.tobytes() == first.positions.tobytes()
    _, counts = tracked(QUERIES)
    assert counts == {"made": 1, "reused": 1}, "the way back, and nothing else"


@pytest.fixture
def pairs(monkeypatch):
    """Stands in for the network: a flow that follows from the two frames. The numbers of pairs, call by call."""
    numbers = []

    def flows(network, frames, iters, device):
        numbers.append(len(frames) - 1)
        sums = [float(one.mean() - other.mean() / 2) for one, other in pairwise(frames)]
        return np.stack([np.full((*frames[0].shape[:2], 2), number, np.float32) for number in sums])

    monkeypatch.setattr(raft_network, "estimate_flows", flows)
    return numbers


def test_windows_that_overlap_share_flows(tracker, checkpoint, pairs):
    """Also without a disk, as windows of SAM-PT-reinit do where objects start again on frames of their own."""
    clip, query = Clip.of_array(make_frames(20, 128, 128)), np.array([(0, 40, 50)], np.float32)
    for window, made in [((0, 6), [5]), ((3, 9), [3]), ((3, 9), []), ((2, 8), []), ((1, 20), [1, 8, 2]), ((0, 20), [])]:
        pairs.clear()
        window = clip.part(*window)
        found = tracker.track(window, query, Artefacts())
        assert pairs == made
        anew = loaded(Raft, checkpoint, iters=ITERS).track(window, query, Artefacts())
        assert found.positions.tobytes() == anew.positions.tobytes()


def test_few_flows_are_kept(tracker, pairs, monkeypatch):
    """Those used last; with too little memory for all of a video's, they are computed again, and are the same."""
    monkeypatch.setattr(raft_module, "PAIRS_PER_ARTEFACT", 1)
    monkeypatch.setattr(raft_module, "KEPT_BYTES", 2 * 8 * 128 * 134 + 7)
    first = track(tracker, FRAMES, QUERIES[:1])
    assert pairs == [1] * 3 and len(tracker._kept) == 2
    again = track(tracker, FRAMES[1:], [(0, *first.positions[1, 0])])
    assert pairs == [1] * 3, "the last two were there"
    assert again.positions[:, 0].tolist() == first.positions[1:, 0].tolist()
    assert track(tracker, FRAMES, QUERIES[:1]).positions.tolist() == first.positions.tolist()
    assert pairs == [1] * 6 and len(tracker._kept) == 2
    for frames, made in ((FRAMES[1:3], 6), (FRAMES[:2], 7), (FRAMES[1:3], 7), (FRAMES[2:], 8)):
        track(tracker, frames, QUERIES[:1])
        assert len(pairs) == made, "what was used last stays"


def test_flows_of_other_frames_weights_or_iterations_are_others(tracker, checkpoint, tmp_path):
    artefacts = Artefacts(ArtefactStore(tmp_path, gigabytes=1))
    query = np.array(QUERIES[:1], np.float32)
    renamed = Checkpoint("same", checkpoint.path, "another sha256")
    for other in (tracker, loaded(Raft, checkpoint, iters=1), loaded(Raft, renamed, iters=ITERS)):
        other.track(Clip.of_array(FRAMES[:2]), query, artefacts)
    tracker.track(Clip.of_array(FRAMES[1:3]), query, artefacts)
    assert artefacts.counts["flow"] == {"made": 4, "reused": 0}


@pytest.mark.parametrize(("frames", "queries"), [(1, [(0, 5, 6)]), (2, [(1, 5, 6)]), (3, [])])
def test_short_clips_and_no_queries(tracker, frames, queries):
    tracks = track(tracker, FRAMES[:frames], queries)
    assert tracks.positions.shape == (frames, len(queries), 2)
    for n, (t, x, y) in enumerate(queries):
        assert tracks.positions[t, n].tolist() == [x, y]


def test_weights_by_the_authors_names_load(network, tracker, tmp_path):
    state = network.state_dict()
    original = {f"module.{name}": state[ported] for name, ported in original_names().items()}
    assert {ported for ported in original_names().values()} == state.keys()
    other = loaded(Raft, _save(original, tmp_path / "raft-things.pth"), iters=ITERS)
    assert_same(track(other, FRAMES[:3], QUERIES[:2]), track(tracker, FRAMES[:3], QUERIES[:2]))


def original_names() -> dict[str, str]:
    """Parameters of RAFT in princeton-vl/RAFT, and what they are called in torchvision."""
    names = {}

    def add(theirs: str, ours: str, *leaves: str) -> None:
        names.update({f"{theirs}.{leaf}": f"{ours}.{leaf}" for leaf in leaves or ("weight", "bias")})

    def norm(theirs: str, ours: str) -> None:
        add(theirs, ours, "weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    for theirs, ours in (("fnet", "feature_encoder"), ("cnet", "context_encoder")):
        normed = theirs == "cnet"  # the other one's normalisation has no parameters
        add(f"{theirs}.conv1", f"{ours}.convnormrelu.0")
        add(f"{theirs}.conv2", f"{ours}.conv")
        if normed:
            norm(f"{theirs}.norm1", f"{ours}.convnormrelu.1")
        for block in ("layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"):
            for i in (1, 2):
                add(f"{theirs}.{block}.conv{i}", f"{ours}.{block}.convnormrelu{i}.0")
                if normed:
                    norm(f"{theirs}.{block}.norm{i}", f"{ours}.{block}.convnormrelu{i}.1")
            if block in ("layer2.0", "layer3.0"):
                add(f"{theirs}.{block}.downsample.0", f"{ours}.{block}.downsample.0")
                if normed:
                    norm(f"{theirs}.{block}.norm3", f"{ours}.{block}.downsample.1")  # the same tensors twice
                    norm(f"{theirs}.{block}.downsample.1", f"{ours}.{block}.downsample.1")
    for theirs, ours in (("c1", "corr1"), ("c2", "corr2"), ("f1", "flow1"), ("f2", "flow2")):
        add(f"update_block.encoder.conv{theirs}", f"update_block.motion_encoder.conv{ours}.0")
    add("update_block.encoder.conv", "update_block.motion_encoder.conv.0")
    for gate in "zrq":
        for i in (1, 2):
            add(f"update_block.gru.conv{gate}{i}", f"update_block.recurrent_block.convgru{i}.conv{gate}")
    for i in (1, 2):
        add(f"update_block.flow_head.conv{i}", f"update_block.flow_head.conv{i}")
    add("update_block.mask.0", "mask_predictor.convrelu.0")
    add("update_block.mask.2", "mask_predictor.conv")
    return names


def test_weights_of_another_network_are_refused(tmp_path):
    with pytest.raises(VosflowError, match="(?s)small.pth.*does not fit RAFT.*missing.*of another shape"):
        loaded(Raft, _save(raft_small().state_dict(), tmp_path / "small.pth"))


@pytest.mark.parametrize("shape", [(127, 134), (128, 120)])
def test_small_frames_are_refused(tracker, shape):
    with pytest.raises(VosflowError, match="(?s)too small for RAFT.*2 x 2 places.*at least 128 pixels"):
        track(tracker, FRAMES[:, : shape[0], : shape[1]], QUERIES[:1])


def test_flow_is_computed_once_for_any_number_of_objects(tracker, checkpoint):
    """Also where nothing is kept on a disk."""
    settings = Settings(point_tracker="raft", point_tracker_mask_batch_size=1)
    artefacts = Artefacts()
    follow = PointFollower(settings, tracker, {"point_tracker": checkpoint}, artefacts, "video")
    queries = np.zeros((3, 1, 3), np.float32)
    queries[:, 0, 1:] = [(20, 20), (60, 50), (100, 90)]
    trajectories = follow(Clip.of_array(FRAMES), queries, np.ones((3, *FRAMES.shape[1:3]), bool), [1, 2, 3])
    assert artefacts.counts == {"flow": {"made": 1, "reused": 0}, "point_tracks": {"made": 1, "reused": 0}}
    alone = track(tracker, FRAMES, [(0, 60, 50)])
    np.testing.assert_array_equal(trajectories.positions[:, 1], alone.positions)
