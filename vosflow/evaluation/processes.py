"""Working through tasks in several processes, such that whatever happens to one of them is known by its task's name."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any


class WorkerDied(Exception):
    """A worker process ended in the middle of a task (`task` is its name), or could not even start (None)."""

    def __init__(self, task: str | None, exit_code: int | None) -> None:
        super().__init__(task, exit_code)
        self.task, self.exit_code = task, exit_code

    @property
    def how(self) -> str:
        """How it ended: "was killed by SIGKILL" or "ended with exit code 1"."""
        if self.exit_code is not None and self.exit_code < 0:
            return f"was killed by {signal.Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"


def in_processes(work: Callable[[Any], Any], tasks: Mapping[str, Any], workers: int) -> Iterator[tuple[str, Any]]:
    """Yield (name, work(task)) as tasks are finished; they are begun in the order of `tasks`.

    Processes are fresh ones ("spawn"): a forked one would inherit locked locks if this one has threads. `work`, tasks
    and results must pickle. If the consumer stops, an exception passes, or this process ends, so do the workers.

    Raises:
        WorkerDied: a worker process ended. concurrent.futures would not say in which task.
        Exception: what `work` raised.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(tasks.items())[::-1]
    processes: dict[Connection, multiprocessing.process.BaseProcess] = {}
    doing: dict[Connection, str | None] = {}
    try:
        for _ in range(min(workers, len(tasks))):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=_serve, args=(theirs, work), daemon=True)
            processes[ours].start()
            theirs.close()  # now only the worker holds that end: it closes when the worker dies
            doing[ours] = None
        while doing:
            for connection in wait(list(doing)):
                name = doing[connection]
                try:
                    result, error = connection.recv()
                    if waiting and error is None:
                        doing[connection], task = waiting.pop()
                        connection.send(task)
                    else:
                        del doing[connection]
                except (EOFError, ConnectionError) as lost:
                    processes[connection].join()
                    raise WorkerDied(doing[connection], processes[connection].exitcode) from lost
                if error is not None:
                    raise error
                if name is not None:
                    yield name, result
    finally:
        for connection, process in processes.items():
            connection.close()
            if connection in doing:
                process.terminate()
        for process in processes.values():
            process.join()


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """What a worker does: say that it is ready, then answer each task with (result, None) or (None, error)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends the others
    answer: tuple[Any, Exception | None] = (None, None)
    while True:
        try:
            connection.send(answer)
            task = connection.recv()
        except (EOFError, ConnectionError):  # nobody is there any more
            return
        try:
            answer = work(task), None
        except Exception as error:
            answer = None, error
