"""A manifest for scoring only, from a bare folder of annotations (and the publisher's meta file)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vosflow.datasets.davis2016 import frame_pairs
from vosflow.datasets.lists import folder_names, read_list, read_names
from vosflow.errors import VosflowError
from vosflow.evaluation.instances import annotated_file
from vosflow.evaluation.meta import Meta, find_meta
from vosflow.evaluation.protocols import load_protocol
from vosflow.manifest import INSTANCES, PER_OBJECT, ImageFolder, Manifest, VideoEntry
from vosflow.masks import object_folder

FrameList = dict[str, tuple[str, ...] | None]
"""Videos in order; the names of their frames, or None where the list names only the video."""


def annotated_folder(
    annotations: str | Path, *, protocol: str, videos: str | Path | None = None, meta: str | Path | None = None
) -> Manifest:
    """The ground-truth view of a folder: what a protocol needs, nothing for a tracker.

    Args:
        annotations: holds {video}/{frame}.png, for example DAVIS/Annotations/480p; for protocols of the per-object
            layout (sav) {video}/{object:03d}/{frame}.png; for protocols of instances (ytvis) a JSON file.
        protocol: the rules to score by.
        videos: a list of the videos, see `read_video_list`; by default those of the meta file, or every sub-folder,
            sorted by name.
        meta: the publisher's meta file, for the protocols that need one (mosev2, lvos, youtube-vos); by default it is
            looked for beside the annotations. For lvos, unseen_videos.txt of lvos-evaluation belongs beside it.

    Returns:
        A manifest without frames or prompts to track. The ground truth is every PNG file of a video's folder, or the
        frames that the list names; sorted by number where all names are numbers, else by name.

    Raises:
        VosflowError: a missing or empty folder, a listed frame that is missing, an unreadable first annotation; a meta
            file that is missing, unreadable or of other videos.
    """
    rules = load_protocol(protocol)
    layout = rules.layouts[0]
    if layout == INSTANCES:
        if videos is not None or meta is not None:
            raise VosflowError(
                f"protocol {protocol} takes all of its videos from the annotations",
                path=videos or meta,
                expected="no list of videos and no meta file",
                remedy="leave out --videos and --meta",
            )
        return annotated_file(annotations, protocol=protocol)
    annotations = Path(annotations)
    if not annotations.is_dir():
        raise VosflowError(
            "the folder of annotations does not exist",
            path=annotations,
            expected="a folder with one sub-folder of ground-truth PNG files per video",
            remedy="check the path; for DAVIS it ends with Annotations/480p",
        )
    facts = find_meta(protocol, annotations, None if meta is None else Path(meta))
    listed: FrameList
    if videos is not None:
        listed = read_video_list(videos)
    elif facts is not None:
        listed = dict.fromkeys(facts.videos)
    else:
        listed = dict.fromkeys(folder_names(annotations))
    if not listed:
        raise VosflowError(
            "no video to score",
            path=annotations,
            expected="one sub-folder per video",
            remedy="check the path; for DAVIS the annotations' folder ends with Annotations/480p",
        )
    if layout == PER_OBJECT:
        entries = tuple(_object_folders(annotations, video) for video in listed)
    else:
        entries = tuple(_entry(annotations, video, frames) for video, frames in listed.items())
    if facts is not None:
        entries = tuple(_with_facts(entry, facts, annotations) for entry in entries)
    manifest = Manifest(
        dataset=annotations.name,
        split="annotations",
        root=str(annotations),
        videos=entries,
        layout=layout,
        protocol=protocol,
        notes=() if facts is None else facts.notes,
    )
    return replace(manifest, notes=(*manifest.notes, *rules.remarks(manifest)))


def read_video_list(path: str | Path) -> FrameList:
    """Read a list of videos: names separated by white space, or the frame pairs of DAVIS 2016.

    A pair is a line such as "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png"; the video and the
    frame are named by both paths.

    Raises:
        VosflowError: the file is unreadable or empty, a video is listed twice, or a line with paths is not a pair.
    """
    path = Path(path)
    if "/" in read_list(path):
        return {video: tuple(names) for video, names in frame_pairs(path).items()}
    return dict.fromkeys(read_names(path))


def _entry(annotations: Path, video: str, listed: tuple[str, ...] | None) -> VideoEntry:
    folder = annotations / video
    names = [p.stem for p in folder.glob("*.png") if not p.name.startswith(".")] if folder.is_dir() else []
    if not names:
        raise VosflowError(
            f"video {video} has no ground truth" + ("" if folder.is_dir() else ": its folder is missing"),
            path=folder,
            expected="one PNG file of object ids per frame",
            remedy="check the list of videos and the annotations' folder (for DAVIS it ends with Annotations/480p); "
            "for {video}/{object}/{frame}.png use protocol sav",
        )
    if listed is not None:
        absent = [name for name in listed if name not in set(names)]
        if absent:
            raise VosflowError(
                f"the ground truth of video {video} lacks {len(absent)} of {len(listed)} listed frames",
                path=folder / f"{absent[0]}.png",
                expected="an annotation for each pair of the list",
                remedy="extract the dataset's archive again, or use the list that belongs to it",
            )
        names = list(listed)
    truth = ImageFolder(video, ".png", _in_order(names))
    height, width = _size(truth.path(annotations, truth.names[0]))
    return VideoEntry(video, frames=truth, height=height, width=width, objects=(), prompts=(), ground_truth=truth)


def _object_folders(annotations: Path, video: str) -> VideoEntry:
    """A video of the per-object layout: a folder of frames for each object, with names such as 000."""
    folders = folder_names(annotations / video)
    odd = [name for name in folders if not name.isdecimal() or name != object_folder(int(name))]
    if odd or not folders:
        raise VosflowError(
            f"video {video} has no folders of objects" if not folders else f"{odd[0]!r} is not an object's folder",
            path=annotations / video,
            expected="{video}/{object}/{frame}.png, with three-digit numbers for the objects, as in SA-V",
            remedy="check the annotations' folder; for one label map per frame use another protocol (vos-benchmark)",
        )
    frames = {int(name): _entry(annotations / video, name, None).frames.names for name in folders}
    truth = ImageFolder(video, ".png", _in_order({name for names in frames.values() for name in names}))
    first = next(iter(frames))
    height, width = _size(annotations / video / object_folder(first) / f"{frames[first][0]}.png")
    return VideoEntry(
        video, truth, height, width, objects=tuple(frames), prompts=(), ground_truth=truth, object_frames=frames
    )


def _with_facts(entry: VideoEntry, meta: Meta, annotations: Path) -> VideoEntry:
    """`entry` with what the meta file says of it."""
    facts = meta.videos.get(entry.name)
    if facts is None:
        raise VosflowError(
            f"video {entry.name} is not in the meta file",
            path=meta.path,
            expected=f"the videos of {annotations}",
            remedy="use the meta file of this split, or list the videos to score (--videos)",
        )
    count = len(entry.ground_truth.names)
    if facts.length is not None and facts.length != count:
        raise VosflowError(
            f"video {entry.name} has {count} annotated frames, but {facts.length} in the meta file",
            path=annotations / entry.name,
            expected=f"the {facts.length} frames of {meta.path}",
            remedy="extract the dataset's archive again, or use the meta file of this split",
        )
    return replace(entry, objects=facts.objects, object_frames=facts.object_frames, groups=facts.groups)


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    names = list(names)
    return tuple(sorted(names, key=int if all(name.isdecimal() for name in names) else None))


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise VosflowError(
            f"the annotation is unreadable ({error})",
            path=path,
            expected="a complete PNG with object ids",
            remedy="the file is damaged: restore it (extract the dataset's archive again)",
        ) from error
