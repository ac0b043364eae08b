"""Is a dataset complete and sound? Everything that is wrong with it, not only the first thing.

Quick: names, counts, the headers of all images, the masks that are prompts. Full: every image is decoded, too.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from vosflow.catalog import FOLDER, Split, find_dataset, find_split
from vosflow.datasets import plan_split
from vosflow.datasets.frames import frame_size, image_size, list_frames, numbered_files
from vosflow.datasets.lists import folder_names
from vosflow.datasets.prompts import MaskFolder, find_prompts
from vosflow.datasets.videos import VideoFiles, read_video
from vosflow.errors import VosflowError

WRONG, ODD = "wrong", "odd"  # what keeps a dataset from being used as published; what one should know
MASK_MODES = ("P", "L", "1")


@dataclass(frozen=True)
class Finding:
    """One thing about a dataset. `kind` is "wrong" or "odd"; `video` is empty where it is about no single one."""

    kind: str
    video: str
    text: str
    path: str = ""


@dataclass(frozen=True)
class Count:
    """How many there are, and how many its publisher says there are (None: nobody says)."""

    what: str
    found: int
    expected: int | None

    @property
    def differs(self) -> bool:
        return self.expected is not None and self.found != self.expected


@dataclass(frozen=True)
class SplitCheck:
    """What a check of one split found."""

    counts: tuple[Count, ...]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Nothing is wrong: all counts are the publisher's, all files are there and readable."""
        return not any(count.differs for count in self.counts) and all(f.kind != WRONG for f in self.findings)


@dataclass(frozen=True)
class VideoCheck:
    """What a check of one video found; `objects` is None where they cannot be counted without decoding all masks."""

    frames: int
    objects: int | None
    findings: tuple[Finding, ...]


def check_split(
    dataset: str,
    split: str,
    root: str | Path,
    *,
    lists: Mapping[str, str | Path] | None = None,
    full: bool = False,
    workers: int = 1,
    told: Callable[[str], object] = lambda video: None,
) -> SplitCheck:
    """Check all videos of a split of the catalog.

    Args:
        root, lists: as for `vosflow.datasets.build_manifest`.
        full: decode every image, in `workers` processes.
        told: called with the name of each video that has been checked.

    Raises:
        VosflowError: what is there cannot be listed at all: the folder, its sub-folders or a list is missing.
    """
    facts = find_split(dataset, split)
    plan = plan_split(dataset, split, root, lists=lists)
    findings = [Finding(ODD, "", note) for note in plan.notes]
    findings += _unlisted(Path(root), plan.videos)
    checks = {}
    for name, check in _check_videos(Path(root), plan.videos, full, workers):
        checks[name] = check
        told(name)
    for files in plan.videos:
        check = checks[files.name]
        findings += check.findings
        findings += _published_frames(dataset, split, files.name, check.frames)
    return SplitCheck(_counts(checks.values(), facts), tuple(findings))


def _counts(checks: Iterable[VideoCheck], facts: Split) -> tuple[Count, ...]:
    checks = list(checks)
    objects = [check.objects for check in checks]
    counts = [
        Count("videos", len(checks), facts.videos),
        Count("frames", sum(check.frames for check in checks), facts.frames),
    ]
    if None not in objects:
        counts.append(Count("objects", sum(objects), facts.objects))
    return tuple(counts)


def _check_videos(
    root: Path, videos: Iterable[VideoFiles], full: bool, workers: int
) -> Iterator[tuple[str, VideoCheck]]:
    check = partial(check_video, root, full=full)
    if workers == 1:
        yield from ((files.name, check(files)) for files in videos)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(check, files): files.name for files in videos}
        yield from ((jobs[job], job.result()) for job in as_completed(jobs))


def check_video(root: Path, files: VideoFiles, *, full: bool = False) -> VideoCheck:
    """Check one video; everything that its manifest would refuse, and more. Raises nothing."""
    findings: list[Finding] = []
    try:
        suffix, names = list_frames(root / files.frames, files.name, consecutive=files.consecutive)
    except VosflowError as error:
        return VideoCheck(0, None, (_wrong(files, error),))
    paths = [root / files.frames / f"{name}{suffix}" for name in names]
    findings += _odd_frames(files, names)
    size = None
    try:
        size = frame_size(paths, files.name)
    except VosflowError as error:
        findings.append(_wrong(files, error))
    if full:
        findings += [finding for path in paths if (finding := _undecodable(files, path)) is not None]
    for folder in dict.fromkeys((files.masks, files.ground_truth)):
        if folder is not None and size is not None:
            findings += _masks(files, root / folder, names, size, complete=folder == files.ground_truth)
    objects, more = _objects(root, files, names, size, full)
    findings += more
    return VideoCheck(len(files.listed or names), objects, tuple(dict.fromkeys(findings)))


def _objects(
    root: Path, files: VideoFiles, names: tuple[str, ...], size: tuple[int, int] | None, full: bool
) -> tuple[int | None, list[Finding]]:
    """The number of objects, and what is odd about their ids; decodes the masks that are prompts (`full`: all)."""
    if size is None:
        return None, []
    try:
        if full:
            entry, notes = read_video(root, files)
            objects, remarks = entry.objects, [Finding(ODD, files.name, note) for note in notes]
        elif files.masks is None:
            return None, []
        elif files.rule.late_objects:  # to find these, all masks would have to be decoded
            objects, remarks = tuple(files.first_frames), []
            if not objects:
                return None, []
        else:
            given = MaskFolder(root / files.masks, files.name, *size, files.rule)
            objects, remarks = find_prompts(given, names, root)[0], []
    except VosflowError as error:
        return None, [_wrong(files, error)]
    if files.masks is None:
        return None, remarks
    if not files.rule.per_obj_png_file and objects and max(objects) != len(objects):
        ids = ", ".join(map(str, objects))
        remarks.append(Finding(ODD, files.name, f"its object ids are not 1, 2, 3, ...: {ids}"))
    return len(objects), remarks


