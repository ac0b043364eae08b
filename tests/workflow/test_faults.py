"""Faults in a running workflow: kills, bad inputs, bad configs. Finished videos stay; messages name the file."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import time

import pytest

from tests.workflow.project import DEFAULT_CONFIG, SNAKEMAKE, Project

pytestmark = pytest.mark.workflow

SLOW = "mine@pause_seconds=0.3"


def slow_config(pause: float = 0.3) -> dict:
    config = copy.deepcopy(DEFAULT_CONFIG)
    config["runs"] = [
        {
            "name": "mine",
            "dataset": "toy/val",
            "tracker": "my_tracker:MyTracker",
            "settings": {"shift": 1, "pause_seconds": [pause]},
        }
    ]
    config["execution"]["shards"] = 1
    return config


def test_sigkill_in_the_middle_of_a_shard_loses_no_finished_video(tmp_path):
    project = Project.make(tmp_path / "killed", {"a": 5, "b": 6, "c": 5})
    project.write_config(slow_config())
    job = subprocess.Popen(
        SNAKEMAKE,
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    masks = project.folder / f"results/toy-val/{SLOW}/masks"
    deadline = time.monotonic() + 120
    while not list(masks.glob(".*.writing.a/00001.png")):
        assert time.monotonic() < deadline and job.poll() is None
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()

    finished = project.computed()
    assert set(finished) == {f"{SLOW}/b"}
    assert not (masks / "a").exists()
    project.snakemake("--unlock")
    assert "other settings" not in project.snakemake("-n").stdout, "an unfinished video has none"
    project.snakemake()
    assert project.computed()[f"{SLOW}/b"] == finished[f"{SLOW}/b"], "the finished video was computed again"

    undisturbed = Project.make(tmp_path / "undisturbed", {"a": 5, "b": 6, "c": 5})
    undisturbed.write_config(slow_config())
    undisturbed.snakemake()
    assert project.mask_bytes(SLOW) == undisturbed.mask_bytes(SLOW)
    for name in ("scores.csv", "global_results.csv", "per_object_results.csv"):
        path = f"results/toy-val/{SLOW}/{name}"
        assert (project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


def test_a_damaged_frame_fails_its_video_only_and_is_named(project):
    config = copy.deepcopy(DEFAULT_CONFIG)
    config["runs"] = [{**config["runs"][2], "settings": {"shift": [4]}}]
    project.write_config(config)
    frame = project.folder / "videos/JPEGImages/480p/c/00003.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:200] + b"\0" * (len(whole) - 200))  # same size and folder: only reading it shows
    answer = project.snakemake(check=False)
    assert answer.returncode != 0
    assert "c/00003.jpg" in answer.stdout and "unreadable" in answer.stdout and "what to do" in answer.stdout
    finished = project.computed("mine@shift=4")
    assert {name.partition("/")[2] for name in finished} == {"a", "b", "d"}
    frame.write_bytes(whole)
    project.snakemake()
    after = project.computed("mine@shift=4")
    assert {name for name in after if after[name] != finished.get(name)} == {"mine@shift=4/c"}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda config: config["runs"][0].update(tracker="statik"), ["statik", "did you mean 'static'"]),
        (lambda config: config.update(exectuion={}), ["exectuion", "did you mean 'execution'"]),
        (lambda config: config["runs"][1].update(settings={"prest": 1}), ["prest", "did you mean 'preset'"]),
        (lambda config: config["runs"][1].update(dataset="toy/test"), ["toy"]),
        (lambda config: config["datasets"]["toy/val"].update(input_mask_dir="absent"), ["absent", "missing"]),
    ],
    ids=["tracker", "key", "setting", "dataset", "folder"],
)
def test_a_bad_config_fails_at_planning(project, edit, words):
    config = copy.deepcopy(DEFAULT_CONFIG)
    edit(config)
    project.write_config(config)
    answer = project.snakemake("-n", check=False)
    assert answer.returncode != 0
    for word in words:
        assert word in answer.stdout
    assert "Traceback" not in answer.stdout


def test_a_demanded_gpu_that_is_not_there(project):
    config = copy.deepcopy(DEFAULT_CONFIG)
    config["execution"]["device"] = "cuda"
    tracker = (project.folder / "my_tracker.py").read_text()
    (project.folder / "my_tracker.py").write_text(tracker.replace("uses_gpu = False", "uses_gpu = True"))
    project.write_config(config)
    environment = {**project.environment, "CUDA_VISIBLE_DEVICES": ""}
    answer = subprocess.run(
        [*SNAKEMAKE, "track_all"], cwd=project.folder, env=environment, capture_output=True, text=True, check=False
    )
    text = answer.stdout + answer.stderr
    assert answer.returncode != 0 and "a GPU is demanded" in text and "device: cpu" in text
    assert len(project.computed("static")) == 4, "what was finished stays"
