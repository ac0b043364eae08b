"""Where the weights of a study come from: the catalog, files that one has already, one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import vosflow
from vosflow.catalog import CheckpointEntry, find_checkpoint, known, load_checkpoints
from vosflow.config import Config, PathsConfig
from vosflow.digest import data_digest
from vosflow.errors import VosflowError
from vosflow.sources import FETCHED, import_command
from vosflow.trackers.base import Part, Tracker, TrackerSettings
from vosflow.training.planning import find_trained

TRAINED_NETWORK = "rde"  # of what the config trains
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


Sources = CheckpointSource | Mapping[str, CheckpointSource] | None
"""The weights of a run: of a tracker with one checkpoint, with several roles, or with none."""


def weight_sources(
    config: Config,
    tracker: str,
    kind: type[Tracker],
    settings: TrackerSettings,
    given: str | Mapping[str, str] | None,
) -> Sources:
    """Where all weights of a run come from.

    Args:
        given: the run's `checkpoint:`, an id, or ids by role; what a tracker of several networks takes for the other
            roles, it says itself.

    Raises:
        VosflowError: see `checkpoint_source`; or roles are named that the tracker does not have under these settings.
    """
    parts = parts_of(kind, settings)
    if parts is None:
        if isinstance(given, Mapping):
            raise VosflowError(
                f"tracker {tracker} takes one checkpoint, and none by role",
                path="checkpoint",
                expected="one id" if kind.needs_checkpoint else "no `checkpoint:`",
                remedy="name it without a role" if kind.needs_checkpoint else "remove `checkpoint:`",
            )
        _refuse_missing_sam(config, kind, settings, given)
        return checkpoint_source(config, tracker, kind, given)
    if isinstance(given, str):
        raise VosflowError(
            f"tracker {tracker} takes its weights by role",
            path="checkpoint",
            expected="checkpoint: {" + ", ".join(f"{role}: {part.checkpoint}" for role, part in parts.items()) + "}",
            remedy="say which role these weights are for; roles that you leave out get those named above",
        )
    given = dict(given or {})
    for role in given:
        known(role, parts, f"role of weights in tracker {tracker} under these settings")
    return {role: _part_source(config, tracker, role, part, given.get(role)) for role, part in sorted(parts.items())}


def _refuse_missing_sam(config: Config, kind: type[Tracker], settings: TrackerSettings, given: str | None) -> None:
    """Refuse weights of training stage 0 in a mode that needs more, before days of training and not after them."""
    trained = find_trained(config, given or "") if getattr(kind, "network", None) == TRAINED_NETWORK else None
    if trained is not None and trained.plan.stage == 0 and settings.mode != "stm":
        raise VosflowError(
            f"the weights {given} are of training stage 0: they have no SAM, which mode {settings.mode} needs",
            path="checkpoint",
            expected="weights of a later stage, or `settings: {mode: stm}`",
            remedy="name such weights, or say mode: stm",
        )


def parts_of(kind: type[Tracker], settings: TrackerSettings) -> dict[str, Part] | None:
    """The roles of a tracker's weights under these settings; None for a tracker that has at most one checkpoint."""
    return kind.parts(settings) if hasattr(kind, "parts") else None


def fetched_checkpoint(name: str, data: str | Path) -> CheckpointSource:
    """The catalog's weights `name`, fetched below `data` or part of this repository; VosflowError if they are not."""
    source = _catalog_checkpoint(PathsConfig(data=str(data)), name, find_checkpoint(name))
    if not Path(source.path).is_file():
        raise VosflowError(
            f"the weights {name} are not there",
            path=source.path,
            expected="a file of your own, --checkpoint ROLE=FILE, or what the catalog names",
            remedy=f"python scripts/fetch.py --checkpoint {name} --data {data}",
        )
    return source


