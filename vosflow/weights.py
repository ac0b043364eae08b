"""Where the weights of a study come from: the catalog, files that one has already, one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import vosflow
from vosflow.catalog import CheckpointEntry, find_checkpoint, load_checkpoints
from vosflow.config import Config
from vosflow.digest import data_digest
from vosflow.errors import VosflowError
from vosflow.sources import FETCHED, import_command
from vosflow.trackers.base import Tracker

HOUSE = Path(vosflow.__file__).resolve().parents[1]


@dataclass(frozen=True)
class CheckpointSource:
    """Weights: where the file is or will be, what network it belongs to, its sha256 if it is known.

    `requires` is the file that stands for their being there: the weights themselves, or the marker of a fetch.
    """

    id: str
    path: str
    config: str | None
    sha256: str | None
    requires: str


def checkpoint_source(config: Config, tracker: str, kind: type[Tracker], name: str | None) -> CheckpointSource | None:
    """Where the weights `name` come from; None for a tracker without weights.

    Raises:
        VosflowError: nobody knows them, their file or configuration is missing, or the tracker takes none.
    """
    needed = kind.needs_checkpoint
    if name is None or not needed:
        if needed == (name is not None):
            return None
        raise VosflowError(
            f"tracker {tracker} needs a checkpoint" if needed else f"tracker {tracker} takes no checkpoint",
            path="runs.checkpoint",
            remedy="name one of the catalog (python scripts/fetch.py --list)" if needed else "remove `checkpoint:`",
        )
    own = config.checkpoints.get(name)
    if own is not None:
        path = _existing(own.path, f"checkpoints.{name}.path")
        if own.config is None and getattr(kind, "needs_config", False):
            raise VosflowError(
                f"tracker {tracker} needs the network configuration of these weights",
                path=f"checkpoints.{name}",
                expected="`config:`, for instance configs/sam2.1/sam2.1_hiera_b+.yaml, or a YAML file",
                remedy="add it to the entry",
            )
        return CheckpointSource(name, path, own.config, own.sha256, path)
    return _catalog_checkpoint(config, name, _fitting(find_checkpoint(name), name, tracker, kind))


def _fitting(entry: CheckpointEntry, name: str, tracker: str, kind: type[Tracker]) -> CheckpointEntry:
    """`entry`, if its weights are for the network that the tracker says it runs."""
    network = getattr(kind, "network", entry.network)
    if entry.network == network:
        return entry
    fitting = [other for other, facts in load_checkpoints().items() if facts.network == network]
    raise VosflowError(
        f"checkpoint {name} holds weights of {entry.network}, and tracker {tracker} runs {network}",
        path="runs.checkpoint",
        expected=f"weights of {network}: " + (", ".join(fitting) or "none are in the catalog"),
        remedy="name one of these, or the tracker that the weights are for",
    )


def _catalog_checkpoint(config: Config, name: str, entry: CheckpointEntry) -> CheckpointSource:
    network = entry.config and _house_config(entry.config)
    given = config.paths.checkpoints.get(name)
    # What is trained or converted here may be made anew; a published file is what it is.
    sha256 = None if entry.pickled else entry.sha256
    if given is not None:
        if entry.pickled and not given.endswith(".safetensors"):
            raise VosflowError(
                "these weights are a pickle, which may run code when it is read",
                path=f"paths.checkpoints.{name}",
                expected=f"{entry.weights_file}, converted from it",
                remedy=f"{import_command(given, config.paths.data, '--checkpoint', name)}; and remove the key",
            )
        found = _existing(given, f"paths.checkpoints.{name}")
        return CheckpointSource(name, found, network, None if entry.path else sha256, given)
    if entry.path is not None:
        path = _from_here(entry.path)
        return CheckpointSource(name, path, network, sha256, path)
    folder = f"{config.paths.data}/checkpoints"
    return CheckpointSource(name, f"{folder}/{entry.weights_file}", network, sha256, f"{folder}/{entry.file}{FETCHED}")


def checkpoint_id(file: str) -> str:
    """The catalog's id of the weights whose file is called `file`."""
    for name, entry in load_checkpoints().items():
        if entry.file == file and entry.path is None:
            return name
    raise VosflowError("no checkpoint of the catalog has this file", path=file, remedy="python scripts/fetch.py --list")


def checkpoint_identity(checkpoint: str) -> str:
    """Digest of what the weights are compared with; if the catalog is corrected, what was fetched is checked again."""
    return data_digest(find_checkpoint(checkpoint).identity)


def _existing(path: str, key: str) -> str:
    if not Path(path).is_file():
        raise VosflowError("no such file", path=path, expected=f"weights, as the config says at {key}")
    return path


def _house_config(config: str) -> str:
    """A network configuration that is a file of this repository, as a path from here; else the name as it is."""
    return _from_here(config) if (HOUSE / config).is_file() else config


def _from_here(path: str) -> str:
    """Path of a file of this repository, relative where it is below the current folder."""
    full = HOUSE / path
    if not full.is_file():
        raise VosflowError(
            "a file of vosflow itself is missing", path=full, remedy=f"restore it: git checkout -- {path}"
        )
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)
