"""Forecasts: what is done by the engine's own keys, and estimates with their basis."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.clips import make_videos
from vosflow.engine import track_shard
from vosflow.errors import VosflowError
from vosflow.forecast import EXPECTED, forecast_study
from vosflow.manifest import save_manifest
from vosflow.method import Method
from vosflow.records import FORMAT, write_json
from vosflow.report.forecast import forecast_table, forecast_totals
from vosflow.slurm import limit_warnings, parse_minutes, partition_limits
from vosflow.study import Study, load_study
from vosflow.training.forecast import forecast_trainings

HOUSE = Path(__file__).resolve().parents[2]
FRAMES = {"a": 5, "b": 6, "c": 5, "d": 4}
PROFILE = HOUSE / "profiles/slurm/config.yaml"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder with videos to plan studies in; the manifest."""
    monkeypatch.chdir(tmp_path)
    return make_videos(tmp_path / "videos", FRAMES)


def plan(shards: int | str = 2, device: str = "cpu", **run) -> Study:
    folders = {
        "base_video_dir": "videos/JPEGImages/480p",
        "input_mask_dir": "videos/Annotations/480p",
    }
    config = {
        "runs": [{"dataset": "toy/val", "tracker": "static", **run}],
        "execution": {"device": device, "shards": shards, "frames_per_second": 4},
        "datasets": {"toy/val": folders},
    }
    return load_study(config)


def track(manifest, study: Study, shard: int) -> list[str]:
    """Track one shard as its job would; returns the names of its videos."""
    run = study.runs[0]
    method = Method.of(run.tracker, run.settings)
    record = track_shard(method, manifest, run.folder, shard=shard, shards=run.shards)
    write_json(run.shard_records[shard - 1], record)
    return [item["video"] for item in record["videos"]]


def test_before_anything_ran_the_config_and_the_catalog_are_the_basis(toy):
    (one,) = forecast_study(plan())
    assert one.videos is None and one.frames_to_do == 4 * 70, "a guess: nobody has counted the frames yet"
    assert one.basis == EXPECTED and one.seconds == one.frames_to_do / 4 and one.jobs == 2
    save_manifest(toy, "results/toy-val/manifest.json")
    (one,) = forecast_study(plan())
    assert (one.videos, one.videos_done, one.frames_to_do, one.seconds) == (4, 0, 20, 5.0)


def test_what_is_done_is_what_the_engine_would_skip(toy):
    save_manifest(toy, "results/toy-val/manifest.json")
    names = track(toy, plan(), 1)
    (one,) = forecast_study(plan())
    assert one.videos_done == len(names) == 2 and one.frames_done == sum(FRAMES[name] for name in names)
    assert one.jobs == 1 and one.basis == "2 videos", "estimated from its own finished videos"
    (other,) = forecast_study(plan(shards=3))
    assert (other.videos_done, other.jobs) == (2, 3), "another number of shards computes no video again"
    (flow,) = forecast_study(plan(tracker="flow", name="static"))
    assert flow.videos_done == 0 and flow.basis == EXPECTED, "these are another tracker's masks"
    next(Path(f"results/toy-val/static/masks/{names[0]}").glob("*.png")).unlink()
    (one,) = forecast_study(plan())
    assert one.videos_done == 1 and one.jobs == 2, "the record that is no longer true does not count"


def test_estimates_come_from_runs_like_this_one(toy):
    save_manifest(toy, "results/toy-val/manifest.json")
    video = {"video": "x", "frames": 10, "objects": 1, "seconds": 40.0, "device": "cpu"}  # 2 seconds per unit of work
    for name, tracker, device in (("old", "static", "cpu"), ("gpu", "static", "A100"), ("flow", "flow", "cpu")):
        facts = {"run": name, "tracker": tracker, "checkpoint": None, "videos": [{**video, "device": device}]}
        write_json(Path(f"results/other-val/{name}/run.json"), {"format": FORMAT, **facts})
    Path("results/other-val/broken").mkdir()
    Path("results/other-val/broken/run.json").write_text("{")
    write_json(Path("results/other-val/older/run.json"), {"format": FORMAT, "run": "older", "videos": [{"frames": 5}]})
    (one,) = forecast_study(plan())
    assert one.basis == "1 video" and one.seconds == 2 * sum(video.cost for video in toy.videos)
    record = json.loads(Path("results/other-val/old/run.json").read_text())
    write_json(Path("results/other-val/old/run.json"), {**record, "tracker": "flow"})
    (one,) = forecast_study(plan())
    assert one.basis == EXPECTED, "records of a GPU say nothing of a CPU"


