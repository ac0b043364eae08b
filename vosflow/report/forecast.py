"""A forecast for people: a table of runs, totals, and what to write into the config."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vosflow.config import ExecutionConfig
from vosflow.forecast import EXPECTED, Forecast

TELL_FACTOR = 2  # a measured speed this far from the expected one is told


def forecast_table(forecasts: Iterable[Forecast]) -> Table:
    """One row per run."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold", ratio=1)
    for name in ("videos", "done", "frames to do", "jobs", "hours", "estimated from"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in forecasts:
        known = one.videos is not None
        table.add_row(
            f"{one.run.dataset.id}/{one.run.id}",
            str(one.videos) if known else "?",
            str(one.videos_done),
            str(one.frames_to_do) if known else f"~{one.frames_to_do}",
            str(one.jobs),
            f"{_hours(one.seconds + one.load_seconds)} {'GPU' if one.run.gpus else 'CPU'}" if one.frames_to_do else "",
            f"{one.basis}{', sped up' * one.sped_up}" if one.frames_to_do else "",
        )
    return table


def forecast_totals(forecasts: Iterable[Forecast], execution: ExecutionConfig) -> list[str]:
    """Sentences about the whole study."""
    forecasts = list(forecasts)
    to_do = [one for one in forecasts if one.frames_to_do]
    frames, done = sum(one.frames_to_do for one in forecasts), sum(one.frames_done for one in forecasts)
    if not to_do:
        return [f"nothing is left to track: {done} frames of {len(forecasts)} runs are done"]
    jobs = sum(one.jobs for one in forecasts)
    uncounted = any(one.videos is None for one in forecasts)
    videos = "?" if uncounted else str(sum(one.videos - one.videos_done for one in forecasts))
    lines = [
        f"{len(to_do)} of {len(forecasts)} runs have something to track: {jobs} jobs, {videos} videos, "
        f"{'~' * uncounted}{frames} frames; {done} frames are done already",
        *(["? and ~: the manifest of a dataset is not written yet, its frames are a guess"] if uncounted else []),
    ]
    for device, gpus in (("GPU", 1), ("CPU", 0)):
        some = [one for one in to_do if one.run.gpus == gpus]
        seconds, loading = sum(one.seconds for one in some), sum(one.load_seconds for one in some)
        if seconds:
            loads = f"{_hours(loading)} of them to load and compile networks" if loading else "loading not counted"
            lines.append(f"tracking takes about {_hours(seconds + loading)} {device} hours ({loads})")
    lines.append(
        "estimated from: videos of finished runs with the same tracker and weights, or else the same tracker, that the "
        f"cache did not speed up; expected: frames_per_second ({execution.frames_per_second:g}) of the config"
    )
    if any(one.sped_up for one in to_do):
        lines.append(
            "sped up: there are only videos that reused something from the cache; without that it takes longer"
        )
    measured = [one for one in to_do if one.basis != EXPECTED and one.seconds and not one.sped_up]
    if measured:
        speed = sum(one.frames_to_do for one in measured) / sum(one.seconds for one in measured)
        if not 1 / TELL_FACTOR < speed / execution.frames_per_second < TELL_FACTOR:
            lines.append(
                f"earlier records say {speed:.3g} frames/s: with `execution: frames_per_second: {speed:.2g}` jobs of "
                f"`shards: auto` would take the {execution.minutes_per_job:g} minutes of minutes_per_job "
                "(another number of jobs computes no video again)"
            )
    return lines


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}" if seconds >= 36 else "<0.01"
