"""Which device a job computes on. A file lock per GPU: concurrent jobs on one machine never share a device.

Snakemake counts GPUs but assigns none (snakemake issue 281), so the engine takes a lease itself. Under a scheduler
that shows a job its own device only, the lease is free at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vosflow.errors import VosflowError

PR_SET_PDEATHSIG = 1  # of Linux' prctl.h
LOCKS = "/tmp"  # not tempfile.gettempdir(): all jobs and users of a machine must look in the same place


def limit_cpu_threads(threads: int) -> None:
    """Compute on this many CPU threads. Must be called before torch or OpenCV are imported.

    Sums depend on the number of threads in their last bits. Threads that wait must not spin: on a machine shared with
    other jobs they would starve each other (measured: a training step took 7 to 15 times longer).

    Raises:
        VosflowError: fewer than one.
    """
    if threads < 1:
        raise VosflowError(f"{threads} CPU threads can compute nothing", expected="1 or more", remedy="mend --threads")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def end_with_parent() -> None:
    """Have Linux end this process when the one that started it ends, however that ends.

    For processes that compute on GPUs which their parent holds: they would go on, on devices that others then lease.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def visible_gpus() -> list[str]:
    """Ids of the GPUs this process may use, as CUDA_VISIBLE_DEVICES would name them; [] without any.

    CUDA_VISIBLE_DEVICES is respected if it is set (an empty value hides all); else `nvidia-smi` is asked. torch is
    not imported: the lease must be taken first.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        ids = [part.strip() for part in chosen.split(",") if part.strip()]
        return ids[: ids.index("-1")] if "-1" in ids else ids
    return [index for index, _ in _installed_gpus()]


def resolve_device(requested: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises:
        VosflowError: "cuda" is demanded and no GPU is visible.
    """
    if requested == "cpu":
        return "cpu"
    if visible_gpus():
        return "cuda"
    if requested == "cuda":
        raise VosflowError(
            "a GPU is demanded (device: cuda) but none is visible",
            expected="nvidia-smi lists a GPU, and CUDA_VISIBLE_DEVICES is unset or names one "
            f"(it is {os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')!r})",
            remedy="run on a machine with a GPU, ask the scheduler for one (gpu=1), "
            "or set `execution: device: cpu` in the config (slow for real networks)",
        )
    return "cpu"


@contextlib.contextmanager
def lease_device(
    requested: str, count: int = 1, *, poll_seconds: float = 0.5, folder: str | Path | None = None
) -> Iterator[str]:
    """Hold one device, or `count` GPUs, for the duration of the context, and yield "cpu" or "cuda".

    For "cuda", waits until visible GPUs are free, locks them against other vosflow jobs of this machine (also of other
    users), and sets CUDA_VISIBLE_DEVICES to them. Must be entered before torch is imported.

    Raises:
        VosflowError: fewer GPUs are visible.
    """
    if resolve_device(requested) == "cpu":
        yield "cpu"
        return
    if len(visible_gpus()) < count:
        raise VosflowError(
            f"{count} GPUs are needed, and {len(visible_gpus())} are visible",
            expected=f"{count} GPUs on one machine",
            remedy="run it where there are as many, or lower `processes` (then raise batch_size, to train the same)",
        )
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    # Numbers of GPUs are those of nvidia-smi, whose uuids name the locks; CUDA's own order is that of speed.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    held = _acquire(Path(folder or LOCKS), count, poll_seconds)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for gpu, _ in held)
    try:
        yield "cuda"
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        for _, lock in held:
            os.close(lock)


def _acquire(folder: Path, count: int, poll_seconds: float) -> list[tuple[str, int]]:
    """Wait for `count` free GPUs; returns (id, the file descriptor that holds the lock) of each.

    None is held while others are waited for: two jobs that hold one each and want two would wait for ever.
    """
    uuids = dict(_installed_gpus())
    said = False
    while True:
        held: list[tuple[str, int]] = []
        for gpu in visible_gpus():
            lock = _try_lock(folder / f"vosflow-gpu-{_lock_name(gpu, uuids)}.lock")
            if lock is not None:
                held.append((gpu, lock))
            if len(held) == count:
                return held
        for _, lock in held:
            os.close(lock)
        if not said:
            missing = "all visible GPUs are" if count == 1 else f"of {count} visible GPUs that are needed, some are"
            print(f"{missing} leased by other vosflow jobs: waiting", file=sys.stderr, flush=True)
            said = True
        time.sleep(poll_seconds)


def _lock_name(gpu: str, uuids: dict[str, str]) -> str:
    """What identifies a GPU on its machine: its uuid.

    Where nvidia-smi does not tell it there is only the number. Slurm may show every job its own GPU as number 0, but
    gives no GPU to two jobs: so the number counts within one Slurm job.
    """
    name = uuids.get(gpu, gpu)
    job = os.environ.get("SLURM_JOB_ID")
    return f"{job}-{name}" if job and name not in uuids.values() else name


def _try_lock(path: Path) -> int | None:
    """An exclusive lock as an open file descriptor, or None if another process holds it.

    The file is opened for reading and created only if it is missing: opening another user's file with O_CREAT in a
    shared /tmp is refused by Linux (fs.protected_regular), which rules out the usual lock libraries here. The kernel
    releases the lock when the process ends, however it ends.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
        os.fchmod(descriptor, 0o644)  # readable for other users whatever the umask
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except (BlockingIOError, FileNotFoundError):
        held = False
    if not held:  # by us, or no longer: the file was deleted before it was locked, and others lock the next one
        os.close(descriptor)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # machines that clean /tmp delete what was not touched for days, also while it is locked
    return descriptor


def _installed_gpus() -> list[tuple[str, str]]:
    """(index, uuid) of each GPU that the driver lists: index and uuid must lead to the same lock."""
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"], capture_output=True, text=True, timeout=60
    )
    if answer.returncode != 0:
        return []
    return [tuple(part.strip() for part in line.split(",")) for line in answer.stdout.splitlines() if "," in line]
