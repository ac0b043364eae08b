"""The loop that trains one stage: on one process or several, stopped and continued at any time.

What a stage computes follows from its plan alone: samples from the seed and their position, rates from the iteration.
So a work file needs the weights, the optimizer, the loss scale and the number of the iteration, and a killed training
goes on with the same numbers (on a CPU bit for bit; GPUs add gradients in any order).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save as to_safetensors
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from vosflow.errors import VosflowError, cannot_write
from vosflow.training.rde.curves import Row, TensorBoard, curves_text
from vosflow.training.rde.measuring import mean_iou, measure, write_samples
from vosflow.training.rde.passes import Batch, TrainingPass
from vosflow.training.rde.samples import Samples, collate
from vosflow.training.rde.schedules import counted_share, learning_rate
from vosflow.training.rde.sets import read_set
from vosflow.training.rde.stage import StagePlan
from vosflow.training.rde.start import first_network, next_network
from vosflow.training.rde.telling import Telling

CALIBRATION = (4, 8)  # batches, samples in each: the same however many processes there are
BROKEN_STEPS = 50  # losses that are not finite, one after the other, that the loss scale may need to come down

WORK, WEIGHTS, CURVES, SAMPLES, EVENTS = "work.pt", "weights.safetensors", "curves.csv", "samples.png", "tensorboard"


@dataclass(frozen=True)
class Group:
    """The processes that train together: this one's number, how many there are, and its device."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0


