"""Instances of videos: the JSON files of YouTube-VIS and UVO, and the overlap of two instances through a video.

annotations   {"videos": [{id, width, height, file_names}], "categories": [{id, name}],
               "annotations": [{id, video_id, category_id, iscrowd, areas, segmentations: a mask or null per frame}]}
results       [{video_id, category_id, score, segmentations: a mask or null per frame}]

A mask is run-length encoded, {"size": [H, W], "counts": ...}, compressed or not; annotations may also have polygons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, ImageFolder, Manifest, VideoEntry

RESULTS_FILE = "results.json"

Tube = tuple[Mapping | None, ...]
"""The masks of one instance, compressed run lengths as pycocotools has them; None on frames where it is absent."""


@dataclass(frozen=True)
class TrueInstance:
    """One instance of the ground truth; `area` is the mean over frames where it is present, in pixels."""

    id: int
    category: int
    crowd: bool
    area: float
    tube: Tube


@dataclass(frozen=True)
class FoundInstance:
    """One instance of the results; `area` as in the ground truth."""

    category: int
    score: float
    area: float
    tube: Tube


@dataclass(frozen=True)
class Annotations:
    """Ground truth: {category id: name}, and the instances of each video, in the order of the file."""

    categories: dict[int, str]
    instances: dict[str, list[TrueInstance]]


def annotated_file(annotations: str | Path, *, protocol: str) -> Manifest:
    """The ground-truth view of a JSON file of instances: what a protocol needs, nothing for a tracker.

    Videos are called by the folder of their frames, or by their id where that is not unique.

    Raises:
        VosflowError: the file is missing or not of this format, or holds no video.
    """
    annotations = Path(annotations)
    videos = _part(read_json_file(annotations), "videos", annotations)
    folders = [Path((video.get("file_names") or [""])[0]).parent.name for video in videos]
    unique = len(set(folders)) == len(folders) and all(folders)
    try:
        entries = [
            VideoEntry(
                name=folder if unique else str(video["id"]),
                frames=ImageFolder(folder, "", tuple(video["file_names"])),
                height=video["height"],
                width=video["width"],
                objects=(),
                prompts=(),
                external_id=video["id"],
            )
            for folder, video in zip(folders, videos, strict=True)
        ]
    except KeyError as error:
        raise _not_annotations(annotations, f"a video has no {error}") from error
    if not entries:
        raise _not_annotations(annotations, "it names no video")
    return Manifest(
        dataset=annotations.stem,
        split="annotations",
        root=str(annotations.parent),
        videos=tuple(entries),
        layout=INSTANCES,
        protocol=protocol,
        annotations=annotations.name,
    )


def read_annotations(manifest: Manifest) -> Annotations:
    """The ground truth of the manifest's videos; raises VosflowError if it is missing or not of this format."""
    if manifest.annotations is None:
        raise VosflowError(
            f"{manifest.dataset}/{manifest.split} has no public annotations of instances",
            expected="a split whose annotations are published as a JSON file",
            remedy="submit the results to the dataset's server instead",
        )
    path = Path(manifest.root) / manifest.annotations
    data = read_json_file(path)
    videos = {video.external_id: video for video in manifest.videos}
    instances: dict[str, list[TrueInstance]] = {video.name: [] for video in manifest.videos}
    try:
        categories = {int(entry["id"]): str(entry["name"]) for entry in _part(data, "categories", path)}
        for entry in _part(data, "annotations", path):
            if entry["video_id"] in videos:
                video = videos[entry["video_id"]]
                instances[video.name].append(_true_instance(entry, video, path))
    except (KeyError, TypeError, ValueError) as error:
        raise _not_annotations(path, f"{type(error).__name__}: {error}") from error
    return Annotations(categories, instances)


