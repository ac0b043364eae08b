"""DAVIS 2016 at 480p: one object per video, masks of 0 and 255 (Perazzi et al. 2016).

    JPEGImages/480p/{video}/00000.jpg   Annotations/480p/{video}/00000.png   ImageSets/480p/{split}.txt

The lists name pairs of files, one pair per frame: `/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from vosflow.catalog import Split
from vosflow.datasets.folder import build_entry, check_layout, check_names, read_list
from vosflow.datasets.prompts import PromptRule
from vosflow.errors import VosflowError
from vosflow.manifest import Manifest


def build(dataset: str, split: str, root: Path, facts: Split, *, video_list: str | Path | None = None) -> Manifest:
    """The manifest of a split in the layout of DAVIS 2016.

    Args:
        root: the folder that holds JPEGImages, Annotations and ImageSets.
        facts: the catalog's entry of the split.
        video_list: list of frame pairs; default ImageSets/480p/{split}.txt.

    Raises:
        VosflowError: missing, damaged or contradicting files, each named; frames on disk that are not those listed.
    """
    check_layout(root, ("JPEGImages/480p", "Annotations/480p"), facts.folder)
    source = Path(video_list or root / "ImageSets" / "480p" / f"{split}.txt")
    listed = frame_pairs(source)
    entries = []
    for name in check_names(list(listed), source):
        entry, _ = build_entry(
            root,
            name,
            frames=f"JPEGImages/480p/{name}",
            masks=f"Annotations/480p/{name}",
            rule=PromptRule(binary=True),
            ground_truth=f"Annotations/480p/{name}" if facts.has_ground_truth else None,
            complete=True,
            consecutive=True,
        )
        differing = sorted(set(entry.frames.names).symmetric_difference(listed[name]))
        if differing:
            where = "on disk but not in the list" if differing[0] in entry.frames.names else "in the list but not there"
            raise VosflowError(
                f"frame {differing[0]} of video {name} is {where}",
                path=root / entry.frames.folder,
                expected=f"the {len(listed[name])} frames of {source}",
                remedy="the dataset is incomplete or mixed with another: extract its archive again",
            )
        entries.append(entry)
    return Manifest(
        dataset=dataset,
        split=split,
        root=str(root),
        videos=tuple(entries),
        layout=facts.layout,
        late_objects=facts.late_objects,
        protocol=facts.protocol,
        binary_ground_truth=True,
    )


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
        if len(parts) != 2 or len(keys) != 1 or not parts[0].parent.name:
            raise VosflowError(
                f"line {number} is not a pair of frame and mask: {line.strip()[:80]!r}",
                path=path,
                expected="/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png",
                remedy="use ImageSets/480p of the DAVIS 2016 archive (lists of DAVIS 2017 name one video per line)",
            )
        videos.setdefault(parts[0].parent.name, []).append(parts[0].stem)
    return videos
