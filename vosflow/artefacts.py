"""Costly arrays that several runs need, kept on disk by key: image embeddings, point tracks, optical flow.

They never shape a result: what is read back has the bytes that were made, and whatever is missing, damaged or not
writable is made again. The folder may be deleted at any time, also while jobs run, and any number of processes may
use it at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from vosflow.digest import canonical_json, data_digest
from vosflow.errors import VosflowError

Arrays = dict[str, np.ndarray]

GIGABYTE = 10**9
SCANS_PER_FILL = 50  # other processes write, too: after a 50th of the limit the folder is measured again
OURS = re.compile(r"[0-9a-f]{64}\.safetensors|\.[0-9a-f]{64}\..+")  # kept, or being written
ROOM_AFTER_EVICTION = 0.1  # of the limit: evicting file by file would scan the folder each time


class ArtefactStore:
    """A folder of safetensors files, `{folder}/{kind}/{key[:2]}/{key}.safetensors`, that stays below a limit.

    The files used longest ago are evicted first. Where the folder cannot be written, it says so once and only reads.

    Args:
        folder: made when something is kept.
        gigabytes: limit of all files together (10^9 bytes each). Processes that write at the same time may pass it by
            a 50th each.
    """

    def __init__(self, folder: str | Path, gigabytes: float) -> None:
        self.folder = Path(folder)
        self._limit = int(gigabytes * GIGABYTE)
        self._room = 0  # bytes that may be written before the folder is measured
        self._writes = True

    def read(self, kind: str, key: str) -> Arrays | None:
        """What is kept under `key`, or None if nothing is.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(kind, key)
        try:
            with safe_open(path, "numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                sums = file.metadata()
        except OSError:
            return None
        except SafetensorError as error:
            raise ValueError(str(error)) from error
        if sums != _checksums(arrays):
            raise ValueError("its checksums are not those of its arrays")
        with contextlib.suppress(OSError):  # a folder of somebody else's, or it was evicted just now
            os.utime(path)
        return arrays

    def keep(self, kind: str, key: str, arrays: Arrays) -> None:
        """Write `arrays` under `key`, all at once, after evicting others if need be."""
        if not self._writes:
            return
        content = save(arrays, metadata=_checksums(arrays))
        if len(content) > self._limit:
            return
        path = self._path(kind, key)
        aside = path.with_name(f".{key}.{socket.gethostname()}.{os.getpid()}")
        try:
            if len(content) > self._room:
                self._room = self._make_room(len(content))
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            os.replace(aside, path)
            self._room -= len(content)
        except FileNotFoundError:  # the folder is being deleted, or another process evicts: then it is not kept
            return
        except OSError as error:
            self._writes = False
            print(
                f"{self.folder}: artefacts are not kept from here on ({error}); results are the same, and slower",
                file=sys.stderr,
                flush=True,
            )
            with contextlib.suppress(OSError):
                aside.unlink()

    def _make_room(self, wanted: int) -> int:
        """Evict until `wanted` bytes fit in; returns how many may be written before the next look."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        if total + wanted > self._limit:
            target = max(0, min(self._limit - wanted, int(self._limit * (1 - ROOM_AFTER_EVICTION))))
            for _, size, path in files:
                if total <= target:
                    break
                path.unlink(missing_ok=True)  # another process may have evicted it as well
                total -= size
        return max(wanted, min(self._limit - total, self._limit // SCANS_PER_FILL))

    def _files(self) -> Iterable[tuple[int, int, Path]]:
        """(time of last use in ns, bytes, path) of all artefacts, those that killed processes left half included.

        Nothing else is counted, and nothing else evicted: the folder may be one that holds a user's other files.
        """
        for path in self.folder.glob("*/[0-9a-f][0-9a-f]/*"):
            if not (OURS.fullmatch(path.name) and path.name.lstrip(".").startswith(path.parent.name)):
                continue
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                yield facts.st_mtime_ns, facts.st_size, path

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / key[:2] / f"{key}.safetensors"


def open_store(folder: str | Path, gigabytes: float) -> ArtefactStore | None:
    """Where artefacts are kept, or None for a limit of 0: nothing is. Raises VosflowError for a limit below 0."""
    if not gigabytes >= 0:
        raise VosflowError(
            f"the cache cannot hold {gigabytes:g} gigabytes",
            path=folder,
            expected="0, which keeps nothing, or more",
            remedy="correct --cache_gigabytes",
        )
    return ArtefactStore(folder, gigabytes) if gigabytes > 0 else None


class Artefacts:
    """What a tracker asks for costly arrays of one video; counts what was made, and what was there from before.

    Args:
        store: where they are kept; None makes them every time.
        origin: what decides every artefact besides the tracker's own facts: device, threads, precision, versions.
        code: the digest of modules, or for None of all code of the method.
        remark: is told of a damaged file.
    """

    def __init__(
        self,
        store: ArtefactStore | None = None,
        *,
        origin: Mapping[str, object] | None = None,
        code: Callable[[tuple[str, ...] | None], str] = lambda modules: "",
        remark: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._origin = dict(origin or {})
        self._code = code
        self._remark = remark
        self._known: set[str] = set()  # keys of what was asked for before
        self.counts: dict[str, dict[str, int]] = {}

    def get(
        self,
        kind: str,
        facts: Mapping[str, object],
        make: Callable[[], Mapping[str, np.ndarray]],
        modules: tuple[str, ...] | None = None,
    ) -> Arrays:
        """Arrays by name: from the disk if they are there, else made and kept. Equal bytes either way.

        Args:
            kind: what they are, for instance "image_embedding": a folder's name.
            facts: JSON data that decides them: digests of frames and weights, settings. Device, threads, precision,
                versions and code are added.
            make: computes them. numpy has no bfloat16: view it as uint16.
            modules: the modules whose code decides them, with all that they import; by default all code of the method,
                so that an edit in a part of it that has nothing to do with them makes them anew, and methods that
                differ in such a part share nothing.
        """
        count = self.counts.setdefault(kind, {"made": 0, "reused": 0})
        if self._store is None:
            count["made"] += 1
            return _as_kept(make())
        key = data_digest({**self._origin, "code": self._code(modules), "kind": kind, "facts": dict(facts)})
        try:
            arrays = self._store.read(kind, key)
        except ValueError as error:
            self._remark(f"a damaged artefact ({kind}) was made again: {error}")
            arrays = None
        if arrays is not None:
            count["reused"] += key not in self._known
            self._known.add(key)
            return arrays
        self._known.add(key)
        count["made"] += 1
        arrays = _as_kept(make())
        self._store.keep(kind, key, arrays)
        return arrays


def _as_kept(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """In the memory order in which files hold them: sums over another order differ in their last bits."""
    return {name: np.asarray(array, order="C") for name, array in arrays.items()}


def _checksums(arrays: Arrays) -> dict[str, str]:
    """Metadata of a file; one entry, because safetensors writes several in any order."""
    return {"crc32": canonical_json({name: f"{zlib.crc32(array):08x}" for name, array in arrays.items()})}
