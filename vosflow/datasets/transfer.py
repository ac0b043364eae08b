"""Moving bytes: one file over HTTP; resumed after a cut, not yet checked.

An unfinished HTTP download is `{file}.part`, with what the server said about it in `{file}.part.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import requests
import urllib3

from vosflow.datasets.reporter import Reporter
from vosflow.errors import VosflowError

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5
TIMEOUT = (20, 60)  # seconds to connect, and between two packets
LONGEST_PAUSE = 300  # seconds
RETRY_STATUS = (408, 425, 429, 500, 502, 503, 504)
HOPELESS = (  # no second attempt: a name that does not exist, no route, a wrong address, a refused certificate
    requests.exceptions.ConnectTimeout,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.ProxyError,
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
)


class SourceFailed(Exception):
    """One source did not deliver; the next one is to be tried."""


class NoConnection(SourceFailed):
    """The server cannot be reached at all: there may be no internet here."""


class QuotaUsedUp(SourceFailed):
    """Google Drive refuses a file that many have fetched lately; only time or another account help."""


class _TryAgain(Exception):
    """This attempt failed, another may not; `pause` is the least number of seconds to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def http_file(
    url: str,
    destination: Path,
    size: int | None,
    backoff: float,
    reporter: Reporter,
    headers: Mapping[str, str] | None = None,
) -> tuple[Path, bool]:
    """Fetch `url` beside `destination`; after a cut, go on where it stopped (HTTP ranges).

    Servers that ignore ranges, whose content changed in between (`If-Range`), or that have less than what is already
    here, lead to a fresh start. Attempts without progress are counted, so that a long download may be cut often. A
    server that was never reached is not tried again: so nobody waits where there is no internet.

    Args:
        size: expected bytes, if known.
        backoff: seconds before the second attempt; doubled for each further one without progress.
        headers: sent with the request (not to other hosts after a redirect, if they say who asks).

    Returns:
        The path of the complete file, and whether it was put together from several answers.

    Raises:
        SourceFailed: an answer that another attempt will not change, or five attempts in a row without progress.
    """
    part, meta = part_path(destination), meta_path(destination)
    if part.exists() and load_json(meta).get("url") != url:
        part.unlink()  # from another source: its bytes need not be the same
    resumed, longest, fruitless, answered = part.exists(), 0, 0, False
    while True:
        try:
            _http_attempt(url, part, meta, destination.name, size, reporter, headers or {})
            return part, resumed
        except (requests.RequestException, urllib3.exceptions.HTTPError, _TryAgain) as error:
            have = part.stat().st_size if part.exists() else 0
            answered = answered or not is_hopeless(error)
            if not answered:
                raise NoConnection(explain(error)) from error
            resumed = resumed or have > 0
            fruitless = 0 if have > longest else fruitless + 1
            longest = max(longest, have)
            reason = str(error) if isinstance(error, _TryAgain) else explain(error)
            if fruitless >= ATTEMPTS:
                raise SourceFailed(f"{reason} ({ATTEMPTS} attempts without progress)") from error
            pause = max(backoff * 2 ** max(fruitless - 1, 0), getattr(error, "pause", 0.0))
            reporter.say(f"{destination.name}: {reason}; {have:,} bytes so far, again in {pause:.0f} s")
            time.sleep(pause)
        except ValueError as error:  # numbers, addresses and letters that are none, in the answer's headers or chunks
            raise SourceFailed(f"its answer makes no sense ({error})") from error


def is_hopeless(error: Exception) -> bool:
    """Whether a failed request never reached its server, so that the next attempt will not either."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, HOPELESS) or isinstance(reason, urllib3.exceptions.NewConnectionError)


def explain(error: Exception) -> str:
    """A failed request in one line."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, urllib3.exceptions.NameResolutionError):
        return "its name cannot be resolved: there is no internet here, or no such server"
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {TIMEOUT[0]} s"
    if isinstance(reason, urllib3.exceptions.NewConnectionError):
        return f"no connection ({str(reason).rpartition(': ')[2]})"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _http_attempt(
    url: str, part: Path, meta: Path, name: str, size: int | None, reporter: Reporter, extra: Mapping[str, str]
) -> None:
    """Complete `part`, or raise; `meta` keeps what the server says identifies this content (ETag or date)."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "vosflow", **extra}
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
        advance = reporter.progress(name, total or size)
        with open(part, "ab" if have else "wb") as file:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                have += len(chunk)
                advance(have)
    if size is not None and have < size:  # without a Content-Length, a cut looks like the end
        raise _TryAgain(f"the answer ended after {have:,} of {size:,} bytes")


def part_path(destination: Path) -> Path:
    """Where an unfinished download of `destination` is."""
    return destination.with_name(f"{destination.name}.part")


def meta_path(destination: Path) -> Path:
    """Where it is kept what an unfinished download is a part of."""
    return destination.with_name(f"{destination.name}.part.json")


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
