"""YouTube-VOS 2018 and 2019: objects of any start, each listed in meta.json (Xu et al. 2018).

    valid/  JPEGImages/{video}/00000.jpg, 00005.jpg, ...   Annotations/{video}/{frame}.png   meta.json      (6 fps)
    valid_all_frames/  JPEGImages/{video}/00000.jpg, 00001.jpg, ...                                          (30 fps)
    train/  as valid, with masks of every frame

    meta.json: {"videos": {video: {"objects": {"1": {"category": "person", "frames": ["00000", "00005", ...]}}}}}

Masks of `valid` are there only for frames on which an object first appears. `frames` of meta.json are the annotated
ones: those that a submission must hold, also where all frames are tracked. 2018 and 2019 unpack to the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.layout import find_part, require_folders
from vosflow.datasets.lists import first_file, meta_objects, read_meta
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.videos import Plan, VideoFiles
from vosflow.errors import VosflowError

ALL_FRAMES = "valid_all_frames"
SEEN = 65  # categories of the training set (Xu et al. 2018)


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split, sorted by name.

    `root` holds JPEGImages, Annotations and meta.json; for `valid_all_frames` it is the folder above, in which the
    folders `valid` (masks, meta.json) and `valid_all_frames` (frames) are found. Raises VosflowError.
    """
    base, images = root, root / "JPEGImages"
    if ALL_FRAMES in facts.archives:
        base = find_part(root, ("valid/valid", "valid", "."), ("Annotations", "meta.json"))
        inside = (f"{ALL_FRAMES}/{ALL_FRAMES}", ALL_FRAMES, f"all_frames/{ALL_FRAMES}")
        images = find_part(root, inside, ("JPEGImages",)) / "JPEGImages"
    else:
        require_folders(base, ("JPEGImages", "Annotations"), facts.folder)
    meta_file = base / "meta.json"
    seen, notes = seen_categories(base)
    videos = []
    for name, video in read_meta(meta_file).items():
        objects = meta_objects(video, name, meta_file)
        frames = {number: listed_frames(facts_of, number, name, meta_file) for number, facts_of in objects.items()}
        videos.append(
            VideoFiles(
                name,
                frames=_below(images / name, root),
                masks=_below(base / "Annotations" / name, root),
                rule=PromptRule(late_objects=True),
                ground_truth=_below(base / "Annotations" / name, root) if facts.has_ground_truth else None,
                fps=facts.fps,
                first_frames={number: names[0] for number, names in frames.items()},
                required=tuple(sorted({name for names in frames.values() for name in names}, key=int)),
                object_frames=frames,
                groups=groups_of(objects, seen),
            )
        )
    return Plan(tuple(videos), notes)


def seen_categories(base: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """The categories of the training set, from its meta.json near the folder `base`, and a note if it is not there."""
    places = (base, base.parent / "train", base.parent.parent / "train" / "train", base.parent.parent / "train")
    path = first_file(place / "meta.json" for place in places if place.name == "train")
    if path is None:
        note = (
            "there is no meta.json of the training set (train/meta.json beside this split): which categories are seen "
            "in training is unknown, so scores of seen and unseen ones cannot be told apart"
        )
        return frozenset(), (note,)
    objects = [thing for name, video in read_meta(path).items() for thing in meta_objects(video, name, path).values()]
    found = frozenset(thing["category"] for thing in objects if isinstance(thing.get("category"), str))
    if len(found) == SEEN:
        return found, ()
    return found, (f"{len(found)} categories in the training set's meta.json, {SEEN} expected",)


def groups_of(objects: Mapping[int, Mapping], seen: frozenset[str]) -> dict[int, str]:
    """The group, "seen" or "unseen", of each object of a video; none where it is not known what is seen."""
    if not seen:
        return {}
    return {
        number: "seen" if thing["category"] in seen else "unseen"
        for number, thing in sorted(objects.items())
        if isinstance(thing.get("category"), str)
    }


def listed_frames(thing: Mapping, number: int, video: str, path: Path) -> tuple[str, ...]:
    """The annotated frames of one object of a meta file, in temporal order; raises VosflowError if there are none."""
    names = thing.get("frames")
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(name, str) and name.isdecimal() for name in names)
    ):
        raise VosflowError(
            f"object {number} of video {video} has no list of frames",
            path=path,
            expected='"frames": ["00000", "00005", ...], the frames on which it is annotated',
            remedy="extract the dataset's archive again",
        )
    return tuple(sorted(names, key=int))


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()
