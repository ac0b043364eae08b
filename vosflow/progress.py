"""Progress of one shard: for people (a bar on a terminal, else one line per video) and for machines (JSON lines)."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vosflow.machine import job_name

TELL_SECONDS = 10  # a JSON line at least this often while frames are tracked: silence means that a job hangs or died


def now() -> str:
    """The current time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class ShardProgress:
    """Reports on the videos of one shard. Use as a context manager.

    Args:
        label: what is running, for people.
        frames: frames of each video to do, in order.
        jsonl: file to append machine-readable events to, or None.
        stream: where people look; a bar is drawn only if it is a terminal.
    """

    def __init__(
        self, label: str, frames: dict[str, int], jsonl: str | Path | None = None, stream: IO[str] | None = None
    ) -> None:
        self._label = label
        self._frames = frames
        self._total = sum(frames.values())
        self._stream = stream or sys.stderr
        self._jsonl = Path(jsonl) if jsonl else None
        self._done_frames = 0
        self._done_videos = 0
        self._failed_videos = 0
        self._remarks: set[str] = set()
        self._started = time.monotonic()
        self._told = self._started
        self._bar: Progress | None = None

    def __enter__(self) -> ShardProgress:
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames  {task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(file=self._stream),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total, speed="")
        self._event("start", videos=len(self._frames), frames=self._total)
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._bar:
            self._bar.stop()
        self._event("end", videos_done=self._done_videos)

    def start_video(self, video: str) -> None:
        """A video begins."""
        self._event("video_start", video=video, frames=self._frames[video])
        if self._bar:
            number = f"video {self._done_videos + self._failed_videos + 1}/{len(self._frames)}"
            self._bar.update(self._task, description=f"{self._label}  {number}  {video}")

    def frame(self) -> None:
        """One frame's masks were written."""
        self._done_frames += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done_frames, speed=f"{self._speed():.1f} frames/s")
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._event("frames")

    def finish_video(self, video: str, remarks: Iterable[str] = (), **facts: object) -> None:
        """A video is finished; `facts` go into the JSON line. What the tracker remarked is told once for all videos."""
        self._done_videos += 1
        self._event("video_done", video=video, **facts)
        for remark in remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                self._say(f"{self._label}: {video}: {remark}")
        if not self._bar:
            left = max(0, self._total - self._done_frames) / max(self._speed(), 1e-9)
            self._say(
                f"{self._label}: {video} done, video {self._done_videos}/{len(self._frames)}, "
                f"{self._speed():.1f} frames/s, {left:.0f} s left"
            )

    def wait_for_video(self, video: str, holder: str, lock: str | Path) -> None:
        """Another job is tracking the video, and nothing else is left to do."""
        self._event("video_waits", video=video, holder=holder)
        self._say(
            f"{self._label}: another job is tracking video {video}, waiting for it ({holder}). If that job is gone and "
            f"its node left the lock behind: end the jobs of this run, delete {lock}, and run snakemake again"
        )

    def skip_video(self, video: str) -> None:
        """Another job finished the video in the meantime."""
        self._total -= self._frames[video]
        self._done_videos += 1
        if self._bar:
            self._bar.update(self._task, total=self._total)
        self._event("video_done", video=video)
        self._say(f"{self._label}: {video} was finished by another job")

    def fail_video(self, video: str, problem: str) -> None:
        """A video failed; the others go on."""
        self._failed_videos += 1
        self._event("video_failed", video=video, problem=problem)
        self._say(f"{self._label}: {video} FAILED: {problem.splitlines()[0]}")

    def _speed(self) -> float:
        return self._done_frames / max(time.monotonic() - self._started, 1e-9)

    def _say(self, text: str) -> None:
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _event(self, event: str, **facts: object) -> None:
        if self._jsonl:
            self._told = time.monotonic()
            _tell(self._jsonl, event, run=self._label, frames_done=self._done_frames, **facts)


@contextlib.contextmanager
def telling_failure(jsonl: str | Path) -> Iterator[None]:
    """Append to the events of a shard that its job fails, if it does: perhaps before it comes to videos."""
    try:
        yield
    except Exception as error:
        _tell(Path(jsonl), "job_failed", problem=str(error) or type(error).__name__)
        raise


def _tell(jsonl: Path, event: str, **facts: object) -> None:
    line = json.dumps({"time": now(), "event": event, "job": job_name(), **facts})
    # A full disk must be told by what writes results; this here must not hide that error with another.
    with contextlib.suppress(OSError):
        jsonl.parent.mkdir(parents=True, exist_ok=True)
        with open(jsonl, "a", encoding="utf-8") as file:
            file.write(line + "\n")
