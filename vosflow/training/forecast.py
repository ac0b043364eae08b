"""What trainings will take, before they run and while they do: from the curves of what is trained already."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from vosflow.training.planning import StageJob
from vosflow.training.rde.files import WORK


def forecast_trainings(jobs: Iterable[StageJob]) -> Iterator[str]:
    """One sentence about each stage."""
    first: dict[str, str] = {}  # of stages that trainings have in common
    for job in jobs:
        if first.setdefault(job.folder, job.id) != job.id:
            yield f"training {job.id}: the same as {first[job.folder]}"
            continue
        settings = job.plan.settings
        place = f"{job.gpus} GPUs of one machine" if job.gpus else f"the CPU, {settings.processes} processes"
        yield f"training {job.id}: {settings.iterations} iterations on {place}; {_state(job)}"


def _state(job: StageJob) -> str:
    if Path(job.weights).exists():
        return "done"
    done, seconds = progress(Path(job.curves))
    if not done:  # Snakemake deletes the curves of a job that failed, until the next one writes them again
        begun = Path(job.folder, WORK).exists()
        state = "begun, its next job tells how far it is" if begun else "nothing done yet"
        return f"{state}; its jobs, each going on from the one before, ask for {job.minutes} minutes"
    to_go = (job.plan.settings.iterations - done) * seconds / 3600
    return f"{done} done, about {to_go:.1f} hours to go at {seconds:.2f} s each"


def progress(curves: Path) -> tuple[int, float]:
    """Iterations that are done, and the mean of their seconds; 0 where there are no curves (yet)."""
    try:
        with open(curves, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["seconds"]]
        seconds = {int(float(row["iteration"])): float(row["seconds"]) for row in rows}
    except (OSError, ValueError, KeyError):  # what needs the file tells
        return 0, 0.0
    return max(seconds, default=0), sum(seconds.values()) / max(1, len(seconds))
