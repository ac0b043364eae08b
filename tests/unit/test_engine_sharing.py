"""Several jobs over the same videos: locks, what is put off, and what is told."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess

import pytest

from tests.unit.held_job import held_job
from tests.unit.toy_tracker import TOY, ToyTracker, make_toy
from vosflow.engine import track_shard, track_videos
from vosflow.errors import DiskError, VosflowError
from vosflow.method import Method
from vosflow.progress import ShardProgress
from vosflow.records import FORMAT, write_json


@pytest.fixture
def toy(tmp_path):
    """(manifest of three videos, run folder)."""
    return make_toy(tmp_path)


@pytest.fixture
def let_go(monkeypatch):
    """`let_go(job)`: the job goes on when it is told that another one waits for a video, and not before."""
    tell = ShardProgress.wait_for_video

    def let_go(job: subprocess.Popen) -> None:
        def wait_for_video(self, *facts):
            tell(self, *facts)
            job.stdin.close()

        monkeypatch.setattr(ShardProgress, "wait_for_video", wait_for_video)

    return let_go


def test_a_video_that_another_job_is_tracking_is_waited_for(toy, let_go, capfd):
    manifest, folder = toy
    with held_job(manifest, folder, "b", tracker=TOY, shift="1") as job:
        let_go(job)
        track_videos(Method.of(TOY, {"shift": 1}), manifest, ["b"], folder)
        assert "another job is tracking video b, waiting" in capfd.readouterr().err
        assert ToyTracker.tracked == [], "the other job finished it"
        assert job.wait() == 0


def test_what_another_job_is_tracking_is_put_off(toy, let_go, tmp_path, capfd):
    """Two jobs over the same videos share them, instead of one following the other."""
    manifest, folder = toy
    events = tmp_path / "progress.jsonl"
    with held_job(manifest, folder, "b", tracker=TOY, shift="1") as job:
        let_go(job)
        track_videos(Method.of(TOY, {"shift": 1}), manifest, ["b", "c"], folder, progress_file=events)
        assert job.wait() == 0
    told = [json.loads(line) for line in events.read_text().splitlines()]
    kinds = [(event["event"], event.get("video")) for event in told if event["event"] in ("video_done", "video_waits")]
    assert kinds == [("video_done", "c"), ("video_waits", "b"), ("video_done", "b")]
    assert f"process {job.pid}" in told[-3]["holder"] and f"process {os.getpid()}" in told[-3]["job"]
    assert f"delete {folder / '.lock'}" in capfd.readouterr().err, "a dead node may leave its lock behind"


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


def test_a_lock_that_cannot_be_made_stops_the_job(toy):
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


def test_a_killed_process_leaves_no_lock(toy):
    manifest, folder = toy
    with held_job(manifest, folder, "b", tracker=TOY, shift="1") as job:
        job.kill()
        job.wait()
    track_videos(Method.of(TOY), manifest, ["b"], folder)
    assert ToyTracker.tracked == ["b"], "the lock of a killed process is gone"
    assert not list((folder / "masks").glob(".*")), "and so is what it left"
