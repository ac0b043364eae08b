"""Fetching one file: sources in order, resumed where possible, and named only when its size and hash are right.

Besides the file, a download may leave behind `{file}.bad`: the last complete download whose size or hash was wrong, to
look at; it is never used. Unfinished downloads are explained in `vosflow.datasets.transfer`.

What was fetched is recorded in `{locks}/{file}.json`. A file whose hash nobody published is accepted once; from then
on its record is the expectation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import filelock

from vosflow.catalog import (
    DriveSource,
    FileSource,
    HttpSource,
    HubSource,
    RemoteFile,
    Source,
    load_checkpoints,
    load_datasets,
)
from vosflow.datasets.transfer import (
    CHUNK,
    Say,
    SourceFailed,
    copy_file,
    drive_file,
    drive_folder,
    http_file,
    is_web_page,
    load_json,
    meta_path,
    part_path,
    save_json,
)
from vosflow.errors import VosflowError

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Record:
    """What was fetched: the content of a lock file. `compared_with` says where the expected values were from."""

    file: str
    size_bytes: int
    sha256: str
    md5: str
    source: str
    fetched: str
    compared_with: str


def fetch_catalog_file(entry: RemoteFile, destination: str | Path, *, locks: str | Path) -> Record:
    """Fetch a file of the catalog (see `fetch_file`); raises VosflowError if it is part of this repository."""
    if entry.evidence == "made_here":
        raise VosflowError(
            f"{entry.file} is part of this repository: there is nothing to fetch",
            expected="a file that is published elsewhere",
            remedy="use it as it is, or make it again as the catalog says",
        )
    return fetch_file(
        entry.sources,
        destination,
        locks=locks,
        size=entry.size_bytes,
        sha256=entry.sha256,
        md5=entry.md5,
        stated_by=f"{entry.evidence}: {entry.source}",
    )


def fetch_file(
    sources: Sequence[Source],
    destination: str | Path,
    *,
    locks: str | Path,
    size: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    stated_by: str = "the caller",
    backoff: float = 2.0,
    say: Say | None = None,
) -> Record:
    """Fetch a file from the first source that delivers it whole and right.

    A file that is already there is checked and kept. A source that is dead, or delivers something else, is named, and
    the next one is tried.

    Args:
        destination: path of the file; its folder is made. The name appears only after all checks.
        locks: folder of the records.
        size, sha256, md5: what is known of the file (bytes; hexadecimal). Without any hash, the record of an earlier
            download in `locks` is the expectation.
        stated_by: where the known values are from, for messages.
        backoff: seconds before the second attempt at a source; doubled for each further one without progress.
        say: where progress goes, one line each; default stderr.

    Raises:
        VosflowError: no source delivered the right file, a wrong file is already there, or the disk is full.
    """
    destination = Path(destination)
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    record_path = Path(locks) / f"{destination.name}.json"
    recorded = _load_record(record_path)
    if sha256 is None and md5 is None and recorded:
        size, sha256 = recorded.size_bytes, recorded.sha256
        stated_by = f"recorded at the first download in {record_path}"
    expectation = _Expectation(size, sha256, md5, stated_by)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(destination.with_name(f".{destination.name}.lock")):
        if destination.is_file():
            record = _check_existing(destination, expectation, recorded)
            say(f"{destination.name}: already there; {expectation.verdict}")
        else:
            _check_room(destination, size)
            record = _fetch(sources, destination, expectation, Path(locks) / ".gdrive.lock", backoff, say)
        save_json(record_path, asdict(record))
    return record


def list_catalog(data: str | Path) -> list[str]:
    """A table of all files of the catalog: id, file name, size, what it can be compared with, whether it is in `data`.

    One line per file, with a heading.
    """
    rows = [("id", "file", "MB", "hash", "there")]
    for name, dataset in load_datasets().items():
        for archive, entry in dataset.archives.items():
            rows.append(_row(f"{name} {archive}", entry, Path(data) / "downloads" / entry.file))
    for name, entry in load_checkpoints().items():
        path = REPOSITORY / entry.path if entry.path else Path(data) / "checkpoints" / entry.file
        rows.append(_row(name, entry, path))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(name: str, entry: RemoteFile, path: Path) -> tuple[str, ...]:
    size = f"{entry.size_bytes / 1e6:,.0f}" if entry.size_bytes else "?"
    hashed = f"{'sha256' if entry.sha256 else 'md5'}, {entry.evidence}" if entry.sha256 or entry.md5 else "unknown"
    return name, entry.file, size, hashed, "yes" if path.is_file() else "no"


def file_digests(path: str | Path) -> tuple[str, str]:
    """sha256 and md5 of a file, hexadecimal, in one reading."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
    return sha256.hexdigest(), md5.hexdigest()


def describe(source: Source) -> str:
    """A source in a few words: its address, Drive id or path."""
    match source:
        case HttpSource():
            return source.url
        case HubSource():
            return hub_url(source)
        case DriveSource():
            return f"Google Drive {source.id}"
        case FileSource():
            return source.path


def hub_url(source: HubSource) -> str:
    """The plain HTTPS address of a file of a Hugging Face repository."""
    prefix = "datasets/" if source.repo_type == "dataset" else ""
    return f"https://huggingface.co/{prefix}{source.repo}/resolve/{source.revision}/{source.file}"


