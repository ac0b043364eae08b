"""Several jobs over the same videos: locks, what is put off, and what is told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.clips import make_videos
from tests.unit.test_engine import TOY, ToyTracker, start_slow_job, wait_for
from vosflow.engine import track_shard, track_videos
from vosflow.errors import DiskError, VosflowError
from vosflow.manifest import save_manifest
from vosflow.method import Method
from vosflow.progress import ShardProgress
from vosflow.records import FORMAT, write_json


@pytest.fixture
def toy(tmp_path):
    """(manifest of three videos, run folder)."""
    ToyTracker.tracked, ToyTracker.loaded = [], 0
    return make_videos(tmp_path / "data", {"a": 4, "b": 6, "c": 5}), tmp_path / "run"


@contextlib.contextmanager
def stopped_until_awaited(job: subprocess.Popen, events: Path) -> Iterator[None]:
    """The job stands still until another one, whose progress is in `events`, says that it waits for a video."""
    job.send_signal(signal.SIGSTOP)
    over = threading.Event()

    def go_on_when_awaited() -> None:
        while not over.wait(0.02) and not (events.exists() and "video_waits" in events.read_text()):
            pass
        job.send_signal(signal.SIGCONT)

    watch = threading.Thread(target=go_on_when_awaited)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def test_a_video_that_another_job_is_tracking_is_waited_for(toy, tmp_path, capfd):
    manifest, folder = toy
    save_manifest(manifest, tmp_path / "manifest.json")
    job = start_slow_job(tmp_path, folder, pause=0.2)
    wait_for(folder, ".*.writing.b/00001.png", job)
    method = Method.of("tests.unit.test_engine:ToyTracker", {"shift": 1})
    events = tmp_path / "progress.jsonl"
    with stopped_until_awaited(job, events):
        track_videos(method, manifest, ["b"], folder, progress_file=events)
    assert "another job is tracking video b, waiting" in capfd.readouterr().err
    assert ToyTracker.tracked == [], "the other job finished it"
    job.wait()


def test_what_another_job_is_tracking_is_put_off(toy, tmp_path, capfd):
    """Two jobs over the same videos share them, instead of one following the other."""
    manifest, folder = toy
    save_manifest(manifest, tmp_path / "manifest.json")
    job = start_slow_job(tmp_path, folder, pause=0.2)
    wait_for(folder, ".*.writing.b/00001.png", job)
    method = Method.of("tests.unit.test_engine:ToyTracker", {"shift": 1})
    events = tmp_path / "progress.jsonl"
    with stopped_until_awaited(job, events):
        track_videos(method, manifest, ["b", "c"], folder, progress_file=events)
    told = [json.loads(line) for line in events.read_text().splitlines()]
    kinds = [(event["event"], event.get("video")) for event in told if event["event"] in ("video_done", "video_waits")]
    assert kinds == [("video_done", "c"), ("video_waits", "b"), ("video_done", "b")]
    assert f"process {job.pid}" in told[-3]["holder"] and f"process {os.getpid()}" in told[-3]["job"]
    assert f"delete {folder / '.lock'}" in capfd.readouterr().err, "a dead node may leave its lock behind"
    job.wait()


def test_masks_replaced_by_another_job_make_no_record(toy, monkeypatch):
    """A study with other settings began to track the same run while this job was at work."""
    manifest, folder = toy
    begun = {"format": FORMAT, "video": "a", "started": "now"}
    finish = ShardProgress.finish_video

    def finish_and_lose(self, video, **facts):
        finish(self, video, **facts)
        write_json(folder / "videos/a.json", begun)

    monkeypatch.setattr(ShardProgress, "finish_video", finish_and_lose)
    with pytest.raises(VosflowError, match="another job has begun to replace its masks"):
        track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)


def test_a_lock_that_cannot_be_made_stops_the_job(toy, monkeypatch):
    manifest, folder = toy
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".lock").mkdir()
    with pytest.raises(DiskError, match="cannot be written"):
        track_videos(Method.of(TOY), manifest, ["a", "b"], folder)


def test_a_file_system_without_locks_is_told_once(toy, monkeypatch, capfd):
    manifest, folder = toy
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "no locks")))
    track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    assert capfd.readouterr().err.count("this file system has no locks") == 1
    assert ToyTracker.tracked == ["a", "b"]


def test_a_shard_without_videos(toy, capfd):
    manifest, folder = toy
    record = track_shard(Method.of(TOY), manifest, folder, shard=9, shards=9)
    assert record["videos"] == [] and "no videos (more shards than videos)" in capfd.readouterr().err


def test_a_killed_process_leaves_no_lock(toy, tmp_path):
    manifest, folder = toy
    save_manifest(manifest, tmp_path / "manifest.json")
    job = start_slow_job(tmp_path, folder, pause=0.2)
    wait_for(folder, ".*.writing.b/00001.png", job)
    job.send_signal(signal.SIGKILL)
    job.wait()
    track_videos(Method.of(TOY), manifest, ["b"], folder)
    assert ToyTracker.tracked == ["b"], "the lock of a killed process is gone"
    assert not list((folder / "masks").glob(".*")), "and so is what it left"
