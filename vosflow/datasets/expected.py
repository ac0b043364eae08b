"""What is known of a file before it is fetched, and what is remembered of it afterwards."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vosflow.catalog import RemoteFile
from vosflow.datasets.transfer import CHUNK, is_web_page, load_json
from vosflow.errors import VosflowError


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


@dataclass(frozen=True)
class Digests:
    """Hashes of one file, hexadecimal; `git_blob_sha1` is the id that git gives its content."""

    sha256: str
    md5: str
    git_blob_sha1: str


@dataclass(frozen=True)
class Expected:
    """What is known of a file (size in bytes; hexadecimal hashes, of one only the beginning), and who says so.

    `quirks` are told where it is another file than expected: some tell why.
    """

    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    git_blob_sha1: str | None = None
    sha256_prefix: str | None = None
    stated_by: str = "the caller"
    quirks: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: RemoteFile) -> Expected:
        """What the catalog knows."""
        return cls(
            size=entry.size_bytes,
            sha256=entry.sha256,
            md5=entry.md5,
            git_blob_sha1=entry.git_blob_sha1,
            sha256_prefix=entry.sha256_prefix,
            stated_by=f"{entry.evidence}: {entry.source}",
            quirks=entry.quirks,
        )

    @property
    def has_hash(self) -> bool:
        """Whether the file can be told from all others."""
        return bool(self.sha256 or self.md5 or self.git_blob_sha1)

    @property
    def verdict(self) -> str:
        """What may be said of a file that passed the check."""
        names = ("size", "sha256", "md5", "git_blob_sha1", "sha256_prefix")
        known = [name for name in names if getattr(self, name) is not None]
        if self.has_hash:
            return f"{' and '.join(known)} as expected"
        return "no hash is known to compare it with, so its own is recorded"

    def or_recorded(self, recorded: Record | None, record_path: Path) -> Expected:
        """This; or, where nobody published a hash, what an earlier download recorded."""
        if self.has_hash or recorded is None:
            return self
        return Expected(
            size=recorded.size_bytes,
            sha256=recorded.sha256,
            sha256_prefix=self.sha256_prefix,
            stated_by=f"recorded at the first download in {record_path}",
            quirks=self.quirks,
        )

    def check(self, path: Path) -> tuple[str | None, Digests]:
        """What is wrong with the file, or None; and its hashes."""
        size, found = path.stat().st_size, file_digests(path)
        if is_web_page(path) and not path.name.endswith((".html", ".htm")):
            return f"a web page of {size:,} bytes instead of the file", found
        beginning = self.sha256_prefix and found.sha256[: len(self.sha256_prefix)]
        for what, actual, wanted in (
            ("its size in bytes", size, self.size),
            ("its sha256", found.sha256, self.sha256),
            ("its md5", found.md5, self.md5),
            ("its id in git", found.git_blob_sha1, self.git_blob_sha1),
            (f"its sha256, {found.sha256}, begins with", beginning, self.sha256_prefix),
        ):
            if wanted is not None and actual != wanted:
                said = what if what.endswith("with") else f"{what} is"
                return "; ".join([f"{said} {actual}, expected {wanted} ({self.stated_by})", *self.quirks]), found
        return None, found

    def record(self, name: str, path: Path, found: Digests, source: str) -> Record:
        """What to remember of a file that passed the check."""
        compared_with = self.stated_by if self.has_hash or self.sha256_prefix else "nothing"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Record(name, path.stat().st_size, found.sha256, found.md5, source, now, compared_with)


def file_digests(path: str | Path) -> Digests:
    """The hashes of a file, in one reading."""
    sha256, md5, blob = hashlib.sha256(), hashlib.md5(usedforsecurity=False), hashlib.sha1(usedforsecurity=False)
    blob.update(f"blob {os.stat(path).st_size}\0".encode())
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            for digest in (sha256, md5, blob):
                digest.update(chunk)
    return Digests(sha256.hexdigest(), md5.hexdigest(), blob.hexdigest())


def load_record(path: Path) -> Record | None:
    """The record of an earlier download, if there is one; raises VosflowError if it is damaged."""
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
