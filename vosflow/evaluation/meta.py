"""What the publishers' meta files say of objects, for scoring bare folders: `vosflow.evaluation.annotations`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vosflow.datasets import lvos, youtubevos
from vosflow.datasets.lists import first_file, meta_objects, read_meta, read_names
from vosflow.errors import VosflowError
from vosflow.evaluation.statistics import SEEN, UNSEEN


@dataclass(frozen=True)
class VideoFacts:
    """What a meta file says of one video.

    objects: its ids. object_frames, groups: see `vosflow.manifest.VideoEntry`.
    length: the number of its frames, or None where the file does not say.
    """

    objects: tuple[int, ...]
    object_frames: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True)
class Meta:
    """A meta file that was read: facts by video, sorted by name, and what a reader of scores must know of them."""

    path: Path
    videos: Mapping[str, VideoFacts]
    notes: tuple[str, ...] = ()


def find_meta(protocol: str, annotations: Path, given: Path | None) -> Meta | None:
    """Read the meta file that a protocol needs, or return None if it needs none.

    Args:
        annotations: the folder of ground truth; the file is looked for beside it and one level up.
        given: the file, if the user named one.

    Raises:
        VosflowError: it is needed but not there, it is given but not needed, or it cannot be read.
    """
    if protocol not in READERS:
        if given is not None:
            raise VosflowError(
                f"protocol {protocol} reads no meta file",
                path=given,
                expected="a meta file only with " + ", ".join(READERS),
                remedy="leave it out, or name the protocol that it belongs to",
            )
        return None
    names, read = READERS[protocol]
    places = (folder / name for folder in (annotations.parent, annotations.parent.parent) for name in names)
    path = given or first_file(places)
    if path is None:
        raise VosflowError(
            f"protocol {protocol} needs the dataset's meta file: objects and frames are named there",
            path=annotations.parent,
            expected=" or ".join(names),
            remedy="name the file (--meta), or put it beside the folder of annotations",
        )
    return read(path)


def _mosev2(path: Path) -> Meta:
    videos = {}
    for name, facts in read_meta(path).items():
        length = facts.get("length")
        videos[name] = VideoFacts(tuple(meta_objects(facts, name, path)), length=length and int(length))
    return Meta(path, videos)


def _lvos(path: Path) -> Meta:
    unseen_list = path.parent / "unseen_videos.txt"
    unseen = set(read_names(unseen_list)) if unseen_list.is_file() else None
    videos = {}
    for name, facts in read_meta(path).items():
        objects = meta_objects(facts, name, path)
        frames = {number: lvos.listed_frames(thing, number, name, path) for number, thing in objects.items()}
        group = UNSEEN if unseen is not None and name in unseen else SEEN
        videos[name] = VideoFacts(tuple(objects), frames, {} if unseen is None else dict.fromkeys(objects, group))
    missing = f"there is no {unseen_list}: scores of seen and unseen videos cannot be told apart"
    return Meta(path, videos, () if unseen is not None else (missing,))


def _youtube_vos(path: Path) -> Meta:
    seen, notes = youtubevos.seen_categories(path.parent)
    videos = {}
    for name, facts in read_meta(path).items():
        objects = meta_objects(facts, name, path)
        frames = {number: youtubevos.listed_frames(thing, number, name, path) for number, thing in objects.items()}
        videos[name] = VideoFacts(tuple(objects), frames, youtubevos.groups_of(objects, seen))
    return Meta(path, videos, notes)


READERS: dict[str, tuple[tuple[str, ...], Callable[[Path], Meta]]] = {
    "mosev2": (("meta_valid.json", "meta.json"), _mosev2),
    "mosev2-fixed": (("meta_valid.json", "meta.json"), _mosev2),
    "lvos": (("valid_meta.json", "val_meta.json", "test_meta.json", "meta.json"), _lvos),
    "youtube-vos": (("meta.json",), _youtube_vos),
}
"""By protocol: usual names of its meta file, and how to read it."""
