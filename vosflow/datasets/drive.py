"""Google Drive: public files by their id, or by their name in a public folder. Done by gdown, one at a time.

An unfinished download is in the folder `{file}.{id}.gdrive`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import filelock
import requests

from vosflow.datasets.reporter import Reporter
from vosflow.datasets.transfer import (
    ATTEMPTS,
    TIMEOUT,
    NoConnection,
    QuotaUsedUp,
    SourceFailed,
    explain,
    is_hopeless,
    is_web_page,
)

QUOTA = re.compile(r"too many users|quota|many accesses", re.IGNORECASE)
Answer = TypeVar("Answer")


def drive_file(file_id: str, destination: Path, lock: Path, backoff: float, reporter: Reporter) -> tuple[Path, bool]:
    """Fetch a public file of Google Drive beside `destination`, one at a time on this machine (`lock`).

    A cut download goes on where it stopped; five attempts without progress are too many. The page by which Drive
    says that a file was fetched too often is no reason for another attempt: each would prolong it.

    Returns:
        The path of the complete file, and whether it was put together from several answers.

    Raises:
        SourceFailed: not public, gone, its quota used up, or no connection.
    """
    import gdown  # takes 0.2 s to import, and only this source needs it

    folder = drive_folder(destination, file_id)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / destination.name
    target.unlink(missing_ok=True)
    resumed, fruitless, longest = any(folder.iterdir()), 0, _received(folder)
    advance = reporter.progress(destination.name, None)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):  # Drive refuses parallel downloads sooner
        while True:
            try:
                # retries=0: gdown would also try again where there is no internet, and that for half a minute
                options = {"quiet": True, "resume": True, "retries": 0, "timeout": TIMEOUT, "progress": advance}
                _ask(lambda options=options: gdown.download(id=file_id, output=str(target), **options))
                break
            except _Cut as cut:
                if "byte range" in str(cut):  # the answer to a resumed download that cannot be resumed
                    _clear(folder)
                have = _received(folder)
                fruitless = 0 if have > longest else fruitless + 1
                resumed, longest = resumed or have > 0, max(have, longest)
                if fruitless >= ATTEMPTS:
                    raise SourceFailed(f"{cut} ({ATTEMPTS} attempts without progress)") from cut
                pause = backoff * 2 ** max(fruitless - 1, 0)
                reporter.say(f"{destination.name}: {cut}; again in {pause:.0f} s")
                time.sleep(pause)
    if is_web_page(target) and QUOTA.search(target.read_text(errors="replace")):
        target.unlink()
        raise QuotaUsedUp("its download quota is used up (Drive sent a web page that says so)")
    return target, resumed


def find_in_folder(folder_id: str, name: str, lock: Path) -> str:
    """The id of the file `name` in a public folder of Google Drive; raises SourceFailed if it is not there."""
    import gdown

    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        try:
            options = {"skip_download": True, "quiet": True, "timeout": TIMEOUT}
            found = _ask(lambda: gdown.download_folder(id=folder_id, **options))
        except _Cut as cut:
            raise SourceFailed(str(cut)) from cut
    ids = {file.id for file in found if Path(file.path).name == name}
    if len(ids) != 1:
        there = ", ".join(sorted({Path(file.path).name for file in found})[:20])
        raise SourceFailed(f"the folder has {len(ids) or 'no'} files called {name}; it has {there or 'nothing'}")
    return ids.pop()


def drive_folder(destination: Path, file_id: str) -> Path:
    """Where unfinished downloads of `destination` from one file of Google Drive are."""
    return destination.with_name(f"{destination.name}.{file_id}.gdrive")


class _Cut(Exception):
    """The connection was lost; another attempt may help."""


def _ask(call: Callable[[], Answer]) -> Answer:
    """Call gdown; raises SourceFailed for what another attempt will not change, else `_Cut`."""
    import gdown

    try:
        return call()
    except gdown.exceptions.FileURLRetrievalError as error:
        raise _refused(error) from error
    except gdown.exceptions.DownloadError as error:
        if QUOTA.search(str(error)):
            raise _refused(error) from error
        raise _Cut(_one_line(error)) from error
    except requests.HTTPError as error:
        raise _refused(error) from error
    except requests.RequestException as error:
        if is_hopeless(error):
            raise NoConnection(explain(error)) from error
        raise _Cut(explain(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise SourceFailed(f"its page is not understood ({type(error).__name__}: {_one_line(error)})") from error


def _refused(error: Exception) -> SourceFailed:
    text = _one_line(error)
    if QUOTA.search(text):
        return QuotaUsedUp(f"its download quota is used up, or it is not public any more: {text}")
    return SourceFailed(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _received(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