class StageTraining:
    """One stage under way.

    Args:
        folder: where the work file, curves and weights are written; a work file there is continued.

    Raises:
        VosflowError: training sets or weights that cannot be used, or a work file of another plan.
    """

    def __init__(self, plan: StagePlan, folder: str | Path, group: Group = Group()) -> None:
        settings = plan.settings
        if group.size != settings.processes:
            raise VosflowError(
                f"the stage is to be trained by {settings.processes} processes, and these are {group.size}",
                path="processes",
                expected="as many as its settings say: batches and the order of clips depend on it",
                remedy=f"torchrun --nproc-per-node {settings.processes}, or change `processes` in the settings",
            )
        self.plan, self.settings, self.group, self.folder = plan, settings, group, Path(folder)
        self.iteration = 0
        self.rows: list[dict[str, float]] = []
        self._recent: list[dict[str, float]] = []
        self._broken = 0  # losses that were not finite, one after the other
        self._sets = [read_set(part.kind, part.root) for part in plan.sets]
        network = self._begin().to(group.device).eval()  # batch normalisation stays as it is, also in training
        self.step = TrainingPass(network, settings)
        self._parallel = (
            self.step if group.size == 1 else DistributedDataParallel(self.step, forward_sync_buffers=False)
        )
        self.optimizer = torch.optim.Adam(
            self.step.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._precision = getattr(torch, settings.precision if group.device != "cpu" else "float32")
        self.scaler = torch.amp.GradScaler(group.device, enabled=self._precision == torch.float16)
        if (self.folder / WORK).exists():
            self._continue()

    def run(self, telling: Telling, stop_at: int | None = None) -> None:
        """Train to the end, or up to the iteration `stop_at`; writes all files."""
        end = min(self.settings.iterations, stop_at or self.settings.iterations)
        cv2.setNumThreads(1)
        board = TensorBoard(self.folder / EVENTS, self.iteration) if self.group.leads else None
        if self.iteration == 0:
            self._tell({"iteration": 0, **self._measurement()}, telling, board)
        began, since = time.perf_counter(), self.iteration
        for batch in self._batches(end):
            self._end_together(batch)
            self._recent.append(self.update(batch))
            measures = self._is_due(self.settings.measure_every, self.settings.iterations)
            if measures or self._is_due(self.settings.log_every, end):
                row = {name: float(np.mean([row[name] for row in self._recent])) for name in self._recent[0]}
                seconds = (time.perf_counter() - began) / (self.iteration - since)
                row |= {"iteration": self.iteration, "seconds": seconds}
                self._tell(row | (self._measurement() if measures else {}), telling, board)
                self._recent, began, since = [], time.perf_counter(), self.iteration
            telling.advance(self.iteration)
            if self._is_due(self.settings.save_every, end):
                self.save()
        if board is not None:
            board.close()
        if self.iteration == self.settings.iterations:
            self._finish()

    def _is_due(self, every: int, end: int) -> bool:
        return self.iteration % every == 0 or self.iteration == end

    def _end_together(self, batch: Batch | VosflowError) -> None:
        """If a process has an error in place of a batch, save and raise it; the others, which have none, end as well.

        Else they would wait for its gradients, and the first one could not save.
        """
        failed = isinstance(batch, VosflowError)
        if self.group.size > 1:
            count = torch.tensor(float(failed), device=self.group.device)
            dist.all_reduce(count)
            failed = bool(count)
        if not failed:
            return
        self.save()
        if self.group.size > 1:
            dist.barrier()  # whoever starts the processes kills all of them when one has ended
        raise batch if isinstance(batch, VosflowError) else SystemExit(1)

    def update(self, batch: Batch) -> dict[str, float]:
        """One iteration; returns its numbers.

        Raises:
            VosflowError: the loss is not finite, and no loss scale could help.
        """
        settings, batch = self.settings, batch.to(self.group.device)
        rate, share = learning_rate(settings, self.iteration), counted_share(settings, self.iteration)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        enabled = self._precision != torch.float32
        with torch.autocast(self.group.device, dtype=self._precision if enabled else None, enabled=enabled):
            passed = self._parallel(batch, share)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(passed.loss).backward()
        if settings.clip_gradient is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.step.parameters(), settings.clip_gradient)
        terms = {name: float(term) for name, term in passed.terms.items()}
        iou = mean_iou(passed.predicted, batch.labels[:, 1:], batch.objects)
        numbers = self._over_processes({"loss": float(passed.loss.detach()), **terms, "iou": iou})
        self._check(numbers["loss"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.iteration += 1
        return {"learning_rate": rate, "counted_share": share, **numbers}

    def _over_processes(self, numbers: dict[str, float]) -> dict[str, float]:
        """Means over the processes: curves are of whole batches, and a loss that is not finite is so for all."""
        if self.group.size == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), device=self.group.device)
        dist.all_reduce(values)
        return dict(zip(numbers, (values / self.group.size).tolist(), strict=True))

    def save(self) -> None:
        """Write all that is needed to go on, atomically, and the curves."""
        if not self.group.leads:
            return
        state = {
            "plan": self.plan.deciding(),
            "iteration": self.iteration,
            "rows": self.rows,
            "recent": self._recent,
            "network": self.step.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
        }
        write_aside(self.folder / WORK, lambda aside: torch.save(state, aside))
        self._write_curves()

    def _write_curves(self) -> None:
        write_aside(self.folder / CURVES, lambda aside: aside.write_text(curves_text(self.rows), encoding="utf-8"))

    def _continue(self) -> None:
        path = self.folder / WORK
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            same = state["plan"] == self.plan.deciding()
        except Exception as error:  # torch raises anything from OSError to UnpicklingError
            raise VosflowError(
                f"not a readable state of training ({type(error).__name__}: {error})",
                path=path,
                expected="the work file of this stage",
                remedy="delete it to start the stage from scratch",
            ) from error
        if not same:
            raise VosflowError(
                "the work file belongs to another training: settings, sets or weights before differ",
                path=path,
                expected="the plan that it was begun with",
                remedy="name another folder, or delete the file to start from scratch",
            )
        self.iteration, self.rows, self._recent = state["iteration"], state["rows"], state["recent"]
        self.step.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])

    def _begin(self) -> nn.Module:
        plan = self.plan
        if plan.stage > 0:
            return next_network(plan.stage, plan.previous, plan.width, plan.key_channels, self.settings)
        batches, size = CALIBRATION
        samples = Samples(self._sets, self.settings, range(batches * size))
        batches = DataLoader(samples, size, collate_fn=collate)
        return first_network(plan.width, plan.key_channels, self.settings.seed, plan.imagenet, map(_sound, batches))

    def _batches(self, end: int) -> Iterator[Batch | VosflowError]:
        """The batches of this process from the current iteration up to `end`, or an error in place of one."""
        settings, group = self.settings, self.group
        positions = np.arange(end * group.size * settings.batch_size).reshape(end, group.size, settings.batch_size)
        samples = Samples(self._sets, settings, positions[self.iteration :, group.rank].ravel().tolist())
        loader = DataLoader(
            samples,
            settings.batch_size,
            num_workers=settings.workers,
            collate_fn=collate,
            multiprocessing_context="fork" if settings.workers else None,
            pin_memory=group.device != "cpu",
        )
        yield from loader

    def _measurement(self) -> Row:
        """J on the held-out samples, if there are any."""
        if not self.settings.held_out or not self.group.leads:
            return {}
        samples = Samples(self._sets, self.settings, ()).measured()
        if not samples:  # none can be read, and all are skipped
            return {}
        return {"held_out_J": measure(self.step, samples, self.settings.batch_size, self.group.device)}

    def _check(self, loss: float) -> None:
        self._broken = 0 if np.isfinite(loss) else self._broken + 1
        if self._broken > (BROKEN_STEPS if self.scaler.is_enabled() else 0):
            raise VosflowError(
                f"the loss is {loss} in iteration {self.iteration} of stage {self.plan.stage}",
                path=self.folder / WORK,
                expected="a finite number",
                remedy="lower learning_rate, or say clip_gradient: 1 and compression: average; the work file holds the "
                "last state before",
            )

    def _tell(self, row: dict[str, float], telling: Telling, board: TensorBoard | None) -> None:
        self.rows.append(row)
        if board is not None:
            telling.row(row)
            board.add(row)

    def _finish(self) -> None:
        if not self.group.leads:
            return
        self._write_curves()  # Snakemake deletes them if what follows fails; the work file has them
        samples = Samples(self._sets, self.settings, range(4))
        shown = samples.measured()[:4] or [_sound(samples[i]) for i in range(4)]
        write_aside(self.folder / SAMPLES, lambda aside: write_samples(aside, self.step, shown, self.group.device))
        weights = {name: tensor.contiguous().cpu() for name, tensor in self.step.network.state_dict().items()}
        facts = {"training": f"stage {self.plan.stage}, {self.iteration} iterations"}  # one, as several have any order
        write_aside(self.folder / WEIGHTS, lambda aside: aside.write_bytes(to_safetensors(weights, facts)))


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears complete or not at all; raises DiskError if it cannot be written."""
    aside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch tells a full disk as RuntimeError
        aside.unlink(missing_ok=True)
        raise cannot_write(path, error if isinstance(error, OSError) else OSError(str(error))) from error


def _sound(batch: object) -> object:
    """What was read; raises the error that a worker met instead."""
    if isinstance(batch, VosflowError):
        raise batch
    return batch
