"""Filmstrips: a few frames of the videos that a run tracks best and worst, with what is right and wrong in them."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, LABEL_MAPS, Manifest, VideoEntry
from vosflow.masks import object_folder, read_label_map
from vosflow.report.instances import best_masks, true_masks
from vosflow.report.results import RunResult, main_runs
from vosflow.video import Video

FRAMES = 6
WIDTH = 260  # pixels of a picture, at most
JPEG_QUALITY = 82
OBJECT_COLOURS = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 190, 140),
        (240, 228, 66),
        (235, 110, 60),
        (214, 126, 180),
        (110, 120, 255),
        (240, 240, 240),
    ],
    np.float32,
)
"""After Okabe and Ito, "Color Universal Design" (2008), lightened to show on dark grey frames."""
MISSED, EXTRA, SWAPPED, CORRECT = (230, 130, 0), (70, 170, 255), (230, 60, 170), (190, 196, 190)

ObjectMasks = Mapping[int, np.ndarray]


@dataclass(frozen=True)
class Picture:
    """A small JPEG as a data URI, with the words that stand for it."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Strip:
    """Some frames of one video: columns are frames, rows are what is shown of them.

    Attributes:
        title: why the video was chosen, e.g. "worst".
        video, dataset: which video.
        runs: the runs whose predictions are shown, with the J&F (fraction, or None) of the whole video; of instances
            with the mean over its objects of their highest IoU.
        frames: name of each frame, and for each run its J&F on that frame (fraction, or None where it is not scored).
        rows: (label, one picture per frame).
    """

    title: str
    dataset: str
    video: str
    runs: list[tuple[str, float | None]]
    frames: list[tuple[str, list[float | None]]]
    rows: list[tuple[str, list[Picture]]]

    @property
    def scored_by_frame(self) -> bool:
        """Whether any of its frames has a score."""
        return any(score is not None for _, scores in self.frames for score in scores)


def make_filmstrips(runs: Sequence[RunResult], count: int = 2) -> list[Strip]:
    """Filmstrips of each dataset: the `count` best and worst videos of its main run, and where two runs differ most.

    The main run is the one with the highest J&F. The two runs are taken from those of its tracker and checkpoint if
    there are several (what does a setting change?), else from all. Without ground truth the first videos are shown,
    as nothing can be ranked. `count` 0 makes none.

    Raises:
        VosflowError: a frame, a ground-truth mask or a predicted mask is missing or damaged.
    """
    strips = []
    for dataset, main in main_runs(runs).items() if count else ():
        if main.scores is None:
            names = [video["video"] for video in main.description["videos"]][:count]
            strips += [_strip("no ground truth", [main], name) for name in names]
            continue
        strips += [_strip(title, [main], name) for title, name in extreme_videos(main, count)]
        pair = largest_gap([run for run in runs if run.dataset == dataset], main)
        if pair:
            strips.append(_strip("largest gap", list(pair[:2]), pair[2]))
    return strips