def change_records(folder: str, changes: dict[str, dict]) -> None:
    """Change the records of finished videos, by name."""
    for name, change in changes.items():
        path = Path(folder) / f"videos/{name}.json"
        write_json(path, {**json.loads(path.read_text()), **change})


def test_videos_that_the_cache_sped_up_are_no_basis(toy):
    """As long as there are others: of this run, or else of earlier ones."""
    save_manifest(toy, "results/toy-val/manifest.json")
    names = track(toy, plan(), 1)
    folder, left = plan().runs[0].folder, [video for video in toy.videos if video.name not in names]
    work = sum(video.cost for video in left)
    sped_up = {"seconds": 0.5, "artefacts": {"flow": {"made": 3, "reused": 1}, "features": {"made": 0, "reused": 0}}}
    change_records(folder, {names[0]: sped_up, names[1]: {"seconds": 30.0}})
    (one,) = forecast_study(plan())
    assert one.basis == "1 video" and not one.sped_up
    assert one.seconds == pytest.approx(30 * work / toy.video(names[1]).cost)
    change_records(folder, {names[1]: sped_up})
    (one,) = forecast_study(plan())
    assert one.basis == "2 videos" and one.sped_up and one.seconds < 2, "better than nothing"
    with (console := Console(width=100)).capture() as captured:
        console.print(forecast_table([one]))
    assert "2 videos, sped up" in captured.get()
    assert forecast_totals([one], plan().config.execution)[-1].startswith("sped up: ")
    video = {"video": "x", "frames": 10, "objects": 1, "device": "cpu"}
    counts = {"flow": {"made": 1, "reused": 1}}
    facts = {"format": FORMAT, "tracker": "static", "checkpoint": None}
    older = {**facts, "videos": [{**video, "seconds": 1.0}] * 2, "totals": {"artefacts": counts}}
    newer = [{**video, "seconds": 1.0, "reused": 1}, {**video, "seconds": 40.0, "reused": 0}]
    write_json(Path("results/other-val/older/run.json"), older)
    assert forecast_study(plan())[0].basis == "2 videos"
    write_json(Path("results/other-val/newer/run.json"), {**older, "videos": newer})
    (one,) = forecast_study(plan())
    assert (one.basis, one.sped_up, one.seconds) == ("1 video", False, 2 * work)
    change_records(folder, {names[1]: {"seconds": 30.0, "artefacts": {}}})
    (one,) = forecast_study(plan())
    assert one.seconds == pytest.approx(30 * work / toy.video(names[1]).cost), "its own videos are most like it"


def test_loading_counts_for_each_job_that_has_something_to_do(toy):
    """Once per job, as records tell; compiling is a part of it."""
    save_manifest(toy, "results/toy-val/manifest.json")
    folder, names = "results/toy-val/static", track(toy, plan(), 1)
    records = [json.loads(Path(f"{folder}/videos/{name}.json").read_text()) for name in names]
    assert sorted(record["load_seconds"] is None for record in records) == [False, True]
    change_records(folder, dict.fromkeys(names, {"load_seconds": None, "seconds": 4.0}))
    (one,) = forecast_study(plan())
    assert one.load_seconds == 0 and "loading not counted" in forecast_totals([one], plan().config.execution)[1]
    change_records(folder, {names[1]: {"load_seconds": 90.0}})
    (one,) = forecast_study(plan())
    assert (one.jobs, one.load_seconds) == (1, 90.0)
    lines = forecast_totals([one], plan().config.execution)
    assert "CPU hours (0.03 of them to load and compile networks)" in lines[1]
    (one,) = forecast_study(plan(shards=30))
    assert (one.jobs, one.load_seconds) == (30, 180.0), "most jobs find nothing to do"


def test_it_is_told_in_one_table_and_totals(toy):
    save_manifest(toy, "results/toy-val/manifest.json")
    track(toy, plan(), 1)
    study = plan()
    forecasts = forecast_study(study)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(forecast_table(forecasts))
    (row,) = [line for line in captured.get().splitlines() if "toy-val/static" in line]
    assert row.split()[1:5] == ["4", "2", str(forecasts[0].frames_to_do), "1"]
    lines = forecast_totals(forecasts, study.config.execution)
    assert "1 of 1 runs have something to track: 1 jobs, 2 videos" in lines[0] and "CPU hours" in lines[1]
    assert "frames_per_second: " in lines[-1], "static is much faster than 4 frames/s"
    track(toy, study, 2)
    assert forecast_totals(forecast_study(study), study.config.execution) == [
        "nothing is left to track: 20 frames of 1 runs are done"
    ]


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("infinite", None), ("30:00", 30), ("1:30", 1.5), ("12:00:00", 720), ("2-00:00:00", 2880), ("1-12:30:00", 2190)],
)
def test_time_limits_of_slurm(limit, minutes):
    assert parse_minutes(limit) == minutes


