"""Fetching one file: sources in order, resumed where possible, and named only when its size and hash are right.

Besides the file, a download may leave behind `{file}.bad`: the last complete download whose size or hash was wrong, to
look at; it is never used. Unfinished downloads are explained in `vosflow.datasets.transfer` and `.drive`.

What was fetched is recorded in `{locks}/{file}.json`. A file whose hash nobody published is accepted once; from then
on its record is the expectation.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock

from vosflow.catalog import (
    DriveFolderSource,
    DriveSource,
    HttpSource,
    HubSource,
    RemoteFile,
    Source,
    find_archive,
    find_dataset,
)
from vosflow.datasets.drive import drive_file, drive_folder, find_in_folder
from vosflow.datasets.expected import Digests, Expected, Record, load_record
from vosflow.datasets.reporter import LineReporter, Reporter, Say, stderr_reporter
from vosflow.datasets.transfer import (
    NoConnection,
    QuotaUsedUp,
    SourceFailed,
    http_file,
    meta_path,
    part_path,
    save_json,
)
from vosflow.errors import VosflowError
from vosflow.sources import import_command


def fetch_archive(dataset: str, archive: str, data: str | Path, *, locks: str | Path) -> Record:
    """Fetch a file of one of the catalog's datasets to `{data}/downloads`, or check the one that is there.

    What its publisher gives to registered people only is not fetched, even where somebody keeps a copy.

    Raises:
        VosflowError: no such dataset or archive, no source delivered the right file, or it is to be asked for (the
            message says where).
    """
    facts, entry = find_dataset(dataset), find_archive(dataset, archive)
    destination = Path(data) / "downloads" / entry.file
    walled = facts.access in ("registration", "login")
    name = entry.published_as or entry.file
    get = f"download {name}" if not facts.register_at else f"get {name} at {facts.register_at}"
    by_hand = (
        f"{get if not walled else f'register and {get}'}, then: "
        f"{import_command('PATH', data, '--dataset', dataset, '--archive', archive)} (PATH is the file, or the folder "
        "that it was extracted to; it is used where it is). That folder may also be named in the config, as "
        f"`paths: datasets: {{{dataset}: FOLDER}}`"
    )
    if (walled or not entry.sources) and not destination.exists() and not destination.is_symlink():
        copies = "; ".join(map(describe, entry.sources))
        raise VosflowError(
            f"{facts.name} is given to registered people only"
            if walled
            else f"{facts.name} cannot be fetched by a program",
            path=destination,
            expected=f"{name} from its publisher ({facts.terms or entry.source})",
            remedy=by_hand + (f". Copies that others keep, for registered people: {copies}" if copies else ""),
        )
    _tell(facts.name, facts.notes)
    return fetch_catalog_file(entry, destination, locks=locks, by_hand=by_hand)


def fetch_catalog_file(
    entry: RemoteFile, destination: str | Path, *, locks: str | Path, by_hand: str | None = None
) -> Record:
    """Fetch a file of the catalog (see `fetch_file`); raises VosflowError if it is part of this repository."""
    if entry.evidence == "made_here":
        raise VosflowError(
            f"{entry.file} is part of this repository: there is nothing to fetch",
            expected="a file that is published elsewhere",
            remedy="use it as it is, or make it again as the catalog says",
        )
    _tell(entry.file, entry.quirks)
    return fetch_file(entry.sources, destination, locks=locks, expected=Expected.of(entry), by_hand=by_hand)


def _tell(name: str, notes: Sequence[str]) -> None:
    """What the catalog says that someone who fetches this should know: other numbers that circulate, for instance."""
    for note in notes:
        print(f"note on {name}: {note}", file=sys.stderr)


def fetch_file(
    sources: Sequence[Source],
    destination: str | Path,
    *,
    locks: str | Path,
    expected: Expected | None = None,
    by_hand: str | None = None,
    backoff: float = 2.0,
    say: Say | None = None,
) -> Record:
    """Fetch a file from the first source that delivers it whole and right.

    A file that is already there is checked and kept. A source that is dead, or delivers something else, is named, and
    the next one is tried.

    Args:
        destination: path of the file; its folder is made. The name appears only after all checks.
        locks: folder of the records.
        expected: what is known of the file. Without any hash, the record of an earlier download in `locks` is the
            expectation.
        by_hand: what to do where no source delivers; default: put the file at `destination`.
        backoff: seconds before the second attempt at a source; doubled for each further one without progress.
        say: where progress goes, one line each; default stderr, with a bar on a terminal.

    Raises:
        VosflowError: no source delivered the right file, a wrong file is already there, or the disk is full.
    """
    destination = Path(destination)
    record_path = Path(locks) / f"{destination.name}.json"
    recorded = load_record(record_path)
    expected = (expected or Expected()).or_recorded(recorded, record_path)
    by_hand = by_hand or f"get the file by other means and put it at {destination} (it will be checked)"
    destination.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        reporter = LineReporter(say) if say else stack.enter_context(stderr_reporter())
        stack.enter_context(filelock.FileLock(destination.with_name(f".{destination.name}.lock")))
        _check_link(destination)
        if destination.is_file():
            record = _check_existing(destination, expected, recorded)
            reporter.say(f"{destination.name}: already there; {expected.verdict}")
        else:
            _check_room(destination, expected.size)
            download = _Download(destination, expected, Path(locks) / ".gdrive.lock", backoff, reporter)
            record = download.from_first(sources, by_hand)
        save_json(record_path, asdict(record))
    return record


def adopt_file(
    made: str | Path, destination: str | Path, *, locks: str | Path, expected: Expected, source: str
) -> Record:
    """Give a file of this machine, or a link to one, its name in the data folder, if it is the right one.

    Args:
        made: the file, on the same disk as `destination`; it is moved, and removed if it is wrong.
        destination, locks, expected: as for `fetch_file`.
        source: where it is from, for the record.

    Raises:
        VosflowError: its size or hash is wrong.
    """
    made, destination = Path(made), Path(destination)
    record_path = Path(locks) / f"{destination.name}.json"
    recorded = load_record(record_path)
    expected = expected.or_recorded(recorded, record_path)
    complaint, found = expected.check(made)
    if complaint:
        made.unlink()
        raise VosflowError(
            f"not the file of the catalog: {complaint}",
            path=source,
            expected=f"{destination.name} as its publisher gives it",
            remedy="get it again from its publisher; if they replaced the file, delete its record in the folder of "
            "locks; to use another file, name it in the config as one of your own",
        )
    os.replace(made, destination)
    record = expected.record(destination.name, destination, found, source)
    save_json(record_path, asdict(record))
    return record


def describe(source: Source) -> str:
    """A source in a few words: its address or Drive id."""
    match source:
        case HttpSource():
            return source.url
        case HubSource():
            return hub_url(source)
        case DriveSource():
            return f"Google Drive {source.id}"
        case DriveFolderSource():
            return f"Google Drive folder {source.id}, {source.file}"


def hub_url(source: HubSource) -> str:
    """The plain HTTPS address of a file of a Hugging Face repository; HF_ENDPOINT may name a mirror."""
    prefix = "datasets/" if source.repo_type == "dataset" else ""
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{host}/{prefix}{source.repo}/resolve/{source.revision}/{source.file}"


@dataclass(frozen=True)
class _Download:
    """One file on its way."""

    destination: Path
    expected: Expected
    drive_lock: Path
    backoff: float
    reporter: Reporter

    def from_first(self, sources: Sequence[Source], by_hand: str) -> Record:
        """The file under its name, from the first source that delivers it."""
        name, failures = self.destination.name, []
        for source in sources:
            self.reporter.say(f"{name}: fetching from {describe(source)}")
            try:
                aside, found = self._checked(source)
            except SourceFailed as error:
                self.reporter.say(f"{name}: {describe(source)} failed: {error}")
                failures.append((source, error))
                continue
            except OSError as error:
                raise VosflowError(
                    f"cannot be written ({error})",
                    path=self.destination,
                    expected="a writable folder with enough room",
                    remedy="free space or check permissions, then run again: the download is resumed",
                ) from error
            record = self.expected.record(name, aside, found, describe(source))
            os.replace(aside, self.destination)
            self._remove_leftovers()
            self.reporter.say(f"{name}: {record.size_bytes:,} bytes, sha256 {found.sha256}; {self.expected.verdict}")
            return record
        listed = [f"{describe(source)}: {error}" for source, error in failures]
        raise VosflowError(
            "no source delivered the file:\n    " + "\n    ".join(listed or ["the catalog knows no public source"]),
            path=self.destination,
            expected="one source with the right file" if sources else "a public source",
            remedy=_remedy([error for _, error in failures], by_hand),
        )

    def _checked(self, source: Source) -> tuple[Path, Digests]:
        """The complete and right file, still under another name, and its hashes."""
        for last_chance in (False, True):
            aside, resumed = self._bytes(source)
            complaint, found = self.expected.check(aside)
            if complaint is None:
                return aside, found
            bad = self.destination.with_name(f"{self.destination.name}.bad")
            os.replace(aside, bad)
            meta_path(self.destination).unlink(missing_ok=True)
            if last_chance or not resumed:
                break
            name = self.destination.name
            self.reporter.say(f"{name}: wrong after it was resumed: {complaint}; once more from the beginning")
        raise SourceFailed(f"{complaint}; kept as {bad}")

    def _bytes(self, source: Source) -> tuple[Path, bool]:
        """The file as the source has it, beside its place; and whether it was put together from several answers."""
        match source:
            case HttpSource():
                return http_file(source.url, self.destination, self.expected.size, self.backoff, self.reporter)
            case HubSource():
                return self._from_hub(source)
            case DriveSource():
                return drive_file(source.id, self.destination, self.drive_lock, self.backoff, self.reporter)
            case DriveFolderSource():
                file_id = find_in_folder(source.id, source.file, self.drive_lock)
                return drive_file(file_id, self.destination, self.drive_lock, self.backoff, self.reporter)

    def _from_hub(self, source: HubSource) -> tuple[Path, bool]:
        token = os.environ.get("HF_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            return http_file(
                hub_url(source), self.destination, self.expected.size, self.backoff, self.reporter, headers
            )
        except SourceFailed as error:
            if not str(error).startswith(("status 401", "status 403")):
                raise
            raise SourceFailed(
                f"{error}: its publisher asks who you are. Accept the terms at https://huggingface.co/{source.repo}, "
                "make a token (Settings, Access Tokens), and run again with HF_TOKEN=..."
            ) from error

    def _remove_leftovers(self) -> None:
        part_path(self.destination).unlink(missing_ok=True)
        meta_path(self.destination).unlink(missing_ok=True)
        for folder in self.destination.parent.glob(drive_folder(self.destination, "*").name):
            shutil.rmtree(folder, ignore_errors=True)


def _remedy(failures: Sequence[SourceFailed], by_hand: str) -> str:
    if failures and all(isinstance(error, NoConnection) for error in failures):
        return (
            f"if this machine has no internet, run `snakemake fetch_all` on one that has and copy `data/`; or {by_hand}"
        )
    if any(isinstance(error, QuotaUsedUp) for error in failures):
        return (
            "do not try again at once: Google Drive counts that too. Wait up to 24 hours; or copy the file (not a "
            f"shortcut to it) into your own Drive and download that with your account; or {by_hand}"
        )
    return f"try again later, or {by_hand}" if failures else by_hand


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise VosflowError(
            f"it was imported from {os.readlink(path)}, which is not there",
            path=path,
            expected="the file that was imported",
            remedy="mount or restore it; or delete this link, then fetch or import the file again",
        )


def _check_existing(path: Path, expected: Expected, recorded: Record | None) -> Record:
    complaint, found = expected.check(path)
    if complaint:
        raise VosflowError(
            f"the file that is already there is wrong: {complaint}",
            path=path,
            expected="the file of the catalog, or the one recorded",
            remedy="delete it and fetch it again; if its publisher replaced the file, delete its record in the folder "
            "of locks too",
        )
    if recorded and recorded.sha256 == found.sha256:
        return recorded
    return expected.record(path.name, path, found, "already there")


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
