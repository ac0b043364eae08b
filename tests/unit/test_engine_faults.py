"""The loop of a shard: what survives bad input, full disks, memory that is too small, and kills."""

from __future__ import annotations

import contextlib
import errno
import json
import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from tests.unit.held_job import held_job
from tests.unit.toy_tracker import TOY, ToyTracker, all_bytes, finished, make_toy
from vosflow import engine, mask_writer, records
from vosflow.engine import track_shard, track_videos
from vosflow.errors import DiskError, VosflowError
from vosflow.manifest import save_manifest
from vosflow.method import Method
from vosflow.records import RunFolder, write_json
from vosflow.report.tables import write_summary


@pytest.fixture
def toy(tmp_path):
    """(manifest of three videos, run folder)."""
    return make_toy(tmp_path)


def fail_on_a(monkeypatch, error: BaseException) -> None:
    """Have the tracker raise on video a."""
    real = ToyTracker.track

    def track(self, video):
        if video.name == "a":
            raise error
        yield from real(self, video)

    monkeypatch.setattr(ToyTracker, "track", track)


def test_one_bad_video_does_not_stop_the_others(toy, tmp_path):
    manifest, folder = toy
    (tmp_path / "data/JPEGImages/480p/b/00004.jpg").unlink()
    with pytest.raises(VosflowError) as caught:
        track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)
    message = str(caught.value)
    assert "1 of 3 videos failed" in message and "b/00004.jpg" in message and "missing" in message
    assert finished(folder) == ["a", "c"]
    assert not (folder / "masks" / "b").exists() and not list((folder / "masks").glob(".b*"))


def test_failure_keeps_the_old_masks_but_not_the_old_promise(toy, tmp_path):
    manifest, folder = toy
    track_videos(Method.of(TOY), manifest, ["b"], folder)
    before = all_bytes(folder)
    (tmp_path / "data/JPEGImages/480p/b/00004.jpg").unlink()
    with pytest.raises(VosflowError):
        track_videos(Method.of(TOY, {"shift": 3}), manifest, ["b"], folder)
    assert all_bytes(folder) == before
    assert finished(folder) == []


def test_a_full_disk_stops_the_shard_and_keeps_finished_videos(toy, monkeypatch):
    manifest, folder = toy
    written = []
    real_open = open

    class FullFile:
        """A file on a disk without room: what /dev/full does."""

        def __init__(self, path):
            self.file = real_open("/dev/full", "wb", buffering=0)

        def __enter__(self):
            return self.file

        def __exit__(self, *_):
            self.file.close()

    def fake_open(path, mode="r", *args, **kwargs):
        if str(path).endswith(".png") and "w" in mode:
            written.append(path)
            if len(written) > 8:
                return FullFile(path)
        return real_open(path, mode, *args, **kwargs)

    monkeypatch.setattr(mask_writer, "open", fake_open, raising=False)
    with pytest.raises(VosflowError) as caught:
        track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)
    assert (
        "full" in str(caught.value) and ".png" in str(caught.value) and "finished videos are kept" in str(caught.value)
    )
    assert ToyTracker.tracked == ["b", "c"], "no further video is tried"
    assert finished(folder) == ["b"]
    assert len(list((folder / "masks" / "b").iterdir())) == 6 and not (folder / "masks" / "c").exists()


def test_a_full_disk_is_told_of_records_manifests_and_tables(toy, tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.os, "replace", full)
    path = tmp_path / "results/file"
    for write in (
        partial(write_json, path, {}),
        partial(save_manifest, toy[0], path),
        partial(write_summary, [], path),
    ):
        with pytest.raises(DiskError, match="results/file: the disk .* is full"):
            write()
        assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), SystemExit(3)], ids=["exception", "exit"])
def test_what_a_tracker_raises_stops_only_that_video(toy, monkeypatch, capsys, error):
    manifest, folder = toy
    fail_on_a(monkeypatch, error)
    with pytest.raises(VosflowError, match=f"1 of 2 videos failed.*\n- a: {type(error).__name__}: {error}"):
        track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    assert RunFolder(folder).read_record("b")["frames"] == 6 and not (folder / "masks" / "a").exists()
    assert "Traceback" in capsys.readouterr().err


def test_out_of_memory_is_told_and_the_others_go_on(toy, monkeypatch):
    manifest, folder = toy
    fail_on_a(monkeypatch, MemoryError())
    with pytest.raises(VosflowError, match="out of memory on cpu while tracking video a"):
        track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    assert finished(folder) == ["b"]


