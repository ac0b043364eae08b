"""The loop of a shard: what is skipped, what is recomputed, and what is told."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import make_videos
from tests.unit.toy_tracker import TOY, ToyTracker, all_bytes, make_toy
from vosflow.engine import track_shard, track_videos
from vosflow.errors import VosflowError
from vosflow.manifest import PER_OBJECT
from vosflow.method import Method, parse_assignments
from vosflow.records import RunFolder, check_output_folder, withdraw_false_records, write_json


@pytest.fixture
def toy(tmp_path):
    """(manifest of three videos, run folder)."""
    return make_toy(tmp_path)


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


def test_per_object_layout(tmp_path):
    manifest = replace(make_videos(tmp_path / "data", {"a": 3}), layout=PER_OBJECT)
    track_videos(Method.of(TOY), manifest, ["a"], tmp_path / "run")
    names = [str(path.relative_to(tmp_path / "run/masks")) for path in sorted((tmp_path / "run/masks").rglob("*.png"))]
    assert names == [f"a/{k:03d}/{t:05d}.png" for k in (1, 2) for t in range(3)]
    assert sorted(np.unique(np.asarray(Image.open(tmp_path / "run/masks/a/002/00001.png")))) == [0, 1]
    (tmp_path / "run/masks/a/002/00001.png").unlink()
    record = RunFolder(tmp_path / "run").read_record("a")
    assert not RunFolder(tmp_path / "run").is_finished("a", record["key"])


def test_the_key_names_everything_that_matters(toy):
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


def test_progress_events_are_written_for_machines(toy, tmp_path):
    manifest, folder = toy
    track_shard(Method.of(TOY), manifest, folder, shard=1, shards=2, progress_file=tmp_path / "progress.jsonl")
    events = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("video_done") == kinds.count("video_start")
    assert events[0]["frames"] in (6, 9)