def _masks(
    files: VideoFiles, folder: Path, names: tuple[str, ...], size: tuple[int, int], *, complete: bool
) -> Iterator[Finding]:
    """Sizes and modes of masks from their headers, masks without frames, frames without masks."""
    if not folder.is_dir():
        yield Finding(WRONG, files.name, "its masks are missing", str(folder))
        return
    folders = [folder / name for name in folder_names(folder)] if files.rule.per_obj_png_file else [folder]
    for place in folders:
        try:
            masks = numbered_files(place, (".png",))
        except VosflowError as error:
            yield _wrong(files, error)
            continue
        for path in masks:
            if path.stem not in names:
                yield Finding(WRONG, files.name, f"mask {path.name} has no frame", str(path))
            yield from _mask_header(files, path, size)
        missing = [name for name in names if name not in {path.stem for path in masks}]
        if missing and complete and files.complete:
            yield Finding(
                WRONG, files.name, f"{len(missing)} frames have no mask, the first is {missing[0]}", str(place)
            )


def _mask_header(files: VideoFiles, path: Path, size: tuple[int, int]) -> Iterator[Finding]:
    try:
        found = image_size(path)
    except VosflowError as error:
        yield _wrong(files, error)
        return
    if found != size:
        text = f"the mask is {found[1]}x{found[0]} pixels, its frame {size[1]}x{size[0]}"
        yield Finding(WRONG, files.name, text, str(path))
    with Image.open(path) as image:
        if image.mode not in MASK_MODES:
            yield Finding(WRONG, files.name, f"the mask is a {image.mode} image, not one of ids", str(path))


def _undecodable(files: VideoFiles, path: Path) -> Finding | None:
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        return Finding(WRONG, files.name, f"the frame cannot be decoded ({error})", str(path))
    return None


def _odd_frames(files: VideoFiles, names: tuple[str, ...]) -> Iterator[Finding]:
    if len(names) == 1:
        yield Finding(ODD, files.name, "it has one frame only: nothing can be tracked or scored")
    if sorted(names) != list(names) and files.listed is None:
        yield Finding(ODD, files.name, "its frames in order of their names are not in order of their numbers")


def _unlisted(root: Path, videos: Iterable[VideoFiles]) -> Iterator[Finding]:
    """Videos on disk that are not of this split: other splits may share the folder, so they are only odd."""
    videos = list(videos)
    places = {Path(files.frames).parent for files in videos}
    for place in sorted(places):
        known = {Path(files.frames).name for files in videos if Path(files.frames).parent == place}
        others = [name for name in folder_names(root / place) if name not in known]
        if others:
            yield Finding(
                ODD, "", f"{len(others)} videos there are not of this split ({others[0]}, ...)", str(root / place)
            )


def _published_frames(dataset: str, split: str, video: str, found: int) -> Iterator[Finding]:
    """DAVIS: the number of frames of each video, by its publisher."""
    published = davis_frames(dataset, split).get(video)
    if published is not None and found not in (0, published):
        yield Finding(WRONG, video, f"it has {found} frames, {published} by its publisher")


@cache
def davis_frames(dataset: str, split: str) -> dict[str, int]:
    """The number of frames of each video of a DAVIS split; empty for other datasets."""
    if dataset not in ("davis2016", "davis2017"):
        return {}
    with open(FOLDER / "davis_frames.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    years = ("2016",) if dataset == "davis2016" else ("2016", "2017")
    return {row["video"]: int(row["frames"]) for row in rows if row["split"] == split and row["year"] in years}


def layout_problems(dataset: str, archive: str, root: Path) -> tuple[str, ...]:
    """What an extracted archive of the catalog lacks, in sentences, by names alone: no image is opened.

    Counted are videos, and their frames where the catalog knows how many there are, in the largest split that is read
    from this archive alone.

    Args:
        root: the folder in which the archive begins.
    """
    splits = {name: split for name, split in find_dataset(dataset).splits.items() if split.archives == (archive,)}
    if not splits:
        return ()
    name = max(splits, key=lambda split: splits[split].videos or 0)
    return tuple(_count_problems(dataset, name, splits[name], root / splits[name].folder))


def _count_problems(dataset: str, name: str, split: Split, root: Path) -> Iterator[str]:
    try:
        videos = plan_split(dataset, name, root).videos
    except VosflowError as error:
        if split.lists:  # the names of the videos come in another file
            return
        yield f"{error.problem} ({error.path})"
        return
    if split.videos is not None and len(videos) != split.videos:
        yield f"{len(videos)} videos instead of {split.videos}"
    frames, odd = 0, []
    for files in videos:
        try:
            found = len(list_frames(root / files.frames, files.name, consecutive=files.consecutive)[1])
        except VosflowError as error:
            yield f"{error.problem} ({error.path})"
            return
        frames += found
        published = davis_frames(dataset, name).get(files.name)
        odd += (
            [f"{found} frames instead of {published} in video {files.name}"] if published not in (None, found) else []
        )
    if split.frames is not None and frames != split.frames:
        yield f"{frames} frames instead of {split.frames}"
    yield from odd[:5]


def _wrong(files: VideoFiles, error: VosflowError) -> Finding:
    return Finding(WRONG, files.name, error.problem, str(error.path or ""))
