"""BDD100K MOTS 2020 as label maps: many objects of any start, at 5 frames a second (Yu et al. 2020).

    images/seg_track_20/{split}/{video}/{video}-0000001.jpg            frames, as published
    labels/seg_track_20/bitmasks/{split}/{video}/{video}-0000001.png   masks, as published: ids of 16 bits in RGBA
    vos/{split}/JPEGImages/{video}/0000001.jpg                         frames (links), as they are read here
    vos/{split}/Annotations/{video}/0000001.png                        label maps made from the masks

No label map holds all objects of some videos, so those are cut into `{video}`, `{video}-chunk2`, ... of up to 100
objects, as SAM-PT does (SysCV/sam-pt@874ff7e); each is tracked and scored as a video of its own. The conversion is
`vosflow.datasets.bdd100k_masks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.lists import check_names, folder_names
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles
from vosflow.errors import VosflowError


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split, sorted by name; `root` holds vos/{split}.

    Every mask is there, and each object's first one is its prompt. Raises VosflowError.
    """
    base = f"vos/{split}"
    for folder in ("JPEGImages", "Annotations"):
        if not (root / base / folder).is_dir():
            raise VosflowError(
                "the masks have not been turned into label maps",
                path=root / base / folder,
                expected="one folder per video",
                remedy=f"python scripts/convert_bdd100k.py {root} --split {split}",
            )
    names = check_names(folder_names(root / base / "Annotations"), root / base / "Annotations")
    return Plan(
        tuple(
            VideoFiles(
                name,
                frames=f"{base}/JPEGImages/{name}",
                masks=f"{base}/Annotations/{name}",
                rule=PromptRule(late_objects=True),
                ground_truth=f"{base}/Annotations/{name}" if facts.has_ground_truth else None,
                complete=True,
                fps=facts.fps,
            )
            for name in names
        )
    )