def extreme_videos(run: RunResult, count: int) -> list[tuple[str, str]]:
    """[(title, video)]: the `count` worst and best videos of a run, none of them twice."""
    ranked = sorted(
        (video for video, score in run.video_scores.items() if not math.isnan(score)),
        key=lambda video: run.video_scores[video],
    )
    if len(ranked) == 1:
        return [("only video", ranked[0])]
    count = min(count, len(ranked) // 2)
    worst = [("worst" if index == 0 else f"{_ordinal(index + 1)} worst", ranked[index]) for index in range(count)]
    best = [("best" if index == 0 else f"{_ordinal(index + 1)} best", ranked[-1 - index]) for index in range(count)]
    return worst + best


def _ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def largest_gap(runs: Sequence[RunResult], main: RunResult) -> tuple[RunResult, RunResult, str] | None:
    """(better run, worse run, video): where the J&F of two runs differ most, or None if no two runs differ."""
    scored = [run for run in runs if run.scores is not None]
    family = [run for run in scored if (run.tracker, run.checkpoint) == (main.tracker, main.checkpoint)]
    best, found = 0.0, None
    for one, other in combinations(family if len(family) > 1 else scored, 2):
        for video in sorted(one.video_scores.keys() & other.video_scores.keys()):
            gap = one.video_scores[video] - other.video_scores[video]
            if abs(gap) > best:
                best, found = abs(gap), (one, other, video) if gap > 0 else (other, one, video)
    return found


def _strip(title: str, runs: list[RunResult], name: str) -> Strip:
    manifest = runs[0].manifest
    entry = manifest.video(name)
    video = Video.of(manifest, name)
    indices = _chosen_frames(entry, runs)
    frames = [entry.frames.names[index] for index in indices]
    pictures = [video.read_frame(index) for index in indices]
    grey = [_grey(picture) for picture in pictures]
    size = _thumbnail_size(entry.height, entry.width)

    def row(label: str, images: list[np.ndarray]) -> tuple[str, list[Picture]]:
        return label, [
            _picture(image, size, f"{label}, frame {frame} of {name}")
            for image, frame in zip(images, frames, strict=True)
        ]

    rows = [row("frame", pictures)]
    if manifest.layout == INSTANCES:  # whose objects are nobody's in particular: there is no difference to show
        shown = {"ground truth": true_masks(runs[0], entry, frames)} if runs[0].scores is not None else {}
        shown |= {f"highest scores: {run.name}": best_masks(run, entry, frames) for run in runs}
        rows += [row(label, [paint(*pair) for pair in zip(grey, masks, strict=True)]) for label, masks in shown.items()]
        return Strip(title, runs[0].dataset, name, *_numbers(runs, name, frames), rows)
    truths = None
    if entry.ground_truth is not None and runs[0].scores is not None:
        truths = [_ground_truth(manifest, entry, frame) for frame in frames]
        rows.append(row("ground truth", [paint(*pair) for pair in zip(grey, truths, strict=True)]))
    for run in runs:
        suffix = f": {run.name}" if len(runs) > 1 else ""
        predictions = [_prediction(run, entry, frame) for frame in frames]
        rows.append(row("prediction" + suffix, [paint(*pair) for pair in zip(grey, predictions, strict=True)]))
        if truths is not None:
            errors = [paint_errors(*triple) for triple in zip(grey, truths, predictions, strict=True)]
            rows.append(row("difference" + suffix, errors))
    return Strip(title, runs[0].dataset, name, *_numbers(runs, name, frames), rows)


def _numbers(
    runs: Sequence[RunResult], video: str, frames: Sequence[str]
) -> tuple[list[tuple[str, float | None]], list[tuple[str, list[float | None]]]]:
    """The scores of a strip: of the whole video for each run, and of each frame."""
    of_frames = [(frame, [_frame_score(run, video, frame) for run in runs]) for frame in frames]
    return [(run.name, run.video_scores.get(video)) for run in runs], of_frames


def _chosen_frames(entry: VideoEntry, runs: Sequence[RunResult]) -> list[int]:
    """Indices of evenly spaced frames and of the most telling one, which even spacing must not hide.

    That is the frame with the lowest J&F of one run, or the one on which two runs differ most.
    """
    # Some protocols score an object from its first sight in a prediction on: then runs have frames of their own.
    scored = set.intersection(*(set(run.frame_scores.get(entry.name, {})) for run in runs))
    known = scored or set(entry.required or entry.frames.names)  # trackers may leave out what is not required
    names = [name for name in entry.frames.names if name in known]
    count = min(FRAMES, len(names))
    spread = [round(index * (len(names) - 1) / max(1, count - 1)) for index in range(count)]
    if scored:
        curves = [[_frame_score(run, entry.name, name) for name in names] for run in runs]
        badness = (
            [-score for score in curves[0]] if len(runs) == 1 else [abs(a - b) for a, b in zip(*curves, strict=True)]
        )
        telling = badness.index(max(badness))
        if telling not in spread:
            nearest = min(range(count), key=lambda index: abs(spread[index] - telling))
            spread[nearest] = telling
    return [entry.frames.names.index(names[index]) for index in spread]


def _frame_score(run: RunResult, video: str, frame: str) -> float | None:
    """Mean J&F of a frame's objects; None where the protocol does not score it."""
    return run.frame_scores.get(video, {}).get(frame)


def _ground_truth(manifest: Manifest, entry: VideoEntry, frame: str) -> ObjectMasks:
    truth = entry.ground_truth
    if manifest.layout != LABEL_MAPS:
        folder = Path(manifest.root, truth.folder)
        folders = {int(path.name): path for path in folder.iterdir() if path.name.isdigit()}
        paths = {object_id: folders[object_id] / f"{frame}{truth.suffix}" for object_id in entry.objects}
        nothing = np.zeros((entry.height, entry.width), bool)  # objects may be annotated on frames of their own
        return {key: read_label_map(path)[0] > 0 if path.exists() else nothing for key, path in paths.items()}
    label_map, _ = read_label_map(truth.path(manifest.root, frame))
    if manifest.binary_ground_truth:
        return {entry.objects[0]: label_map > 0}
    return {object_id: label_map == object_id for object_id in entry.objects}


def _prediction(run: RunResult, entry: VideoEntry, frame: str) -> ObjectMasks:
    """The predicted masks of a frame; empty for what is not prompted yet, as trackers leave it out."""
    folder = run.path.parent / "masks" / entry.name
    order = {name: index for index, name in enumerate(entry.frames.names)}
    start = {
        object_id: min((order[prompt.frame] for prompt in entry.prompts if prompt.object == object_id), default=0)
        for object_id in entry.objects
    }
    nothing = np.zeros((entry.height, entry.width), bool)
    if run.manifest.layout == LABEL_MAPS:
        path = folder / f"{frame}.png"
        if order[frame] < min(start.values(), default=len(order)) and not path.exists():
            return {object_id: nothing for object_id in entry.objects}
        label_map = _sized(read_label_map(path)[0], entry, path)
        return {object_id: label_map == object_id for object_id in entry.objects}
    masks = {}
    for object_id in entry.objects:
        path = folder / object_folder(object_id) / f"{frame}.png"
        absent = order[frame] < start[object_id] and not path.exists()
        masks[object_id] = nothing if absent else _sized(read_label_map(path)[0], entry, path) > 0
    return masks


def _sized(label_map: np.ndarray, entry: VideoEntry, path: Path) -> np.ndarray:
    if label_map.shape != (entry.height, entry.width):
        raise VosflowError(
            f"the mask is {label_map.shape[1]}x{label_map.shape[0]} pixels",
            path=path,
            expected=f"{entry.width}x{entry.height}, the size of the frames of video {entry.name}",
            remedy="delete the file and run snakemake again: the video is tracked anew",
        )
    return label_map


def _grey(frame: np.ndarray) -> np.ndarray:
    """A dim grey version of an RGB frame, float32 [H, W, 3]: a stage on which only the masks have colour."""
    luma = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((20 + 0.62 * luma)[..., None], 3, axis=2)


def paint(stage: np.ndarray, masks: ObjectMasks) -> np.ndarray:
    """Object masks in colour over a grey stage, both [H, W, ...] -> uint8 [H, W, 3]; where masks overlap, both tint."""
    image = stage.copy()
    for object_id, mask in sorted(masks.items(), reverse=True):  # the smallest id on top, as in merged label maps
        colour = OBJECT_COLOURS[(object_id - 1) % len(OBJECT_COLOURS)]
        image[mask] = 0.4 * image[mask] + 0.6 * colour
        image[_outline(mask)] = colour
    return image.clip(0, 255).astype(np.uint8)


def paint_errors(stage: np.ndarray, truth: ObjectMasks, prediction: ObjectMasks) -> np.ndarray:
    """Where a prediction is wrong, uint8 [H, W, 3].

    Missed: in the ground truth of an object and not in its prediction. Extra: the reverse. Swapped: both, that is,
    the pixel was given to another object. Correct pixels are pale.
    """
    shape = stage.shape[:2]
    missed, extra, correct = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    for object_id, true in truth.items():
        missed |= true & ~prediction[object_id]
        extra |= prediction[object_id] & ~true
        correct |= true & prediction[object_id]
    image = 0.75 * stage
    for pixels, colour, strength in (
        (correct & ~missed & ~extra, CORRECT, 0.35),
        (missed & ~extra, MISSED, 0.9),
        (extra & ~missed, EXTRA, 0.9),
        (missed & extra, SWAPPED, 0.9),
    ):
        image[pixels] = (1 - strength) * image[pixels] + strength * np.array(colour, np.float32)
    return image.clip(0, 255).astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that touch a pixel outside it (4-neighbours)."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner


def _thumbnail_size(height: int, width: int) -> tuple[int, int]:
    """(width, height) in pixels: at most WIDTH wide and at most as high as WIDTH is wide, never enlarged."""
    scale = min(1.0, WIDTH / width, WIDTH / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _picture(image: np.ndarray, size: tuple[int, int], alt: str) -> Picture:
    small = Image.fromarray(image).resize(
        size, Image.Resampling.BOX if size[0] < image.shape[1] else Image.Resampling.NEAREST
    )
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)  # full colour: errors are thin
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/jpeg;base64,{data}", alt, *size)
