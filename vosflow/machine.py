"""What the machine says of a job: device, threads, peak memory. Recorded with results, but not part of keys."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from pathlib import Path

from vosflow.errors import VosflowError


def job_name() -> str:
    """Which job this is, for people who look for it: machine, process, and Slurm's number if it has one."""
    slurm = os.environ.get("SLURM_JOB_ID")
    return f"{socket.gethostname()}, process {os.getpid()}" + (f", Slurm job {slurm}" if slurm else "")


def device_name(device: str) -> str:
    """The model of the GPU, or "cpu": recorded, but not part of keys, so that a retry may run on another model.

    Raises:
        VosflowError: a GPU is demanded, and torch cannot use one.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise VosflowError(
            "a GPU is demanded but torch cannot use one",
            expected="torch.cuda.is_available() is True",
            remedy="install a GPU driver that fits torch, or set `execution: device: cpu` in the config",
        )
    return torch.cuda.get_device_name()


def threads() -> int | None:
    """Threads torch computes with, if it was used: sums depend on them in the last bits."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


def reset_peak_memory(device: str) -> None:
    """Forget the memory peaks of the past: `peak_memory_bytes` counts from here."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # elsewhere than on Linux the mark of the whole process stands
        Path("/proc/self/clear_refs").write_text("5")  # forget the process's memory high-water mark


def peak_memory_bytes(device: str) -> int:
    """Peak memory since the last reset: allocated GPU memory on a GPU, else resident memory of the process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
