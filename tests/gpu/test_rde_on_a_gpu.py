"""RDE-VOS on a GPU: exact close to the CPU, fast close to exact, objects and frames together. Skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.tiny_rde import FIRST, make_clip, make_weights, save_checkpoint, video_of
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.masks import read_label_map
from vosflow.method import Method
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde import RdeTracker, Settings
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.trackers.rde.tracking import Tracking

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]
SMALL = {"policy": "youtube", "mem_every": 2, "top_k": 7}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_checkpoint(make_weights(), tmp_path_factory.mktemp("weights") / "narrow.pth")


def probabilities(clip: Path, prompts: str, checkpoint: Checkpoint, device: str, **settings: object) -> torch.Tensor:
    """[frames x ..., flat] of the whole clip."""
    tracker = RdeTracker(Settings(**SMALL, **settings), checkpoint, device)
    tracker.load()
    tracking = Tracking(tracker._network, tracker._computing, video_of(clip, prompts), tracker.settings)
    return torch.cat([p.cpu().flatten() for _, p in tracking.run()])


@pytest.mark.parametrize("prompts", FIRST)
def test_exact_in_float32_is_close_to_the_cpu(prompts: str, clip: Path, checkpoint: Checkpoint) -> None:
    on_cpu, on_gpu = (probabilities(clip, prompts, checkpoint, device) for device in ("cpu", "cuda"))
    assert (on_cpu - on_gpu).abs().max() < 1e-4


@pytest.mark.parametrize("prompts", FIRST)
def test_fast_is_close_to_exact(prompts: str, clip: Path, checkpoint: Checkpoint) -> None:
    exact = probabilities(clip, prompts, checkpoint, "cuda")
    assert (exact - probabilities(clip, prompts, checkpoint, "cuda", speed="fast")).abs().mean() < 0.05
    in_float32 = probabilities(clip, prompts, checkpoint, "cuda", speed="fast", precision="float32")
    assert (exact - in_float32).abs().max() < 1e-4


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
