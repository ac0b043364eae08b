"""Is a set of predictions what a server will accept? All of it is looked at before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, LABEL_MAPS, Manifest, VideoEntry
from vosflow.masks import object_folder, read_label_map
from vosflow.submission.formats import Format

SHOWN = 10
INDEX_PNG = (8, 3)  # bit depth and colour type of an 8-bit palette PNG

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class PackedFile:
    """One file of a submission.

    Attributes:
        name: its path in the submission.
        source: where it is now.
        rewrite: it is readable and its values are right, but it is no 8-bit palette PNG: it must be written as one.
    """

    name: str
    source: Path
    rewrite: bool = False


@dataclass
class Findings:
    """What a check found: the files of the submission, what forbids it, and what one must know."""

    files: list[PackedFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Append what another check found."""
        self.files += other.files
        self.problems += other.problems
        self.notes += other.notes

    def raise_problems(self, predictions: Path) -> None:
        """Raise VosflowError with the first ten problems, if there are any."""
        if not self.problems:
            return
        count, shown = len(self.problems), self.problems[:SHOWN]
        head = f"problems: {count}" + (f", the first {SHOWN} of them" if count > SHOWN else "")
        raise VosflowError(
            "the server would not take or score these predictions; " + "\n  - ".join([head, *shown]),
            path=predictions,
            expected="one readable mask per required frame, at the size of the video, with the ids of the prompts",
            remedy="run the tracker again on these videos, or correct the files; nothing was written",
        )


