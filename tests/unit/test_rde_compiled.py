"""RDE-VOS with its network compiled: whole graphs, few of them whatever the videos, and the same probabilities.

The graphs are captured and run as they are; what the compiler behind makes of them is tried on a GPU (tests/gpu).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.unit import threads, tiny_rde
from tests.unit.tiny_rde import FRAMES, video_of
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde import RdeTracker, Settings, compiling
from vosflow.trackers.rde.checkpoint import build_network
from vosflow.trackers.rde.computing import Computing
from vosflow.trackers.rde.network import Features, RdeNetwork
from vosflow.trackers.rde.tracking import Tracking

one_thread, clip, checkpoint = threads.one_thread, tiny_rde.clip, tiny_rde.checkpoint

SMALL = {"policy": "youtube", "mem_every": 2, "top_k": 7}
AS_ON_A_GPU = Computing("cpu", "float32", objects_at_once=8, frames_at_once=3, channels_last=True, compiles=True)
GRAPHS = 8  # encode_frames and SAM's keys one each, encode_values, decode and SAM's values two each


def shallow(checkpoint: Checkpoint) -> RdeNetwork:
    """The network with the first block of each stage alone: to capture one takes time for each of its layers."""
    network, _ = build_network(checkpoint, "compress")
    keys, values = network.key_encoder, network.value_encoder
    for blocks in (keys.res2, keys.layer2, keys.layer3, values.layer1, values.layer2, values.layer3):
        del blocks[1:]
    return AS_ON_A_GPU.prepare(network)


def test_eight_graphs_fit_all_videos_and_change_nothing(clip, checkpoint, monkeypatch):
    """1 to 3 objects, two sizes of frames, a last batch of one frame, memories from SAM and not."""
    monkeypatch.setattr(compiling, "SIZE", (96, 160))
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # it is for CPUs, and takes large tensors alone
    network, compiled = shallow(checkpoint), shallow(checkpoint)
    graphs = CompileCounter()
    compiling.compile_parts(compiled, AS_ON_A_GPU, graphs)
    assert graphs.frame_count == GRAPHS
    for prompts, short_side in (("late", None), ("together", 90)):
        settings = Settings(short_side=short_side, **SMALL)
        tracked = [
            [p for _, p in Tracking(one, AS_ON_A_GPU, video_of(clip, prompts), settings).run()]
            for one in (network, compiled)
        ]
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(*tracked, strict=True))
    assert graphs.frame_count == GRAPHS


def test_a_last_batch_that_was_filled_up_gets_smaller_where_memory_runs_out(clip, checkpoint, monkeypatch):
    calls, encode = [], RdeNetwork.encode_frames

    def encode_thrice(self: RdeNetwork, images: torch.Tensor) -> Features:
        calls.append(len(images))
        if calls == [3, 3, 3, 3]:
            raise torch.OutOfMemoryError
        return encode(self, images)

    monkeypatch.setattr(RdeNetwork, "encode_frames", encode_thrice)
    network, video = build_network(checkpoint, "compress")[0], video_of(clip)
    computing = Computing("cpu", frames_at_once=3, compiles=True)
    tracked = Tracking(network, computing, video, Settings(mode="compress", mem_every=4)).run()
    assert [index for index, _ in tracked] == list(range(FRAMES))
    assert calls == [3, 3, 3, 3, 1, 1, 1]
    assert video.remarks == ["out of memory with 3 frames at once: went on with 1"]


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        ({}, []),
        ({"speed": "fast"}, ["cuda"]),
        ({"speed": "fast", "compile": False}, []),
        ({"compile": True}, ["cpu", "cuda"]),
    ],
)
def test_where_the_network_is_compiled(settings, devices):
    assert [device for device in ("cpu", "cuda") if Settings(**settings).compiles_on(device)] == devices
    assert any("compiled" in note for note in Settings(**settings).notes()) == bool(devices)


def test_a_compiled_network_is_remarked_in_the_record(clip, checkpoint, monkeypatch):
    monkeypatch.setattr(compiling, "SIZE", (64, 80))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    masks = {}
    for chosen in (False, True):
        tracker = RdeTracker(Settings(compile=chosen, **SMALL), checkpoint, "cpu")
        video = video_of(clip)
        masks[chosen] = dict(tracker.track(video))
        assert video.remarks == ["the network was compiled by torch.compile"][: int(chosen)]
    assert all(np.array_equal(masks[True][frame], label_map) for frame, label_map in masks[False].items())


def test_what_cannot_be_compiled_is_an_error_that_says_what_to_do(checkpoint, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    with pytest.raises(VosflowError, match="Failed to find C compiler") as error:
        RdeTracker(Settings(compile=True), checkpoint, "cpu").load()
    assert "g++" in str(error.value) and "compile: false" in str(error.value)


def test_too_little_memory_to_compile_is_an_error_that_says_what_to_do(checkpoint, monkeypatch):
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fail)
    with pytest.raises(VosflowError, match="out of memory on cpu while .* compiled .tried to allocate 2 GiB") as error:
        RdeTracker(Settings(compile=True), checkpoint, "cpu").load()
    assert "compile: false" in str(error.value)
