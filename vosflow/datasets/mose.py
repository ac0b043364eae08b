"""MOSE, v1 and v2: palette label maps, every object on the first frame (Ding et al. 2023, 2025).

    JPEGImages/{video}/00000.jpg   Annotations/{video}/00000.png   meta_{split}.json (a file of its own)

`valid` has masks of the first frame only. `valid-sample` adds the publisher's sample submission of `valid` as what to
compare with: it is somebody's prediction, no ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.layout import find_part, require_folders
from vosflow.datasets.lists import check_names, first_file, folder_names, read_meta, read_names
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles

SAMPLE = "sample_submission"
SAMPLE_PUBLISHED = "sample_submission_valid_all"  # its publisher's name for it


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split, sorted by name; `root` holds JPEGImages and Annotations.

    The videos are those of `lists["videos"]`: the publisher's meta JSON, or a text file of names. Without it, they are
    those of meta_{split}.json beside the images; where the publisher has no such file, all folders. `valid-sample` is
    read from the folder above: its parts are found there. Raises VosflowError.
    """
    base = root
    if SAMPLE in facts.archives:
        base = find_part(root, ("valid/valid", "valid", "."), ("JPEGImages", "Annotations"))
    require_folders(base, ("JPEGImages", "Annotations"), facts.folder)
    names = _video_names(base, split, facts, lists.get("videos"))
    truth = None
    if SAMPLE in facts.archives:
        tops = (SAMPLE, SAMPLE_PUBLISHED)
        inside = (f"{top}/{name}" for top in tops for name in folder_names(root / top))
        truth = find_part(root, (*tops, *inside), names[:1])
    elif facts.has_ground_truth:
        truth = base / "Annotations"
    return Plan(
        tuple(
            VideoFiles(
                name,
                frames=_below(base / "JPEGImages" / name, root),
                masks=_below(base / "Annotations" / name, root),
                rule=PromptRule(),
                ground_truth=_below(truth / name, root) if truth else None,
                complete=True,
                consecutive=True,
                fps=facts.fps,
            )
            for name in names
        )
    )


def _video_names(base: Path, split: str, facts: Split, given: Path | None) -> list[str]:
    if given is None and "videos" in facts.lists:
        meta = f"meta_{split}.json"
        given = first_file((base / meta, base.parent / meta)) or base / meta
    if given is None:
        return check_names(folder_names(base / "JPEGImages"), base / "JPEGImages")
    return list(read_meta(given)) if given.suffix == ".json" else sorted(read_names(given))


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()
