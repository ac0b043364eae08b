"""RDE-VOS on a GPU: exact close to the CPU, fast close to exact, compiled once, objects and frames together. Skipped
without one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit import tiny_rde
from tests.unit.tiny_rde import FIRST, video_of
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.masks import read_label_map
from vosflow.method import Method
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde import RdeTracker, Settings
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.trackers.rde.tracking import Tracking

clip, checkpoint = tiny_rde.clip, tiny_rde.checkpoint

SMALL = {"policy": "youtube", "mem_every": 2, "top_k": 7}


def loaded(checkpoint: Checkpoint, device: str, **settings: object) -> RdeTracker:
    tracker = RdeTracker(Settings(**SMALL, **settings), checkpoint, device)
    tracker.load()
    return tracker


def track(tracker: RdeTracker, clip: Path, prompts: str) -> torch.Tensor:
    """Probabilities [frames x ..., flat] of the whole clip."""
    tracking = Tracking(tracker._network, tracker._computing, video_of(clip, prompts), tracker.settings)
    return torch.cat([p.cpu().flatten() for _, p in tracking.run()])


def probabilities(clip: Path, prompts: str, checkpoint: Checkpoint, device: str, **settings: object) -> torch.Tensor:
    """Of the whole clip, by a tracker of its own."""
    return track(loaded(checkpoint, device, **settings), clip, prompts)


@pytest.mark.parametrize("prompts", FIRST)
def test_exact_in_float32_is_close_to_the_cpu(prompts: str, clip: Path, checkpoint: Checkpoint) -> None:
    on_cpu, on_gpu = (probabilities(clip, prompts, checkpoint, device) for device in ("cpu", "cuda"))
    assert (on_cpu - on_gpu).abs().max() < 1e-4


@pytest.mark.parametrize("prompts", FIRST)
def test_fast_is_close_to_exact(prompts: str, clip: Path, checkpoint: Checkpoint) -> None:
    exact = probabilities(clip, prompts, checkpoint, "cuda")
    fast = {"speed": "fast", "compile": False}
    assert (exact - probabilities(clip, prompts, checkpoint, "cuda", **fast)).abs().mean() < 0.05
    in_float32 = probabilities(clip, prompts, checkpoint, "cuda", **fast, precision="float32")
    assert (exact - in_float32).abs().max() < 1e-4


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_compiled_when_loaded_and_never_again(precision: str, most: float, clip: Path, checkpoint: Checkpoint) -> None:
    """1 to 3 objects, two sizes of frames, one object alone; what is compiled rounds otherwise."""
    for short_side in (None, 90):
        settings = {"speed": "fast", "precision": precision, "short_side": short_side}
        compiled, plain = (loaded(checkpoint, "cuda", **settings, compile=on) for on in (True, False))
        with torch.compiler.set_stance("fail_on_recompile"):
            for prompts in FIRST:
                difference = (track(compiled, clip, prompts) - track(plain, clip, prompts)).abs()
                assert difference.mean() < most


@pytest.mark.parametrize("compiles", [False, True])
def test_the_host_waits_for_label_maps_alone(compiles: bool, clip: Path, checkpoint: Checkpoint) -> None:
    """After the prompts, nothing but fetching a label map makes the host wait for the GPU."""
    tracker = loaded(checkpoint, "cuda", speed="fast", compile=compiles)
    expected = track(tracker, clip, "together")
    tracking = Tracking(tracker._network, tracker._computing, video_of(clip, "together"), tracker.settings)
    frames = tracking.run()
    found = [next(frames)[1]]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _, p in frames:
            found.append(p)
            tracking.frame.label_map(p, tracking.ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (torch.cat([p.cpu().flatten() for p in found]) - expected).abs().mean() < 1e-3


def test_label_maps_arrive_whole_and_with_their_frames(clip: Path, checkpoint: Checkpoint) -> None:
    tracker = loaded(checkpoint, "cuda")
    video = video_of(clip, "late")
    tracking = Tracking(tracker._network, tracker._computing, video, tracker.settings)
    expected = [(index, tracking.frame.label_map(p, tracking.ids).cpu().numpy()) for index, p in tracking.run()]
    arrived = list(tracker.track(video))  # all of them are kept: none may lie where another one comes later
    assert [name for name, _ in arrived] == [video.frame_names[index] for index, _ in expected]
    assert all((one == other).mean() > 0.999 for (_, one), (_, other) in zip(arrived, expected, strict=True))


def test_too_many_objects_for_the_memory(clip: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch) -> None:
    decode = RdeNetwork.decode

    def limited(self: RdeNetwork, readout, features):
        if len(readout) > 1:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")  # a petabyte: truly out of memory
        return decode(self, readout, features)

    manifest = folder_manifest(clip / "frames", clip / "together")
    weights = {"id": "narrow", "path": str(checkpoint.path)}
    maps = {}
    for name in ("all", "limited"):
        if name == "limited":
            monkeypatch.setattr(RdeNetwork, "decode", limited)
        track_videos(Method.of("rde", SMALL, weights), manifest, ["clip"], tmp_path / name, device="cuda")
        files = sorted((tmp_path / name / "masks/clip").glob("*.png"))
        maps[name] = np.stack([read_label_map(path)[0] for path in files])
    record = json.loads((tmp_path / "limited/videos/clip.json").read_text())
    assert record["remarks"][-1].endswith("went on with 1") and record["device"] == torch.cuda.get_device_name()
    assert (maps["all"] == maps["limited"]).mean() > 0.999
