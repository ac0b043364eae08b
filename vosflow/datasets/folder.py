"""Any folder in the style of DAVIS: frames in one folder per video, masks in another. No catalog entry needed.

The options and their meaning are those of `tools/vos_inference.py` of facebookresearch/sam2 (commit 2b90b9f).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from vosflow.datasets.frames import JPEG_SUFFIXES, PNG_SUFFIXES
from vosflow.datasets.lists import check_names, folder_names, read_list
from vosflow.datasets.prompts import PromptRule
from vosflow.datasets.video_file import video_folders
from vosflow.datasets.videos import VideoFiles, read_video
from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, Manifest, VideoEntry


def folder_manifest(
    base_video_dir: str | Path,
    input_mask_dir: str | Path,
    *,
    videos: str | Path | Sequence[str] | None = None,
    per_obj_png_file: bool = False,
    use_all_masks: bool = False,
    late_objects: bool = False,
    annotations: str | Path | None = None,
    protocol: str | None = None,
    binary: bool = False,
    fps: float | None = None,
    frames_dir: str | Path | None = None,
    dataset: str = "folder",
    split: str = "all",
) -> Manifest:
    """The manifest of the videos `{base_video_dir}/{video}/{frame}.jpg` with prompts from `{input_mask_dir}/{video}`.

    Instead of folders, they may be one video file (mp4, ...) and the mask of its first frame, a PNG file; the video is
    decoded once (see `vosflow.datasets.video_file`).

    Args:
        videos: a file with one name per line, or the names; None means all folders in `base_video_dir`, sorted.
        per_obj_png_file: masks (prompts and ground truth) are `{video}/{object}/{frame}.png`; so will be the output.
        use_all_masks: all masks are prompts, not only each object's first one.
        late_objects: each object starts at its first non-empty mask (--track_object_appearing_later_in_video);
            otherwise the objects are those of the first input frame.
        annotations: folder of the ground truth, `{video}/{frame}.png`, if it is known.
        protocol: name of the scoring rules; needs `annotations`.
        binary: masks hold one object, any value above 0 (DAVIS 2016).
        fps: frames per second of the videos, if it is known.
        frames_dir: where frames of a video file are put; by default `{video}.frames`, beside it.
        dataset, split: names for the manifest.

    Raises:
        VosflowError: missing, damaged or contradicting files, each named.
    """
    if protocol is not None and annotations is None:
        raise VosflowError(
            f"protocol {protocol!r} cannot score {dataset}/{split}: it has no annotations",
            expected="a folder with ground-truth masks",
            remedy="give `annotations`, or leave out `protocol`",
        )
    if binary and per_obj_png_file:
        raise VosflowError(
            "`binary` and `per_obj_png_file` exclude each other",
            expected="one of them: masks with one PNG per object are binary anyway",
            remedy="leave out `binary`",
        )
    if Path(base_video_dir).is_file():
        base_video_dir, input_mask_dir = video_folders(base_video_dir, input_mask_dir, frames_dir)
    folders = [_folder(path) for path in (base_video_dir, input_mask_dir, *([annotations] if annotations else []))]
    root = _common_root(folders)
    relative = [os.path.relpath(folder, root) for folder in folders]
    rule = PromptRule(per_obj_png_file, use_all_masks, late_objects, binary)
    entries = tuple(
        read_video(
            root,
            VideoFiles(
                name,
                frames=f"{relative[0]}/{name}",
                masks=f"{relative[1]}/{name}",
                rule=rule,
                ground_truth=f"{relative[2]}/{name}" if annotations else None,
                fps=fps,
            ),
        )[0]
        for name in video_names(folders[0], videos)
    )
    if protocol == "davis2017":
        _refuse_void_prompts(entries, root)
    return Manifest(
        dataset=dataset,
        split=split,
        root=str(root),
        videos=entries,
        layout=PER_OBJECT if per_obj_png_file else LABEL_MAPS,
        late_objects=late_objects,
        protocol=protocol,
        binary_ground_truth=binary,
    )


def _refuse_void_prompts(entries: Iterable[VideoEntry], root: Path) -> None:
    """255 is void in DAVIS 2017: a tracker that follows it would be refused by the scorer, after all the work."""
    for entry in entries:
        for prompt in entry.prompts:
            if prompt.object == 255:
                raise VosflowError(
                    f"the masks of video {entry.name} have an object 255, which protocol davis2017 takes for void",
                    path=root / prompt.mask,
                    expected="ids from 1 to 254",
                    remedy="for masks of 0 and 255 say `binary: true`, `protocol: davis2016`; else renumber the object",
                )


def video_names(base_video_dir: Path, videos: str | Path | Sequence[str] | None) -> list[str]:
    """The names of the videos: from a file (one per line), a sequence, or all folders of `base_video_dir`, sorted.

    Raises:
        VosflowError: the file cannot be read, no names, a name twice, or a name with a path in it.
    """
    source: Path = base_video_dir
    if videos is None:
        names = folder_names(base_video_dir)
        if not names and any(path.suffix in (*JPEG_SUFFIXES, *PNG_SUFFIXES) for path in base_video_dir.iterdir()):
            raise VosflowError(
                "it holds frames, and no folders of frames",
                path=base_video_dir,
                expected="a folder with one sub-folder per video",
                remedy=f"give the folder above, {Path(os.path.abspath(base_video_dir)).parent}; a list of videos may "
                f"name only {Path(os.path.abspath(base_video_dir)).name} (the folder of the masks likewise)",
            )
    elif isinstance(videos, str | Path):
        source = Path(videos)
        names = [line.strip() for line in read_list(source).splitlines() if line.strip()]
    else:
        names = list(videos)
    return check_names(names, source)


def _folder(path: str | Path) -> Path:
    folder = Path(os.path.normpath(path))
    if not folder.is_dir():
        raise VosflowError(
            "the folder is missing",
            path=folder,
            expected="a folder with one sub-folder per video",
            remedy="correct the path",
        )
    return folder


def _common_root(folders: list[Path]) -> Path:
    """The deepest folder that holds all `folders`; relative if all of them are."""
    if any(folder.is_absolute() for folder in folders):
        folders = [Path(os.path.abspath(folder)) for folder in folders]
    return Path(os.path.commonpath(folders) or ".")
