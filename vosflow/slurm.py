"""What a Slurm cluster allows, beside what a study would ask of it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from vosflow.study import Study


def partition_limits() -> dict[str, float | None]:
    """{Slurm partition: longest job it allows, in minutes; None for no limit}; empty where there is no Slurm."""
    if shutil.which("sinfo") is None:
        return {}
    answer = subprocess.run(["sinfo", "-h", "-o", "%R %l"], capture_output=True, text=True, timeout=60, check=False)
    lines = [line.split() for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
    return {partition: parse_minutes(limit) for partition, limit in lines}


def parse_minutes(limit: str) -> float | None:
    """Minutes of a Slurm time limit: "infinite", "30:00", "12:00:00" or "2-00:00:00"."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    hours, minutes, seconds = (["0", *parts] if len(parts) == 2 else parts + ["0", "0"])[:3]
    return 1440 * int(days or 0) + 60 * int(hours) + int(minutes) + int(seconds) / 60


def limit_warnings(study: Study, profile: str | Path, limits: Mapping[str, float | None]) -> list[str]:
    """Tracking jobs that would ask a partition of the profile for more time than it allows, which Slurm never starts.

    Args:
        profile: a Snakemake profile, e.g. profiles/slurm/config.yaml.
        limits: see `partition_limits`.
    """
    asked = yaml.safe_load(Path(profile).read_text(encoding="utf-8"))
    warnings = set()
    for run in study.runs:
        rule = "track_shard" if run.gpus else "track_shard_on_cpu"
        resources = {**asked.get("default-resources", {}), **asked.get("set-resources", {}).get(rule, {})}
        partition = resources.get("slurm_partition")
        allowed = limits.get(partition)
        longest = run.time_limit * (1 + asked.get("retries", 0))
        if "runtime" in asked.get("set-resources", {}).get(rule, {}) or allowed is None or longest <= allowed:
            continue
        warnings.add(
            f"{rule} asks for up to {longest} minutes ({run.time_limit}, more when retried), but partition {partition} "
            f"allows {allowed:.0f}: set its `runtime` in {profile}, or lower minutes_per_job"
        )
    return sorted(warnings)
