"""A study while it runs, on any machines: what the JSON lines in the runs' `progress` folders say of their shards."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vosflow.forecast import finished_records, manifest_of
from vosflow.manifest import Manifest
from vosflow.study import Run, Study

SILENT_SECONDS = 180  # a job at work writes a line every few seconds; then it loads weights, hangs, or is gone


@dataclass
class ShardWatch:
    """One shard, as its progress file tells. `read` takes in what was added since the last time."""

    path: Path
    shard: int
    offset: int = 0
    started: datetime | None = None
    last: datetime | None = None
    frames: int = 0
    ended: bool = True
    finished: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Take in new lines. A line that is still being written is left for the next time."""
        with open(self.path, encoding="utf-8") as file:
            file.seek(self.offset)
            text = file.read()
        lines = text[: text.rfind("\n") + 1]
        self.offset += len(lines.encode())
        for line in lines.splitlines():
            try:
                self._take(json.loads(line))
            except ValueError:
                continue  # two jobs wrote at the same time over a file system without appends

    def _take(self, event: dict) -> None:
        self.last = datetime.fromisoformat(event["time"])
        kind, self.ended = event["event"], event["event"] == "end"
        if kind == "start":
            self.started, self.frames, self.failed = self.last, 0, {}
        self.frames = event.get("frames_done", self.frames)
        if kind == "video_done":
            self.finished.add(event["video"])
            self.failed.pop(event["video"], None)
        if kind == "video_failed":
            self.failed[event["video"]] = event["problem"].splitlines()[0]

    def silent(self, now: datetime) -> bool:
        """Whether a job should be at work and has said nothing for long."""
        return not self.ended and (now - self.last).total_seconds() > SILENT_SECONDS

    def frames_per_second(self, now: datetime) -> float:
        """Speed of the job that is at work; 0 if there is none."""
        if self.ended or self.silent(now) or self.last == self.started:
            return 0.0
        return self.frames / (self.last - self.started).total_seconds()


class RunWatch:
    """One run. What was finished before is taken from its records, once; then the progress files are followed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.manifest: Manifest | None = None
        self.finished: set[str] = set()
        self.shards: dict[str, ShardWatch] = {}

    def look(self) -> None:
        """Take in what is new on disk."""
        if self.manifest is None:
            self.manifest = manifest_of(self.run)
            if self.manifest is None:
                return
            self._follow()  # first, so that what was told before is not taken for new
            for shard in self.shards.values():
                shard.finished.clear()
            self.finished = set(finished_records(self.run, self.manifest))
        self._follow()
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
        """What failed or fell silent, each with the log to look into."""
        found = []
        for shard in sorted(self.shards.values(), key=lambda shard: shard.shard):
            name = f"{self.run.dataset.id}/{self.run.id}"
            log = self.run.file(f"logs/track_{shard.shard}-of-{self.run.shards}-{self.run.made}.log")
            for video, problem in shard.failed.items():
                if video not in self.finished:
                    found.append(f"{name}: {video}: {problem}\n    {log}")
            if shard.silent(now) and not self.complete:
                found.append(f"{name}: shard {shard.shard} silent since {shard.last:%H:%M:%S} UTC, gone?\n    {log}")
        return found

    def _follow(self) -> None:
        for path in Path(self.run.folder).glob(f"progress/*-of-{self.run.shards}.jsonl"):
            number = re.match(r"\d+", path.name)
            if path.name not in self.shards and number:
                self.shards[path.name] = ShardWatch(path, int(number[0]))
        for shard in self.shards.values():
            shard.read()


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

    def show(self, lines: int = 50) -> Group:
        """One screen of at most about `lines` lines: runs at work first, then those that wait, then finished ones."""
        now = datetime.now(UTC)
        troubles = [trouble for run in self.runs for trouble in run.troubles(now)]
        shown = troubles[: max(1, lines // 6)]
        order = sorted(self.runs, key=lambda run: (run.complete, not run.at_work(now)))
        rows = order[: max(3, lines - 8 - 2 * len(shown))]
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("run", overflow="fold")
        for name in ("videos", "frames left", "jobs at work", "frames/s", "time left"):
            table.add_column(name, justify="right", no_wrap=True)
        for run in rows:
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
        rest = len(order) - len(rows)
        return Group(
            Text(f"{datetime.now():%H:%M:%S}  " + ", ".join(parts)),
            table,
            Text(f"and {rest} more runs" if rest else ""),
            Text("\n".join(shown)),
            Text(f"and {len(troubles) - len(shown)} more" if len(troubles) > len(shown) else ""),
        )


def span(seconds: float) -> str:
    """A time span for people: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _row(run: RunWatch, now: datetime) -> Iterable[str]:
    speed = run.frames_per_second(now)
    return (
        f"{run.run.dataset.id}/{run.run.id}",
        f"{len(run.finished)}/{len(run.manifest.videos) if run.manifest else '?'}",
        f"{'' if run.manifest else '~'}{run.frames_left}",
        f"{len(run.at_work(now))} of {run.run.shards}" if not run.complete else "",
        f"{speed:.1f}" if speed else "",
        "tracked" if run.complete else span(run.frames_left / speed) if speed else "waiting",
    )
