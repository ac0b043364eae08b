"""SAM-PT on a GPU: its SAMs and whole videos close to the CPU, kept features of one device good for the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit import tiny_sams
from tests.unit.clips import make_videos
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.parts import load_part
from vosflow.trackers.sam_pt.sams.segment_anything import SegmentAnything
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.tracker import SamPtTracker
from vosflow.video import Video

WHICH = {  # name: (encoder, HQ) of a small one
    "vit_h": ("ViT", False),
    "hq_vit_h": ("ViT", True),
    "mobile_sam": ("TinyViT", False),
    "light_hq_tiny": ("TinyViT", True),
}
SIZE = (44, 70)
RNG = np.random.default_rng(7)
FRAME = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
POINTS = RNG.uniform(0, 44, (3, 5, 2)).astype(np.float32)
LABELS = np.array([[1, 1, 1, 0, 0]] * 3)
BOXES = np.array([[3, 5, 30, 33], [0, 0, 63, 40], [10, 12, 30, 34]], np.float32)


def own_sam(name: str, path: Path, device: str, precision: str = "float32") -> SegmentAnything:
    return load_part("sam", name)({"sam": Checkpoint("own", path, "0" * 64)}, device, precision)


@pytest.fixture(scope="module", params=WHICH)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(name of a SAM, weights of a small one)."""
    sam = tiny_sams.make_sam(*WHICH[request.param])
    return request.param, tiny_sams.save(sam, tmp_path_factory.mktemp("sam") / "sam.pth")


def test_float32_is_close_to_the_cpu(weights):
    on_cpu, on_gpu = (own_sam(*weights, device) for device in ("cpu", "cuda"))
    features = {name: value.numpy() for name, value in on_cpu.encode(FRAME).items()}
    encoded = on_gpu.encode(FRAME)
    for name, value in features.items():
        assert encoded[name].is_cuda
        np.testing.assert_allclose(encoded[name].cpu(), value, atol=1e-3)
    first = on_cpu.decode(features, SIZE, POINTS, LABELS)
    prompts = (POINTS, LABELS, BOXES, first.low_res)
    expected = on_cpu.decode(features, SIZE, *prompts)
    decoded = on_gpu.decode(features, SIZE, *prompts)  # features from the CPU, as arrays
    assert decoded.logits.is_cuda and decoded.low_res.is_cuda and decoded.iou.is_cuda
    np.testing.assert_allclose(decoded.logits.cpu(), expected.logits, atol=1e-3)
    np.testing.assert_allclose(decoded.iou.cpu(), expected.iou, atol=1e-4)


def test_bfloat16_is_close_to_float32(weights):
    exact, rounded = (own_sam(*weights, "cuda", precision) for precision in ("float32", "bfloat16"))
    features = rounded.encode(FRAME)
    assert {value.dtype for value in features.values()} == {torch.float32}
    assert 0 < (features["embedding"] - exact.encode(FRAME)["embedding"]).abs().max() < 0.5
    decoded, reference = (sam.decode(features, SIZE, POINTS, LABELS).logits for sam in (rounded, exact))
    assert 0 < (decoded - reference).abs().max() < 0.1 * reference.abs().max()


def test_proposals_are_close_to_those_of_the_cpu(tmp_path):
    sam = tiny_sams.make_sam("ViT", hq=False)
    tiny_sams.make_confident(sam)
    path = tiny_sams.save(sam, tmp_path / "sam.pth")
    on_cpu, on_gpu = (own_sam("vit_b", path, device).propose(FRAME, 3) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu.scores, on_cpu.scores, atol=1e-4)
    assert on_gpu.masks.shape == on_cpu.masks.shape == (3, *SIZE)


@pytest.mark.parametrize("reinit", [False, True])
def test_a_video_is_close_to_the_cpu(reinit, tmp_path):
    sam = tiny_sams.save(tiny_sams.make_sam("ViT", hq=False), tmp_path / "sam.pth")
    points = tmp_path / "points.pt"
    points.write_bytes(b"nothing: the toy needs none")
    checkpoints = {"sam": Checkpoint("own", sam, "0"), "point_tracker": Checkpoint("toy", points, "1")}
    settings = Settings(
        point_tracker="tests.unit.toy_sam_pt:ToyPoints",
        sam="vit_b",
        sam_iou_threshold=0.0,
        iterative_refinement_iterations=3,
        use_point_reinit=reinit,
    )
    video = Video.of(make_videos(tmp_path, {"boxes": 12}, 2), "boxes")
    on_cpu, on_gpu = (dict(SamPtTracker(settings, checkpoints, device).track(video)) for device in ("cpu", "cuda"))
    assert list(on_cpu) == list(on_gpu) == list(video.frame_names)
    assert np.mean([on_cpu[name] == on_gpu[name] for name in on_cpu]) > 0.99
