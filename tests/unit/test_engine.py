"""The loop of a shard: what is skipped, what is recomputed, what survives bad input and kills."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import make_videos
from vosflow import engine, mask_writer, masks
from vosflow.engine import track_shard, track_videos
from vosflow.errors import VosflowError
from vosflow.manifest import PER_OBJECT, save_manifest
from vosflow.method import Method, parse_assignments
from vosflow.records import RunFolder, check_output_folder, withdraw_false_records, write_json
from vosflow.trackers.base import TrackerSettings

HERE = Path(__file__).resolve()


class ToySettings(TrackerSettings):
    shift: int = 0
    gain: float = 1.0


class ToyTracker:
    """Repeats the prompt, shifted; counts the videos that it tracked."""

    Settings = ToySettings
    needs_checkpoint = False
    uses_gpu = False
    tracked: list[str] = []
    loaded = 0

    def __init__(self, settings, checkpoint, device):
        self.settings = settings

    def load(self):
        ToyTracker.loaded += 1

    def track(self, video):
        ToyTracker.tracked.append(video.name)
        given = {prompt.object: video.read_prompt(prompt) for prompt in video.prompts}
        for index, name in enumerate(video.frame_names):
            video.read_frame(index)
            moved = {k: np.roll(mask, self.settings.shift * index, axis=1) for k, mask in given.items()}
            merged = masks.merge_objects(moved, video.height, video.width)
            yield name, moved if video.layout == PER_OBJECT else merged


TOY = f"{__name__}:ToyTracker"


@pytest.fixture(autouse=True)
def _fresh_counters():
    ToyTracker.tracked, ToyTracker.loaded = [], 0


@pytest.fixture
def toy(tmp_path):
    """(manifest of three videos, run folder)."""
    return make_videos(tmp_path / "data", {"a": 4, "b": 6, "c": 5}), tmp_path / "run"


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "masks").rglob("*.png"))}


def finished(folder: Path) -> list[str]:
    """Names of the videos whose record holds a key."""
    records = sorted((folder / "videos").glob("*.json"))
    return [path.stem for path in records if "key" in json.loads(path.read_text())]


def test_masks_record_and_speed(toy):
    manifest, folder = toy
    record = track_shard(Method.of(TOY, {"shift": 2}), manifest, folder, shard=1, shards=1)
    assert [item["video"] for item in record["videos"]] == ["b", "c", "a"]  # most work first
    assert len(all_bytes(folder)) == 15
    facts = json.loads((folder / "videos" / "b.json").read_text())
    assert facts["frames"] == 6 and facts["objects"] == 2 and facts["device"] == "cpu"
    assert facts["frames_per_second"] == pytest.approx(6 / facts["seconds"])
    assert facts["peak_memory_bytes"] > 1_000_000 and "numpy" in facts["provenance"]
    with Image.open(folder / "masks" / "b" / "00003.png") as image:
        assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
        assert sorted(np.unique(image)) == [0, 1, 2]


def test_finished_videos_are_skipped_before_the_weights_load(toy):
    manifest, folder = toy
    first = track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)
    ToyTracker.tracked, ToyTracker.loaded = [], 0
    again = track_shard(Method.of(TOY, {"gain": 1, "shift": 0}), manifest, folder, shard=1, shards=1)
    assert ToyTracker.tracked == [] and ToyTracker.loaded == 0
    assert first == again, "a shard record must not change when nothing was computed"


def test_a_changed_setting_recomputes(toy):
    manifest, folder = toy
    track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    ToyTracker.tracked = []
    track_videos(Method.of(TOY, {"shift": 1}), manifest, ["a", "b"], folder)
    assert ToyTracker.tracked == ["a", "b"]


def test_another_number_of_shards_recomputes_nothing(toy):
    manifest, folder = toy
    method = Method.of(TOY)
    for shard in (1, 2):
        track_shard(method, manifest, folder, shard=shard, shards=2)
    assert sorted(ToyTracker.tracked) == ["a", "b", "c"]
    for shard in (1, 2, 3):
        track_shard(method, manifest, folder, shard=shard, shards=3)
    assert sorted(ToyTracker.tracked) == ["a", "b", "c"]


def test_a_changed_video_recomputes_only_that_video(toy):
    manifest, folder = toy
    track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    ToyTracker.tracked = []
    changed = replace(manifest, videos=(replace(manifest.videos[0], content="other"), *manifest.videos[1:]))
    track_videos(Method.of(TOY), changed, ["a", "b"], folder)
    assert ToyTracker.tracked == ["a"]
    moved = replace(changed, root=str(Path(manifest.root).rename(Path(manifest.root).with_name("elsewhere"))))
    ToyTracker.tracked = []
    track_videos(Method.of(TOY), moved, ["a", "b"], folder)
    assert ToyTracker.tracked == [], "moving a dataset recomputes nothing"


def test_a_deleted_mask_is_noticed(toy):
    manifest, folder = toy
    record = track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)
    path = folder / "shards" / "1-of-1.json"
    write_json(path, record)
    assert withdraw_false_records(folder, [path]) == [] and path.exists()
    (folder / "masks" / "c" / "00002.png").unlink()
    assert withdraw_false_records(folder, [path]) == ["c"] and not path.exists()
    assert withdraw_false_records(folder, [path]) == []
    ToyTracker.tracked = []
    assert track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1)["videos"][0] == record["videos"][0]
    assert ToyTracker.tracked == ["c"]


def test_masks_of_other_settings_make_a_record_false(toy):
    """The same run folder, used by two studies in turn."""
    manifest, folder = toy
    path = folder / "shards" / "1-of-1.json"
    write_json(path, track_shard(Method.of(TOY), manifest, folder, shard=1, shards=1))
    track_videos(Method.of(TOY, {"shift": 3}), manifest, ["b"], folder)
    assert withdraw_false_records(folder, [path]) == ["b"]


def test_copied_results_stay_finished(toy):
    """Copying changes modification times; complete folders must still count as finished."""
    manifest, folder = toy
    track_videos(Method.of(TOY), manifest, ["a"], folder)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for place in [*copy.rglob("*")]:
        if place.is_dir():
            os.utime(place)
    ToyTracker.tracked = []
    track_videos(Method.of(TOY), manifest, ["a"], copy)
    assert ToyTracker.tracked == []


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


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), SystemExit(3)], ids=["exception", "exit"])
def test_what_a_tracker_raises_stops_only_that_video(toy, monkeypatch, capsys, error):
    manifest, folder = toy
    real = ToyTracker.track

    def broken(self, video):
        if video.name == "a":
            raise error
        yield from real(self, video)

    monkeypatch.setattr(ToyTracker, "track", broken)
    with pytest.raises(VosflowError, match=f"1 of 2 videos failed.*\n- a: {type(error).__name__}: {error}"):
        track_videos(Method.of(TOY), manifest, ["a", "b"], folder)
    assert RunFolder(folder).read_record("b")["frames"] == 6 and not (folder / "masks" / "a").exists()
    assert "Traceback" in capsys.readouterr().err


def test_out_of_memory_is_told_and_the_others_go_on(toy, monkeypatch):
    manifest, folder = toy
    real = ToyTracker.track

    def hungry(self, video):
        if video.name == "a":
            raise MemoryError
        yield from real(self, video)

    monkeypatch.setattr(ToyTracker, "track", hungry)
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


def test_out_of_memory_while_loading_is_told(toy, monkeypatch):
    manifest, folder = toy

    class OutOfMemoryError(RuntimeError):
        """As torch raises it."""

    def load(self):
        raise OutOfMemoryError

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


def test_per_object_layout(tmp_path):
    manifest = replace(make_videos(tmp_path / "data", {"a": 3}), layout=PER_OBJECT)
    track_videos(Method.of(TOY), manifest, ["a"], tmp_path / "run")
    names = [str(path.relative_to(tmp_path / "run/masks")) for path in sorted((tmp_path / "run/masks").rglob("*.png"))]
    assert names == [f"a/{k:03d}/{t:05d}.png" for k in (1, 2) for t in range(3)]
    assert sorted(np.unique(np.asarray(Image.open(tmp_path / "run/masks/a/002/00001.png")))) == [0, 1]
    (tmp_path / "run/masks/a/002/00001.png").unlink()
    record = RunFolder(tmp_path / "run").read_record("a")
    assert not RunFolder(tmp_path / "run").is_finished("a", record["key"])


def test_the_key_names_everything_that_matters(toy, tmp_path):
    manifest, _ = toy
    view = manifest.tracking_view("a")
    base = Method.of(TOY).key(view, "cpu", "float32")
    assert Method.of(TOY, {"gain": 1}).key(view, "cpu", "float32") == base, "1 and 1.0 are the same setting"
    assert Method.of(TOY, {"gain": 2}).key(view, "cpu", "float32") != base
    assert Method.of(TOY).key(view, "cuda", "float32") != base
    assert Method.of(TOY).key(view, "cpu", "bfloat16") != base
    assert Method.of(TOY).key(manifest.tracking_view("b"), "cpu", "float32") != base
    for changed in (replace(manifest, layout=PER_OBJECT), replace(manifest, late_objects=True)):
        assert Method.of(TOY).key(changed.tracking_view("a"), "cpu", "float32") != base
    elsewhere = replace(manifest.video("a"), frames=replace(manifest.video("a").frames, folder="x"), fps=24.0)
    assert Method.of(TOY).key(replace(manifest, videos=(elsewhere,)).tracking_view("a"), "cpu", "float32") == base
    rescored = replace(
        manifest,
        root="elsewhere",
        protocol=None,
        videos=tuple(replace(video, ground_truth=None, ground_truth_content="x") for video in manifest.videos),
    )
    assert Method.of(TOY).key(rescored.tracking_view("a"), "cpu", "float32") == base, (
        "ground truth and place do not matter"
    )


def test_weights_are_checked_by_sha256(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"abc")
    monkeypatch.setattr(ToyTracker, "needs_checkpoint", True)
    given = {"id": "toy", "path": str(weights), "config": None, "sha256": None}
    right = Method.of(TOY, {}, given)
    assert right.checkpoint.sha256.startswith("ba7816bf")
    with pytest.raises(VosflowError, match="sha256 is ba7816bf"):
        Method.of(TOY, {}, {**given, "sha256": "0" * 64})
    with pytest.raises(VosflowError, match="missing"):
        Method.of(TOY, {}, {**given, "path": str(tmp_path / "absent.pt")})
    with pytest.raises(VosflowError, match="needs a checkpoint"):
        Method.of(TOY, {}, None)


def test_output_folders_that_are_in_the_way(toy, tmp_path):
    manifest, _ = toy
    method, other = Method.of(TOY), Method.of(TOY, {"shift": 1})
    data, output = tmp_path / "data", tmp_path / "out"
    run = RunFolder(output / ".vosflow", output)

    def check(run, method, overwrite=False):
        check_output_folder(run, [data / "JPEGImages/480p"], ["a", "b"], method.marks, overwrite=overwrite)

    for place in (data, data / "JPEGImages/480p", data / "JPEGImages/480p/a"):
        with pytest.raises(VosflowError, match="lie in each other"):
            check(RunFolder(place / ".vosflow", place), method, overwrite=True)
    check(run, method)
    track_videos(method, manifest, ["a"], run.path, masks=output)
    check(run, method)
    with pytest.raises(VosflowError, match="of another tracker or of other settings"):
        check(run, other)
    check(run, other, overwrite=True)
    (output / "b").mkdir()
    with pytest.raises(VosflowError, match="that vosflow did not make"):
        check(run, method)


def test_assignments_are_yaml():
    assert parse_assignments(["a=4", "b=x=y", "c=false", "d=0.5"]) == {"a": 4, "b": "x=y", "c": False, "d": 0.5}
    with pytest.raises(VosflowError, match="not a setting: 'num_maskmem'"):
        parse_assignments(["num_maskmem"])


def test_settings_errors_say_what_is_allowed():
    with pytest.raises(VosflowError, match="did you mean 'shift'"):
        Method.of(TOY, {"shfit": 1})
    with pytest.raises(VosflowError, match="gain.*valid number"):
        Method.of(TOY, {"gain": "much"})


def test_cuda_is_refused_where_there_is_none(toy, monkeypatch):
    import torch

    manifest, folder = toy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(VosflowError, match="GPU is demanded"):
        track_videos(Method.of(TOY), manifest, ["a"], folder, device="cuda")


SLOW_JOB = """
    import sys, time
    sys.path[:0] = {path!r}
    from vosflow.engine import track_shard
    from vosflow.method import Method
    from vosflow.manifest import load_manifest
    from tests.unit import test_engine
    real = test_engine.ToyTracker.track
    def slow(self, video):
        for item in real(self, video):
            time.sleep({pause})
            yield item
    test_engine.ToyTracker.track = slow
    track_shard(Method.of("tests.unit.test_engine:ToyTracker", {{"shift": 1}}), load_manifest({manifest!r}), {folder!r},
                shard=1, shards=1)
