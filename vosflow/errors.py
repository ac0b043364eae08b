"""The one error that users see: it names the place, the problem, what was expected and the remedy."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


class VosflowError(Exception):
    """Bad input, a broken file or an impossible request, told so that the reader can act on it.

    Args:
        problem: what is wrong, one sentence without a full stop.
        path: the file or folder (or config key) it is about.
        expected: what would have been right.
        remedy: what to do next.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = None if path is None else str(path)
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.problem}" if self.path else self.problem]
        if self.expected:
            lines.append(f"  expected:   {self.expected}")
        if self.remedy:
            lines.append(f"  what to do: {self.remedy}")
        return "\n".join(lines)


@contextlib.contextmanager
def told_of(place: str | Path) -> Iterator[None]:
    """Have a VosflowError that leaves this block name `place` before what it is about, for instance the config file."""
    try:
        yield
    except VosflowError as error:
        error.path = f"{place}: {error.path}" if error.path else str(place)
        raise


class DiskError(VosflowError):
    """Results cannot be written: no later video will fare better."""


def cannot_write(path: str | Path, error: OSError) -> DiskError:
    """The error to raise when a result cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            "the disk (or your quota) is full",
            path=path,
            expected="room for one PNG per frame, and for small records",
            remedy="free space or move `paths: results:` in the config, then run snakemake again: "
            "finished videos are kept, only unfinished ones run",
        )
    return DiskError(
        f"cannot be written ({error})",
        path=path,
        expected="a writable results folder",
        remedy="check permissions and the file system, then run snakemake again; finished videos are kept",
    )


def run_command(main: Callable[[], int | None]) -> None:
    """Run the `main` of a script and exit; a `VosflowError` becomes its message on stderr and status 1."""
    try:
        status = main()
    except VosflowError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
