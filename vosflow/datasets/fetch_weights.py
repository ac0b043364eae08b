"""Fetching the weights of one checkpoint: the file itself, or out of an archive; pickles converted, once."""

from __future__ import annotations

import sys
from pathlib import Path

import filelock

from vosflow.catalog import CheckpointEntry, Package, find_checkpoint
from vosflow.datasets.archive import extract_member
from vosflow.datasets.convert import convert_checkpoint
from vosflow.datasets.expected import Expected, Record
from vosflow.datasets.fetch import adopt_file, fetch_catalog_file
from vosflow.datasets.transfer import load_json, save_json
from vosflow.sources import import_command


def fetch_checkpoint(checkpoint: str, data: str | Path, *, locks: str | Path) -> Record:
    """Fetch the weights of the catalog's `checkpoint` to `{data}/checkpoints`, or check those that are there.

    Weights that are published in an archive are taken out of it (`{data}/downloads`); their own hash is checked.
    Pickled ones are converted to safetensors beside them.

    Raises:
        VosflowError: no such checkpoint, no source delivered the right file, or a pickle that is refused.
    """
    entry = find_checkpoint(checkpoint)
    destination = Path(data) / "checkpoints" / entry.file
    by_hand = f"get the file by other means, then: {import_command('FILE', data, '--checkpoint', checkpoint)}"
    if entry.package is not None and not destination.is_file():
        record = _fetch_from_package(entry, entry.package, destination, Path(data) / "downloads", locks, by_hand)
    else:
        record = fetch_catalog_file(entry, destination, locks=locks, by_hand=by_hand)
    convert_if_pickled(entry, destination, record.sha256)
    return record


def convert_if_pickled(entry: CheckpointEntry, path: Path, sha256: str) -> None:
    """Make the safetensors file that trackers read, if the weights are pickled and that is not done yet."""
    if not entry.pickled:
        return
    converted = path.with_name(entry.weights_file)
    made_from = converted.with_name(f"{converted.name}.json")
    if converted.is_file() and load_json(made_from).get("sha256") == sha256:
        return
    # Names outside the harmless ones are left out: the catalog's pickles are known, by their hash, to hold optimizers.
    done = convert_checkpoint(path, converted, drop_unknown=True)
    dropped = f"; left out: {', '.join(done['dropped'])}" if done["dropped"] else ""
    print(f"{converted.name}: {done['tensors']} tensors of the pickle {path.name}{dropped}", file=sys.stderr)
    save_json(made_from, {"file": path.name, "sha256": sha256, **done})


def _fetch_from_package(
    entry: CheckpointEntry, package: Package, destination: Path, downloads: Path, locks: str | Path, by_hand: str
) -> Record:
    archive = downloads / package.file
    fetched = fetch_catalog_file(package, archive, locks=locks, by_hand=by_hand)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(destination.with_name(f".{destination.name}.lock")):
        unpacked = destination.with_name(f".{destination.name}.unpacked")
        extract_member(archive, package.member, unpacked)
        source = f"{package.member} in {archive} ({fetched.source})"
        return adopt_file(unpacked, destination, locks=locks, expected=Expected.of(entry), source=source)