def test_what_filled_the_memory_is_gone_before_the_next_video(toy, monkeypatch):
    manifest, folder = toy
    held, collected = [], []

    def hungry(self, video):
        tensors = np.zeros(100)
        held.append(weakref.ref(tensors))
        raise MemoryError
        yield tensors

    monkeypatch.setattr(ToyTracker, "track", hungry)
    monkeypatch.setattr(engine.gc, "collect", lambda: collected.append(held[-1]()))
    with pytest.raises(VosflowError, match="out of memory on cpu while tracking video a"):
        track_videos(Method.of(TOY), manifest, ["a"], folder)
    assert collected == [None]


class OutOfMemoryError(RuntimeError):
    """As torch's allocator raises it."""


@pytest.mark.parametrize("error", [OutOfMemoryError(), RuntimeError("CUDA error: out of memory")])
def test_out_of_memory_while_loading_is_told(error, toy, monkeypatch):
    manifest, folder = toy

    def load(self):
        raise error

    monkeypatch.setattr(ToyTracker, "load", load)
    with pytest.raises(VosflowError, match="out of memory on cpu while loading tracker"):
        track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    assert finished(folder) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda video: np.zeros((3, 3), np.uint8), r"unusable masks .* uint8 \(3, 3\), values 0 to 0"),
        (lambda video: np.zeros((video.height, video.width), np.int64), "unusable masks .* int64"),
        (lambda video: np.full((video.height, video.width), 9, np.uint8), r"values 9 to 9\n.*among \[0, 1, 2\]"),
        (lambda video: {1: np.zeros((video.height, video.width), bool)}, "{1: bool"),
        (lambda video: None, "a NoneType"),
    ],
    ids=["size", "type", "unknown object", "objects apart", "nothing"],
)
def test_unusable_masks_of_a_tracker_are_refused(toy, monkeypatch, bad, words):
    manifest, folder = toy
    monkeypatch.setattr(ToyTracker, "track", lambda self, video: iter([(video.frame_names[0], bad(video))]))
    with pytest.raises(VosflowError, match=words):
        track_videos(Method.of(TOY), manifest, ["a"], folder)


@pytest.mark.parametrize(("present", "known"), [((0, 2), True), ((2,), True), ((0, 1, 2), False), ((1,), False)])
def test_ids_between_those_of_the_objects_are_refused(toy, monkeypatch, present, known):
    """Object 1 is not there: 2 is the only one."""
    manifest, folder = toy
    video = replace(manifest.video("a"), objects=(2,), prompts=manifest.video("a").prompts[1:])
    label_map = np.resize(np.array(present, np.uint8), (video.height, video.width))
    frames = video.frames.names
    monkeypatch.setattr(ToyTracker, "track", lambda self, video: iter([(name, label_map) for name in frames]))
    with contextlib.nullcontext() if known else pytest.raises(VosflowError, match=r"ids among \[0, 2\]"):
        track_videos(Method.of(TOY), replace(manifest, videos=(video,)), ["a"], folder)
    assert (finished(folder) == ["a"]) == known


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["00000", "00000"], "frame 00000 twice"),
        (["00000x"], "'00000x', which is no frame"),
        ([0], "0, which is no frame"),
    ],
)
def test_frames_that_are_none_are_refused(toy, monkeypatch, names, words):
    manifest, folder = toy
    blank = np.zeros((manifest.videos[0].height, manifest.videos[0].width), np.uint8)
    monkeypatch.setattr(ToyTracker, "track", lambda self, video: iter([(name, blank) for name in names]))
    with pytest.raises(VosflowError, match=words):
        track_videos(Method.of(TOY), manifest, ["a"], folder)


def test_a_tracker_that_leaves_frames_out_is_refused(toy, monkeypatch):
    manifest, folder = toy
    real = ToyTracker.track
    monkeypatch.setattr(ToyTracker, "track", lambda self, video: list(real(self, video))[:-2])
    with pytest.raises(VosflowError, match="no masks for 2 frames of video a, the first is 00002"):
        track_videos(Method.of(TOY), manifest, ["a"], folder)


def test_sigkill_in_the_middle_of_a_shard(toy, tmp_path):
    """Killed while the second video is being written: the first stays, and resuming gives the undisturbed bytes."""
    manifest, folder = toy
    with held_job(manifest, folder, "c", tracker=TOY, shift="1") as job:
        job.kill()
        job.wait()
    assert finished(folder) == ["b"]
    assert not (folder / "masks/c").exists(), "an unfinished video must not be seen"
    started = json.loads((folder / "videos/b.json").read_text())["finished"]
    method = Method.of(TOY, {"shift": 1})
    track_shard(method, manifest, folder, shard=1, shards=1)
    assert json.loads((folder / "videos/b.json").read_text())["finished"] == started, "b was not computed again"
    track_shard(method, manifest, tmp_path / "undisturbed", shard=1, shards=1)
    assert all_bytes(folder) == all_bytes(tmp_path / "undisturbed")
    assert not list((folder / "masks").glob(".*"))
