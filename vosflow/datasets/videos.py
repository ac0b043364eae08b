"""From the files of one video to its entry in the manifest. An adapter only says where the files are (`Plan`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from vosflow.datasets import content_digest
from vosflow.datasets.frames import frame_size, list_frames
from vosflow.datasets.ground_truth import GroundTruth, read_ground_truth
from vosflow.datasets.prompts import MaskFolder, PromptRule, find_prompts
from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder, Prompt, VideoEntry

MANY = 50  # videos, from which on it pays to start processes


@dataclass(frozen=True)
class VideoFiles:
    """Where the files of one video are, and what its publisher says of it. Folders are relative to the root.

    full_frames, full_masks: the folders of the same frames and masks in the camera's resolution, if they are there.
    frames, masks, ground_truth: its folders; no `masks` where a run gets no prompts, no `ground_truth` where none is
        public.
    rule: which masks are prompts.
    complete: each frame must have a ground-truth mask.
    consecutive: frames are numbered 0, 1, 2, ... without a hole.
    listed: names of the frames, in the order of a list of the publisher's; `list_file` is that list. They must be
        those on disk; with `extra_frames`, others may be there too and are left out.
    size: height and width by the publisher's word, in pixels.
    first_frames: the frame on which each object first appears, by the publisher's word; a different one is a note.
    required, object_frames, groups, external_id: see `vosflow.manifest.VideoEntry`; `group` is that of all objects.
    """

    name: str
    frames: str
    masks: str | None = None
    rule: PromptRule = PromptRule()
    ground_truth: str | None = None
    complete: bool = False
    consecutive: bool = False
    fps: float | None = None
    listed: tuple[str, ...] | None = None
    list_file: Path | None = None
    extra_frames: bool = False
    size: tuple[int, int] | None = None
    first_frames: Mapping[int, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    object_frames: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    group: str | None = None
    external_id: int | str | None = None
    full_frames: str | None = None
    full_masks: str | None = None


@dataclass(frozen=True)
class Plan:
    """What an adapter found: the videos of a split, and what a reader of its results must know.

    `annotations` is the publisher's JSON file of masks, relative to the root; `binary_ground_truth` says that masks
    hold one object, any value above 0.
    """

    videos: tuple[VideoFiles, ...]
    notes: tuple[str, ...] = ()
    annotations: str | None = None
    binary_ground_truth: bool = False


def read_videos(root: Path, videos: Sequence[VideoFiles], workers: int = 1) -> list[tuple[VideoEntry, tuple[str, ...]]]:
    """`read_video` of each, in the same order; many are read in `workers` processes. Raises VosflowError."""
    if workers == 1 or len(videos) < MANY:
        return [read_video(root, files) for files in videos]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            return list(pool.map(partial(read_video, root), videos, chunksize=4))
        except VosflowError:
            pool.shutdown(cancel_futures=True)  # the first problem is told at once, not after hours of reading
            raise


def read_video(root: Path, files: VideoFiles) -> tuple[VideoEntry, tuple[str, ...]]:
    """The manifest entry of one video, and notes on what its publisher and its files disagree about.

    Every file is read once: frames for their size and fingerprint, masks in full.

    Raises:
        VosflowError: missing, damaged or contradicting files, each named.
    """
    frames = Path(files.frames).as_posix()
    suffix, names = list_frames(root / frames, files.name, consecutive=files.consecutive)
    names = _listed(files, names, root / frames)
    images = ImageFolder(frames, suffix, names)
    height, width = frame_size([images.path(root, name) for name in names], files.name)
    _check_meta(files, images, (height, width), root)
    given = MaskFolder(root / files.masks, files.name, height, width, files.rule) if files.masks is not None else None
    truth = None
    if files.ground_truth is not None:
        truth = read_ground_truth(
            root / files.ground_truth,
            root,
            names,
            height,
            width,
            files.name,
            per_object=files.rule.per_obj_png_file,
            complete=files.complete,
            void=files.rule.void,
        )
    objects, prompts = (), ()
    if given is not None:
        given.seen = truth.values if truth else {}
        objects, prompts = find_prompts(given, names, root)
    full = _full_frames(files, names, root)
    full_masks = _full_masks(files, prompts, root)
    entry = VideoEntry(
        name=files.name,
        frames=images,
        height=height,
        width=width,
        objects=objects,
        prompts=prompts,
        fps=files.fps,
        content=content_digest(root, images, prompts),
        ground_truth=truth.images if truth else None,
        ground_truth_content=truth.content if truth else "",
        required=files.required,
        object_frames=files.object_frames or _object_frames(files, names, prompts, truth),
        groups=files.groups or (dict.fromkeys(objects, files.group) if files.group else {}),
        external_id=files.external_id,
        full_frames=full,
        full_masks=full_masks,
        full_content=_full_content(root, full, full_masks, prompts),
    )
    return entry, tuple(_disagreements(files, entry, truth))


def _listed(files: VideoFiles, names: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The frames of the video: those on disk, or those that its publisher lists."""
    if files.listed is None:
        return names
    on_disk, listed = set(names), set(files.listed)
    differing = sorted(listed - on_disk if files.extra_frames else listed ^ on_disk)
    if differing:
        where = "on disk but not in the list" if differing[0] in on_disk else "in the list but not there"
        raise VosflowError(
            f"frame {differing[0]} of video {files.name} is {where}",
            path=folder,
            expected=f"the {len(files.listed)} frames of {files.list_file}",
            remedy="the dataset is incomplete or mixed with another: extract its archive again",
        )
    return files.listed


