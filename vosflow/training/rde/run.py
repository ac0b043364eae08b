"""Training a stage in one process, or in one of several (see `vosflow.training.rde.launch`)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from vosflow.errors import VosflowError
from vosflow.gpu import end_with_parent, resolve_device
from vosflow.training.rde.saving import cannot_save, remove_leftovers
from vosflow.training.rde.stage import StagePlan
from vosflow.training.rde.telling import Telling
from vosflow.training.rde.trainer import Group, StageTraining

PATIENCE = timedelta(hours=1)
"""What processes wait for each other at most: the first one measures alone, and one node may list its files much slower
than another (nccl's own is 10 minutes)."""


def train_alone(plan: StagePlan, folder: str | Path, device: str, stop_at: int | None = None) -> None:
    """Train a stage to its end, or up to the iteration `stop_at`, in this process; goes on where it stopped.

    Raises:
        VosflowError: another job is training it, or see `StageTraining`.
    """
    with _hold(Path(folder)):
        _train(plan, folder, Group(device=device), stop_at)


def train_in_group(plan: StagePlan, folder: str | Path, device: str) -> None:
    """The same in one of the processes that torchrun or `start_group` started: over nccl on GPUs, gloo on CPUs.

    They may be on several nodes, if these share the folder. All but the first only read there. However many they are,
    they share the clips that the plan has in an iteration.

    Raises:
        VosflowError: the clips cannot be shared equally, a node has too few GPUs, or see `train_alone`.
    """
    rank, size, on_node = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    plan = _shared_by(size, plan)
    end_with_parent()
    device = resolve_device(device)
    if device == "cuda":
        if on_node >= torch.cuda.device_count():
            raise VosflowError(
                f"there are more processes than the {torch.cuda.device_count()} GPUs that {socket.gethostname()} shows",
                path="--nproc-per-node",
                expected="a GPU for each process",
                remedy="start fewer processes on each node, and more nodes; or ask the scheduler for more GPUs",
            )
        torch.cuda.set_device(on_node)
    with _hold(Path(folder)) if rank == 0 else contextlib.nullcontext():
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
        try:
            _train(plan, folder, Group(rank, size, device))
            dist.barrier()
        finally:
            dist.destroy_process_group()


def _shared_by(size: int, plan: StagePlan) -> StagePlan:
    clips = plan.settings.clips
    if clips % size:
        raise VosflowError(
            f"{size} processes cannot share the {clips} clips of an iteration of this stage equally",
            path="torchrun: processes of all nodes",
            expected=f"a number that {clips} can be divided by",
            remedy="start more or fewer processes",
        )
    return replace(plan, settings=plan.settings.model_copy(update={"processes": size, "batch_size": clips // size}))


def _train(plan: StagePlan, folder: str | Path, group: Group, stop_at: int | None = None) -> None:
    torch.set_flush_denormal(True)
    training = StageTraining(plan, folder, group)
    with Telling(f"stage {plan.stage}", plan.settings.iterations, silent=not group.leads) as telling:
        training.run(telling, stop_at)


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Keep other jobs off a stage: where Snakemake was killed, jobs that it left go on beside those of the next one.

    The system releases the lock when the process ends, however it ends. File systems without locks are trusted.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise cannot_save(path, error) from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                raise VosflowError(
                    f"another job is training this stage ({file.read().strip() or 'unknown which'})",
                    path=path,
                    expected="one job at a time, for instance none that a killed snakemake has left",
                    remedy="wait until it is done, or end it and start again. A node that died may leave its lock on a "
                    "network file system: then delete this file",
                ) from error
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID")
        file.write(f"{socket.gethostname()}, process {os.getpid()}" + (f", Slurm job {job}" if job else ""))
        file.flush()
        remove_leftovers(folder)
        yield
