"""A manifest for scoring only, from a bare folder of annotations."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder, Manifest, VideoEntry

FrameList = dict[str, tuple[str, ...] | None]
"""Videos in order; the names of their frames, or None where the list names only the video."""


def annotated_folder(annotations: str | Path, *, protocol: str, videos: str | Path | None = None) -> Manifest:
    """The ground-truth view of a folder: what a protocol needs, nothing for a tracker.

    Args:
        annotations: holds {video}/{frame}.png, for example DAVIS/Annotations/480p.
        protocol: the rules to score by.
        videos: a list of the videos, see `read_video_list`; by default every sub-folder, sorted by name.

    Returns:
        A manifest without frames or prompts to track. The ground truth is every PNG file of a video's folder, or the
        frames that the list names; sorted by number where all names are numbers, else by name.

    Raises:
        VosflowError: a missing or empty folder, a listed frame that is missing, an unreadable first annotation.
    """
    annotations = Path(annotations)
    if not annotations.is_dir():
        raise VosflowError(
            "the folder of annotations does not exist",
            path=annotations,
            expected="a folder with one sub-folder of ground-truth PNG files per video",
            remedy="check the path; for DAVIS it ends with Annotations/480p",
        )
    listed: FrameList
    if videos is None:
        folders = sorted(p.name for p in annotations.iterdir() if p.is_dir() and not p.name.startswith("."))
        listed = dict.fromkeys(folders)
    else:
        listed = read_video_list(videos)
    if not listed:
        raise VosflowError(
            "no video to score",
            path=videos or annotations,
            expected="one sub-folder per video" if videos is None else "one video per line",
            remedy="check the path; for DAVIS the annotations' folder ends with Annotations/480p",
        )
    entries = tuple(_entry(annotations, video, frames) for video, frames in listed.items())
    return Manifest(
        dataset=annotations.name, split="annotations", root=str(annotations), videos=entries, protocol=protocol
    )


def read_video_list(path: str | Path) -> FrameList:
    """Read a list of videos: names separated by white space, or the frame pairs of DAVIS 2016.

    A pair is a line such as "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png"; the video and the
    frame are named by the second path.

    Raises:
        VosflowError: the file is unreadable, or a line with paths is not a pair.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VosflowError(
            f"the list of videos is not readable ({error})",
            path=path,
            expected="a text file with one video per line",
            remedy="check the path; for DAVIS 2017 it is ImageSets/2017/val.txt",
        ) from error
    if not any("/" in line for line in lines):
        return dict.fromkeys(name for line in lines for name in line.split())
    frames: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        paths = [Path(word) for word in line.split()]
        if len(paths) != 2 or paths[1].suffix != ".png" or not paths[1].parent.name:
            raise VosflowError(
                f"line {number} is not a pair of an image and an annotation: {line.strip()!r}",
                path=path,
                expected="/JPEGImages/480p/{video}/{frame}.jpg /Annotations/480p/{video}/{frame}.png",
                remedy="use the list as DAVIS 2016 ships it, or one video name per line",
            )
        frames.setdefault(paths[1].parent.name, []).append(paths[1].stem)
    return {video: tuple(names) for video, names in frames.items()}


def _entry(annotations: Path, video: str, listed: tuple[str, ...] | None) -> VideoEntry:
    folder = annotations / video
    names = [p.stem for p in folder.glob("*.png") if not p.name.startswith(".")] if folder.is_dir() else []
    if not names:
        raise VosflowError(
            f"video {video} has no ground truth" + ("" if folder.is_dir() else ": its folder is missing"),
            path=folder,
            expected="one PNG file of object ids per frame",
            remedy="check the list of videos and the annotations' folder (for DAVIS it ends with Annotations/480p)",
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
    names.sort(key=int if all(name.isdecimal() for name in names) else None)
    height, width = _size(folder / f"{names[0]}.png")
    truth = ImageFolder(video, ".png", tuple(names))
    return VideoEntry(video, frames=truth, height=height, width=width, objects=(), prompts=(), ground_truth=truth)


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