def id_of_file(path: str | Path) -> str:
    """The catalog's id of weights with this file's name, else the name without suffix."""
    path = Path(path)
    found = (name for name, entry in load_checkpoints().items() if path.name in (entry.file, entry.weights_file))
    return next(found, path.stem)


def non_commercial_notes(ids: Iterable[str]) -> list[str]:
    """A note for each of these checkpoints whose licence forbids commercial use; ids of one's own have none."""
    entries = load_checkpoints()
    restricted = [name for name in dict.fromkeys(ids) if name in entries and entries[name].non_commercial]
    return [f"weights {name}: for non-commercial use only ({entries[name].licence})" for name in restricted]


def _part_source(config: Config, tracker: str, role: str, part: Part, name: str | None) -> CheckpointSource:
    name = name or part.checkpoint
    own = config.checkpoints.get(name)
    if own is not None:
        path = _existing(own.path, f"checkpoints.{name}.path")
        return CheckpointSource(name, path, own.config, own.sha256, path)
    remedy = "name one of these, or choose another network for this role in `settings:`"
    usual = load_checkpoints().get(part.checkpoint)
    entry = _fitting(name, part.network, f"role {role} of tracker {tracker}", remedy, usual and usual.config)
    return _catalog_checkpoint(config.paths, name, entry)


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
            path="checkpoint",
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
    network = getattr(kind, "network", None)
    trained = find_trained(config, name)
    if trained is not None:
        if network not in (None, TRAINED_NETWORK):
            raise VosflowError(
                f"checkpoint {name} is trained here for {TRAINED_NETWORK}, and tracker {tracker} runs {network}",
                path="checkpoint",
                expected=f"weights of {network}",
                remedy="name others, or the tracker that the weights are for",
            )
        return CheckpointSource(name, trained.weights, None, None, trained.weights)
    remedy = "name one of these, or the tracker that the weights are for"
    return _catalog_checkpoint(config.paths, name, _fitting(name, network, f"tracker {tracker}", remedy))


def _fitting(name: str, network: str | None, taker: str, remedy: str, config: str | None = None) -> CheckpointEntry:
    """The catalog's entry of `name`, if its weights are for the network that `taker` runs.

    Args:
        network, config: which network, and which of its sizes that is; None: `taker` does not say.
    """

    def fits(entry: CheckpointEntry) -> bool:
        return network in (None, entry.network) and config in (None, entry.config)

    entry = find_checkpoint(name)
    if fits(entry):
        return entry
    wanted = network if config is None else f"{network} ({config})"
    held = entry.network if config is None or entry.config is None else f"{entry.network} ({entry.config})"
    fitting = [other for other, facts in load_checkpoints().items() if fits(facts)]
    raise VosflowError(
        f"checkpoint {name} holds weights of {held}, and {taker} runs {wanted}",
        path="checkpoint",
        expected=f"weights of {wanted}: " + (", ".join(fitting) or "none are in the catalog"),
        remedy=remedy,
    )


def _catalog_checkpoint(paths: PathsConfig, name: str, entry: CheckpointEntry) -> CheckpointSource:
    network = entry.config and _house_config(entry.config)
    given = paths.checkpoints.get(name)
    # What is trained or converted here may be made anew; a published file is what it is.
    sha256 = None if entry.pickled else entry.sha256
    if given is not None:
        if entry.pickled and not given.endswith(".safetensors"):
            raise VosflowError(
                "these weights are a pickle, which may run code when it is read",
                path=f"paths.checkpoints.{name}",
                expected=f"{entry.weights_file}, converted from it",
                remedy=f"{import_command(given, paths.data, '--checkpoint', name)}; and remove the key",
            )
        found = _existing(given, f"paths.checkpoints.{name}")
        return CheckpointSource(name, found, network, None if entry.path else sha256, given)
    if entry.path is not None:
        path = _from_here(entry.path)
        return CheckpointSource(name, path, network, sha256, path)
    folder = f"{paths.data}/checkpoints"
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
