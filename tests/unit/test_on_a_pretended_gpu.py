"""Whole trackers and a step of training where tensors say that they are on a GPU: nothing is left on the CPU, types are
those of a GPU's autocast, and masks are those of the CPU. What only a real GPU can tell is in tests/gpu.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.unit import plain_cotracker, tiny_points, tiny_rde, tiny_sam2, tiny_sams
from tests.unit.clips import make_videos
from tests.unit.pretend_cuda import CUDA, WAITS, pretend_cuda
from tests.unit.tiny_rde import stage_plan
from vosflow.artefacts import Artefacts
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.batches import Batches
from vosflow.trackers.rde import RdeTracker
from vosflow.trackers.rde import Settings as RdeSettings
from vosflow.trackers.rde.tracking import Tracking
from vosflow.trackers.sam2 import Sam2Tracker
from vosflow.trackers.sam2long import Sam2LongTracker
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.parts import load_part
from vosflow.trackers.sam_pt.points import cotracker_network, pips_network
from vosflow.trackers.sam_pt.settings import Settings as SamPtSettings
from vosflow.trackers.sam_pt.tracker import SamPtTracker
from vosflow.training.rde.trainer import Group, StageTraining
from vosflow.video import Video

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real GPU, see tests/gpu")
clip, checkpoint, sets = tiny_rde.clip, tiny_rde.checkpoint, tiny_rde.sets
FAST = {"speed": "fast", "compile": False, "policy": "youtube", "mem_every": 2, "top_k": 7}


def on_both(track, *args):
    """What `track` gives for "cpu" and for "cuda"."""
    on_cpu = track("cpu", *args)
    with pretend_cuda():
        return on_cpu, track("cuda", *args)


def test_devices_do_not_mix():
    with pretend_cuda():
        on_gpu = torch.ones(3, device="cuda")
        assert on_gpu.is_cuda and on_gpu.device == CUDA and (on_gpu + torch.tensor(1)).tolist() == [2, 2, 2]
        for mix in (lambda: on_gpu + torch.ones(3), lambda: torch.ones(3)[on_gpu.long()]):
            with pytest.raises(RuntimeError, match="same device"):
                mix()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(on_gpu)
        with torch.inference_mode(), pytest.raises(RuntimeError, match="TF32"):
            torch.conv1d(on_gpu[None, None], on_gpu[None, None])
        with torch.autocast("cuda", torch.float16):
            assert (on_gpu @ on_gpu).dtype == torch.float16 and on_gpu.log().dtype == torch.float32


@pytest.mark.parametrize("kind", [Sam2Tracker, Sam2LongTracker])
def test_sam2(kind, tmp_path):
    weights, videos = tiny_sam2.make_checkpoint(tmp_path), tiny_sam2.make_clip(tmp_path / "clip")

    def track(device: str, mode: str, precision: str | None) -> np.ndarray:
        video = tiny_sam2.video_of(videos, "late", late_objects=True)
        tracker = kind(kind.Settings(mode=mode, precision=precision), weights, device)
        return np.stack([masks for _, masks in tracker.track(video)])

    on_cpu, on_gpu = on_both(track, "fast", "float32")
    assert (on_cpu == on_gpu).mean() > 0.999
    with pretend_cuda():
        rounded = track("cuda", "fast", None)  # in bfloat16: masks of random weights are too ragged to be compared
    assert set(np.unique(rounded)) == set(np.unique(on_cpu))


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-4), ("bfloat16", 0.3)])
def test_rde(precision, most, clip, checkpoint):
    def track(device: str) -> torch.Tensor:
        tracker = RdeTracker(RdeSettings(**FAST, precision=precision), checkpoint, device)
        tracker.load()
        video = tiny_rde.video_of(clip, "later")
        tracking = Tracking(tracker._network, tracker._computing, video, tracker.settings)
        found = []
        for index, p in tracking.run():
            if index > 5:  # after the last prompt the host waits for nothing
                assert not WAITS
            tracking.frame.label_map(p, tracking.ids)
            found.append(p)
            if index == 5:
                WAITS.clear()
        return torch.cat([p.cpu().flatten() for p in found])

    on_cpu, on_gpu = on_both(track)
    assert (on_cpu - on_gpu).abs().mean() < most and torch.isfinite(on_gpu).all()


def test_label_maps_of_rde_arrive(clip, checkpoint):
    def track(device: str) -> np.ndarray:
        tracker = RdeTracker(RdeSettings(**FAST, precision="float32"), checkpoint, device)
        return np.stack([label_map for _, label_map in tracker.track(tiny_rde.video_of(clip))])

    on_cpu, on_gpu = on_both(track)
    assert (on_cpu == on_gpu).mean() > 0.999


def test_memory_that_runs_out_halves_what_is_done_at_once(clip):
    def function(part):
        if len(part) > 1:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")
        return list(part)

    with pretend_cuda():
        video = tiny_rde.video_of(clip)
        assert Batches(4, "objects", video).run(function, range(4)) == [0, 1, 2, 3]
    assert [remark.partition(":")[0] for remark in video.remarks] == [
        f"out of memory with {count} objects at once" for count in (4, 2)
    ]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sam_pt(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(pips_network, "WIDTH", 48)
    monkeypatch.setattr(pips_network, "DEPTH", 2)
    torch.manual_seed(3)
    state = tiny_points.scale_(pips_network.PipsNetwork(4), {"to_delta.5.": 0.008, "vis_predictor": 20.0})
    torch.save(state, tmp_path / "pips.pth")
    sam = tiny_sams.save(tiny_sams.make_sam("ViT", hq=True), tmp_path / "sam.pth")
    weights = {"sam": Checkpoint("own", sam, "0"), "point_tracker": Checkpoint("own", tmp_path / "pips.pth", "1")}
    settings = SamPtSettings(
        point_tracker="pips",
        point_tracker_settings={"iters": 1},
        sam="hq_vit_b",
        sam_iou_threshold=-1e9,
        iterative_refinement_iterations=2,
        longest_size=128,
        negative_points_per_mask=2,
        precision=precision,
    )
    video = Video.of(make_videos(tmp_path, {"boxes": 3}, 2), "boxes")

    def track(device: str) -> np.ndarray:
        return np.stack([masks for _, masks in SamPtTracker(settings, weights, device).track(video)])

    on_cpu, on_gpu = on_both(track)
    assert (on_cpu == on_gpu).mean() > (0.99 if precision == "float32" else 0.8)


def test_points_that_are_tracked_together(tmp_path, monkeypatch):
    monkeypatch.setattr(cotracker_network, "WIDTH", 32)
    monkeypatch.setattr(cotracker_network, "DEPTH", 2)
    state = plain_cotracker.make_weights(cotracker_network.CoTrackerNetwork(8, 4))
    torch.save({"model": state}, tmp_path / "own.pth")
    frames, queries = tiny_points.make_frames(6, 72, 96), np.float32([[0, 30, 40], [2, 50.5, 20.25]])

    def track(device: str):
        kind = load_part("point_tracker", "cotracker")
        weights = {"point_tracker": Checkpoint("own", tmp_path / "own.pth", "0")}
        tracker = kind(kind.Settings(interp_shape=(64, 96)), weights, device)
        tracker.load()
        return tracker.track(Clip.of_array(frames), queries, Artefacts())

    tiny_points.assert_same(*on_both(track))


def test_a_step_of_training_in_float16(sets, tmp_path, monkeypatch):
    scaler = torch.amp.GradScaler  # which begins with 2**16, where gradients of this network overflow
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**6, enabled=enabled))
    torch.save(tiny_rde.make_weights(8, 16), tmp_path / "before.pth")
    plan = stage_plan(sets, 3, str(tmp_path / "before.pth"), precision="float16", iterations=2, batch_size=1)
    numbers, gradients = {}, {}

    def train(device: str) -> None:
        training = StageTraining(plan, tmp_path / device, Group(device=device))
        numbers[device] = training.update(next(training._batches(1)))
        gradients[device] = torch.cat([weight.grad.cpu().flatten() for weight in training.step.parameters()])
        training.save()

    on_both(train)
    assert numbers["cuda"] == pytest.approx(numbers["cpu"], rel=0.05, abs=1e-3)
    assert 0.8 < torch.cosine_similarity(gradients["cpu"], gradients["cuda"], dim=0) < 0.999999
    again = StageTraining(plan, tmp_path / "cuda", Group())  # what was trained on a GPU goes on without one
    assert again.iteration == 1
