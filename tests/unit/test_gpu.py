"""Device choice and leases, with pretend GPUs: no two processes of a machine share one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vosflow import gpu
from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds; how long a test hangs that would hang for ever

# Tells that it waits, what it takes, and what it gives back; it holds that until it is told to go on.
HOLD = """
import os, sys
from vosflow import gpu

def tell(what):
    os.write(1, f"{os.getpid()} {what} {os.environ['CUDA_VISIBLE_DEVICES']}\\n".encode())  # in one piece

gpu._installed_gpus = list
gpu.print = lambda *_, **__: tell("waits for")
with gpu.lease_device("cuda", folder=sys.argv[1], poll_seconds=0.02):
    tell("takes")
    sys.stdin.readline()
    tell("gives")
"""


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(gpu, "_installed_gpus", list)


def hold(folder: Path, **pipes) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **pipes}
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], cwd=HOUSE, text=True, **pipes)


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
    read, write = os.pipe()  # one for all: what they tell comes in the order in which it happened
    with open(read) as told, contextlib.ExitStack() as stack:

        def start() -> subprocess.Popen:
            job = stack.enter_context(hold(tmp_path, stdout=write))
            stack.callback(job.kill)
            return job

        holders = {}
        for device in ("0", "1"):
            holders[device] = start()
            assert told.readline().split() == [str(holders[device].pid), "takes", device]
        waiting = {str(job.pid): job for job in [start() for _ in range(3)]}
        os.close(write)
        for _ in waiting:
            assert "waits for" in told.readline()
        for device in ("1", "0", "0"):
            holders[device].stdin.close()
            assert told.readline().split() == [str(holders[device].pid), "gives", device]
            next_holder, *what = told.readline().split()
            assert what == ["takes", device]
            holders[device] = waiting.pop(next_holder)
        for job in holders.values():
            job.stdin.close()
        assert sorted(line.split()[1:] for line in told) == [["gives", "0"], ["gives", "1"]]
        assert waiting == {} and [job.wait() for job in holders.values()] == [0, 0]


def test_a_job_that_waits_for_two_devices_holds_none(two_gpus, monkeypatch, tmp_path):
    """Else two such jobs, with one each, would wait for ever."""
    other = gpu._try_lock(tmp_path / "vosflow-gpu-1.lock")

    def while_it_waits(_: float) -> None:
        free = gpu._try_lock(tmp_path / "vosflow-gpu-0.lock")
        assert free is not None
        os.close(free)
        os.close(other)

    monkeypatch.setattr(gpu.time, "sleep", while_it_waits)
    with gpu.lease_device("cuda", 2, folder=tmp_path):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert all(gpu._try_lock(tmp_path / f"vosflow-gpu-{number}.lock") is None for number in (0, 1))


def test_numbers_of_devices_are_those_of_nvidia_smi(two_gpus, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    with gpu.lease_device("cuda", folder=tmp_path):
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")  # who says so means it
    with gpu.lease_device("cuda", folder=tmp_path):
        assert os.environ["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_a_killed_job_leaves_its_device_free(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with hold(tmp_path) as job:
        assert job.stdout.readline().split() == [str(job.pid), "takes", "7"]
        job.kill()
        job.wait()
    with gpu.lease_device("cuda", folder=tmp_path) as device:
        assert device == "cuda"


def test_a_lock_file_that_is_deleted_is_no_lease(monkeypatch, tmp_path):
    """By what cleans /tmp: between opening and locking it is noticed, and while it is held it does not look old."""
    path = tmp_path / "lock"
    path.touch()
    os.utime(path, (0, 0))
    lock = gpu._try_lock(path)
    assert lock is not None and path.stat().st_mtime > 0
    os.close(lock)
    take = gpu.fcntl.flock

    def take_late(descriptor, how):
        path.rename(tmp_path / "deleted")
        path.touch()
        take(descriptor, how)

    monkeypatch.setattr(gpu.fcntl, "flock", take_late)
    assert gpu._try_lock(path) is None


def test_index_and_uuid_of_a_gpu_are_one_lock(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "_installed_gpus", lambda: [("0", "GPU-a")])
    for name in ("0", "GPU-a"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", name)
        with gpu.lease_device("cuda", folder=tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["vosflow-gpu-GPU-a.lock"]


def test_without_uuids_a_number_counts_within_one_slurm_job(two_gpus, monkeypatch, tmp_path):
    """Slurm may show each job its own GPU as number 0: they must not wait for each other; local jobs in one must."""
    for job in ("11", "12"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        with gpu.lease_device("cuda", folder=tmp_path):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"vosflow-gpu-11-0.lock", "vosflow-gpu-12-0.lock"}
    monkeypatch.setattr(gpu, "_installed_gpus", lambda: [("0", "GPU-a")])
    with gpu.lease_device("cuda", folder=tmp_path):
        assert (tmp_path / "vosflow-gpu-GPU-a.lock").exists()


STRESS = """
import os, random, signal, sys, time
from pathlib import Path
from vosflow import gpu

gpu._installed_gpus = list
folder, worker, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dice = random.Random(worker)
for number in range(rounds):
    child = os.fork()  # so that a crash ends one round, not the worker
    if child == 0:
        with gpu.lease_device("cuda", folder=folder, poll_seconds=0.002):
            held = folder / f"held-{os.environ['CUDA_VISIBLE_DEVICES']}"
            try:
                os.close(os.open(held, os.O_CREAT | os.O_EXCL))  # fails if there is another holder
            except FileExistsError:
                (folder / f"shared-{worker}-{number}").touch()
            time.sleep(dice.random() * 0.004)
            held.unlink(missing_ok=True)
            if dice.random() < 0.3:
                os.kill(os.getpid(), signal.SIGKILL)  # with the lease in hand
        os._exit(0)
    os.waitpid(child, 0)
    dice.random(), dice.random()
    (folder / f"round-{worker}-{number}").touch()
"""


def test_leases_survive_200_rounds_of_8_processes_and_crashes(two_gpus, tmp_path):
    workers = [
        subprocess.Popen([sys.executable, "-c", STRESS, str(tmp_path), str(worker), "25"], cwd=HOUSE)
        for worker in range(8)
    ]
    assert [worker.wait(PATIENCE) for worker in workers] == [0] * 8, "a lease was lost"
    assert len(list(tmp_path.glob("round-*"))) == 200
    assert not list(tmp_path.glob("shared-*")), "a device had two holders"


def test_threads_are_limited_before_torch(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    gpu.limit_cpu_threads(1)
    assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    with pytest.raises(VosflowError, match="0 CPU threads"):
        gpu.limit_cpu_threads(0)


def test_a_process_ends_with_the_one_that_holds_its_devices():
    child = (
        "import time; from vosflow.gpu import end_with_parent; end_with_parent(); print('ready', flush=True);"
        "time.sleep(60); print('it is still there')"
    )
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", start], cwd=HOUSE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        assert parent.stdout.read() == "", "what the child has open is closed when it ends"
