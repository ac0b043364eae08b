"""SA-V val and test: one binary PNG per object, frames at 24 fps, masks on every fourth of them (Ravi et al. 2024).

    JPEGImages_24fps/{video}/00000.jpg   Annotations_6fps/{video}/{object}/00000.png, 00004.png, ...   sav_{split}.txt

Objects may overlap, and are numbered from 000. Trackers see all frames; scored are those with masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.layout import require_folders
from vosflow.datasets.lists import read_names
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split; `root` is the folder sav_{split} of the archive. Raises VosflowError."""
    require_folders(root, ("JPEGImages_24fps", "Annotations_6fps"), facts.folder)
    return Plan(
        tuple(
            VideoFiles(
                name,
                frames=f"JPEGImages_24fps/{name}",
                masks=f"Annotations_6fps/{name}",
                rule=PromptRule(per_obj_png_file=True, late_objects=facts.late_objects),
                ground_truth=f"Annotations_6fps/{name}",
                consecutive=True,
                fps=facts.fps,
            )
            for name in read_names(lists.get("videos") or root / f"sav_{split}.txt")
        )
    )
