"""What tells a training set from another, wherever it lies, as far as that is known cheaply. No torch.

A set may have millions of files, on a disk at the other end of a network, and planning happens at every `snakemake -n`
and in each job. So planning reads the names of all videos, one folder, and of a few videos the names of their files and
some sizes: other videos, or all images made anew, are another set, and a folder that moved is not. What only a look at
every video shows, such as a frame that came or went, the job sees when it lists them all
(`vosflow.training.rde.continuing`). Times are never looked at: copies have others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vosflow.datasets.lists import file_stems, folder_names, read_names
from vosflow.datasets.training_sets import DAVIS_LIST, FLAT_SETS, videos_folder
from vosflow.digest import data_digest

LOOKED_INTO = 32  # videos (or classes, or images of each folder) whose files are looked at


@functools.cache
def describe_set(kind: str, root: str) -> dict[str, Any]:
    """Plain data that is the same for the same set in any folder.

    Args:
        kind: "static", "bl30k", "davis" or "youtube".
        root: its folder, in the layout of `vosflow.datasets.training_sets`.

    Returns:
        "videos" or "images" (without those of fss): how many; "names" and "files": digests of all their names (of fss:
        of its classes), and of some of their files.

    Raises:
        VosflowError: the list of DAVIS cannot be read.
        OSError: a folder cannot be listed.
    """
    return _describe_images(Path(root)) if kind == "static" else _describe_videos(kind, Path(root))


def _describe_videos(kind: str, root: Path) -> dict[str, Any]:
    images, masks = (videos_folder(root, part) for part in ("JPEGImages", "Annotations"))
    names = sorted(read_names(root / DAVIS_LIST)) if kind == "davis" else folder_names(images)
    files = []
    for name in _some(names):
        frames = sorted(file_stems(images / name, ".jpg") & file_stems(masks / name, ".png"))
        ends = [
            places / name / f"{frame}{suffix}"
            for frame in frames[:1] + frames[-1:]
            for places, suffix in ((images, ".jpg"), (masks, ".png"))
        ]
        files.append([name, frames, _sizes(ends)])
    return _facts("videos", len(names), names, files)


def _describe_images(root: Path) -> dict[str, Any]:
    classes = folder_names(root / "fss")
    names = {folder: sorted(file_stems(root / folder, ".jpg")) for folder in FLAT_SETS}
    shown = {f"fss/{name}": sorted(file_stems(root / "fss" / name, ".jpg")) for name in _some(classes)} | names
    files = []
    for folder, images in shown.items():
        some = _some(images) if folder in FLAT_SETS else images[:1]
        pairs = [root / folder / f"{name}{suffix}" for name in some for suffix in (".jpg", ".png")]
        files.append([folder, images, _sizes(pairs)])
    return _facts("images", sum(map(len, names.values())), [classes, names], files)


def _facts(what: str, count: int, names: object, files: object) -> dict[str, Any]:
    return {what: count, "names": data_digest(names)[:16], "files": data_digest(files)[:16]}


def _some(names: Sequence[str]) -> Sequence[str]:
    """Some of the names, evenly spread."""
    return names[:: max(1, -(-len(names) // LOOKED_INTO))]


def _sizes(files: Sequence[Path]) -> list[int]:
    """Sizes in bytes; -1 for what is not there, which the job that reads it tells."""
    return [path.stat().st_size if path.is_file() else -1 for path in files]
