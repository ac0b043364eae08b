"""Videos for the protocols' tests: written as files, scored, and scored again by a slow and obvious reference."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.unit.scored_clips import disc, save_label_map
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.predictions import Predictions
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import Evaluation, evaluate

Masks = Sequence[np.ndarray]
Clip = tuple[Masks, Masks]  # ground truth, prediction
ObjectClips = Mapping[int, tuple[Mapping[int, np.ndarray], Mapping[int, np.ndarray]]]  # object -> frame number -> mask


def frame_name(number: int) -> str:
    return f"{number:05d}"


def score_clips(
    folder: Path,
    clips: Mapping[str, Clip],
    protocol: str,
    *,
    meta: Mapping | None = None,
    unseen: Sequence[str] | None = None,
    name=frame_name,
    strict: bool = True,
) -> Evaluation:
    """Write label maps [H, W] as {video}/{name(t)}.png, with a meta.json of `meta` beside them, and score them."""
    annotations, predictions = folder / "valid" / "Annotations", folder / "predictions"
    for video, (truth, guess) in clips.items():
        for target, label_maps in ((annotations / video, truth), (predictions / video, guess)):
            target.mkdir(parents=True)
            for number, label_map in enumerate(label_maps):
                save_label_map(target / f"{name(number)}.png", label_map.astype(np.uint8))
    if meta is not None:
        (folder / "valid" / "meta.json").write_text(json.dumps({"videos": meta}))
    if unseen is not None:
        (folder / "valid" / "unseen_videos.txt").write_text("\n".join(unseen) + "\n")
    return score_folders(annotations, predictions, protocol, strict=strict)


def score_objects(folder: Path, clips: Mapping[str, ObjectClips]) -> Evaluation:
    """Write masks as {video}/{object:03d}/{frame}.png and score them by the rules of SA-V."""
    for video, objects in clips.items():
        for number, sides in objects.items():
            for side, masks in zip(("Annotations", "predictions"), sides, strict=True):
                target = folder / side / video / f"{number:03d}"
                target.mkdir(parents=True)
                for frame, mask in masks.items():
                    save_label_map(target / f"{frame_name(frame)}.png", mask.astype(np.uint8))
    return score_folders(folder / "Annotations", folder / "predictions", "sav")


def score_folders(annotations: Path, predictions: Path, protocol: str, *, strict: bool = True) -> Evaluation:
    manifest = annotated_folder(annotations, protocol=protocol)
    return evaluate(manifest, Predictions(predictions, manifest.layout, strict), load_protocol(protocol))


def rows_of(evaluation: Evaluation, video: str, number: int) -> list[tuple[float, float]]:
    """J and F of one object, frame by frame."""
    return [(s.J, s.F) for s in evaluation.scores if (s.video, s.object) == (video, number)]


def lvos_object(start: int, count: int) -> dict:
    """An object in LVOS's meta file: `count` frames of 1, 6, 11, ..., from the one at place `start`."""
    first = lvos_number(start)
    return {"frame_range": {"start": f"{first:08d}", "end": f"{first + 5 * count:08d}", "frame_nums": str(count)}}


def lvos_number(place: int) -> int:
    return 1 + 5 * place


def lvos_name(place: int) -> str:
    return f"{lvos_number(place):08d}"


# --- a slow reference -------------------------------------------------------------------------------------------------


def reference_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the right, the lower or the lower right one; within the frame only."""
    height, width = mask.shape
    edges = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            if y == height - 1 and x == width - 1:
                continue
            if y == height - 1:
                neighbours = [(y, x + 1)]
            elif x == width - 1:
                neighbours = [(y + 1, x)]
            else:
                neighbours = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            edges[y, x] = any(mask[y, x] != mask[near] for near in neighbours)
    return edges


def reference_disk(radius: float) -> np.ndarray:
    """The footprint that skimage.morphology.disk builds, uint8: also for radii that are no integers."""
    steps = np.arange(-radius, radius + 1)
    return (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.uint8)


def reference_matches(edges: np.ndarray, others: np.ndarray, footprint: np.ndarray) -> int:
    """How many pixels of `edges` see one of `others` through the footprint, anchored at size // 2 as in OpenCV."""
    places = set(zip(*np.nonzero(others), strict=True))
    centre = len(footprint) // 2
    offsets = [(dy - centre, dx - centre) for dy, dx in zip(*np.nonzero(footprint), strict=True)]
    return sum(any((y + dy, x + dx) in places for dy, dx in offsets) for y, x in zip(*np.nonzero(edges), strict=True))


def reference_F(truth: np.ndarray, guess: np.ndarray, footprint: np.ndarray | None = None) -> float:
    """Boundary accuracy; by default with the tolerance of DAVIS."""
    if footprint is None:
        footprint = reference_disk(math.ceil(0.008 * np.linalg.norm(truth.shape)))
    real, predicted = reference_boundary(truth), reference_boundary(guess)
    if not real.any() or not predicted.any():
        return float(real.any() == predicted.any())
    precision = reference_matches(predicted, real, footprint) / predicted.sum()
    recall = reference_matches(real, predicted, footprint) / real.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def reference_J(truth: np.ndarray, guess: np.ndarray) -> float:
    return (truth & guess).sum() / (truth | guess).sum() if (truth | guess).any() else 1.0


def random_label_maps(
    seed: int, frames: int, ids: Sequence[int], height: int = 24, width: int = 36
) -> list[np.ndarray]:
    """Discs that wander, overlap, leave the frame and are away for a while, uint8 [height, width] each."""
    rng = np.random.default_rng(seed)
    maps = [np.zeros((height, width), np.uint8) for _ in range(frames)]
    for number in ids:
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(1, height / 3)
        away = rng.random(frames) < 0.35
        for label_map, absent in zip(maps, away, strict=True):
            y, x = y + rng.uniform(-3, 3), x + rng.uniform(-3, 3)
            if not absent:
                label_map[disc(y, x, radius, height, width)] = number
    return maps
