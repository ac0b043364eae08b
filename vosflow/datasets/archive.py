"""Extraction of zip and tar archives from the internet: everything or nothing, and nothing outside the folder.

Refused are absolute paths, `..`, links that point outside, device files and archives that unpack to absurd sizes.
Links are followed when they are checked, so a chain of harmless-looking links is not a way out either.
(The dangers are those of Python's PEP 706; its `tarfile.data_filter` is missing in Python 3.11.0 to 3.11.3.)
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from vosflow.datasets.fetch import file_digests
from vosflow.datasets.transfer import save_json
from vosflow.errors import VosflowError

MAX_RATIO = 200  # JPEG and PNG files hardly shrink; label maps, the most compressible content seen, stay below 20
DAMAGED = (  # what the readers of archives raise; RuntimeError is an encrypted zip
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
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
    Times, owners and permissions of the archive are not kept.

    Raises:
        VosflowError: missing or damaged archive, not an archive, an unsafe entry (named), or no room.
    """
    archive, folder, marker = Path(archive), Path(folder), Path(marker)
    aside = folder.with_name(f".{folder.name}.extracting")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
    marker.unlink(missing_ok=True)
    try:
        aside.mkdir(parents=True)
        files, size = _extract_members(archive, aside)
        sha256, _ = file_digests(archive)
        _replace(aside, folder)
    except DAMAGED as error:
        raise VosflowError(
            f"the archive is damaged or cannot be read ({type(error).__name__}: {error})",
            path=archive,
            expected="a complete zip or tar archive",
            remedy="delete it and fetch it again",
        ) from error
    except OSError as error:
        raise VosflowError(
            f"cannot be extracted to {folder} ({error})",
            path=archive,
            expected="a readable archive, and room for its content",
            remedy="free space or check permissions, then run again",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    extracted = Extracted(archive.name, sha256, files, size)
    save_json(marker, asdict(extracted))
    return extracted


def _extract_members(archive: Path, aside: Path) -> tuple[int, int]:
    """Extract all members below `aside`; returns the number of files and their bytes."""
    root = os.path.realpath(aside)
    room = MAX_RATIO * archive.stat().st_size + (1 << 20)
    files, size, links = 0, 0, []
    for member in _members(archive):
        path = _safe_path(root, member, archive)
        if member.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file():
            path.unlink()  # the same name twice: the last one counts, as for tar itself
        if member.kind == "file":
            with member.open() as source, open(path, "xb") as target:
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                    size += len(chunk)
                    if size > room:
                        raise _unsafe(archive, member, f"more than {MAX_RATIO} times the size of the archive unpacked")
            files += 1
        elif member.kind == "link":
            os.symlink(member.link, path)
            links.append((path, member))
        elif member.kind == "hardlink":
            target = _safe_path(root, _Member(member.link, "file", ""), archive)
            if target.is_symlink() or not target.is_file():
                raise _unsafe(archive, member, f"a link to {member.link}, which is no file of the archive")
            os.link(target, path)
            files += 1
        else:
            raise _unsafe(archive, member, "neither a file, a folder nor a link")
    for path, member in links:  # at the end, when no later link can change where an earlier one leads
        if not _inside(root, os.path.realpath(path)):
            raise _unsafe(archive, member, f"a link that leads outside ({member.link})")
    return files, size


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


def _safe_path(root: str, member: _Member, archive: Path) -> Path:
    """Where a member goes; raises VosflowError if that is not below `root`, links on the way followed."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        raise _unsafe(archive, member, "an absolute path, or one with .. in it")
    path = Path(root, *name.parts)
    if not _inside(root, os.path.realpath(path.parent)) and str(path) != root:
        raise _unsafe(archive, member, "a path through a link that leads outside")
    return path


def _inside(root: str, path: str) -> bool:
    return path == root or path.startswith(root + os.sep)


def _unsafe(archive: Path, member: _Member, why: str) -> VosflowError:
    return VosflowError(
        f"refused: {member.name!r} is {why}",
        path=archive,
        expected="an archive whose files stay in its folder",
        remedy="do not use this file: fetch it again from the dataset's publisher",
    )


def _replace(aside: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.rename(folder, old)
    os.rename(aside, folder)
    shutil.rmtree(old, ignore_errors=True)
