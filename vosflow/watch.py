"""A study while it runs, on any machines: what the JSON lines in the runs' `progress` folders say of their shards."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from vosflow.forecast import finished_records, manifest_of
from vosflow.manifest import Manifest
from vosflow.study import Run, Study

SILENT_SECONDS = 180  # a job at work writes a line every few seconds; then it loads weights, hangs, or is gone


@dataclass
class ShardWatch:
    """One shard, as its progress file tells. `read` takes in what was added since the last time.

    The speed is that of the job which started last. Where Snakemake was killed, one that it left may still write beside
    it: the videos that this one finishes count, too.
    """

    path: Path
    shard: int
    offset: int = 0
    job: str | None = None
    started: datetime | None = None
    last: datetime | None = None
    heard: datetime | None = None
    frames: int = 0
    ended: bool = True
    waits: str = ""
    problem: str = ""
    finished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def read(self) -> bool:
        """Take in new lines; whether a job began or ended. A line that is being written is left for the next time."""
        with open(self.path, encoding="utf-8") as file:
            file.seek(self.offset)
            text = file.read()
        lines = text[: text.rfind("\n") + 1]
        if lines and self.offset:
            self.heard = datetime.now(UTC)  # by the clock here: those of the nodes may be wrong
        self.offset += len(lines.encode())
        before = (self.started, self.job, self.ended)
        for line in lines.splitlines():
            # Two jobs may have written at the same time over a file system without appends.
            with contextlib.suppress(ValueError, TypeError, KeyError):
                self._take(json.loads(line))
        return before != (self.started, self.job, self.ended)

    def _take(self, event: dict) -> None:
        kind, time, job = event["event"], datetime.fromisoformat(event["time"]).astimezone(UTC), event.get("job")
        if kind == "video_done":
            self.finished.add(event["video"])
            self.failed.pop(event["video"], None)
        if kind == "video_failed":
            self.failed[event["video"]] = _first_line(event["problem"])
        if kind == "start":
            self.started, self.frames, self.failed = time, 0, {}
        if kind in ("start", "job_failed"):
            self.job = job
        if job != self.job:
            return
        self.last, self.ended = time, kind in ("end", "job_failed")
        self.frames = event.get("frames_done", self.frames)
        self.waits = f"waits for video {event['video']} ({event['holder']})" if kind == "video_waits" else ""
        self.problem = _first_line(event.get("problem", "")) if kind == "job_failed" else ""

    def silent(self, now: datetime) -> bool:
        """Whether a job should be at work and has said nothing for long."""
        latest = max(self.last, self.heard or self.last) if self.last else now
        return not self.ended and not self.waits and (now - latest).total_seconds() > SILENT_SECONDS

    def frames_per_second(self, now: datetime) -> float:
        """Speed of the job that is at work; 0 if there is none."""
        if self.ended or self.silent(now) or not self.started or self.last <= self.started:
            return 0.0
        return self.frames / (self.last - self.started).total_seconds()


class RunWatch:
    """One run. The progress files are followed; whenever a job begins or ends, the records of videos are looked at.

    They know what else was finished: before, by jobs of another number of shards, or of another folder.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.manifest: Manifest | None = None
        self.finished: set[str] = set()
        self.shards: dict[str, ShardWatch] = {}

    def look(self) -> None:
        """Take in what is new on disk."""
        first = self.manifest is None
        self.manifest = self.manifest or manifest_of(self.run)
        if self.manifest is None:
            return
        changed = self._follow()
        if first:  # what was told before may be gone since
            for shard in self.shards.values():
                shard.finished.clear()
        if first or changed:
            self.finished |= set(finished_records(self.run, self.manifest))
        for shard in self.shards.values():
            self.finished |= shard.finished

    @property
    def complete(self) -> bool:
        """Whether all videos are tracked."""
        return self.manifest is not None and len(self.finished) >= len(self.manifest.videos)

    @property
    def frames(self) -> int:
        """Frames of all videos; an estimate as long as there is no manifest."""
        if self.manifest is None:
            return self.run.dataset.frames
        return sum(len(video.frames.names) for video in self.manifest.videos)

    @property
    def frames_left(self) -> int:
        """Frames of the videos that are not finished."""
        done = sum(len(v.frames.names) for v in self.manifest.videos if v.name in self.finished) if self.manifest else 0
        return self.frames - done

    def at_work(self, now: datetime) -> list[ShardWatch]:
        """Shards that a job is at work on."""
        return [shard for shard in self.shards.values() if not shard.ended and not shard.silent(now)]

    def frames_per_second(self, now: datetime) -> float:
        """Speed of all its jobs together."""
        return sum(shard.frames_per_second(now) for shard in self.shards.values())

    def troubles(self, now: datetime) -> list[str]:
        """What failed, waits or fell silent, each with the log to look into."""
        if self.complete:
            return []
        found = []
        for shard in sorted(self.shards.values(), key=lambda shard: shard.shard):
            told = [f"{video}: {problem}" for video, problem in shard.failed.items() if video not in self.finished]
            told += [f"shard {shard.shard} failed: {shard.problem}"] if shard.problem and not told else []
            told += [f"shard {shard.shard} {shard.waits}"] if shard.waits else []
            told += [f"shard {shard.shard} silent since {shard.last:%H:%M:%S} UTC, gone?"] if shard.silent(now) else []
            log = self.run.file(f"logs/track_{shard.path.stem}.log")
            found += [f"{self.run.dataset.id}/{self.run.id}: {one}\n    {log}" for one in told]
        return found

    def _follow(self) -> bool:
        """Take in new lines; whether a job began or ended."""
        for path in Path(self.run.folder).glob(f"progress/*-of-{self.run.shards}-{self.run.made}.jsonl"):
            number = re.match(r"\d+", path.name)
            if path.name not in self.shards and number:
                self.shards[path.name] = ShardWatch(path, int(number[0]))
        changed = []
        for shard in list(self.shards.values()):
            try:
                changed.append(shard.read())
            except FileNotFoundError:  # results were deleted: what is told from now on is all there is
                del self.shards[shard.path.name]
                self.finished.clear()
                changed.append(True)
        return any(changed)


