"""Tasks in worker processes: order, errors, deaths, and that nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vosflow.evaluation.processes import WorkerDied, in_processes

HOUSE = Path(__file__).resolve().parents[2]


def work(task: object) -> object:
    """What the task says; "wait" tells that it has begun and lasts as long as the process that wants its result."""
    if task == "fail":
        raise ValueError("this task fails")
    if task == "lose the connection":
        raise ConnectionResetError("of the task's own")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "wait":
        parent = os.getppid()
        os.write(1, b"begun\n")  # in one piece, as another process tells the same
        while os.getppid() == parent:
            time.sleep(0.02)
    return os.getpid() if task == "who" else task


def no_child_is_left() -> bool:
    return multiprocessing.active_children() == []


def test_all_results_by_name() -> None:
    tasks = {str(number): number for number in range(20)}
    assert dict(in_processes(work, tasks, workers=3)) == tasks
    assert no_child_is_left()


def test_large_tasks_and_results() -> None:
    """Larger than the buffer of a pipe."""
    tasks = {name: [name] * 100_000 for name in "abc"}
    assert dict(in_processes(work, tasks, workers=2)) == tasks


def test_begun_in_order() -> None:
    assert [name for name, _ in in_processes(work, {"c": 1, "a": 2, "b": 3}, workers=1)] == ["c", "a", "b"]


def test_no_more_processes_than_tasks() -> None:
    results = dict(in_processes(work, {"a": "who", "b": "who"}, workers=50))
    assert len(set(results.values())) <= 2
    assert dict(in_processes(work, {}, workers=2)) == {}


@pytest.mark.parametrize("task, error", [("fail", ValueError), ("lose the connection", ConnectionResetError)])
def test_an_error_ends_all_at_once(task: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(in_processes(work, {"waits": "wait", "bad": task}, workers=2))
    assert no_child_is_left()


def test_a_death_is_known_by_its_task() -> None:
    with pytest.raises(WorkerDied) as death:
        list(in_processes(work, {"waits": "wait", "fatal": "die"}, workers=2))
    assert (death.value.task, death.value.exit_code) == ("fatal", -signal.SIGKILL)
    assert death.value.how == "was killed by SIGKILL"
    assert no_child_is_left()


def test_a_worker_that_cannot_start() -> None:
    with pytest.raises(WorkerDied) as death:
        list(in_processes(Unloadable(), {"a": 1}, workers=1))
    assert death.value.task is None
    assert death.value.how == "ended with exit code 1"


class Unloadable:
    """Its pickle cannot be loaded."""

    def __reduce__(self) -> tuple:
        return int, ("no number",)


def test_a_consumer_that_stops_early() -> None:
    for name, _ in in_processes(work, {"a": 1, "waits": "wait"}, workers=2):
        assert name == "a"
        break
    assert no_child_is_left()


MAIN = """
from tests.unit.test_processes import work
from vosflow.evaluation.processes import in_processes
if __name__ == "__main__":
    for name, _ in in_processes(work, {"a": 1, "b": "wait", "c": "wait"}, workers=2):
        pass
"""


@pytest.mark.parametrize("number, leaves", [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGKILL, "")])
def test_workers_end_with_their_parent(tmp_path: Path, number: int, leaves: str) -> None:
    """Ctrl-C goes to the whole group of processes; SIGKILL to the parent alone, whose workers finish and see it."""
    (tmp_path / "main.py").write_text(MAIN)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert [parent.stdout.readline() for _ in range(2)] == ["begun\n"] * 2  # both workers are in the middle of a task
    if number == signal.SIGINT:
        os.killpg(parent.pid, signal.SIGINT)
    else:
        os.kill(parent.pid, signal.SIGKILL)
    _, errors = parent.communicate(timeout=600)  # until the last one that could tell anything has ended
    assert parent.returncode == -number
    assert leaves in errors and errors.count("Traceback") == (number == signal.SIGINT)  # workers say nothing
