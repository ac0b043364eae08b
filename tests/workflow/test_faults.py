"""Faults in a running workflow: kills, bad inputs, bad configs. Finished videos stay; messages name the file."""

from __future__ import annotations

import copy
import os
import signal
import subprocess

import pytest

from tests.slurm.cluster import wait_until
from tests.workflow.project import DEFAULT_CONFIG, SNAKEMAKE, STAGED_RUN, StagedProject

ONE_SHARD = {**DEFAULT_CONFIG["execution"], "shards": 1}


def test_sigkill_in_the_middle_of_a_shard_loses_no_finished_video(tmp_path):
    project, undisturbed = (
        StagedProject.make(tmp_path / name, {"a": 5, "b": 6, "c": 5}) for name in ("killed", "undisturbed")
    )
    for one in (project, undisturbed):
        one.write_config({**DEFAULT_CONFIG, "runs": [STAGED_RUN], "execution": ONE_SHARD})
    masks = project.folder / "results/toy-val/staged/masks"
    (project.stage / "hold").touch()
    (project.stage / "b.go").touch()
    job = project.start("score_all")

    def in_the_middle() -> bool:
        assert job.poll() is None, project.log
        return bool(list(masks.glob(".*.writing.a/00001.png")))

    try:
        wait_until(in_the_middle, "the second video is being tracked")
    finally:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    finished = project.computed()
    assert set(finished) == {"staged/b"}
    assert not (masks / "a").exists()
    (project.stage / "hold").unlink()
    project.snakemake("--unlock")
    assert "other settings" not in project.snakemake("-n").stdout, "an unfinished video has none"
    project.snakemake("score_all")
    assert project.computed()["staged/b"] == finished["staged/b"], "the finished video was computed again"

    undisturbed.snakemake("score_all")
    assert project.mask_bytes("staged") == undisturbed.mask_bytes("staged")
    for name in ("scores.csv", "global_results.csv", "per_object_results.csv"):
        path = f"results/toy-val/staged/{name}"
        assert (project.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes()


def test_a_damaged_frame_fails_its_video_only_and_is_named(project):
    config = copy.deepcopy(DEFAULT_CONFIG)
    config["runs"] = [{**config["runs"][2], "settings": {"shift": [4]}}]
    project.write_config(config)
    frame = project.folder / "videos/JPEGImages/480p/c/00003.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:200] + b"\0" * (len(whole) - 200))  # same size and folder: only reading it shows
    answer = project.snakemake("track_all", check=False)
    assert answer.returncode != 0
    assert "c/00003.jpg" in answer.stdout and "unreadable" in answer.stdout and "what to do" in answer.stdout
    finished = project.computed("mine@shift=4")
    assert {name.partition("/")[2] for name in finished} == {"a", "b", "d"}
    frame.write_bytes(whole)
    project.snakemake("track_all")
    after = project.computed("mine@shift=4")
    assert {name for name in after if after[name] != finished.get(name)} == {"mine@shift=4/c"}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda config: config["runs"][0].update(tracker="statik"),
            ["config.yaml: runs.0: unknown tracker 'statik'", "did you mean 'static'"],
        ),
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


def test_a_key_that_stands_twice_in_the_config_fails_at_planning(project):
    with open(project.folder / "config.yaml", "a") as file:
        file.write("report: {title: one}\nreport: {title: two}\n")
    answer = project.snakemake("-n", check=False)
    assert answer.returncode != 0 and "config.yaml: the key 'report' stands twice" in answer.stdout


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
