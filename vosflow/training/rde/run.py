"""Training a stage in one process, or in one of several that torchrun started."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist

from vosflow.gpu import resolve_device
from vosflow.training.rde.stage import StagePlan
from vosflow.training.rde.telling import Telling
from vosflow.training.rde.trainer import Group, StageTraining


def train_alone(plan: StagePlan, folder: str | Path, device: str, stop_at: int | None = None) -> None:
    """Train a stage to its end, or up to the iteration `stop_at`, in this process; goes on where it stopped.

    Raises:
        VosflowError: see `StageTraining`.
    """
    torch.set_flush_denormal(True)
    training = StageTraining(plan, folder, Group(device=device))
    with Telling(f"stage {plan.stage}", plan.settings.iterations) as telling:
        training.run(telling, stop_at)


def train_in_group(plan: StagePlan, folder: str | Path, device: str) -> None:
    """The same in one of the processes that torchrun started: over nccl on GPUs, over gloo on CPUs."""
    torch.set_flush_denormal(True)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = resolve_device(device)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        training = StageTraining(plan, folder, Group(rank, size, device))
        with Telling(f"stage {plan.stage}", plan.settings.iterations, silent=rank > 0) as telling:
            training.run(telling)
        dist.barrier()
    finally:
        dist.destroy_process_group()
