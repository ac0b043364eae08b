"""What goes wrong on a cluster, made to go wrong on a real one: nothing is lost, and no video is tracked twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

import pytest

from tests.slurm.cluster import PATIENCE, wait_until
from tests.slurm.conftest import RUN, study_config

ONCE = {"a": 1, "b": 1, "c": 1, "d": 1}


def start_held(study, shards: int, *arguments: str, videos: str):
    """Start a study and wait until jobs are at work on these videos."""
    study.write_config(study_config(shards))
    process = study.start("track_all", *arguments)
    study.wait(process, lambda: all(study.told(video, "started") for video in videos), f"{videos} are being tracked")
    return process


def job_of(study, video: str) -> str:
    """The Slurm job of the last attempt at a video."""
    return study.told(video, "started")[-1]["SLURM_JOB_ID"]


def fact(study, job: str, name: str) -> str:
    return next(facts[name] for facts in study.cluster.jobs() if facts["JobId"] == job)


def lose_second_video(study, process, lose) -> tuple[str, str]:
    """Let a job finish its first video and lose it in the second; returns the jobs of the first and second attempt."""
    study.release("b")
    study.wait(process, lambda: study.told("a", "started"), "the second video is being tracked")
    first = job_of(study, "a")
    before = study.read_records()["b"]
    lose(first)
    study.wait(process, lambda: len(study.told("a", "started")) == 2, "the job was submitted again")
    study.release()
    study.finish(process)
    assert study.read_records()["b"] == before, "the finished video was tracked again"
    assert study.times("finished") == ONCE and study.times("started") == {**ONCE, "a": 2}
    return first, job_of(study, "a")


def test_a_cancelled_job_is_submitted_again_with_more(study):
    process = start_held(study, 1, videos="b")
    first, second = lose_second_video(study, process, lambda job: study.cluster.ask("scancel", job))
    assert fact(study, first, "JobState") == "CANCELLED"
    assert [fact(study, job, "MinMemoryNode") for job in (first, second)] == ["8000M", "16000M"]
    assert [fact(study, job, "TimeLimit") for job in (first, second)] == ["00:30:00", "01:00:00"]
    log = next((study.folder / f"results/toy-val/{RUN}/logs").glob("track_1-of-1-*.log"))
    assert str(log.relative_to(study.folder)) in study.log.split(f"'{first}' failed")[1], "where to look is said"


def test_a_job_over_its_time_limit_is_submitted_again(study):
    process = start_held(study, 1, videos="b")
    over = lambda job: study.cluster.ask("scontrol", "update", f"JobId={job}", "EndTime=now")  # noqa: E731
    first, _ = lose_second_video(study, process, over)
    assert fact(study, first, "JobState") == "TIMEOUT"


def test_a_job_killed_for_memory_is_submitted_again_with_more(study):
    (study.stage / "take_megabytes").write_text("700")
    process = start_held(study, 1, "--set-resources", "track_shard_on_cpu:mem_mb=700 * attempt", videos="b")
    study.wait(process, lambda: len(study.told("b", "started")) == 2, "the job was submitted again")
    jobs = [attempt["SLURM_JOB_ID"] for attempt in study.told("b", "started")]
    assert fact(study, jobs[0], "JobState") in ("FAILED", "OUT_OF_MEMORY")
    assert [fact(study, job, "MinMemoryNode") for job in jobs] == ["700M", "1400M"]
    study.release()
    study.finish(process)
    assert study.times("finished") == ONCE


def test_the_jobs_of_a_dead_node_go_to_another(study):
    process = start_held(study, 2, videos="b")
    study.wait(process, lambda: len(study.times("started")) == 2, "both shards are at work")
    where = {video: study.told(video, "started")[0]["SLURMD_NODENAME"] for video in study.times("started")}
    assert set(where.values()) == {"node1", "node2"}
    lost = next(video for video, node in where.items() if node == "node2")
    study.cluster.kill_node("node2")
    study.wait(process, lambda: len(study.told(lost, "started")) == 2, "the lost job was submitted again")
    assert study.told(lost, "started")[1]["SLURMD_NODENAME"] == "node1"
    assert study.cluster.jobs("NODE_FAIL")
    study.release()
    study.finish(process)
    assert study.times("finished") == ONCE and study.times("started") == {**ONCE, lost: 2}


def test_a_killed_snakemake_goes_on_beside_the_jobs_that_it_left(study):
    process = start_held(study, 2, videos="b")
    study.wait(process, lambda: len(study.times("started")) == 2, "both shards are at work")
    old = set(study.times("started"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "unlock" in study.snakemake("track_all", "--profile", "slurm", check=False).stdout
    study.snakemake("--unlock")
    again = study.start("track_all")
    study.wait(again, lambda: len(study.times("started")) == 4, "the new jobs took the other videos of both shards")
    new = set(study.times("started")) - old
    study.release(*new)
    waiting = "another job is tracking video"
    logs = study.folder / f"results/toy-val/{RUN}/logs"
    study.wait(
        again,
        lambda: sum(waiting in path.read_text() for path in logs.glob("track_*.log")) == 2,
        "the new jobs wait for the videos of those that were left",
    )
    study.release()
    study.finish(again)
    assert study.times("started") == study.times("finished") == ONCE, "no video was tracked twice"
    assert "Nothing to be done" in study.snakemake("track_all", "--profile", "slurm").stdout


def test_ctrl_c_cancels_the_jobs(study):
    process = start_held(study, 2, videos="b")
    study.wait(process, lambda: len(study.times("started")) == 2, "both shards are at work")
    (study.folder / "nap").touch()
    study.wait(process, (study.folder / "napping").exists, "Snakemake does not look at the queue")
    os.killpg(process.pid, signal.SIGINT)
    jobs = {job_of(study, video) for video in study.times("started")}
    wait_until(lambda: {fact(study, job, "JobState") for job in jobs} == {"CANCELLED"}, "both jobs are cancelled")
    (study.folder / "nap").unlink()
    assert process.wait(PATIENCE) != 0


@pytest.fixture
def small_disk(study):
    """The results folder as a file system of its own, with room for little; yields a function that fills it."""
    results = study.folder / "results"
    keep = (results / "toy-val/manifest.json").read_bytes()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(results)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    manifest = results / "toy-val/manifest.json"
    manifest.parent.mkdir()
    manifest.write_bytes(keep)

    def fill() -> None:
        with contextlib.suppress(OSError), open(results / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)

    yield fill
    subprocess.run(["umount", "-l", str(results)], check=True)


def test_a_full_disk_stops_jobs_until_there_is_room(study, small_disk):
    process = start_held(study, 1, "--retries", "20", videos="b")  # however many fail until the test has made room
    study.release("b")
    study.wait(process, lambda: study.told("a", "started"), "the second video is being tracked")
    before = study.read_records()["b"]
    small_disk()
    study.release("a")
    study.wait(process, lambda: "the disk (or your quota) is full" in study.log, "the full disk is told")
    (study.folder / "results/filler").unlink()
    study.release()
    study.finish(process)
    assert study.read_records()["b"] == before
    assert set(study.read_records()) == set(ONCE)