class StudyWatch:
    """All runs of a study."""

    def __init__(self, study: Study) -> None:
        self.runs = [RunWatch(run) for run in study.runs]

    def look(self) -> None:
        """Take in what is new on disk."""
        for run in self.runs:
            run.look()

    @property
    def complete(self) -> bool:
        """Whether all videos of all runs are tracked."""
        return all(run.complete for run in self.runs)

    def show(self, lines: int = 50, width: int = 120) -> Group:
        """One screen of at most `lines` lines: runs at work first, then those that wait, then finished ones.

        What does not fit is counted: first the lines of runs give way, then those of troubles.
        """
        now = datetime.now(UTC)
        troubles = [trouble for run in self.runs for trouble in run.troubles(now)]
        order = sorted(self.runs, key=lambda run: (run.complete, not run.at_work(now)))
        rows, shown = min(len(order), lines), min(len(troubles), max(1, lines // 6))
        console = Console(width=width, height=lines, force_terminal=False)
        while True:
            screen = self._screen(now, order, rows, troubles, shown)
            if len(console.render_lines(screen)) <= lines or rows + shown <= 1:
                return screen
            if rows > 3 or not shown:
                rows -= 1
            else:
                shown -= 1

    def _screen(self, now: datetime, order: list[RunWatch], rows: int, troubles: list[str], shown: int) -> Group:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("run", overflow="fold")
        for name in ("videos", "frames\nleft", "jobs\nat work", "frames\n/s", "time\nleft"):
            table.add_column(name, justify="right", no_wrap=True)
        for run in order[:rows]:
            table.add_row(*_row(run, now))
        speed = sum(run.frames_per_second(now) for run in self.runs)
        left = sum(run.frames_left for run in self.runs)
        parts = [
            f"{sum(run.complete for run in self.runs)} of {len(self.runs)} runs tracked",
            f"{sum(len(run.at_work(now)) for run in self.runs)} jobs at work",
            f"{speed:.1f} frames/s",
            f"{left} frames left",
            *([f"about {span(left / speed)} at this speed"] if speed and left else []),
        ]
        below = [
            *([f"and {len(order) - rows} more runs"] if rows < len(order) else []),
            *troubles[:shown],
            *([f"and {len(troubles) - shown} more troubles"] if shown < len(troubles) else []),
        ]
        return Group(Text(f"{datetime.now():%H:%M:%S}  " + ", ".join(parts)), Text(), table, *map(Text, below))


def span(seconds: float) -> str:
    """A time span for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _row(run: RunWatch, now: datetime) -> Iterable[str]:
    speed, jobs = run.frames_per_second(now), len(run.at_work(now))
    failed = any(shard.problem or shard.failed.keys() - run.finished for shard in run.shards.values())
    left = span(run.frames_left / speed) if speed else "starting" if jobs else "failed" if failed else "waiting"
    return (
        f"{run.run.dataset.id}/{run.run.id}",
        f"{len(run.finished)}/{len(run.manifest.videos) if run.manifest else '?'}",
        f"{'' if run.manifest else '~'}{run.frames_left}",
        f"{jobs} of {run.run.shards}" if not run.complete else "",
        f"{speed:.1f}" if speed else "",
        "tracked" if run.complete else left,
    )


def _first_line(problem: str) -> str:
    return (problem.splitlines() or [""])[0]