@dataclass(frozen=True)
class _Expectation:
    """What is known of a file, and who says so."""

    size: int | None
    sha256: str | None
    md5: str | None
    stated_by: str

    @property
    def verdict(self) -> str:
        known = [name for name in ("size", "sha256", "md5") if getattr(self, name) is not None]
        if self.sha256 is None and self.md5 is None:
            return "no hash is known to compare it with, so its own is recorded"
        return f"{' and '.join(known)} as expected"

    def check(self, path: Path) -> tuple[str | None, str, str]:
        """What is wrong with the file, or None; and its sha256 and md5."""
        actual = path.stat().st_size
        sha256, md5 = file_digests(path)
        if is_web_page(path) and not path.name.endswith((".html", ".htm")):
            return f"a web page of {actual:,} bytes instead of the file", sha256, md5
        for what, found, wanted in (
            ("its size in bytes", actual, self.size),
            ("its sha256", sha256, self.sha256),
            ("its md5", md5, self.md5),
        ):
            if wanted is not None and found != wanted:
                return f"{what} is {found}, expected {wanted} ({self.stated_by})", sha256, md5
        return None, sha256, md5

    def record(self, name: str, path: Path, sha256: str, md5: str, source: str) -> Record:
        compared_with = "nothing" if self.sha256 is None and self.md5 is None else self.stated_by
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Record(name, path.stat().st_size, sha256, md5, source, now, compared_with)


def _check_existing(path: Path, expectation: _Expectation, recorded: Record | None) -> Record:
    complaint, sha256, md5 = expectation.check(path)
    if complaint:
        raise VosflowError(
            f"the file that is already there is wrong: {complaint}",
            path=path,
            expected="the file of the catalog, or the one recorded",
            remedy="delete it and fetch it again; if its publisher replaced the file, delete its record in the folder "
            "of locks too",
        )
    if recorded and recorded.sha256 == sha256:
        return recorded
    return expectation.record(path.name, path, sha256, md5, "already there")


def _fetch(
    sources: Sequence[Source], destination: Path, expectation: _Expectation, drive_lock: Path, backoff: float, say: Say
) -> Record:
    failures = []
    for source in sources:
        say(f"{destination.name}: fetching from {describe(source)}")
        try:
            aside, sha256, md5 = _from_source(source, destination, expectation, drive_lock, backoff, say)
        except SourceFailed as error:
            say(f"{destination.name}: {describe(source)} failed: {error}")
            failures.append(f"{describe(source)}: {error}")
            continue
        except OSError as error:
            raise VosflowError(
                f"cannot be written ({error})",
                path=destination,
                expected="a writable folder with enough room",
                remedy="free space or check permissions, then run again: the download is resumed",
            ) from error
        record = expectation.record(destination.name, aside, sha256, md5, describe(source))
        os.replace(aside, destination)
        _remove_leftovers(destination, sources)
        say(f"{destination.name}: {record.size_bytes:,} bytes, sha256 {sha256}; {expectation.verdict}")
        return record
    remedy = f"try again later, or get the file by other means and put it at {destination} (it will be checked)"
    if any("quota" in failure for failure in failures):
        remedy += (
            "; a Google Drive file can be fetched again after at most 24 hours, or copy it (not a shortcut to it) into "
            "your own Drive and fetch that"
        )
    raise VosflowError(
        "no source delivered the file:\n    " + "\n    ".join(failures or ["the catalog knows no source"]),
        path=destination,
        expected="one source with the right file" if sources else "a public source",
        remedy=remedy,
    )


def _from_source(
    source: Source, destination: Path, expectation: _Expectation, drive_lock: Path, backoff: float, say: Say
) -> tuple[Path, str, str]:
    """The complete and right file, still under another name, and its sha256 and md5."""
    for last_chance in (False, True):
        match source:
            case HttpSource() | HubSource():
                url = source.url if isinstance(source, HttpSource) else hub_url(source)
                aside, resumed = http_file(url, destination, expectation.size, backoff, say)
            case DriveSource():
                aside, resumed = drive_file(source.id, destination, drive_lock, say)
            case FileSource():
                aside, resumed = copy_file(source.path, destination)
        complaint, sha256, md5 = expectation.check(aside)
        if complaint is None:
            return aside, sha256, md5
        bad = destination.with_name(f"{destination.name}.bad")
        os.replace(aside, bad)
        meta_path(destination).unlink(missing_ok=True)
        if last_chance or not resumed:
            break
        say(f"{destination.name}: wrong after it was resumed: {complaint}; once more from the beginning")
    raise SourceFailed(f"{complaint}; kept as {bad}")


def _remove_leftovers(destination: Path, sources: Sequence[Source]) -> None:
    part_path(destination).unlink(missing_ok=True)
    meta_path(destination).unlink(missing_ok=True)
    for source in sources:
        if isinstance(source, DriveSource):
            shutil.rmtree(drive_folder(destination, source.id), ignore_errors=True)


def _check_room(destination: Path, size: int | None) -> None:
    part = part_path(destination)
    missing = (size or 0) - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(destination.parent).free
    if missing > free:
        raise VosflowError(
            f"the disk has {free / 1e9:.1f} GB free",
            path=destination.parent,
            expected=f"{missing / 1e9:.1f} GB for {destination.name}",
            remedy="free space, or move the data folder to a larger disk",
        )


def _load_record(path: Path) -> Record | None:
    data = load_json(path)
    try:
        return Record(**data) if data else None
    except TypeError as error:
        raise VosflowError(
            f"the record is not of this version ({error})",
            path=path,
            expected="a record written by scripts/fetch.py",
            remedy="delete it and run again",
        ) from error
