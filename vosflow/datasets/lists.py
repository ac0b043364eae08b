"""Files that name videos or tell of objects: lists of names, and the JSON files of the publishers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from vosflow.errors import VosflowError


def read_list(path: Path) -> str:
    """The text of a list file; raises VosflowError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")  # editors of Windows put a mark before UTF-8
    except (OSError, UnicodeDecodeError) as error:
        raise VosflowError(
            f"the list of videos cannot be read ({error})",
            path=path,
            expected="a text file that names the videos",
            remedy="correct the path, or extract the dataset's archive again",
        ) from error


def read_names(path: Path) -> list[str]:
    """Names separated by white space; raises VosflowError if there are none, one is double, or one is a path."""
    return check_names(read_list(path).split(), path)


def read_meta(path: Path) -> dict[str, dict]:
    """The videos of a publisher's meta file, `{"videos": {name: {"objects": {id: {...}}}}}`, sorted by name.

    Raises:
        VosflowError: that is not in the file, or it names no video.
    """
    try:
        videos = json.loads(read_list(path))["videos"]
        found = {name: dict(videos[name]) for name in sorted(videos)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VosflowError(
            f"not a publisher's list of videos ({type(error).__name__}: {error})",
            path=path,
            expected='JSON like {"videos": {"0a0b1c2d": ...}}',
            remedy="fetch the file again (scripts/fetch.py), or correct the path",
        ) from error
    check_names(list(found), path)
    return found


def meta_objects(video: Mapping, name: str, path: Path) -> dict[int, dict]:
    """The objects of one video of a meta file, by id; raises VosflowError if an id is no number.

    `objects` may also be a list of ids, of which nothing more is known.
    """
    try:
        objects = video.get("objects") or {}
        if isinstance(objects, list):
            objects = dict.fromkeys(objects, {})
        return {int(key): dict(value or {}) for key, value in objects.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise VosflowError(
            f"the objects of video {name} cannot be read ({error})",
            path=path,
            expected='"objects": {"1": {...}}, with numbers for keys',
            remedy="fetch the file again (scripts/fetch.py), or correct the path",
        ) from error


def folder_names(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted, hidden ones left out; none if it is missing."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # what they are comes with their names: none of 30,000 is looked at
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry) -> bool:
    """Also if it is a link to one; a link to itself is none, and no error."""
    return entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry))


def file_stems(folder: Path, suffix: str) -> set[str]:
    """Names of the files with that suffix in `folder`, without it; none if it is missing.

    Each is kept once, however many folders have it: videos may have millions of frames between them.
    """
    names = os.listdir(folder) if folder.is_dir() else []
    return {sys.intern(name.removesuffix(suffix)) for name in names if name.endswith(suffix)}


def check_names(names: Iterable[str], source: Path) -> list[str]:
    """`names`, if there are any and each is given once; `source` is where they are from."""
    names = list(names)
    if not names:
        raise VosflowError("no videos", path=source, expected="at least one video", remedy="correct the folder or list")
    seen: set[str] = set()
    for name in names:
        if "/" in name or name in (".", ".."):
            raise VosflowError(
                f"{name!r} is not a video's name",
                path=source,
                expected="names of folders, one per line",
                remedy="write only the name of the video, not its path",
            )
        if name in seen:
            raise VosflowError(
                f"video {name} is listed twice",
                path=source,
                expected="each video once",
                remedy="remove one of the two lines",
            )
        seen.add(name)
    return names


def first_file(places: Iterable[Path]) -> Path | None:
    """The first of `places` that is a file."""
    return next((place for place in places if place.is_file()), None)
