"""Watching a study: from the JSON lines that its shards write."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.clips import make_videos
from tests.unit.test_forecast import FRAMES, plan, track
from vosflow import progress
from vosflow.manifest import save_manifest
from vosflow.progress import ShardProgress, telling_failure
from vosflow.watch import StudyWatch, span

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(autouse=True)
def _now(monkeypatch) -> None:
    """The time at which a test begins, not that at which the tests were collected, minutes ago perhaps."""
    monkeypatch.setitem(globals(), "NOW", datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def watch(tmp_path, monkeypatch) -> StudyWatch:
    monkeypatch.chdir(tmp_path)
    save_manifest(make_videos(tmp_path / "videos", FRAMES), "results/toy-val/manifest.json")
    return StudyWatch(plan())


def progress_file(shard: str) -> Path:
    """As track_shard.py names it: like the shard's record."""
    return Path(f"results/toy-val/static/progress/{shard}-{plan().runs[0].made}.jsonl")


def tell(file: str, event: str, ago: float = 0, end: str = "\n", **facts) -> None:
    """Write a line, as a shard did `ago` seconds ago."""
    path = progress_file(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    time = (NOW - timedelta(seconds=ago)).isoformat()
    with open(path, "a", encoding="utf-8") as lines:
        lines.write(json.dumps({"time": time, "event": event, **facts}) + end)


def screen(watch: StudyWatch, lines: int = 40, width: int = 120) -> str:
    watch.look()
    console = Console(width=width)
    with console.capture() as captured:
        console.print(watch.show(lines, width))
    return captured.get()


def test_a_study_that_waits(watch):
    assert "0 of 1 runs tracked, 0 jobs at work" in screen(watch) and "waiting" in screen(watch)
    assert watch.runs[0].frames_left == 20 and not watch.complete


def test_videos_speed_and_time_left(watch):
    tell("1-of-2", "start", ago=20, frames_done=0)
    assert "starting" in screen(watch)
    watch = StudyWatch(plan())
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
    with open(progress_file("1-of-2"), "a") as file:
        file.write('\nnot json\n5\n{}\n["time"]\n{"time": 3, "event": "end"}\n')
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


def test_of_two_jobs_of_a_shard_the_newer_gives_the_speed(watch):
    """Snakemake was killed; a job that it left goes on beside the one that was started since."""
    tell("1-of-2", "start", ago=1000, frames_done=0, job="old")
    tell("1-of-2", "start", ago=10, frames_done=0, job="new")
    tell("1-of-2", "frames", ago=5, frames_done=10, job="new")
    tell("1-of-2", "frames", ago=1, frames_done=5000, job="old")
    watch.look()
    tell("1-of-2", "video_done", video="a", frames_done=5001, job="old")
    tell("1-of-2", "end", job="old")
    watch.look()
    run = watch.runs[0]
    assert run.frames_per_second(NOW) == pytest.approx(2) and run.finished == {"a"} and len(run.at_work(NOW)) == 1


def test_what_other_jobs_finished_counts(watch):
    """Jobs of another number of shards, left by a killed Snakemake, say nothing in these files."""
    watch.look()
    names = track(make_videos(Path("videos"), FRAMES), plan(), 1)
    watch.look()
    assert watch.runs[0].finished == set(), "a look at all records each time would be slow"
    tell("1-of-2", "start", frames_done=0)
    watch.look()
    assert watch.runs[0].finished == set(names)


def test_a_job_that_fails_before_its_first_video_is_told(watch):
    with pytest.raises(ValueError, match="weights"), telling_failure(progress_file("1-of-2")):
        raise ValueError("weights are broken\n  expected: others")
    text = screen(watch)
    assert "toy-val/static: shard 1 failed: weights are broken\n" in text and "0 jobs at work" in text
    assert any(line.split()[:1] == ["toy-val/static"] and line.split()[-1] == "failed" for line in text.splitlines())
    tell("1-of-2", "start", frames_done=0)
    assert "broken" not in screen(watch), "tried again"
    tell("1-of-2", "video_failed", video="c", problem="no memory")
    tell("1-of-2", "end")
    tell("1-of-2", "job_failed", problem="1 of 2 videos failed")
    assert "c: no memory" in screen(watch) and "1 of 2 videos failed" not in screen(watch), "told once"


def test_a_job_that_waits_for_another_is_not_silent(watch):
    tell("1-of-2", "start", ago=5000, frames_done=0)
    tell("1-of-2", "video_waits", ago=4000, video="a", holder="node7, process 1")
    text = screen(watch)
    assert "shard 1 waits for video a (node7, process 1)" in text and "silent" not in text


def test_a_clock_that_is_behind_makes_no_job_silent(watch):
    tell("1-of-2", "start", ago=3000, frames_done=0)
    assert "silent" in screen(watch), "this may be a job that was killed long ago"
    tell("1-of-2", "frames", ago=2990, frames_done=5)
    assert "silent" not in screen(watch) and watch.runs[0].frames_per_second(NOW) == 0.5


def test_results_that_are_deleted_meanwhile(watch):
    tell("1-of-2", "start", frames_done=0)
    watch.look()
    tell("1-of-2", "video_done", video="a")
    watch.look()
    shutil.rmtree("results/toy-val/static")
    watch.look()
    assert watch.runs[0].finished == set() and not watch.runs[0].at_work(NOW)


def test_masks_of_other_settings_are_another_story(watch):
    tell("1-of-2", "start", frames_done=0)
    tell("1-of-2", "video_failed", video="c", problem="no memory")
    other = plan(name="static", tracker="flow")
    assert "no memory" not in screen(StudyWatch(other))


def test_the_end(watch):
    watch.look()
    for shard, names in (("1-of-2", "ab"), ("2-of-2", "cd")):
        tell(shard, "start", ago=5, frames_done=0)
        for name in names:
            tell(shard, "video_done", video=name)
        tell(shard, "end")
    assert "1 of 1 runs tracked, 0 jobs at work, 0.0 frames/s, 0 frames left" in screen(watch)
    assert watch.complete


@pytest.mark.parametrize(("lines", "width"), [(30, 120), (24, 80), (24, 60), (10, 80)])
def test_it_fits_on_a_screen(watch, lines, width):
    tell("1-of-2", "start", frames_done=0)
    for number in range(50):
        tell("1-of-2", "video_failed", video=f"v{number}", problem="a long story " * 9)
    watch.look()
    watch.runs *= 100
    text = screen(watch, lines, width)
    assert len(text.splitlines()) <= lines and "more runs" in text and "more troubles" in text
    if lines >= 24:
        assert "track_1-of-2" in text, "the log is named"


def test_a_screen_of_80_columns_shows_names_whole(watch):
    watch.look()
    object.__setattr__(watch.runs[0].run, "id", "sam2_demo@num_maskmem=7")
    assert "toy-val/sam2_demo@num_maskmem=7 " in screen(watch, 24, 80)


def test_it_reads_what_shards_write(watch, monkeypatch):
    monkeypatch.setattr(progress, "TELL_SECONDS", 0)  # a line for every frame
    watch.look()
    with ShardProgress("x", {"a": 5, "b": 6}, progress_file("1-of-2")) as told:
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
