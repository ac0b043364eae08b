"""Files of a stage under way: each is there whole or not at all, also after a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vosflow.errors import DiskError
from vosflow.training.rde.files import CURVES, PLAN, SAMPLES, SETS, WEIGHTS, WORK


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it appears complete or not at all; what was there before stays until then.

    Raises:
        DiskError: it cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())  # else a node that dies may keep the new name, and not what it names
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise cannot_save(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Delete what jobs that were killed while they wrote have left; each may be of the size of a work file."""
    for name in (WORK, WEIGHTS, CURVES, SAMPLES, PLAN, SETS):
        for aside in folder.glob(f".{name}.*"):
            aside.unlink(missing_ok=True)


def save_state(state: dict[str, Any], path: Path) -> None:
    """torch.save, but that a full disk is an OSError: to a file that it opens itself it tells one as RuntimeError."""
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # of closing the archive, over the one that stopped it
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def cannot_save(path: Path, error: OSError) -> DiskError:
    """The error to raise when a file of a stage cannot be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return DiskError(
        "the disk (or your quota) is full" if full else f"cannot be written ({error})",
        path=path,
        expected="room for a work file beside the last one: three times the weights, 0.8 GB at full size",
        remedy="free space, or move the folder `paths: data:` and say so in the config; then run snakemake again. "
        "The last work file is kept: training goes on from there",
    )
