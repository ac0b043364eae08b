"""Extraction of zip and tar archives from the internet: everything or nothing, and nothing outside the folder.

Refused are absolute paths, `..`, links that point outside, device files, archives that unpack to absurd sizes or
numbers of files, and, where the file system takes them for one, names that differ only in case. Links are followed
when they are checked, so a chain of harmless-looking links is not a way out either. Made harmless are names that are
not text (their bytes become %XX) and names that occur twice (the last one counts, as for tar itself).
(The dangers are those of Python's PEP 706; its `tarfile.data_filter` is missing in Python 3.11.0 to 3.11.3.)
"""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import filelock

from vosflow.datasets.transfer import load_json, save_json
from vosflow.digest import file_digest
from vosflow.errors import VosflowError

MIN_BYTES_PER_FILE = 20  # of the archive; the names alone take more, however well they are compressed
FEW_FILES = 10_000  # are always accepted
MAX_RATIO = 200  # JPEG and PNG files hardly shrink; label maps, the most compressible content seen, stay below 20
LONGEST_LINK = 4096  # bytes of the path that a link leads to
DAMAGED = (  # what the readers of archives raise; RuntimeError is an encrypted zip
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,  # names that are not text, or have a zero byte in them
    IndexError,
)


@dataclass(frozen=True)
class Extracted:
    """What was extracted: the content of the marker file."""

    archive: str
    sha256: str
    files: int
    bytes: int


@dataclass(frozen=True)
class _Member:
    """One entry of an archive: kind is "file", "folder", "link" (symbolic), "hardlink" or "other"."""

    name: str
    kind: str
    link: str
    open: Callable[[], BinaryIO] | None = None