def read_results(
    path: str | Path, manifest: Manifest, categories: Mapping[int, str] | None = None
) -> dict[str, list[FoundInstance]]:
    """The results of each of the manifest's videos, in the order of the file.

    Args:
        path: see `results_file`.
        categories: the ids that results may have; None allows all.

    Raises:
        VosflowError: the file is unreadable, or an entry breaks the format: see `result_problems`.
    """
    path = results_file(path)
    results = read_json_file(path)
    for problem in result_problems(results, manifest, categories):
        raise VosflowError(
            problem,
            path=path,
            expected="a list of {video_id, category_id, score, segmentations}, with one run-length encoded mask or "
            "null per frame of the video",
            remedy="write the results in the format of YouTube-VIS, for the same list of videos as the annotations",
        )
    videos = {video.external_id: video for video in manifest.videos}
    found: dict[str, list[FoundInstance]] = {video.name: [] for video in manifest.videos}
    for entry in results:
        video = videos[entry["video_id"]]
        tube = _tube(entry["segmentations"], video.height, video.width)
        found[video.name].append(
            FoundInstance(entry["category_id"], float(entry["score"]), _mean_area(_areas(tube)), tube)
        )
    return found


def results_file(path: str | Path) -> Path:
    """The file that a user means by `path`: it, or the results.json in it if it is a folder."""
    path = Path(path)
    return path / RESULTS_FILE if path.is_dir() else path


def result_problems(results: object, manifest: Manifest, categories: Mapping[int, str] | None = None) -> Iterator[str]:
    """What is wrong with the content of a results.json, one sentence for each entry that is."""
    if not isinstance(results, list):
        yield f"the results are a {type(results).__name__}, not a list"
        return
    videos = {video.external_id: video for video in manifest.videos}
    for number, entry in enumerate(results):
        problem = _result_problem(entry, videos, categories)
        if problem:
            yield f"entry {number}: {problem}"


def tube_ious(found: Sequence[Tube], true: Sequence[Tube]) -> np.ndarray:
    """Spatio-temporal IoU of each pair of instances of one video, float64 [D, G].

    Intersections and unions are summed over the frames before they are divided. A frame on which only one of the two
    is present adds to the union. Without any pixel on either side the IoU is 0.
    """
    intersection = np.zeros((len(found), len(true)), np.int64)
    if not found or not true:
        return intersection.astype(np.float64)
    for masks_found, masks_true in zip(zip(*found, strict=True), zip(*true, strict=True), strict=True):
        d = [index for index, mask in enumerate(masks_found) if mask is not None]
        g = [index for index, mask in enumerate(masks_true) if mask is not None]
        if d and g:
            present = [masks_found[index] for index in d]
            # What pycocotools gives for crowds is intersection / area of the first: exact integers come back from it.
            share = rle.iou(present, [masks_true[index] for index in g], [1] * len(g))
            intersection[np.ix_(d, g)] += np.rint(share * rle.area(present)[:, None]).astype(np.int64)
    union = _volumes(found)[:, None] + _volumes(true)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros(union.shape), where=union > 0)


