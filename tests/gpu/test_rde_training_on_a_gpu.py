"""RDE-VOS trained on a GPU: close to the CPU, mixed precision, stopped and continued, on two. Skipped without one."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unit import tiny_rde
from tests.unit.tiny_rde import stage_plan
from vosflow.training.rde.files import CURVES, WEIGHTS, WORK
from vosflow.training.rde.run import train_alone
from vosflow.training.rde.stage import StagePlan
from vosflow.training.rde.trainer import Group, StageTraining

TRAIN = Path(__file__).resolve().parents[2] / "scripts" / "train_rde.py"
sets = tiny_rde.sets


@pytest.fixture(autouse=True)
def _small_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the scale that torch begins with, gradients of the narrow network overflow for longer than is trained here."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler(device, 2.0**6, enabled=enabled))


@pytest.fixture(scope="module")
def stage0(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of stage 0, trained on the CPU."""
    folder = tmp_path_factory.mktemp("stage0")
    train_alone(stage_plan(sets, 0), folder, "cpu")
    torch.set_flush_denormal(False)
    return folder / WEIGHTS


def losses(plan: StagePlan, folder: Path, device: str, stop_at: int | None = None) -> list[float]:
    train_alone(plan, folder, device, stop_at)
    torch.set_flush_denormal(False)
    with open(folder / CURVES, newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.parametrize(("precision", "apart"), [("float32", 1e-2), ("float16", 5e-2), ("bfloat16", 1e-1)])
def test_losses_are_close_to_those_of_the_cpu(precision, apart, sets, stage0, tmp_path):
    plan = stage_plan(sets, 3, str(stage0), learning_rate=1e-4, iterations=4, precision=precision)
    wanted, found = (losses(plan, tmp_path / device, device) for device in ("cpu", "cuda"))
    assert found == pytest.approx(wanted, rel=apart)


def test_a_stopped_stage_goes_on_with_its_loss_scale(sets, stage0, tmp_path):
    plan = stage_plan(sets, 3, str(stage0), learning_rate=1e-4)
    assert StageTraining(plan, tmp_path / "new", Group(device="cuda")).scaler.is_enabled()
    whole = losses(plan, tmp_path / "whole", "cuda")
    losses(plan, tmp_path / "stopped", "cuda", stop_at=3)
    assert losses(plan, tmp_path / "stopped", "cuda")[-1] == pytest.approx(whole[-1], rel=1e-2)
    scales = [torch.load(tmp_path / name / WORK, weights_only=True)["scaler"] for name in ("whole", "stopped")]
    assert scales[0] == scales[1]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one_with_their_batches(sets, stage0, tmp_path):
    shared = {"iterations": 2, "learning_rate": 1e-4, "precision": "float32", "log_every": 1}
    together = stage_plan(sets, 3, str(stage0), processes=2, batch_size=1, **shared)
    command = [sys.executable, str(TRAIN), "--plan", json.dumps(together.as_data()), "--folder", str(tmp_path / "two")]
    done = subprocess.run([*command, "--device", "cuda"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone = losses(stage_plan(sets, 3, str(stage0), processes=1, batch_size=2, **shared), tmp_path / "one", "cuda")
    assert len(alone) == 2 and (tmp_path / "two" / WEIGHTS).is_file()