def extract_archive(archive: str | Path, folder: str | Path, marker: str | Path) -> Extracted:
    """Extract a zip, tar or compressed tar archive to `folder`, then write `marker` (JSON).

    It is extracted aside and renamed, so `folder` appears complete or not at all; a folder that was there is replaced.
    Times, owners and permissions of the archive are not kept. Where two processes want the same (projects that share
    their data), the second waits, and takes what the first one made.

    Raises:
        VosflowError: missing or damaged archive, not an archive, an unsafe entry (named), or no room.
    """
    archive, folder, marker = Path(archive), Path(folder), Path(marker)
    with _told(archive, folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        waited = _lock(stack, folder)
        made = load_json(marker) if waited and folder.is_dir() else {}
        if made.get("archive") == archive.name and "sha256" in made:
            return Extracted(**made)
        extracted = _extract(archive, folder, marker)
        save_json(marker, asdict(extracted))
    return extracted


def _lock(stack: ExitStack, folder: Path) -> bool:
    """Keep others from extracting to `folder` until `stack` is closed; whether one had to be waited for."""
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        stack.enter_context(lock.acquire(blocking=False))
        return False
    except filelock.Timeout:
        stack.enter_context(lock.acquire())
        return True


def _extract(archive: Path, folder: Path, marker: Path) -> Extracted:
    aside = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
    marker.unlink(missing_ok=True)
    try:
        with _told(archive, folder):
            aside.mkdir()
            files, size = _Extraction(archive, aside).run()
            sha256 = file_digest(archive)
            replace_folder(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Extracted(archive.name, sha256, files, size)


def extract_member(archive: str | Path, name: str, path: str | Path) -> None:
    """Extract one file of an archive to `path`, which must not be there.

    It is found by its whole name in the archive, or else by the last part of it, if only one file has that.

    Raises:
        VosflowError: no such file in it, or a missing or damaged archive.
    """
    archive, path = Path(archive), Path(path)
    path.unlink(missing_ok=True)
    with _told(archive, path):
        last = PurePosixPath(name).name
        alike = [found for found in member_names(archive) if PurePosixPath(found).name == last]
        chosen = name if name in alike else alike[0] if len(alike) == 1 else None
        if chosen is None:
            raise VosflowError(
                f"there is no file {name} in it",
                path=archive,
                expected=f"an archive with {name}" + (f" (it has {', '.join(alike)})" if alike else ""),
                remedy="its publisher may have changed it: correct the catalog",
            )
        for member in _members(archive):
            if member.name == chosen and member.kind == "file":
                with member.open() as source, open(path, "xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def member_names(archive: str | Path) -> list[str]:
    """The names of all files in an archive; raises VosflowError if it is missing or damaged."""
    with _told(Path(archive), None):
        return [member.name.removeprefix("./") for member in _members(Path(archive)) if member.kind == "file"]


def is_archive(path: str | Path) -> bool:
    """Whether a file is called like an archive (weights of torch are zip archives, but not called so)."""
    return str(path).lower().endswith((".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2"))


class _Extraction:
    """All members of one archive, written below a folder."""

    def __init__(self, archive: Path, aside: Path) -> None:
        self.archive = archive
        self.root = os.path.realpath(aside)
        packed = archive.stat().st_size
        self.room = MAX_RATIO * packed + (1 << 20)  # bytes
        self.most = packed // MIN_BYTES_PER_FILE + FEW_FILES
        self.folds_case = _folds_case(aside)
        self.spelled: dict[str, str] = {}  # where case is folded: each name as it was first written
        self.safe: set[Path] = set()  # folders that are made, and reached through no link that leads outside
        self.files = self.entries = self.size = 0

    def run(self) -> tuple[int, int]:
        """Write all; returns the number of files and their bytes."""
        if (declared := _declared_size(self.archive)) is not None:
            self._check_size(_Member(self.archive.name, "file", ""), declared)
            free = shutil.disk_usage(self.root).free
            if declared > free:
                raise OSError(errno.ENOSPC, f"{declared / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
        links = []
        for member in _members(self.archive):
            path = self._place(member)
            if member.kind == "file":
                self._create(member, path, lambda member=member, path=path: self._write(member, path))
            elif member.kind == "folder":
                self._make_folder(member, path)
            elif member.kind == "link":
                self._create(member, path, lambda member=member, path=path: os.symlink(member.link, path))
                self.safe.clear()
                links.append((path, member))
            elif member.kind == "hardlink":
                target = self._safe_path(_Member(member.link, "file", ""))
                if target.is_symlink() or not target.is_file():
                    raise _unsafe(self.archive, member, f"a link to {member.link}, which is no file of the archive")
                if target != path:
                    self._create(member, path, lambda target=target, path=path: os.link(target, path))
                self.files += 1
            else:
                raise _unsafe(self.archive, member, "neither a file, a folder nor a link")
        for path, member in links:  # at the end, when no later link can change where an earlier one leads
            self._check_link(member, path)
        return self.files, self.size

    def _place(self, member: _Member) -> Path:
        """Where the member goes, with the folder made that it is in."""
        self.entries += 1
        if self.entries > self.most:
            raise _unsafe(self.archive, member, f"one of more than {self.most:,} files in an archive this small")
        path = self._safe_path(member)
        if self.folds_case:
            folded = unicodedata.normalize("NFC", str(path)).casefold()
            if self.spelled.setdefault(folded, str(path)) != str(path):
                raise _unsafe(self.archive, member, "a name that differs from another only in upper and lower case")
        if path.parent not in self.safe:
            self._make_folder(member, path.parent)
            self.safe.add(path.parent)
        return path

    def _make_folder(self, member: _Member, path: Path) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _unsafe(self.archive, member, "both a file and a folder") from None

    def _create(self, member: _Member, path: Path, make: Callable[[], None]) -> None:
        """Call `make`, which makes `path`; what had that name before is removed (of the same name, the last counts)."""
        try:
            make()
        except FileExistsError:
            if path.is_dir() and not path.is_symlink():
                raise _unsafe(self.archive, member, "both a file and a folder") from None
            path.unlink()
            make()

    def _write(self, member: _Member, path: Path) -> None:
        with open(path, "xb") as target, member.open() as source:
            while chunk := source.read(1 << 20):
                target.write(chunk)
                self.size += len(chunk)
                self._check_size(member, self.size)
        self.files += 1

    def _check_link(self, member: _Member, path: Path) -> None:
        if not _inside(self.root, os.path.realpath(path)):
            raise _unsafe(self.archive, member, f"a link that leads outside ({member.link})")
        try:
            path.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _unsafe(self.archive, member, f"a link that leads to itself ({member.link})") from error

    def _check_size(self, member: _Member, size: int) -> None:
        if size > self.room:
            raise _unsafe(self.archive, member, f"more than {MAX_RATIO} times the size of the archive unpacked")

    def _safe_path(self, member: _Member) -> Path:
        """Where a member goes; raises VosflowError if that is not below the root, links on the way followed."""
        name = PurePosixPath(plain_name(member.name))
        if name.is_absolute() or ".." in name.parts or "\\" in member.name:
            raise _unsafe(self.archive, member, "an absolute path, or one with .. in it")
        path = Path(self.root, *name.parts)
        if path.parent in self.safe or str(path) == self.root:
            return path
        if not _inside(self.root, os.path.realpath(path.parent)):
            raise _unsafe(self.archive, member, "a path through a link that leads outside")
        return path


def plain_name(name: str) -> str:
    """A name with what is no text (bytes that are not UTF-8, control characters) written as %XX."""
    if name.isascii() and name.isprintable():
        return name
    return "".join(
        "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogateescape"))
        if unicodedata.category(letter) in ("Cc", "Cs")
        else letter
        for letter in name
    )


def _folds_case(folder: Path) -> bool:
    """Whether the file system takes names for one that differ only in upper and lower case."""
    probe = folder / "case"
    probe.touch()
    try:
        return (folder / "CASE").exists()
    finally:
        probe.unlink()


def _declared_size(archive: Path) -> int | None:
    """What a zip archive says it unpacks to, in bytes; None for tar, whose members are known one after the other."""
    if not zipfile.is_zipfile(archive):
        return None
    with zipfile.ZipFile(archive) as file:
        return sum(info.file_size for info in file.infolist())


@contextmanager
def _told(archive: Path, place: Path | None) -> Iterator[None]:
    """Turn what reading and writing raise into a VosflowError about `archive`."""
    try:
        yield
    except DAMAGED as error:
        raise VosflowError(
            f"the archive is damaged or cannot be read ({type(error).__name__}: {str(error).partition(chr(10))[0]})",
            path=archive,
            expected="a complete zip or tar archive",
            remedy="delete it and fetch it again",
        ) from error
    except OSError as error:
        raise VosflowError(
            f"cannot be extracted to {place} ({error})" if place else f"cannot be read ({error})",
            path=archive,
            expected="a readable archive, and room for its content",
            remedy="free space or check permissions, then run again",
        ) from error


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    kind = "folder"
                elif mode == stat.S_IFLNK:
                    kind = "link"
                else:
                    kind = "file" if mode in (0, stat.S_IFREG) else "other"
                if kind == "link" and info.file_size > LONGEST_LINK:
                    raise zipfile.BadZipFile(f"the link {info.filename!r} has a path of {info.file_size:,} bytes")
                link = file.read(info).decode() if kind == "link" else ""
                yield _Member(info.filename, kind, link, lambda info=info: file.open(info))
        return
    with tarfile.open(archive) as file:
        for info in file:
            if info.isreg():
                kind = "file"
            elif info.isdir():
                kind = "folder"
            elif info.issym():
                kind = "link"
            else:
                kind = "hardlink" if info.islnk() else "other"
            yield _Member(info.name, kind, info.linkname, lambda info=info: file.extractfile(info))
        while file.fileobj.read(1 << 20):  # to the very end, where gzip keeps the check sum of its content
            pass


def _inside(root: str, path: str) -> bool:
    return path == root or path.startswith(root + os.sep)


def _unsafe(archive: Path, member: _Member, why: str) -> VosflowError:
    return VosflowError(
        f"refused: {member.name!r} is {why}",
        path=archive,
        expected="an archive whose files stay in its folder",
        remedy="do not use this file: fetch it again from the dataset's publisher",
    )


def replace_folder(aside: Path, folder: Path) -> None:
    """Give `aside` the name `folder`; what had that name is removed (of a link, only the link itself)."""
    old = folder.with_name(f".{folder.name}.old")
    _remove(old)
    if folder.exists() or folder.is_symlink():
        os.rename(folder, old)
    os.rename(aside, folder)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
