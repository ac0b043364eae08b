"""SAM 2 on a GPU: exact mode close to the CPU, fast mode close to exact, leased and recorded. Skipped without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vosflow.datasets.demo import render_clip
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.manifest import Manifest
from vosflow.masks import DAVIS_PALETTE
from vosflow.method import Method
from vosflow.trackers.sam2.frames import FrameTensors
from vosflow.trackers.sam2.steps import Steps
from vosflow.video import Video

HOUSE = Path(__file__).resolve().parents[2]
CATALOG = HOUSE / "vosflow" / "catalog"
WEIGHTS = {
    "id": "sam2_demo",
    "path": str(CATALOG / "sam2_demo.safetensors"),
    "config": str(CATALOG / "sam2_demo.yaml"),
}
FRAMES = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginning of a demo video, as frames/ and masks/ of one video `crowd`."""
    root = tmp_path_factory.mktemp("demo")
    frames, label_maps = render_clip(3, kind="crowd")
    for name in ("frames/crowd", "masks/crowd"):
        (root / name).mkdir(parents=True)
    for t, frame in enumerate(frames[:FRAMES]):
        Image.fromarray(frame).save(root / f"frames/crowd/{t:05d}.jpg", quality=95)
    prompt = Image.fromarray(label_maps[0])
    prompt.putpalette(DAVIS_PALETTE)
    prompt.save(root / "masks/crowd/00000.png")
    return root


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return folder_manifest(folder / "frames", folder / "masks")


def tracked(manifest: Manifest, output: Path, device: str, **settings: object) -> tuple[np.ndarray, dict]:
    """(label maps [T, H, W], the video's record)."""
    track_videos(Method.of("sam2", settings, WEIGHTS), manifest, ["crowd"], output, device=device)
    record = json.loads((output / "videos/crowd.json").read_text())
    return np.stack([np.asarray(Image.open(path)) for path in sorted((output / "masks/crowd").glob("*.png"))]), record


def test_exact_in_float32_is_close_to_the_cpu(manifest: Manifest, tmp_path: Path) -> None:
    on_cpu, _ = tracked(manifest, tmp_path / "cpu", "cpu")
    on_gpu, record = tracked(manifest, tmp_path / "gpu", "cuda")
    assert (on_cpu == on_gpu).mean() > 0.999
    assert record["device"] == torch.cuda.get_device_name() and record["precision"] == "float32"
    assert 0 < record["peak_memory_bytes"] < 2**30


def test_exact_gives_the_same_masks_again(manifest: Manifest, tmp_path: Path) -> None:
    first, _ = tracked(manifest, tmp_path / "first", "cuda")
    again, _ = tracked(manifest, tmp_path / "again", "cuda")
    assert (first == again).mean() > 0.9999


@pytest.mark.parametrize("precision", ["float32", "bfloat16", None])
def test_fast_is_close_to_exact(precision: str | None, manifest: Manifest, tmp_path: Path) -> None:
    own = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    exact, _ = tracked(manifest, tmp_path / "exact", "cuda", precision=precision or own)
    fast, record = tracked(manifest, tmp_path / "fast", "cuda", precision=precision, mode="fast")
    assert (exact == fast).mean() > 0.999 and record["remarks"] == []  # float32 and bfloat16 are further apart
    assert record["precision"] == (precision or own)


def test_too_many_objects_for_the_memory(manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    exact, _ = tracked(manifest, tmp_path / "exact", "cuda")
    real = Steps.attend

    def limited(self: Steps, features, memory, positions, tokens):
        if memory.shape[1] > 1:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")  # a petabyte: truly out of memory
        return real(self, features, memory, positions, tokens)

    monkeypatch.setattr(Steps, "attend", limited)
    fast, record = tracked(manifest, tmp_path / "fast", "cuda", mode="fast", precision="float32")
    assert (exact == fast).mean() > 0.999
    assert record["remarks"][-1].endswith("went on with 1")


def test_frames_are_where_a_gpu_copies_from(manifest: Manifest) -> None:
    video = Video.of(manifest, "crowd")
    pinned, plain = FrameTensors(video, 128, pin=True)[3], FrameTensors(video, 128)[3]
    assert pinned.is_pinned() and torch.equal(pinned, plain)


def test_a_job_leases_its_gpu(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(HOUSE / "scripts/track.py"), "--tracker", "sam2", "--device", "cuda"]
    command += ["--sam2_checkpoint", WEIGHTS["path"], "--sam2_cfg", WEIGHTS["config"], "--set", "mode=fast"]
    command += ["--base_video_dir", str(folder / "frames"), "--input_mask_dir", str(folder / "masks")]
    jobs = [subprocess.Popen([*command, "--output_mask_dir", str(tmp_path / f"{job}")]) for job in range(2)]
    assert [job.wait(300) for job in jobs] == [0, 0]  # on a machine with one GPU, one after the other
    for job in range(2):
        record = json.loads((tmp_path / f"{job}/.vosflow/videos/crowd.json").read_text())
        assert record["device"] == torch.cuda.get_device_name() and record["frames"] == FRAMES
