"""The loop that trains one stage: on one process or several, stopped and continued at any time.

What a stage computes follows from its plan alone: samples from the seed and their position, rates from the iteration.
So a work file needs the weights, the optimizer, the loss scale and the number of the iteration, and a killed training
goes on with the same numbers (on a CPU bit for bit; GPUs add gradients in any order).

An iteration whose loss or gradient is not finite changes no weights, at any precision. The authors train so: their loss
scale leaves such steps out, and for a while there are some when SAM begins at random (issue 2 of their repository).
Their SAM overflows in float16 where this one, in float32, gives a finite loss with a huge gradient. So, where it is not
clipped, a huge gradient is skipped as well: Adam would remember its square for ten thousands of iterations, and hardly
move those weights. The curves count what is skipped. Only a state from which an iteration is sound is written, to the
work file and in the end as weights. Where none follows, one is computed up to its gradient: in the end with clips that
would come next, and where a clip cannot be read with those of the iteration before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
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

from vosflow.digest import data_digest
from vosflow.errors import VosflowError
from vosflow.training.rde.continuing import begin_or_compare, check_agreement, check_plan, list_facts
from vosflow.training.rde.curves import Row, TensorBoard, curves_text
from vosflow.training.rde.files import CURVES, EVENTS, SAMPLES, WEIGHTS, WORK
from vosflow.training.rde.measuring import mean_iou, measure, write_samples
from vosflow.training.rde.passes import Batch, TrainingPass
from vosflow.training.rde.samples import Samples, collate
from vosflow.training.rde.saving import save_state, write_aside
from vosflow.training.rde.schedules import counted_share, learning_rate
from vosflow.training.rde.sets import read_set
from vosflow.training.rde.stage import StagePlan
from vosflow.training.rde.start import first_network, next_network
from vosflow.training.rde.telling import Telling

CALIBRATION = (4, 8)  # batches, samples in each: the same however many processes there are
BROKEN_STEPS = 50  # iterations that are skipped, one after the other: the loss scale may need some to come down
LARGEST = 65504.0  # norm of a gradient that is not clipped: the largest number of float16, in which the authors train


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


@dataclass(frozen=True)
class Gradient:
    """What was computed of a batch; the gradient itself is at the weights.

    Attributes:
        numbers: for the curves: the loss, its terms, IoU.
        norm: of the gradient. It and the numbers are means over the processes.
        sound: it may change weights.
    """

    numbers: dict[str, float]
    norm: float
    sound: bool


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
                remedy=f"start {settings.processes}, or change `processes` in the settings, and batch_size with it",
            )
        self.plan, self.settings, self.group, self.folder = plan, settings, group, Path(folder)
        self.iteration = 0
        self.rows: list[dict[str, float]] = []
        self._recent: list[dict[str, float]] = []
        self._broken = 0  # iterations that were skipped, one after the other
        self._save_is_due = False
        self._sets = [read_set(part.kind, part.root) for part in plan.sets]
        facts = list_facts(plan, self._sets)
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
        if group.size > 1:
            check_agreement({"the plan": data_digest(plan.deciding()), "the iteration": self.iteration, **facts})
        if group.leads:  # last: what was refused has written nothing
            begin_or_compare(self.folder, plan, facts)

    def run(self, telling: Telling, stop_at: int | None = None) -> None:
        """Train to the end, or up to the iteration `stop_at`; writes all files.

        Raises:
            VosflowError: a clip cannot be read, losses or gradients are not finite any more, or the disk is full.
        """
        end = min(self.settings.iterations, stop_at or self.settings.iterations)
        cv2.setNumThreads(1)
        board = TensorBoard(self.folder / EVENTS, self.iteration + 1 if self.rows else 0) if self.group.leads else None
        if not self.rows:
            self._tell({"iteration": 0, **self._measurement()}, telling, board)
        start = since = self.iteration
        began = time.perf_counter()
        batches, last = self._batches(end + 1 + BROKEN_STEPS), None
        while self.iteration < end:
            batch = next(batches)
            self._end_together(batch, last)
            self._recent.append(self.update(batch))
            measures = self._is_due(self.settings.measure_every, self.settings.iterations)
            if measures or self._is_due(self.settings.log_every, end):
                seconds = (time.perf_counter() - began) / (self.iteration - since)
                row = {**_summary(self._recent), "iteration": self.iteration, "seconds": seconds}
                self._tell(row | (self._measurement() if measures else {}), telling, board)
                self._recent, began, since = [], time.perf_counter(), self.iteration
            telling.advance(self.iteration)
            self._save_is_due |= self.iteration % self.settings.save_every == 0
            last = batch
        if self.iteration > start:
            self._save_sound(batches, last)
        if board is not None:
            board.close()
        if self.iteration == self.settings.iterations:
            self._finish()

    def _is_due(self, every: int, end: int) -> bool:
        return self.iteration % every == 0 or self.iteration == end

    def _save_sound(self, batches: Iterator[Batch | VosflowError], last: Batch) -> None:
        """Save the state if the next iteration would be sound, or one after it: the loss scale may have to come down.

        A clip of theirs that cannot be read ends nothing, as nobody trains on it: the `last` batch takes their place.

        Raises:
            VosflowError: none of many would be. What was saved before stays.
        """
        for batch in batches:
            gradient = self._gradient(last if self._is_missing(batch) else batch)
            if gradient.sound:
                return self.save()
            self._conclude(gradient)

    def _end_together(self, batch: Batch | VosflowError, last: Batch | None) -> None:
        """If a process has an error in place of a batch, save and raise it; the others, which have none, end as well.

        Else they would wait for its gradients, and the first one could not save. Saved is what is sound with the `last`
        batch; without one nothing has changed since this job began.
        """
        if not self._is_missing(batch):
            return
        if last is not None and self._gradient(last).sound:
            self.save()
        if self.group.size > 1:
            dist.barrier()  # whoever starts the processes kills all of them when one has ended
        raise batch if isinstance(batch, VosflowError) else SystemExit(1)

    def _is_missing(self, batch: Batch | VosflowError) -> bool:
        """Whether this process or another one has an error in place of a batch."""
        missing = isinstance(batch, VosflowError)
        if self.group.size > 1:
            count = torch.tensor(float(missing), device=self.group.device)
            dist.all_reduce(count)
            missing = bool(count)
        return missing

    def update(self, batch: Batch) -> dict[str, float]:
        """One iteration; returns its numbers. Saves the state before it, if that is due.

        Raises:
            VosflowError: the loss or the gradient is not finite, nor were those of many iterations before.
        """
        settings = self.settings
        rate = learning_rate(settings, self.iteration)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        gradient = self._gradient(batch)
        if gradient.sound:
            if self._save_is_due:
                self.save()
            if settings.clip_gradient is not None:
                norm = torch.tensor(gradient.norm, device=self.group.device)
                nn.utils.clip_grads_with_norm_(self.step.parameters(), settings.clip_gradient, norm)
            self.scaler.step(self.optimizer)
        self._conclude(gradient)
        share = counted_share(settings, self.iteration)
        self.iteration += 1
        return {
            "learning_rate": rate,
            "counted_share": share,
            **gradient.numbers,
            "skipped": float(not gradient.sound),
        }

    def _gradient(self, batch: Batch) -> Gradient:
        """The gradient of a batch, as it is in the current iteration."""
        batch = batch.to(self.group.device)
        enabled = self._precision != torch.float32
        with torch.autocast(self.group.device, dtype=self._precision if enabled else None, enabled=enabled):
            passed = self._parallel(batch, counted_share(self.settings, self.iteration))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(passed.loss).backward()
        self.scaler.unscale_(self.optimizer)
        gradients = [weight.grad for weight in self.step.parameters() if weight.grad is not None]
        terms = {name: float(term) for name, term in passed.terms.items()}
        iou = mean_iou(passed.predicted, batch.labels[:, 1:], batch.objects)
        norm = float(nn.utils.get_total_norm(gradients))
        numbers = self._over_processes({"loss": float(passed.loss.detach()), **terms, "iou": iou, "norm": norm})
        norm = numbers.pop("norm")  # which may differ in last bits from GPU to GPU, and all must decide the same
        largest = LARGEST if self.settings.clip_gradient is None else np.finfo(np.float32).max
        return Gradient(numbers, norm, bool(np.isfinite(numbers["loss"]) and norm <= largest))

    def _conclude(self, gradient: Gradient) -> None:
        """Count how many gradients were not sound, one after the other, and move the loss scale."""
        self._broken = 0 if gradient.sound else self._broken + 1
        if self._broken > min(BROKEN_STEPS, self.settings.iterations - 1):
            raise VosflowError(
                f"the loss is {gradient.numbers['loss']} in iteration {self.iteration} of stage {self.plan.stage}, the "
                f"norm of its gradient {gradient.norm}, and so it was {self._broken} times, one after the other",
                path=self.folder / WORK,
                expected=f"finite numbers, and without clip_gradient a norm of {LARGEST:g} at most",
                remedy="the work file, if there is one, holds the last state with finite ones: start again. If it ends "
                "so again, train the stage with a lower learning_rate, with clip_gradient: 1 or compression: average",
            )
        self.scaler.update()

    def _over_processes(self, numbers: dict[str, float]) -> dict[str, float]:
        """Means over the processes: curves are of whole batches, and a loss that is not finite is so for all."""
        if self.group.size == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), device=self.group.device)
        dist.all_reduce(values)
        return dict(zip(numbers, (values / self.group.size).tolist(), strict=True))

    def save(self) -> None:
        """Write all that is needed to go on, atomically, and the curves."""
        self._save_is_due = False
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
            "made_with": self._made_with(),
        }
        write_aside(self.folder / WORK, lambda aside: save_state(state, aside))
        self._write_curves()

    def _write_curves(self) -> None:
        write_aside(self.folder / CURVES, lambda aside: aside.write_text(curves_text(self.rows), encoding="utf-8"))

    def _continue(self) -> None:
        path = self.folder / WORK
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            check_plan(state["plan"], self.plan, path)
            self.iteration, self.rows, self._recent = state["iteration"], state["rows"], state["recent"]
            self.step.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # empty where it was on a CPU
                self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["rng"])
        except VosflowError:
            raise
        except Exception as error:  # torch raises anything from OSError to UnpicklingError
            raise VosflowError(
                f"not a readable state of training ({type(error).__name__}: {error})",
                path=path,
                expected="the work file of this stage, of this network",
                remedy="restore it, or delete it to start the stage from scratch",
            ) from error
        before, now = state.get("made_with", self._made_with()), self._made_with()
        if self.group.leads and before != now:
            print(
                f"stage {self.plan.stage} goes on after iteration {self.iteration} with {now}, and was trained with "
                f"{before} so far: what follows differs in last digits",
                file=sys.stderr,
                flush=True,
            )

    def _made_with(self) -> str:
        """What the last digits depend on."""
        return f"torch {torch.__version__} on {self.group.size} x {self.group.device}"

    def _begin(self) -> nn.Module:
        plan = self.plan
        if plan.stage > 0:
            network, remarks = next_network(plan.stage, plan.previous, plan.width, plan.key_channels, self.settings)
            begins = self.group.leads and not (self.folder / WORK).exists()
            for remark in remarks if begins else ():
                print(f"stage {plan.stage}: {remark}", file=sys.stderr, flush=True)
            return network
        batches, size = CALIBRATION
        samples = Samples(self._sets, self.settings, range(batches * size))
        batches = DataLoader(samples, size, collate_fn=collate)
        return first_network(plan.width, plan.key_channels, self.settings.seed, plan.imagenet, map(_sound, batches))

    def _batches(self, end: int) -> Iterator[Batch | VosflowError]:
        """The batches of this process from the current iteration up to `end`, or an error in place of one."""
        settings, group = self.settings, self.group
        positions = np.arange(end * group.size * settings.batch_size).reshape(end, group.size, settings.batch_size)
        samples = Samples(self._sets, settings, positions[self.iteration :, group.rank].ravel())
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


def _summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of the numbers of some iterations where these are finite, and how many iterations were skipped."""
    means = {}
    for name in rows[-1]:
        if values := [row[name] for row in rows if np.isfinite(row[name])]:
            means[name] = float(np.mean(values))
    return {**means, "skipped": sum(row.get("skipped", 0.0) for row in rows)}


def _sound(batch: object) -> object:
    """What was read; raises the error that a worker met instead."""
    if isinstance(batch, VosflowError):
        raise batch
    return batch
