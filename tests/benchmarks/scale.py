"""How vosflow scales: planning of large studies, and how evenly shards load GPUs.

    python tests/benchmarks/scale.py [--jobs 10 1000 10000]

Planning is a dry run of Snakemake; its CPU seconds and peak memory are those of the process and its children. For the
balance, each way to divide the videos is compared by its makespan, as a ratio to the lower bound max(mean load, longest
video): 1.000 is the best there is. Everything is seeded, so the ratios are the same on every machine.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # so that the script runs from a plain checkout

import yaml
from rich.console import Console
from rich.table import Table

from tests.unit.test_sharding import DAVIS_2017_VAL
from vosflow.config import ExecutionConfig
from vosflow.sharding import plan_shards

HOUSE = Path(__file__).resolve().parents[2]
GPUS = (1, 2, 4, 7, 8, 16, 32, 64, 75, 128, 256)
RUNS = 10
STUDY_RUNS = 14  # as studies/sam2_memory_ablation.yaml has on each of its datasets


def plan_study(jobs: int, folder: Path) -> tuple[float, float, float]:
    """Dry run of a study of `jobs` tracking jobs; returns (CPU seconds, wall seconds, peak memory in MB)."""
    runs = min(RUNS, jobs)
    config = {
        "runs": [{"name": f"run{n}", "dataset": "demo/val", "tracker": "flow"} for n in range(runs)],
        "execution": {"device": "cpu", "shards": jobs // runs},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--cores", "1", "--configfile", "study.yaml"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--snakefile", HOUSE / "Snakefile"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime, time.perf_counter() - start, used.ru_maxrss / 1024


def long_tailed(videos: int) -> list[int]:
    """Made-up video lengths in frames: log-normal, 20 to 3000, median 80; as mixed as LVOS beside MOSE."""
    dice = random.Random(videos)
    return [min(3000, max(20, round(dice.lognormvariate(math.log(80), 0.9)))) for _ in range(videos)]


def ours(lengths: Sequence[int], gpus: int) -> float:
    """One run, as many shards as GPUs."""
    return max(_loads(plan_shards(dict(enumerate_names(lengths)), gpus), lengths)) / bound(lengths, gpus)


def by_work(lengths: Sequence[int], gpus: int) -> float:
    """A study of 14 runs with `shards: auto`: jobs of about 15 minutes, and a free GPU takes the next.

    Knows nothing of the number of GPUs. Longer than the bound by at most one job.
    """
    execution = ExecutionConfig()
    shards = math.ceil(sum(lengths) / execution.frames_per_second / 60 / execution.minutes_per_job)
    busy = [0.0] * gpus
    for load in STUDY_RUNS * _loads(plan_shards(dict(enumerate_names(lengths)), shards), lengths):
        heapq.heappush(busy, heapq.heappop(busy) + load)
    return max(busy) / max(STUDY_RUNS * sum(lengths) / gpus, max(lengths))


def round_robin(lengths: Sequence[int], gpus: int) -> float:
    """Video number i to GPU i mod n."""
    return max(sum(lengths[gpu::gpus]) for gpu in range(gpus)) / bound(lengths, gpus)


def contiguous(lengths: Sequence[int], gpus: int) -> float:
    """Equal numbers of neighbouring videos, as scripts that take a start and an end index do."""
    size = math.ceil(len(lengths) / gpus)
    return max(sum(lengths[start : start + size]) for start in range(0, len(lengths), size)) / bound(lengths, gpus)


def bound(lengths: Sequence[int], gpus: int) -> float:
    """No division of one run has a smaller makespan than this."""
    return max(sum(lengths) / gpus, max(lengths))


def enumerate_names(lengths: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"{index:05d}", length) for index, length in enumerate(lengths)]


def _loads(plan: Sequence[Sequence[str]], lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[int(name)] for name in videos) for videos in plan]


def balance(title: str, lengths: Sequence[int]) -> Table:
    """Ratios of all ways to divide one set of videos."""
    table = Table(title=f"{title}: {len(lengths)} videos, {sum(lengths)} frames, longest {max(lengths)}")
    ways: list[Callable[[Sequence[int], int], float]] = [ours, round_robin, contiguous, by_work]
    for name in ["GPUs", "videos/GPU", "ours", "round robin", "contiguous", "14 runs, auto", "plan, CPU s"]:
        table.add_column(name, justify="right")
    for gpus in GPUS:
        start = time.process_time()
        plan_shards(dict(enumerate_names(lengths)), gpus)
        spent = time.process_time() - start
        ratios = [f"{way(lengths, gpus):.3f}" for way in ways]
        table.add_row(str(gpus), f"{len(lengths) / gpus:.1f}", *ratios, f"{spent:.2f}")
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[10, 1_000, 10_000], help="sizes of studies to plan")
    args = parser.parse_args()
    console = Console(width=120)
    for title, lengths in (
        ("DAVIS 2017 val", DAVIS_2017_VAL),
        ("made up, long-tailed", long_tailed(300)),
        ("made up, long-tailed", long_tailed(5_000)),
    ):
        console.print(balance(title, lengths))
    table = Table("tracking jobs", "CPU s", "wall s", "peak memory, MB", title="planning (snakemake -n)")
    for jobs in args.jobs:
        with tempfile.TemporaryDirectory() as folder:
            cpu, wall, memory = plan_study(jobs, Path(folder))
        table.add_row(str(jobs), f"{cpu:.1f}", f"{wall:.1f}", f"{memory:.0f}")
    console.print(table)


if __name__ == "__main__":
    main()
