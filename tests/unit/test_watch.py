"""Watching a study: from the JSON lines that its shards write."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.clips import make_videos
from tests.unit.test_forecast import FRAMES, plan, track
from vosflow import progress
from vosflow.manifest import save_manifest
from vosflow.progress import ShardProgress
from vosflow.watch import StudyWatch, span

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def watch(tmp_path, monkeypatch) -> StudyWatch:
    monkeypatch.chdir(tmp_path)
    save_manifest(make_videos(tmp_path / "videos", FRAMES), "results/toy-val/manifest.json")
    return StudyWatch(plan())


def tell(file: str, event: str, ago: float = 0, end: str = "\n", **facts) -> None:
    """Write a line, as a shard did `ago` seconds ago."""
    path = Path(f"results/toy-val/static/progress/{file}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    time = (NOW - timedelta(seconds=ago)).isoformat()
    with open(path, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"time": time, "event": event, **facts}) + end)


def screen(watch: StudyWatch, lines: int = 40) -> str:
    watch.look()
    console = Console(width=120)
    with console.capture() as captured:
        console.print(watch.show(lines))
    return captured.get()


def test_a_study_that_waits(watch):
    assert "0 of 1 runs tracked, 0 jobs at work" in screen(watch) and "waiting" in screen(watch)
    assert watch.runs[0].frames_left == 20 and not watch.complete


def test_videos_speed_and_time_left(watch):
    tell("1-of-2", "start", ago=20, frames_done=0)
    tell("1-of-2", "frames", ago=10, frames_done=3)
    tell("1-of-2", "video_done", video="b", frames_done=6)
    text = screen(watch)
    run = watch.runs[0]
    assert run.finished == set(), "told before the watch began, and there is no record: it was deleted since"
    assert run.frames_per_second(NOW) == pytest.approx(6 / 20) and "1 jobs at work, 0.3 frames/s" in text
    tell("1-of-2", "video_done", video="d", frames_done=10)
    tell("2-of-2", "start", ago=10, frames_done=0)
    tell("2-of-2", "frames", frames_done=3)
    tell("1-of-3", "start", frames_done=0)  # of an earlier number of shards
    text = screen(watch)
    assert run.finished == {"d"} and run.frames_left == 16
    assert run.frames_per_second(NOW) == pytest.approx(10 / 20 + 3 / 10)
    assert "1/4" in text and "2 of 2" in text and "about 20 s at this speed" in text


def test_what_was_finished_before_counts(watch):
    names = track(watch.runs[0].manifest or make_videos(Path("videos"), FRAMES), plan(), 1)
    watch.look()
    assert watch.runs[0].finished == set(names)


def test_a_line_that_is_being_written_is_waited_for(watch):
    watch.look()
    tell("1-of-2", "start", frames_done=0)
    tell("1-of-2", "video_done", video="a", end="")
    watch.look()
    assert watch.runs[0].finished == set()
    with open("results/toy-val/static/progress/1-of-2.jsonl", "a") as file:
        file.write("\nnot json\n")
    watch.look()
    assert watch.runs[0].finished == {"a"}


def test_failures_and_silence_name_the_log(watch):
    tell("1-of-2", "start", ago=500, frames_done=0)
    tell("2-of-2", "start", ago=20, frames_done=0)
    tell("2-of-2", "video_failed", video="c", problem="no memory\nmore")
    text = screen(watch)
    assert "toy-val/static: c: no memory" in text and "shard 1 silent since" in text
    made = watch.runs[0].run.made
    for shard in (1, 2):
        assert f"results/toy-val/static/logs/track_{shard}-of-2-{made}.log" in text
    tell("2-of-2", "start", frames_done=0)
    assert "no memory" not in screen(watch), "tried again"


def test_the_end(watch):
    watch.look()
    for shard, names in (("1-of-2", "ab"), ("2-of-2", "cd")):
        tell(shard, "start", ago=5, frames_done=0)
        for name in names:
            tell(shard, "video_done", video=name)
        tell(shard, "end")
    assert "1 of 1 runs tracked, 0 jobs at work, 0.0 frames/s, 0 frames left" in screen(watch)
    assert watch.complete


def test_it_fits_on_a_screen(watch):
    watch.runs *= 100
    text = screen(watch, lines=30)
    assert len(text.splitlines()) <= 30 and "and 78 more runs" in text


def test_it_reads_what_shards_write(watch, monkeypatch):
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)  # a line for every frame
    watch.look()
    with ShardProgress("x", {"a": 5, "b": 6}, "results/toy-val/static/progress/1-of-2.jsonl") as told:
        told.start_video("a")
        told.frame()
        watch.look()
        (shard,) = watch.runs[0].shards.values()
        assert shard.frames == 1, "told in the middle of a video"
        told.finish_video("a", seconds=1.0)
        told.skip_video("b")
        watch.look()
        assert watch.runs[0].finished == {"a", "b"} and len(watch.runs[0].at_work(datetime.now(UTC))) == 1
    watch.look()
    assert not watch.runs[0].at_work(datetime.now(UTC))


def test_spans_for_people():
    assert [span(seconds) for seconds in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]