def _full_frames(files: VideoFiles, names: Sequence[str], root: Path) -> ImageFolder | None:
    """The frames in the camera's resolution: the same ones, all of one size."""
    if files.full_frames is None:
        return None
    folder = root / files.full_frames
    suffix, found = list_frames(folder, files.name)
    if missing := sorted(set(names) - set(found)):
        raise VosflowError(
            f"frame {missing[0]} of video {files.name} is missing in the camera's resolution",
            path=folder / f"{missing[0]}{suffix}",
            expected=f"the {len(names)} frames of {root / files.frames}",
            remedy="the dataset is incomplete: extract its archive again, or remove the folder to do without",
        )
    images = ImageFolder(files.full_frames, suffix, tuple(names))
    frame_size([images.path(root, name) for name in names], files.name)
    return images


def _full_masks(files: VideoFiles, prompts: Sequence[Prompt], root: Path) -> ImageFolder | None:
    """The masks in the camera's resolution: those of frames with prompts."""
    if files.full_masks is None:
        return None
    images = ImageFolder(files.full_masks, ".png", tuple(sorted({prompt.frame for prompt in prompts})))
    for name in images.names:
        if not images.path(root, name).is_file():
            raise VosflowError(
                f"mask {name} of video {files.name} is missing in the camera's resolution",
                path=images.path(root, name),
                expected=f"the masks that belong to {root / files.full_frames}",
                remedy="the dataset is incomplete: extract its archive again, or remove both folders to do without",
            )
    return images


def _full_content(root: Path, frames: ImageFolder | None, masks: ImageFolder | None, prompts: Sequence[Prompt]) -> str:
    """The fingerprint of what there is in the camera's resolution, "" without."""
    if frames is None:
        return ""
    given = [replace(one, mask=masks.path("", one.frame).as_posix()) for one in prompts] if masks else []
    return content_digest(root, frames, given)


def _check_meta(files: VideoFiles, images: ImageFolder, size: tuple[int, int], root: Path) -> None:
    """What the publisher's meta file says of the video must be possible."""
    if files.size is not None and files.size != size:
        raise VosflowError(
            f"the frames of video {files.name} are {size[1]}x{size[0]} pixels",
            path=images.path(root, images.names[0]),
            expected=f"{files.size[1]}x{files.size[0]}, as its publisher's masks",
            remedy="use the frames of the original resolution",
        )
    # The last frame of an object's range may be a mere end, without a file (LVOS).
    wanted = {*files.required, *(name for names in files.object_frames.values() for name in names[:-1])}
    missing = sorted(wanted.difference(images.names))
    if missing:
        raise VosflowError(
            f"frame {missing[0]} of video {files.name}, which the publisher's meta file lists, is missing",
            path=root / images.folder,
            expected=f"{len(wanted)} listed frames among those on disk",
            remedy="the dataset is incomplete, or the meta file is of another version: extract its archive again",
        )


def _object_frames(
    files: VideoFiles, frames: Sequence[str], prompts: Sequence[Prompt], truth: GroundTruth | None
) -> dict[int, tuple[str, ...]]:
    """The annotated frames of each object where they are not all of the ground truth's.

    A late object is annotated from its first mask on; before that nobody can know of it.
    """
    if truth is None:
        return {}
    names = truth.images.names
    if files.rule.per_obj_png_file:
        return dict(truth.object_frames) if any(found != names for found in truth.object_frames.values()) else {}
    if not files.rule.late_objects:
        return {}
    place = {name: index for index, name in enumerate(frames)}
    start: dict[int, int] = {}
    for prompt in prompts:
        start.setdefault(prompt.object, place[prompt.frame])
    return {number: tuple(name for name in names if place[name] >= first) for number, first in sorted(start.items())}


def _disagreements(files: VideoFiles, entry: VideoEntry, truth: GroundTruth | None) -> Iterable[str]:
    """Sentences on objects that publisher and files see differently; scoring would otherwise hide them."""
    seen = {prompt.object: prompt.frame for prompt in reversed(entry.prompts)}
    for number, frame in sorted(files.first_frames.items()):
        if number not in seen:
            yield f"{entry.name}: object {number} is in the publisher's meta file, but no mask shows it"
        elif seen[number] != frame:
            yield (
                f"{entry.name}: object {number} appears on frame {seen[number]}, "
                f"and on frame {frame} by the publisher's meta file"
            )
    for number in sorted(set(seen).difference(files.first_frames)) if files.first_frames else ():
        yield f"{entry.name}: object {number} is in a mask, but not in the publisher's meta file"
    rule = files.rule
    fixed = not (rule.late_objects or rule.per_obj_png_file or rule.binary)  # ids of the first frame are all there are
    if fixed and truth is not None and entry.objects and truth.largest_value > max(entry.objects):
        yield (
            f"{entry.name}: a later annotation holds object {truth.largest_value}, but the first frame's largest is "
            f"{max(entry.objects)}; only objects of the first frame are tracked and scored"
        )
    gaps = sorted(set(range(1, max(entry.objects, default=1))).difference(entry.objects))
    if fixed and truth is not None and gaps:
        yield (
            f"{entry.name}: the first frame has no object {', '.join(map(str, gaps))}, but a larger id; the rules of "
            "DAVIS 2017 count it as an object all the same, with J = F = 1 wherever it is not predicted"
        )
