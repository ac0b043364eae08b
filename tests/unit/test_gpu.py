"""Device choice and leases, with pretend GPUs: no two processes of a machine share one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vosflow import gpu
from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]

HOLD = """
import sys, time
from pathlib import Path
from vosflow.gpu import lease_device
import os
folder, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with lease_device("cuda", folder=folder, poll_seconds=0.02):
    start = time.time()
    Path(folder, name).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    time.sleep(seconds)
    Path(folder, name).write_text(f"{os.environ['CUDA_VISIBLE_DEVICES']} {start} {time.time()}")
"""


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(gpu, "_installed_gpus", list)


def hold(folder: Path, name: str, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder), name, str(seconds)], cwd=HOUSE)


def test_cuda_visible_devices_is_respected(monkeypatch):
    monkeypatch.setattr(gpu, "_installed_gpus", lambda: [("0", "GPU-a"), ("1", "GPU-b")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.visible_gpus() == ["0", "1"]
    for value, ids in (("", []), ("3", ["3"]), ("2, 5", ["2", "5"]), ("-1", []), ("1,-1,0", ["1"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpu.visible_gpus() == ids


def test_auto_takes_a_gpu_only_where_there_is_one(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.resolve_device("auto") == "cpu" and gpu.resolve_device("cpu") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpu.resolve_device("auto") == "cuda" and gpu.resolve_device("cpu") == "cpu"


def test_a_demanded_gpu_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(VosflowError) as caught:
        gpu.resolve_device("cuda")
    assert "CUDA_VISIBLE_DEVICES" in str(caught.value) and "device: cpu" in str(caught.value)


def test_a_lease_names_one_device_and_gives_it_back(two_gpus, tmp_path):
    with gpu.lease_device("auto", folder=tmp_path) as device:
        assert device == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"] == "0"
        os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"  # as another job sees it
        with gpu.lease_device("cuda", folder=tmp_path):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    with gpu.lease_device("cuda", folder=tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_cpu_needs_no_lease(tmp_path):
    with gpu.lease_device("cpu", folder=tmp_path) as device:
        assert device == "cpu" and list(tmp_path.iterdir()) == []


def test_processes_never_share_a_device(two_gpus, tmp_path):
    jobs = [hold(tmp_path, f"job{number}", 0.3) for number in range(5)]
    assert [job.wait(60) for job in jobs] == [0] * 5
    held = sorted((tmp_path / f"job{number}").read_text().split() for number in range(5))
    assert {device for device, _, _ in held} == {"0", "1"}, "both devices are used"
    for device in ("0", "1"):
        spans = sorted((float(start), float(end)) for name, start, end in held if name == device)
        assert all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:], strict=False))


def test_a_killed_job_leaves_its_device_free(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    job = hold(tmp_path, "killed", 60)
    deadline = time.monotonic() + 30
    while not (tmp_path / "killed").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.kill()
    job.wait()
    with gpu.lease_device("cuda", folder=tmp_path) as device:
        assert device == "cuda"


def test_index_and_uuid_of_a_gpu_are_one_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "_installed_gpus", lambda: [("0", "GPU-a")])
    for name in ("0", "GPU-a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
        with gpu.lease_device("cuda", folder=tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["vosflow-gpu-GPU-a.lock"]


def test_threads_are_limited_before_torch(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    gpu.limit_cpu_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
