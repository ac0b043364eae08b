"""LVOS, v1 and v2: long videos at 6 fps whose objects may come late (Hong et al. 2023, 2024).

    JPEGImages/{video}/00000001.jpg, 00000006.jpg, ...   Annotations/{video}/00000001.png, ...   {split}_meta.json

Frames keep the numbers of the 30 fps video: they start at 1 and step by 5. Masks of `train` and `valid` show every
object on every frame from its own start on, so prompts are the first mask of each object; those of `test` show only
first appearances. The meta file (a file of its own) says from when to when each object is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.frames import list_frames
from vosflow.datasets.layout import require_folders
from vosflow.datasets.lists import check_names, first_file, folder_names, meta_objects, read_meta, read_names
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles
from vosflow.errors import VosflowError

STEP = 5  # frames of the 30 fps video from one published frame to the next


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split, sorted by name; `root` holds JPEGImages and Annotations.

    Args:
        lists: `unseen` names the videos whose objects are of categories that training never saw (all others are of
            seen ones); `meta` is the publisher's {split}_meta.json, by default beside the images.

    Raises:
        VosflowError: missing folders, lists that cannot be read.
    """
    require_folders(root, ("JPEGImages", "Annotations"), facts.folder)
    meta_file = lists.get("meta") or first_file(
        folder / name
        for folder in (root, root.parent)
        for name in (f"{split}_meta.json", f"{split.removesuffix('id')}_meta.json", "meta.json")
    )
    meta = read_meta(meta_file) if meta_file else None
    images = root / "JPEGImages"
    names = list(meta) if meta is not None else check_names(folder_names(images), images)
    unseen = set(read_names(lists["unseen"])) if "unseen" in lists else None
    videos, notes = [], []
    for name in names:
        ranges: dict[int, tuple[str, ...]] = {}
        if meta is not None:
            ranges, remarks = _ranges(root, name, meta[name], meta_file)
            notes += remarks
        videos.append(
            VideoFiles(
                name,
                frames=f"JPEGImages/{name}",
                masks=f"Annotations/{name}",
                rule=PromptRule(late_objects=True),
                ground_truth=f"Annotations/{name}" if facts.has_ground_truth else None,
                fps=facts.fps,
                first_frames={number: frames[0] for number, frames in ranges.items()},
                object_frames=ranges if facts.has_ground_truth else {},
                group=None if unseen is None else "unseen" if name in unseen else "seen",
            )
        )
    if meta is None and facts.has_ground_truth:
        notes.append(
            f"there is no {split}_meta.json: each object is scored from its first mask to the last annotated frame, "
            "not from and to the frames that the publisher's meta file names; scores may differ from the official ones"
        )
    if unseen is None and facts.has_ground_truth:
        notes.append(
            "there is no list of unseen videos (scripts/fetch.py --archive unseen_videos fetches it): scores of seen "
            "and unseen categories cannot be told apart"
        )
    return Plan(tuple(videos), tuple(notes))


def listed_frames(facts: Mapping, number: int, video: str, path: Path) -> tuple[str, ...]:
    """The frames of one object's `frame_range` in a meta file: `frame_nums` of them, from `start` in steps of 5.

    The toolkit (lvos-evaluation@25cb02d) makes a list of that length, fills it before `end`, and drops the first and
    the last of it; so the last frame only ends the range.

    Raises:
        VosflowError: there is no readable range.
    """
    span = facts.get("frame_range") or {}
    try:
        start, end = int(span["start"]), int(span["end"])
        count = int(span.get("frame_nums") or len(range(start, end + 1, STEP)))
        if count < 1:
            raise ValueError(f"{count} frames from {start} to {end}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VosflowError(
            f"object {number} of video {video} has no readable frame_range ({error})",
            path=path,
            expected='"frame_range": {"start": "00000001", "end": "00000996", "frame_nums": "200"}',
            remedy="fetch the meta file again (scripts/fetch.py), or correct the path",
        ) from error
    return tuple(f"{start + STEP * place:08d}" for place in range(count))


def _ranges(root: Path, name: str, video: Mapping, path: Path) -> tuple[dict[int, tuple[str, ...]], list[str]]:
    """The frames of each object's range, and remarks on those that are not there; the last may well be missing."""
    _, on_disk = list_frames(root / "JPEGImages" / name, name)
    present = set(on_disk)
    found, remarks = {}, []
    for number, facts in sorted(meta_objects(video, name, path).items()):
        listed = listed_frames(facts, number, name, path)
        absent = [frame for frame in listed[:-1] if frame not in present]
        if absent:
            remarks.append(
                f"{name}: {len(absent)} frames of object {number} in the meta file are not there (first {absent[0]})"
            )
        if listed:
            found[number] = tuple(frame for frame in listed if frame not in absent)
    return found, remarks