def test_a_partition_that_allows_less_than_a_job_asks_for(toy, tmp_path):
    study = plan()
    assert study.runs[0].time_limit == 30
    assert limit_warnings(study, PROFILE, {}) == limit_warnings(study, PROFILE, {"cpu": None, "gpu": 1}) == []
    (warning,) = limit_warnings(study, PROFILE, {"cpu": 60})
    assert "up to 90 minutes" in warning and "partition cpu allows 60" in warning and "track_shard_on_cpu" in warning
    (warning,) = limit_warnings(study, PROFILE, {"main": None, "big": 60})
    assert "no partition cpu" in warning and "big, main" in warning
    own = tmp_path / "own"
    own.mkdir()
    for runtime, told in ((50, False), (61, True), ('"min(240 * attempt, 60)"', False)):
        rule = f"{{track_shard_on_cpu: {{slurm_partition: 'cpu,main', runtime: {runtime}}}}}"
        (own / "config.yaml").write_text(f"default-resources:\nset-resources: {rule}\n")
        assert bool(limit_warnings(study, own, {"cpu": 60, "main": None})) == told, "a profile's folder or file"
    (own / "config.yaml").write_text("retries: 1\n")
    assert limit_warnings(study, own / "config.yaml", {"cpu": 1}) == [], "Slurm's own default partition"


def test_a_partition_that_allows_less_than_a_stage_of_training_asks_for():
    sets = dict.fromkeys(("static", "davis", "youtube"), "demo")
    training = {"method": "rde", "stages": [0, 3], "data": sets, "stage_settings": {3: {"hours": 72}}}
    runs = [{"dataset": "demo/val", "tracker": "static"}]
    study = load_study({"runs": runs, "training": {"mine": training}, "execution": {"device": "cuda"}})
    assert limit_warnings(study, PROFILE, {"cpu": None, "gpu": 4320}) == []
    first, second = limit_warnings(study, PROFILE, {"cpu": None, "gpu": 1440})
    assert "train_rde_stage asks for up to 2880 minutes (`hours` of mine.stage0)" in first
    assert "4320 minutes (`hours` of mine.stage3), but partition gpu allows 1440" in second
    assert "lower `hours`" in second
    (unknown,) = limit_warnings(study, PROFILE, {"cpu": None})
    assert "train_rde_stage: Slurm has no partition gpu" in unknown


def test_what_trainings_will_take(tmp_path):
    sets = dict.fromkeys(("static", "davis", "youtube"), "demo")
    training = {"method": "rde", "stages": [0, 3], "data": sets, "settings": {"iterations": 7_300, "processes": 2}}
    runs = [{"dataset": "demo/val", "tracker": "static"}]
    where = {"paths": {"data": str(tmp_path)}, "execution": {"device": "cuda"}}
    jobs = load_study({"runs": runs, "training": {"mine": training}, **where}).trainings
    new = [line.partition("; ")[0] for line in forecast_trainings(jobs)]
    assert new == [f"training mine.stage{n}: 7300 iterations on 2 GPUs of one machine" for n in (0, 3)]
    for job in jobs:
        Path(job.folder).mkdir(parents=True)
    Path(jobs[0].weights).touch()
    Path(jobs[1].curves).write_text("iteration,seconds\n0,\n50,3.0\n100,1.0\n")
    assert [line.partition("; ")[2] for line in forecast_trainings(jobs)] == [
        "done",
        "100 done, about 4.0 hours to go at 2.00 s each",
    ]
    Path(jobs[1].curves).write_text("iteration,seconds\n0,\n")
    assert "nothing done yet" in list(forecast_trainings(jobs))[1]
    (Path(jobs[1].folder) / "work.pt").touch()
    assert "; begun, its next job tells how far it is; its jobs" in list(forecast_trainings(jobs))[1]


@pytest.mark.parametrize("text", [None, "default-resources: [mem_mb=3]", "a", "set-resources: {track_shard: 3}", "}"])
def test_a_profile_that_cannot_be_read(toy, tmp_path, text):
    if text:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(VosflowError, match=r"config\.yaml: not a readable profile"):
        limit_warnings(plan(), tmp_path, {"cpu": None})


def test_a_slurm_that_does_not_answer_is_told(monkeypatch, tmp_path):
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'cannot reach the controller' >&2\nexit 1\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(VosflowError, match="cannot reach the controller"):
        partition_limits()


def test_without_slurm_there_are_no_partitions(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert partition_limits() == {}
