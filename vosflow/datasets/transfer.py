"""Moving bytes: one file over HTTP, from Google Drive, or from a path; resumed after a cut, not yet checked.

An unfinished HTTP download is `{file}.part`, with what the server said about it in `{file}.part.json`; an unfinished
download from Google Drive is in the folder `{file}.{id}.gdrive`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import filelock
import requests
import urllib3

from vosflow.errors import VosflowError

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5
TIMEOUT = (20, 60)  # seconds to connect, and between two packets
LONGEST_PAUSE = 300  # seconds
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
QUOTA = re.compile(r"too many users|quota|many accesses", re.IGNORECASE)

Say = Callable[[str], None]


class SourceFailed(Exception):
    """One source did not deliver; the next one is to be tried."""


class _TryAgain(Exception):
    """This attempt failed, another may not; `pause` is the least number of seconds to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def http_file(url: str, destination: Path, size: int | None, backoff: float, say: Say) -> tuple[Path, bool]:
    """Fetch `url` beside `destination`; after a cut, go on where it stopped (HTTP ranges).

    Servers that ignore ranges, whose content changed in between (`If-Range`), or that have less than what is already
    here, lead to a fresh start. Attempts without progress are counted, so that a long download may be cut often.

    Returns:
        The path of the complete file, and whether it was put together from several answers.

    Raises:
        SourceFailed: an answer that another attempt will not change, or five attempts in a row without progress.
    """
    part, meta = part_path(destination), meta_path(destination)
    if part.exists() and load_json(meta).get("url") != url:
        part.unlink()  # from another source: its bytes need not be the same
    resumed, longest, fruitless = part.exists(), 0, 0
    while True:
        try:
            _http_attempt(url, part, meta, destination.name, size, say)
            return part, resumed
        except (requests.RequestException, urllib3.exceptions.HTTPError, _TryAgain) as error:
            have = part.stat().st_size if part.exists() else 0
            resumed = resumed or have > 0
            fruitless = 0 if have > longest else fruitless + 1
            longest = max(longest, have)
            reason = str(error) if isinstance(error, _TryAgain) else f"{type(error).__name__}: {error}"[:300]
            if fruitless >= ATTEMPTS:
                raise SourceFailed(f"{reason} ({ATTEMPTS} attempts without progress)") from error
            pause = max(backoff * 2 ** max(fruitless - 1, 0), getattr(error, "pause", 0.0))
            say(f"{destination.name}: {reason}; {have:,} bytes so far, again in {pause:.0f} s")
            time.sleep(pause)


