"""What a Slurm cluster allows, beside what a study would ask of it."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vosflow.errors import VosflowError
from vosflow.study import Study


def partition_limits() -> dict[str, float | None]:
    """{Slurm partition: longest job it allows, in minutes; None for no limit}; empty where there is no Slurm.

    Raises:
        VosflowError: Slurm is there and does not answer.
    """
    if shutil.which("sinfo") is None:
        return {}
    command = ["sinfo", "-h", "-o", "%R %l"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise VosflowError(
            f"Slurm does not tell its partitions ({told[-1]})",
            path=" ".join(command),
            expected="names and time limits of partitions",
            remedy="run it where `sinfo` answers",
        ) from error
    return {partition: parse_minutes(limit) for partition, limit in map(str.split, answer.splitlines())}


def parse_minutes(limit: str) -> float | None:
    """Minutes of a Slurm time limit: "infinite", "30:00", "12:00:00" or "2-00:00:00"."""
    days, dash, rest = limit.rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts):
        return None
    hours, minutes, seconds = (["0", *parts] if len(parts) == 2 else parts + ["0", "0"])[:3]
    return 1440 * int(days or 0) + 60 * int(hours) + int(minutes) + int(seconds) / 60


def limit_warnings(study: Study, profile: str | Path, limits: Mapping[str, float | None]) -> list[str]:
    """Costly jobs that Slurm would refuse or never start: in no such partition, or for more time than it allows.

    Args:
        profile: a Snakemake profile: its folder, or the file in it.
        limits: see `partition_limits`; if it is empty, nothing is known.

    Raises:
        VosflowError: the profile cannot be read.
    """
    asked = _read_profile(Path(profile))
    warnings = set()
    for job in _costly_jobs(study, asked["retries"]) if limits else []:
        own = asked["set-resources"].get(job.rule, {})
        partition = {**asked["default-resources"], **own}.get("slurm_partition")
        partitions = str(partition or "").split(",")  # Slurm takes the first that can start the job
        unknown = [name for name in partitions if name and name not in limits]
        if unknown:
            warnings.add(
                f"{job.rule}: Slurm has no partition {', '.join(unknown)}, its partitions are "
                f"{', '.join(sorted(limits))}: set slurm_partition in {profile}"
            )
            continue
        runtime = own.get("runtime", job.minutes)
        allowed = min(limits.get(name) or math.inf for name in partitions)
        if not isinstance(runtime, int) or runtime <= allowed:  # how expressions are read is Snakemake's
            continue
        why = "as its `runtime` says" if "runtime" in own else job.why
        warnings.add(
            f"{job.rule} asks for up to {runtime} minutes ({why}), but partition {partition} allows {allowed:.0f}: "
            f"set its `runtime` in {profile}, or lower {job.setting}"
        )
    return sorted(warnings)


@dataclass(frozen=True)
class _Asked:
    """What jobs of a rule ask for: so many minutes at most, why, and by which key of the study."""

    rule: str
    minutes: int
    why: str
    setting: str


def _costly_jobs(study: Study, retries: int) -> Iterator[_Asked]:
    for run in study.runs:
        rule = "track_shard" if run.gpus else "track_shard_on_cpu"
        why = f"{run.time_limit}, more when retried"
        yield _Asked(rule, run.time_limit * (1 + retries), why, "minutes_per_job")
    for job in study.trainings:
        rule = "train_rde_stage" if job.on_gpus else "train_rde_stage_on_cpu"
        yield _Asked(rule, job.minutes, f"`hours` of {job.id}", "`hours`: a stage that is not done then goes on later")


def _read_profile(path: Path) -> dict[str, Any]:
    """The keys of a profile that matter here, with what Snakemake takes where they are not given."""
    file = path / "config.yaml" if path.is_dir() else path
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
        maps = {key: given.get(key) or {} for key in ("default-resources", "set-resources")}
        if not all(isinstance(found, dict) for found in (maps, *maps.values(), *maps["set-resources"].values())):
            raise ValueError("default-resources or set-resources is no mapping")
        return {**maps, "retries": int(given.get("retries", 0))}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise VosflowError(
            f"not a readable profile ({error})",
            path=file,
            expected="a profile written like profiles/slurm/config.yaml: its folder, or the file",
        ) from error
