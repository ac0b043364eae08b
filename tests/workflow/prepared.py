"""Snakemake without the second that importing it takes, which is most of a dry run: tests run it a hundred times.

Each run is a process of its own, forked from one that has imported Snakemake and nothing of this project, and gets its
folder, environment and module path as `python -m snakemake` would.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(["snakemake.cli"])


def run_snakemake(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a folder; output and errors together in `stdout`."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as output:
        process = PREPARED.Process(target=_main, args=(list(arguments), str(folder), dict(environment), output.name))
        process.start()
        process.join()
        return subprocess.CompletedProcess(arguments, process.exitcode, output.read())


def _main(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    assert "snakemake.cli" in sys.modules and "vosflow" not in sys.modules
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.remove(str(HOUSE))  # the parent's, not that of `python -m`
    sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    from snakemake.cli import main

    main(arguments)
