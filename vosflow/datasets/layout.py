"""Where the files of a dataset begin: in the folder that was given, or near it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vosflow.errors import VosflowError

FULL = ("Full-Resolution", "1080p")  # folders of DAVIS with frames as the camera gave them (2017, 2016)


def require_folders(root: Path, folders: Sequence[str], usual: str = "") -> None:
    """Raise VosflowError unless `root` holds `folders`; `usual` is the sub-folder of an archive that does.

    A folder that would do, up to two levels above or just below, is named in the error.
    """
    for folder in folders:
        if not (root / folder).is_dir():
            near = [*([root / usual] if usual else []), root.parent, root.parent.parent]
            better = next((place for place in near if all((place / name).is_dir() for name in folders)), None)
            raise VosflowError(
                f"there is no {folder} in it",
                path=root,
                expected=f"a folder that holds {' and '.join(folders)}",
                remedy=f"give {better} instead" if better else "correct the path, or extract the archive again",
            )


def full_frames_of(root: Path, video: str, beside: Path | None = None) -> str | None:
    """The folder of a DAVIS video's frames in the camera's resolution, relative to `root` or absolute; None without.

    Args:
        beside: the folder of all videos, where an archive of its own holds them.
    """
    if beside is not None:
        return (beside / video).absolute().as_posix()
    places = (f"JPEGImages/{name}/{video}" for name in FULL)
    return next((place for place in places if (root / place).is_dir()), None)


def find_part(root: Path, places: Iterable[str], holds: Sequence[str]) -> Path:
    """The first of `places` below `root` that holds all of `holds` (files or folders).

    For splits that are put together from several archives, whose folders people arrange in different ways.

    Raises:
        VosflowError: none of them does.
    """
    places = list(places)
    for place in places:
        if all((root / place / name).exists() for name in holds):
            return root / place
    raise VosflowError(
        f"none of its folders {', '.join(places)} holds {' and '.join(holds)}",
        path=root,
        expected=f"{root / places[0] / holds[0]}",
        remedy="correct the path, or extract the archives again",
    )
