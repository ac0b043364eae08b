"""Training on a real Slurm: several processes in one job, which goes on after it was cancelled."""

from __future__ import annotations

import csv

from tests.slurm.conftest import HERE, study_config
from tests.unit.tiny_rde import make_still_images
from vosflow.training.rde.files import CURVES

STAGE = {
    "processes": 2,
    "workers": 1,
    "iterations": 8,
    "batch_size": 1,
    "crop": 32,
    "log_every": 8,
    "save_every": 2,
    "clip_gradient": 1.0,
    "hours": 0.5,
}


def write_study(study, **execution) -> None:
    make_still_images(study.folder / "sets/static")
    training = {"method": "rde", "stages": [0], "width": 8, "key_channels": 16, "backbone": "random"}
    training |= {"data": {"static": "sets/static"}, "settings": STAGE}
    config = study_config(1)
    config["execution"] |= execution
    study.write_config({**config, "training": {"tiny": training}})


def asked(job: dict[str, str]) -> tuple[str, ...]:
    nodes = job["NumNodes"].removeprefix("1-")  # "1-1" before it runs: at least and at most
    return (job["Partition"], nodes, *(job[key] for key in ("NumTasks", "CPUs/Task", "TimeLimit")))


def test_two_processes_train_in_one_job_and_go_on_after_a_cancel(study):
    write_study(study)
    study.path = (HERE / "held",)
    before = len(study.cluster.jobs())
    process = study.start("train_all")
    held = [study.stage / f"held-{rank}" for rank in range(2)]
    study.wait(process, lambda: all(mark.exists() for mark in held), "both processes are in the sixth iteration")
    (first,) = study.cluster.jobs("RUNNING")
    study.cluster.ask("scancel", first["JobId"])
    study.finish(process)
    jobs = study.cluster.jobs()[before:]
    # A second one may come while the first is still ending, and fail: another job is training this stage.
    states = [job["JobState"] for job in jobs]
    assert states in (["CANCELLED", "COMPLETED"], ["CANCELLED", "FAILED", "COMPLETED"])
    assert {asked(job)[:4] for job in jobs} == {("cpu", "1", "1", "4")} and asked(jobs[0])[4] == "00:30:00"
    folder = study.folder / "data/training/rde"
    (curves,) = folder.glob(f"*/{CURVES}")
    with open(curves, newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["0", "8"]
    (log,) = study.folder.glob("data/logs/train_rde_stage0-*.log")  # of the second job alone
    assert "stage 0: 8/8" in log.read_text() and "stage 0: 0/8" not in log.read_text()


def test_a_stage_gets_its_gpus_on_one_node(study):
    write_study(study, device="auto")
    before = len(study.cluster.jobs())
    process = study.start("train_all")
    study.wait(process, lambda: len(study.cluster.jobs()) > before, "the job is submitted")
    job = study.cluster.jobs()[before]  # it will fail: torch sees none of these GPUs
    assert asked(job) == ("gpu", "1", "1", "4", "00:30:00") and job["TresPerJob"] == "gres:gpu:2"
