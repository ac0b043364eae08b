"""Where the files of a dataset begin: in the folder that was given, or near it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from vosflow.errors import VosflowError

FULL = ("Full-Resolution", "1080p")  # folders of DAVIS with what has the camera's resolution (2017, 2016)


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


def full_folders(root: Path, video: str, beside: Path | None = None) -> dict[str, str]:
    """A DAVIS video's folders in the camera's resolution, `full_frames` and `full_masks` of `VideoFiles`; {} without.

    They are relative to `root`, or absolute. Frames without masks are not taken, see `notes_on_full_frames`.

    Args:
        beside: the folder of the frames of all videos, where an archive of its own holds them.
    """
    if beside is not None:
        top, name = beside.absolute().parent.parent.as_posix() + "/", beside.name
    else:
        whole = (name for name in FULL if (root / "JPEGImages" / name / video).is_dir())
        top, name = "", next((name for name in whole if (root / "Annotations" / name).is_dir()), None)
    if name is None:
        return {}
    return {"full_frames": f"{top}JPEGImages/{name}/{video}", "full_masks": f"{top}Annotations/{name}/{video}"}


def notes_on_full_frames(root: Path) -> tuple[str, ...]:
    """One sentence where DAVIS's frames in the camera's resolution are there and their masks are not."""
    return tuple(
        f"JPEGImages/{name} is not used by any tracker: Annotations/{name} is missing beside it"
        for name in FULL
        if (root / "JPEGImages" / name).is_dir() and not (root / "Annotations" / name).is_dir()
    )


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