"""


def start_slow_job(tmp_path: Path, folder: Path, pause: float) -> subprocess.Popen:
    """Another process that tracks the videos of {tmp_path}/manifest.json, slowly."""
    root = str(HERE.parents[2])
    manifest = str(tmp_path / "manifest.json")
    code = textwrap.dedent(SLOW_JOB).format(path=[root], manifest=manifest, folder=str(folder), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], cwd=root)


def wait_for(folder: Path, pattern: str, job: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not list((folder / "masks").glob(pattern)):
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.02)


def test_sigkill_in_the_middle_of_a_shard(toy, tmp_path):
    """Killed while the second video is being written: the first stays, and resuming gives the undisturbed bytes."""
    manifest, folder = toy
    save_manifest(manifest, tmp_path / "manifest.json")
    job = start_slow_job(tmp_path, folder, pause=0.2)
    wait_for(folder, ".*.writing.c/00001.png", job)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert finished(folder) == ["b"]
    assert not (folder / "masks/c").exists(), "an unfinished video must not be seen"
    started = json.loads((folder / "videos/b.json").read_text())["finished"]
    method = Method.of(TOY, {"shift": 1})
    method = Method("tests.unit.test_engine:ToyTracker", method.settings)
    track_shard(method, manifest, folder, shard=1, shards=1)
    assert json.loads((folder / "videos/b.json").read_text())["finished"] == started, "b was not computed again"
    track_shard(method, manifest, tmp_path / "undisturbed", shard=1, shards=1)
    assert all_bytes(folder) == all_bytes(tmp_path / "undisturbed")
    assert not list((folder / "masks").glob(".*"))


def test_progress_events_are_written_for_machines(toy, tmp_path):
    manifest, folder = toy
    track_shard(Method.of(TOY), manifest, folder, shard=1, shards=2, progress_file=tmp_path / "progress.jsonl")
    events = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("video_done") == kinds.count("video_start")
    assert events[0]["frames"] in (6, 9)
