"""DAVIS 2016 at 480p: one object per video, masks of 0 and 255 (Perazzi et al. 2016).

    JPEGImages/480p/{video}/00000.jpg   Annotations/480p/{video}/00000.png   ImageSets/480p/{split}.txt
    JPEGImages/1080p/{video}/00000.jpg   Annotations/1080p/{video}/00000.png, the same in the camera's resolution

The lists name pairs of files, one pair per frame: `/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vosflow.catalog import Split
from vosflow.datasets.layout import full_folders, notes_on_full_frames, require_folders
from vosflow.datasets.lists import check_names, read_list
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles
from vosflow.errors import VosflowError


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split; `root` holds JPEGImages, Annotations and ImageSets.

    The list of frame pairs is ImageSets/480p/{split}.txt, or `lists["videos"]`. Raises VosflowError.
    """
    require_folders(root, ("JPEGImages/480p", "Annotations/480p"), facts.folder)
    source = lists.get("videos") or root / "ImageSets" / "480p" / f"{split}.txt"
    listed = frame_pairs(source)
    videos = tuple(
        VideoFiles(
            name,
            frames=f"JPEGImages/480p/{name}",
            masks=f"Annotations/480p/{name}",
            rule=PromptRule(binary=True),
            ground_truth=f"Annotations/480p/{name}" if facts.has_ground_truth else None,
            complete=True,
            consecutive=True,
            **full_folders(root, name, lists.get("full_frames")),
            listed=tuple(listed[name]),
            list_file=source,
        )
        for name in check_names(listed, source)
    )
    return Plan(videos, notes_on_full_frames(root), binary_ground_truth=True)


def frame_pairs(path: Path) -> dict[str, list[str]]:
    """The videos of a list of frame pairs, in its order, and the names of their frames.

    Raises:
        VosflowError: a line that is not a pair of an image and its mask.
    """
    videos: dict[str, list[str]] = {}
    for number, line in enumerate(read_list(path).splitlines(), 1):
        if not line.strip():
            continue
        parts = [PurePosixPath(part) for part in line.split()]
        keys = {(part.parent.name, part.stem) for part in parts}
        if len(parts) != 2 or len(keys) != 1 or parts[1].suffix != ".png" or not parts[0].parent.name:
            raise VosflowError(
                f"line {number} is not a pair of frame and mask: {line.strip()[:80]!r}",
                path=path,
                expected="/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png",
                remedy="use ImageSets/480p of the DAVIS 2016 archive (lists of DAVIS 2017 name one video per line)",
            )
        videos.setdefault(parts[0].parent.name, []).append(parts[0].stem)
    return videos