def check_predictions(
    manifest: Manifest,
    predictions: str | Path,
    wanted: Format,
    *,
    allow_empty_objects: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Findings:
    """Look at every file that the submission would hold.

    Args:
        manifest: the dataset split; its frames and ids are what is required.
        predictions: the folder of masks; for instances the results.json, or the folder that holds it.
        allow_empty_objects: an object without a pixel on any frame is noted, not a problem.
        workers: threads that read videos.
        progress: called after each video with its name, the number of finished videos and the number of all.

    Raises:
        VosflowError: there is no such folder, or the manifest is of another layout.
    """
    predictions = Path(predictions)
    if manifest.layout != wanted.layout:
        raise VosflowError(
            f"{manifest.dataset}/{manifest.split} has the layout {manifest.layout}",
            path=predictions,
            expected=f"{wanted.layout}, for {wanted.name}",
            remedy="name the dataset of the manifest, or write the manifest again",
        )
    if wanted.layout == INSTANCES:
        return _check_instances(manifest, predictions)
    if not predictions.is_dir():
        raise VosflowError(
            "the folder of predictions does not exist",
            path=predictions,
            expected="a folder with one sub-folder of masks per video",
            remedy="check the path, or run the tracker first",
        )
    check = _check_label_maps if wanted.layout == LABEL_MAPS else _check_objects
    findings, videos = Findings(), manifest.videos

    def check_video(video: VideoEntry) -> Findings:
        return check(video, required_frames(video, manifest.late_objects), predictions, wanted.top)

    with ThreadPoolExecutor(workers) as pool:
        results = zip(videos, pool.map(check_video, videos), strict=True)
        for done, (video, found) in enumerate(results, start=1):
            findings.add(found)
            if progress is not None:
                progress(video.name, done, len(videos))
    if len(manifest.videos) < 2 and wanted.archive:
        findings.problems.append("there is one video only: a zip with a single folder is rejected")
    _sort_empty_objects(findings, allow_empty_objects)
    _note_what_is_left_out(findings, manifest, predictions)
    return findings


class EmptyObject(str):
    """The sentence that an object has no pixel: a problem or a note, as the user decides."""


def required_frames(video: VideoEntry, late_objects: bool) -> tuple[str, ...]:
    """The frames that a submission must hold, in temporal order.

    Those that the publisher names; else those with an annotated object; else all, but with late objects (whose servers
    read masks from an object's start on) none before the first prompt, because there is nothing to track.
    """
    if video.required:
        return video.required
    annotated = {frame for frames in video.object_frames.values() for frame in frames}
    names = video.frames.names
    if annotated:
        return tuple(name for name in names if name in annotated)
    started = {prompt.frame for prompt in video.prompts} if late_objects else set()
    return names[min((names.index(frame) for frame in started), default=0) :]


def _check_label_maps(video: VideoEntry, frames: Sequence[str], predictions: Path, top: str) -> Findings:
    findings, seen = Findings(), set()
    present = _existing(findings, video, predictions / video.name, [f"{frame}.png" for frame in frames], "frames")
    for name in present:
        values = _read(findings, video, predictions, f"{video.name}/{name}", top)
        if values is None:
            continue
        ids = set(np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()) - {0}
        seen |= ids
        unknown = sorted(ids - set(video.objects))
        if unknown:
            known = ", ".join(map(str, video.objects))
            findings.problems.append(f"{video.name}/{name}: {_list_ids(unknown)} not among the prompts' ids ({known})")
    if present:
        findings.problems += [
            EmptyObject(f"{video.name}: object {object_id} has no pixel on any frame")
            for object_id in video.objects
            if object_id not in seen
        ]
    return findings


def _check_objects(video: VideoEntry, frames: Sequence[str], predictions: Path, top: str) -> Findings:
    findings = Findings()
    folder = predictions / video.name
    scored = video.ground_truth.names if video.ground_truth else frames
    folders = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    unknown = sorted(folders - {object_folder(object_id) for object_id in video.objects})
    findings.problems += [f"{video.name}/{name}: no such object among the prompts" for name in unknown]
    for object_id in video.objects:
        place, filled = object_folder(object_id), False
        wanted = [f"{frame}.png" for frame in video.object_frames.get(object_id) or scored]
        present = _existing(findings, video, folder / place, wanted, f"frames of object {object_id}")
        for name in present:
            values = _read(findings, video, predictions, f"{video.name}/{place}/{name}", top)
            if values is None:
                continue
            filled |= bool(values.any())
            distinct = np.count_nonzero(np.bincount(values.ravel()))
            if distinct > 2:
                findings.problems.append(f"{video.name}/{place}/{name}: {distinct} values in the mask of one object")
        if present and not filled:
            findings.problems.append(EmptyObject(f"{video.name}: object {object_id} has no pixel on any frame"))
    return findings


def _check_instances(manifest: Manifest, predictions: Path) -> Findings:
    from vosflow.evaluation import instances  # pycocotools, for this layout only

    path = instances.results_file(predictions)
    results = instances.read_json_file(path)
    findings = Findings([PackedFile(instances.RESULTS_FILE, path)], list(instances.result_problems(results, manifest)))
    if not findings.problems:
        findings.problems = [
            f"entry {number}: the score {entry['score']} is not finite, and so no JSON"
            for number, entry in enumerate(results)
            if not math.isfinite(entry["score"])
        ]
        named = {entry["video_id"] for entry in results}
        empty = [video.name for video in manifest.videos if video.external_id not in named]
        if empty:
            findings.notes.append(f"{len(empty)} of {len(manifest.videos)} videos have no instance, such as {empty[0]}")
    return findings


def _existing(findings: Findings, video: VideoEntry, folder: Path, names: Sequence[str], what: str) -> list[str]:
    """Those of `names` that are there; one problem for all that are not."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    absent = [name for name in names if name not in there]
    if absent:
        where = "" if folder.is_dir() else " (there is no folder)"
        findings.problems.append(
            f"{video.name}: {len(absent)} of {len(names)} {what} are missing{where}, the first is {absent[0]}"
        )
    return [name for name in names if name in there]


def _read(findings: Findings, video: VideoEntry, predictions: Path, name: str, top: str) -> np.ndarray | None:
    """The values of a file that can be packed, else None and a problem."""
    path = predictions / name
    try:
        values, _ = read_label_map(path)
    except VosflowError as error:
        findings.problems.append(f"{name}: {error.problem}")
        return None
    if values.shape != (video.height, video.width):
        findings.problems.append(
            f"{name}: {values.shape[1]}x{values.shape[0]} pixels, the video has {video.width}x{video.height}"
        )
        return None
    findings.files.append(PackedFile(f"{top}/{name}" if top else name, path, rewrite=not _is_index_png(path)))
    return values


def _is_index_png(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(26)
    return head[:4] == b"\x89PNG" and tuple(head[24:26]) == INDEX_PNG


def _sort_empty_objects(findings: Findings, allowed: bool) -> None:
    empty = [problem for problem in findings.problems if isinstance(problem, EmptyObject)]
    if empty and allowed:
        findings.problems = [problem for problem in findings.problems if not isinstance(problem, EmptyObject)]
        findings.notes.append(f"objects that are never there: {len(empty)}: " + "; ".join(empty[:SHOWN]))
    elif empty:
        findings.notes.append("if the tracker lost these objects at once, --allow-empty-objects lets them pass")


def _note_what_is_left_out(findings: Findings, manifest: Manifest, predictions: Path) -> None:
    rewritten = sum(file.rewrite for file in findings.files)
    if rewritten:
        findings.notes.append(
            f"masks that were no 8-bit palette PNG and are written as such, values unchanged: {rewritten}"
        )
    names = {video.name for video in manifest.videos}
    others = sorted(
        path.name
        for path in predictions.iterdir()
        if path.is_dir() and path.name not in names and not path.name.startswith(".")
    )
    if others:
        findings.notes.append(f"folders that are no videos of the split, left out: {len(others)}, such as {others[0]}")


def _list_ids(ids: Sequence[int]) -> str:
    return ("id " if len(ids) == 1 else "ids ") + ", ".join(map(str, ids[:8])) + (" ..." if len(ids) > 8 else "")
