"""Threads that read ahead and write behind: order, bounds, errors, and that none is left over."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vosflow.ahead import Behind, ahead

PATIENCE = 60  # seconds; how long a test hangs that would hang for ever


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "behind"))]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 20), depth=st.integers(1, 6), threads=st.integers(1, 4))
def test_results_come_in_order_and_no_more_than_depth_are_begun(count: int, depth: int, threads: int) -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        time.sleep(0.001 * (item % 3))  # later items may be done first
        return item * item

    for index, result in enumerate(ahead(work, range(count), depth=depth, threads=threads)):
        assert result == index * index
        assert max(begun) <= index + depth
    assert sorted(begun) == list(range(count)) and threads_left() == []


def test_an_error_comes_in_its_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ValueError("item 3")
        return item

    got = []
    with pytest.raises(ValueError, match="item 3"):
        got.extend(ahead(work, iter(range(100)), depth=8, threads=3))
    assert got in ([], [0, 1, 2]) and threads_left() == []  # list.extend may drop what came before the error
    results = ahead(work, range(100), depth=8, threads=3)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(results)


def test_a_consumer_that_stops_leaves_no_thread_and_no_work() -> None:
    begun = []
    results = ahead(begun.append, range(1000), depth=4, threads=2)
    next(results)
    assert threads_left()
    results.close()
    assert threads_left() == [] and len(begun) <= 5


def test_results_are_dropped_once_they_are_used() -> None:
    class Result:
        alive = 0

        def __init__(self, _: int) -> None:
            Result.alive += 1

        def __del__(self) -> None:
            Result.alive -= 1

    most = 0
    for result in ahead(Result, range(50), depth=3):
        most = max(most, Result.alive)
        del result
    assert most <= 3 + 2  # waiting, being yielded, being made


def test_behind_does_all_calls_and_waits_when_too_many_are_open(monkeypatch) -> None:
    gate, done, waited = threading.Semaphore(0), [], []
    whole = Future.result

    def result(future: Future) -> object:
        waited.append(len(done))
        gate.release()  # only waiting for a call lets it end
        return whole(future)

    monkeypatch.setattr(Future, "result", result)

    def work(item: int) -> None:
        gate.acquire()
        done.append(item)

    behind = Behind(depth=2, threads=1)
    behind.call(work, 0)
    behind.call(work, 1)
    assert waited == []
    behind.call(work, 2)
    assert waited == [0] and done == [0], "the third waits for the first, and for no other"
    behind.close()
    assert done == [0, 1, 2] and threads_left() == []


def test_behind_raises_at_the_next_call_or_at_the_end() -> None:
    def fail() -> None:
        raise OSError("full")

    behind = Behind(depth=4)
    with pytest.raises(OSError, match="full"):
        for _ in range(100):
            behind.call(fail)
    behind.close(drop=True)
    behind = Behind(depth=4)
    behind.call(fail)
    with pytest.raises(OSError, match="full"):
        behind.close()
    assert threads_left() == []


def test_behind_drops_what_has_not_begun() -> None:
    started, gate, done = threading.Event(), threading.Event(), []

    def work() -> None:
        started.set()
        gate.wait(PATIENCE)
        done.append(1)

    behind = Behind(depth=10, threads=1)
    for _ in range(5):
        behind.call(work)
    assert started.wait(PATIENCE)
    behind._waiting[-1].add_done_callback(lambda _: gate.set())  # the last is dropped: the first may end
    behind.close(drop=True)
    assert done == [1] and threads_left() == []
