"""UVO v1.0, dense: every object of a video, of no given category, as run-length masks in one JSON file (Wang 2021).

    VideoDenseSet/UVO_video_{split}_dense.json      {"videos": [...], "annotations": [...], "categories": [...]}
    uvo_videos_dense_frames/{video}/0.png, 1.png    frames, made from uvo_videos_dense/{video}.mp4

The JSON is that of YouTube-VIS: `file_names` of a video are its frames in order, `segmentations` of an annotation one
mask or null per frame. No masks are given to a method: it proposes objects itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from vosflow.catalog import Split
from vosflow.datasets.layout import find_part
from vosflow.datasets.lists import check_names
from vosflow.datasets.videos import Plan, VideoFiles
from vosflow.errors import VosflowError

FRAMES = "uvo_videos_dense_frames"
TINY = (1, 4)  # videos and annotations of the tiny subset, the first of the file: as SAM-PT's documentation makes it


def plan(root: Path, split: str, facts: Split, lists: Mapping[str, Path]) -> Plan:
    """The videos of a split; `root` is the folder UVOv1.0, or the one in which the archives were extracted.

    Raises:
        VosflowError: files that are missing, damaged or contradict each other; videos without frames.
    """
    base = find_part(root, (".", "UVOv1.0", "annotations/UVOv1.0"), ("VideoDenseSet",)).relative_to(root)
    frames = _frames_folder(root, base)
    file = (base / f"VideoDenseSet/UVO_video_{split.removesuffix('-tiny')}_dense.json").as_posix()
    content = read_annotations(root / file)
    if split.endswith("-tiny"):
        content, file = tiny_subset(content), file.replace(".json", ".tiny.json")
        _write_once(root / file, content)
    videos = []
    for video in content["videos"]:
        paths = [PurePosixPath(name) for name in video["file_names"]]
        folder = paths[0].parent
        if any(path.parent != folder or path.is_absolute() or ".." in path.parts for path in paths):
            raise VosflowError(
                f"the frames of video {video['id']} are not in one folder",
                path=root / file,
                expected='"file_names": ["video/0.png", "video/1.png", ...]',
                remedy="extract the dataset's archive again",
            )
        videos.append(
            VideoFiles(
                folder.name,
                frames=f"{frames}/{folder}",
                fps=facts.fps,
                listed=tuple(path.stem for path in paths),
                list_file=root / file,
                extra_frames=True,
                size=(int(video["height"]), int(video["width"])),
                external_id=video["id"],
            )
        )
    check_names([video.name for video in videos], root / file)
    return Plan(tuple(videos), annotations=file)


def read_annotations(path: Path) -> dict:
    """A JSON file of YouTube-VIS, checked: every annotation has one mask or null for each frame of its video.

    Raises:
        VosflowError: the file is missing or broken, or an annotation does not fit its video.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        frames = {video["id"]: len(video["file_names"]) for video in content["videos"] if video["file_names"]}
        if not all(isinstance(name, str) for video in content["videos"] for name in video["file_names"]):
            raise ValueError("file_names are not all text")
        sizes = {video["id"]: [int(video["height"]), int(video["width"])] for video in content["videos"]}
        for place, thing in enumerate(content["annotations"]):
            masks, video = thing["segmentations"], thing["video_id"]
            if len(masks) != frames[video]:
                raise ValueError(f"annotation {place} has {len(masks)} masks for {frames[video]} frames")
            for mask in masks:
                if mask is not None and mask["size"] != sizes[video]:
                    raise ValueError(f"annotation {place} has a mask of {mask['size']}, its video is {sizes[video]}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise VosflowError(
            f"not annotations in the manner of YouTube-VIS ({type(error).__name__}: {error})",
            path=path,
            expected="videos with file_names, height, width, and annotations with one mask or null per frame",
            remedy="extract the dataset's archive again",
        ) from error
    if not content["videos"]:
        raise VosflowError("no videos", path=path, expected="at least one", remedy="extract the archive again")
    return content


def tiny_subset(content: dict) -> dict:
    """The first video, and those of the first four annotations that are its."""
    videos = content["videos"][: TINY[0]]
    known = {video["id"] for video in videos}
    annotations = [thing for thing in content["annotations"][: TINY[1]] if thing["video_id"] in known]
    return {**content, "videos": videos, "annotations": annotations}


def _frames_folder(root: Path, base: Path) -> str:
    for place in (base, Path(), Path("videos")):
        if (root / place / FRAMES).is_dir():
            return (place / FRAMES).as_posix()
    places = [root / place / "uvo_videos_dense" for place in (base, Path(), Path("videos"))]
    videos = next((place for place in places if place.is_dir()), "uvo_videos_dense")
    raise VosflowError(
        "the videos have not been turned into frames",
        path=root / base / FRAMES,
        expected="one folder of PNG files per video",
        remedy=f"python scripts/extract_frames.py {videos} --output {root / base / FRAMES} --suffix .png --digits 1",
    )


def _write_once(path: Path, content: dict) -> None:
    text = json.dumps(content)
    try:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise VosflowError(
            f"the tiny subset cannot be written ({error.strerror})",
            path=path,
            expected="a folder that can be written to, or the subset in this file",
            remedy="link the dataset into a folder of your own",
        ) from error
