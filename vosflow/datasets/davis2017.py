"""DAVIS 2017 at 480p, semi-supervised: palette label maps, every object on the first frame (Pont-Tuset et al. 2017).

    JPEGImages/480p/{video}/00000.jpg   Annotations/480p/{video}/00000.png   ImageSets/2017/{split}.txt
    JPEGImages/Full-Resolution/{video}/00000.jpg   Annotations/Full-Resolution/{video}/00000.png, from another archive

test-dev has masks of the first frame only. The demo dataset has the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.layout import full_folders, notes_on_full_frames, require_folders
from vosflow.datasets.lists import read_names
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles

VOID = 255  # a region that the DAVIS toolkit does not count as any object


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split; `root` holds JPEGImages, Annotations and ImageSets.

    The list of videos is ImageSets/2017/{split}.txt, or `lists["videos"]`;
    `lists["full_frames"]` is the folder JPEGImages/Full-Resolution where it is not in `root`. Raises VosflowError.
    """
    require_folders(root, ("JPEGImages/480p", "Annotations/480p"), facts.folder)
    source = lists.get("videos") or root / "ImageSets" / "2017" / f"{split}.txt"
    return Plan(
        tuple(
            VideoFiles(
                name,
                frames=f"JPEGImages/480p/{name}",
                masks=f"Annotations/480p/{name}",
                rule=PromptRule(void=VOID),
                ground_truth=f"Annotations/480p/{name}" if facts.has_ground_truth else None,
                complete=True,
                consecutive=True,
                **full_folders(root, name, lists.get("full_frames")),
            )
            for name in read_names(source)
        ),
        notes_on_full_frames(root),
    )
