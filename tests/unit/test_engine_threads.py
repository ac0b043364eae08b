"""Faults while frames are read ahead and masks are written behind: no hang, one clear error, nothing lost but the video
in work."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import make_videos
from tests.unit.held_job import PATIENCE, READING, WRITING, held_job
from tests.unit.test_ahead import threads_left
from tests.unit.toy_tracker import all_bytes, finished
from vosflow import mask_writer
from vosflow.ahead import Behind
from vosflow.engine import track_shard, track_videos
from vosflow.errors import DiskError, VosflowError
from vosflow.mask_writer import VideoMaskWriter
from vosflow.method import Method
from vosflow.trackers.base import TrackerSettings


class ReaderTracker:
    """Label maps from frames that are read ahead, all in one buffer that it uses again and again."""

    Settings = TrackerSettings
    needs_checkpoint = False
    uses_gpu = False

    def __init__(self, settings, checkpoint, device):
        pass

    def load(self):
        pass

    def track(self, video):
        buffer = np.zeros((video.height, video.width), np.uint8)
        for index, frame in video.frames(0):
            buffer[...] = (frame[..., 0] > 100) * (1 + index % 2)
            yield video.frame_names[index], buffer
        buffer[...] = 0
        video.remark("used its buffer again")


READER = f"{__name__}:ReaderTracker"


@pytest.fixture
def reader(tmp_path):
    """(manifest of three videos, run folder)."""
    return make_videos(tmp_path / "data", {"a": 14, "b": 16, "c": 15}), tmp_path / "run"


def test_masks_are_written_as_they_were_given(reader):
    manifest, folder = reader
    track_videos(Method.of(READER), manifest, ["b"], folder)
    for index in range(16):
        with Image.open(folder / f"masks/b/{index:05d}.png") as image:
            assert sorted(np.unique(image)) == [0, 1 + index % 2]
    assert threads_left() == []


def test_what_a_tracker_remarks_is_in_the_records_and_told_once(reader, capsys):
    manifest, folder = reader
    track_videos(Method.of(READER), manifest, ["a", "b"], folder)
    remarks = [json.loads((folder / f"videos/{video}.json").read_text())["remarks"] for video in "ab"]
    assert remarks == [["used its buffer again"]] * 2
    assert capsys.readouterr().err.count("used its buffer again") == 1


def test_a_damaged_frame_is_one_clear_error(reader, tmp_path):
    manifest, folder = reader
    path = tmp_path / "data/JPEGImages/480p/b/00009.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(VosflowError) as caught:
        track_shard(Method.of(READER), manifest, folder, shard=1, shards=1)
    message = str(caught.value)
    assert "1 of 3 videos failed" in message and "00009.jpg" in message and "restore it" in message
    assert message.count("00009.jpg") == 1 and "frame 00009 of video b is unreadable" in message
    assert finished(folder) == ["a", "c"] and threads_left() == []


def test_a_full_disk_is_one_clear_error(reader, monkeypatch):
    manifest, folder = reader
    real = VideoMaskWriter._save

    def save(self, path, values):
        if path.name == "00005.png" and self._final.name == "c":
            path.symlink_to("/dev/full")  # a disk without room
        real(self, path, values)

    monkeypatch.setattr(VideoMaskWriter, "_save", save)
    with pytest.raises(DiskError, match="full.*|No space") as caught:
        track_shard(Method.of(READER), manifest, folder, shard=1, shards=1)
    assert "00005.png" in str(caught.value) and "finished videos are kept" in str(caught.value)
    assert finished(folder) == ["b"] and not (folder / "masks/c").exists() and threads_left() == []
    assert not list((folder / "masks").glob(".*"))


def test_an_unforeseen_error_of_the_writer_fails_only_its_video(reader, monkeypatch):
    manifest, folder = reader
    real = VideoMaskWriter._save

    def save(self, path, values):
        if self._final.name == "c":
            raise ZeroDivisionError("a defect")
        real(self, path, values)

    monkeypatch.setattr(VideoMaskWriter, "_save", save)
    with pytest.raises(VosflowError, match="1 of 3 videos failed.*\n- c: ZeroDivisionError: a defect"):
        track_shard(Method.of(READER), manifest, folder, shard=1, shards=1)
    assert finished(folder) == ["a", "b"] and threads_left() == []


def test_the_bytes_are_those_of_a_writer_without_threads(reader, monkeypatch, tmp_path):
    manifest, folder = reader
    track_shard(Method.of(READER), manifest, folder, shard=1, shards=1)

    class AtOnce(Behind):
        def call(self, function, *arguments):
            function(*arguments)

    monkeypatch.setattr(mask_writer, "Behind", AtOnce)
    track_shard(Method.of(READER), manifest, tmp_path / "plain", shard=1, shards=1)
    assert all_bytes(folder) == all_bytes(tmp_path / "plain") and len(all_bytes(folder)) == 45


@pytest.mark.parametrize(
    ("place", "end"),
    [(READING, signal.SIGKILL), (WRITING, signal.SIGKILL), (WRITING, signal.SIGINT)],
    ids=["killed while reading", "killed while writing", "interrupted while writing"],
)
def test_a_job_that_is_ended_while_threads_are_at_work(reader, tmp_path, place, end):
    """In the second video: the first one stays, and an interrupted job, which may, leaves nothing half done."""
    manifest, folder = reader
    with held_job(manifest, folder, "c", tracker=READER, place=place) as job:
        job.send_signal(end)
        job.stdin.close()
        assert job.wait(PATIENCE) != 0
    assert finished(folder) == ["b"] and not (folder / "masks/c").exists()
    assert bool(list((folder / "masks").glob(".*"))) == (end == signal.SIGKILL)
    track_shard(Method.of(READER), manifest, folder, shard=1, shards=1)
    track_shard(Method.of(READER), manifest, tmp_path / "undisturbed", shard=1, shards=1)
    assert all_bytes(folder) == all_bytes(tmp_path / "undisturbed")
    assert not list((folder / "masks").glob(".*"))