def _http_attempt(url: str, part: Path, meta: Path, name: str, size: int | None, say: Say) -> None:
    """Complete `part`, or raise; `meta` keeps what the server says identifies this content (ETag or date)."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "vosflow"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := load_json(meta).get("validator"):
            headers["If-Range"] = validator  # changed content is then sent whole, with status 200
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return  # it was complete already
            part.unlink(missing_ok=True)
            raise _TryAgain("the server's file is shorter than what is here: from the beginning")
        if response.status_code in RETRY_STATUS:
            wait = response.headers.get("Retry-After", "")
            pause = min(float(wait), LONGEST_PAUSE) if wait.isdigit() else 0.0
            raise _TryAgain(f"status {response.status_code}", pause)
        if response.status_code not in (200, 206):
            raise SourceFailed(f"status {response.status_code} {response.reason}")
        if "text/html" in response.headers.get("Content-Type", "") and not name.endswith((".html", ".htm")):
            raise SourceFailed("a web page instead of the file")
        if response.status_code == 200:
            have = 0  # all of it: the server knows no ranges, or its content has changed
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _TryAgain(f"the server sent another range ({response.headers.get('Content-Range')})")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        if None not in (total, size) and total != size:
            part.unlink(missing_ok=True)
            raise SourceFailed(f"the server's file has {total:,} bytes, expected {size:,}")
        etag = response.headers.get("ETag", "W/")
        weak = etag.startswith("W/")  # a weak one does not promise equal bytes
        save_json(meta, {"url": url, "validator": response.headers.get("Last-Modified") if weak else etag})
        progress = Progress(name, total or size, say)
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                have += len(chunk)
                progress(have)
    if size is not None and have < size:  # without a Content-Length, a cut looks like the end
        raise _TryAgain(f"the answer ended after {have:,} of {size:,} bytes")


def drive_file(file_id: str, destination: Path, lock: Path, say: Say) -> tuple[Path, bool]:
    """Fetch a public file of Google Drive beside `destination`, one at a time on this machine (`lock`).

    Returns:
        The path of the complete file, and whether an earlier download was resumed.

    Raises:
        SourceFailed: not public, gone, its quota used up, or no connection.
    """
    import gdown  # takes 0.2 s to import, and only this source needs it

    folder = drive_folder(destination, file_id)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / destination.name
    target.unlink(missing_ok=True)
    resumed = any(folder.iterdir())
    progress = Progress(destination.name, None, say)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):  # Drive refuses parallel downloads sooner
        try:
            gdown.download(
                id=file_id,
                output=str(target),
                quiet=True,
                resume=True,
                retries=ATTEMPTS,
                timeout=TIMEOUT,
                progress=progress,
            )
        except (gdown.exceptions.DownloadError, requests.RequestException) as error:
            text = " ".join(str(error).split())
            if QUOTA.search(text):
                text = f"its download quota is used up, or it is not public any more: {text}"
            raise SourceFailed(text) from error
    if is_web_page(target) and QUOTA.search(target.read_text(errors="replace")):
        target.unlink()
        raise SourceFailed("its download quota is used up (Drive sent a web page that says so)")
    return target, resumed


def copy_file(path: str, destination: Path) -> tuple[Path, bool]:
    """Copy a file of this machine beside `destination`; raises SourceFailed if there is none."""
    if not Path(path).is_file():
        raise SourceFailed("no such file")
    shutil.copyfile(path, part_path(destination))
    return part_path(destination), False


class Progress:
    """Says how far a download is, at most every ten seconds."""

    def __init__(self, name: str, total: int | None, say: Say) -> None:
        self._name, self._total, self._say = name, total, say
        self._began: tuple[float, int] | None = None
        self._next = 0.0

    def __call__(self, have: int, total: int | None = None) -> None:
        now = time.monotonic()
        if self._began is None:
            self._began, self._next = (now, have), now + 10
        if now < self._next:
            return
        self._next = now + 10
        speed = (have - self._began[1]) / (now - self._began[0]) / 1e6
        total = total or self._total
        share = f" of {total / 1e6:,.0f} MB ({100 * have / total:.0f} %)" if total else " MB"
        self._say(f"{self._name}: {have / 1e6:,.0f}{share}, {speed:.1f} MB/s")


def part_path(destination: Path) -> Path:
    """Where an unfinished download of `destination` is."""
    return destination.with_name(f"{destination.name}.part")


def meta_path(destination: Path) -> Path:
    """Where it is kept what an unfinished download is a part of."""
    return destination.with_name(f"{destination.name}.part.json")


def drive_folder(destination: Path, file_id: str) -> Path:
    """Where unfinished downloads of `destination` from one file of Google Drive are."""
    return destination.with_name(f"{destination.name}.{file_id}.gdrive")


def is_web_page(path: Path) -> bool:
    """Whether a file begins like HTML: what servers send, with status 200, in place of what they do not give."""
    with open(path, "rb") as file:
        return file.read(512).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def load_json(path: Path) -> dict:
    """The JSON object in `path`, empty if there is no such file; raises VosflowError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise VosflowError(
            f"the record is damaged ({error})", path=path, expected="JSON", remedy="delete it and run again"
        ) from error


def save_json(path: Path, data: dict) -> None:
    """Write `data` to `path`, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, path)