def read_json_file(path: str | Path) -> object:
    """The content of a JSON file; raises VosflowError if it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VosflowError(
            f"the file is not readable as JSON ({error})",
            path=path,
            expected="a JSON file of instances, in the format of YouTube-VIS",
            remedy="check the path; if the file is cut off, fetch or write it again",
        ) from error


def _true_instance(entry: Mapping, video: VideoEntry, path: Path) -> TrueInstance:
    masks = entry["segmentations"]
    if len(masks) != len(video.frames.names):
        raise _not_annotations(
            path,
            f"annotation {entry['id']} has {len(masks)} masks for the {len(video.frames.names)} frames of {video.name}",
        )
    for mask in masks:
        problem = isinstance(mask, Mapping) and _mask_problem(mask, video)
        if problem:
            raise _not_annotations(path, f"a mask of annotation {entry['id']} {problem}")
    tube = _tube(masks, video.height, video.width)
    areas = entry.get("areas") or _areas(tube)
    return TrueInstance(
        int(entry["id"]), int(entry["category_id"]), bool(entry.get("iscrowd")), _mean_area(areas), tube
    )


def _result_problem(
    entry: object, videos: Mapping[object, VideoEntry], categories: Mapping[int, str] | None
) -> str | None:
    if not isinstance(entry, Mapping):
        return "it is no object with keys"
    lacking = {"video_id", "category_id", "score", "segmentations"} - set(entry)
    if lacking:
        return "it lacks " + ", ".join(sorted(lacking))
    video = videos.get(entry["video_id"]) if isinstance(entry["video_id"], int | str) else None
    if video is None:
        return f"video_id {entry['video_id']!r} is not one of the {len(videos)} videos"
    if type(entry["category_id"]) is not int or (categories is not None and entry["category_id"] not in categories):
        return f"category_id {entry['category_id']!r} is not one of the categories"
    if type(entry["score"]) not in (int, float) or math.isnan(entry["score"]):
        return f"the score {entry['score']!r} is no number"
    masks = entry["segmentations"]
    if not isinstance(masks, list) or len(masks) != len(video.frames.names):
        many = len(masks) if isinstance(masks, list) else "no list of"
        return f"it has {many} masks for the {len(video.frames.names)} frames of video {entry['video_id']}"
    for frame, mask in zip(video.frames.names, masks, strict=True):
        problem = mask and _mask_problem(mask, video)
        if problem:
            return f"its mask on frame {frame} of video {entry['video_id']} {problem}"
    return None


def _mask_problem(mask: object, video: VideoEntry) -> str | None:
    if not isinstance(mask, Mapping) or not {"size", "counts"} <= set(mask):
        return "is not run-length encoded"
    if list(mask["size"]) != [video.height, video.width]:
        return f"has size {list(mask['size'])}, not [{video.height}, {video.width}]"
    # pycocotools does not check, and reads beyond the end of its arrays.
    if _count_pixels(mask["counts"]) != video.height * video.width:
        return "is damaged: its run lengths do not add up to the size"
    return None


def _count_pixels(counts: object) -> int | None:
    """Sum of the run lengths of a mask, compressed or not; None if one is negative or they are not run lengths.

    The compressed form (pycocotools' maskApi) has 5 bits per character, the lowest first, then a sign; from the fourth
    run on, what is written is the difference from the run before the last.
    """
    if isinstance(counts, list):
        return sum(counts) if all(type(run) is int and run >= 0 for run in counts) else None
    if not isinstance(counts, str | bytes):
        return None
    codes = np.frombuffer(counts if isinstance(counts, bytes) else counts.encode(), np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        return None
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, 1 << (5 * (ends - starts + 1)), 0)
    runs = values.copy()
    runs[2::2] = np.cumsum(values[2::2])
    runs[1::2] = np.cumsum(values[1::2])
    return int(runs.sum()) if runs.min() >= 0 else None


def _tube(masks: Sequence, height: int, width: int) -> Tube:
    return tuple(_compressed(mask, height, width) if mask else None for mask in masks)


def _compressed(mask: Mapping | list, height: int, width: int) -> Mapping:
    """One mask in the form of pycocotools; a list of polygons needs the frame's size."""
    if isinstance(mask, list):
        return rle.merge(rle.frPyObjects(mask, height, width))
    if isinstance(mask["counts"], list):
        return rle.frPyObjects(mask, *mask["size"])
    return mask


def _volumes(tubes: Sequence[Tube]) -> np.ndarray:
    """Pixels of each instance over all frames, int64 [n]."""
    return np.array([sum(_areas(tube)) for tube in tubes], np.int64)


def _areas(tube: Tube) -> list[int]:
    """Pixels on each frame where the instance is present."""
    return [int(rle.area(mask)) for mask in tube if mask is not None]


def _mean_area(areas: Sequence[float | None]) -> float:
    present = [area for area in areas if area]
    return float(np.mean(present)) if present else 0.0


def _part(data: object, key: str, path: Path) -> list:
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        raise _not_annotations(path, f"there is no list {key!r}")
    return data[key]


def _not_annotations(path: Path, why: str) -> VosflowError:
    return VosflowError(
        f"not a file of annotated instances ({why})",
        path=path,
        expected='{"videos": [...], "categories": [...], "annotations": [...]}, as YouTube-VIS and UVO publish it',
        remedy="name the JSON file of the split (for UVO: VideoDenseSet/UVO_video_val_dense.json)",
    )
