"""Tables, plots, filmstrips and the page, on a small results folder made here."""

from __future__ import annotations

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vosflow.errors import VosflowError
from vosflow.evaluation.scores import GLOBAL_COLUMNS
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, ImageFolder, Manifest, Prompt, VideoEntry, save_manifest
from vosflow.masks import VideoMaskWriter, object_folder
from vosflow.report import filmstrips, page, plots, published, results, tables

HEIGHT, WIDTH = 48, 64


def moving_squares(seed: int, frames: int = 8, objects: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [T, H, W, 3] and label maps uint8 [T, H, W] of squares that move to the right."""
    rng = np.random.default_rng(seed)
    background = rng.integers(40, 200, (HEIGHT // 8, WIDTH // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    images, label_maps = np.repeat(background[None], frames, 0), np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    for time in range(frames):
        for object_id in range(1, objects + 1):
            top, left = 4 + 20 * ((object_id - 1) % 2), 3 + 3 * time + 6 * ((object_id - 1) // 2)
            label_maps[time, top : top + 14, left : left + 14] = object_id
            images[time, top : top + 14, left : left + 14] = (250 - 60 * object_id, 60 * object_id, 90)
    return images, label_maps


def shifted(label_maps: np.ndarray, pixels: int) -> np.ndarray:
    """A prediction that lags behind: label maps moved to the left; frame 0 is the prompt."""
    moved = np.zeros_like(label_maps)
    moved[:, :, : label_maps.shape[2] - pixels] = label_maps[:, :, pixels:]
    moved[0] = label_maps[0]
    return moved


def make_dataset(
    root: Path,
    videos: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    dataset: str = "demo",
    split: str = "val",
    layout: str = LABEL_MAPS,
    ground_truth: bool = True,
) -> Manifest:
    """Write frames, ground truth and a manifest; return the manifest."""
    data, entries = root / "data" / f"{dataset}-{split}", []
    for name, (images, label_maps) in videos.items():
        names = tuple(f"{time:05d}" for time in range(len(images)))
        objects = tuple(int(value) for value in np.unique(label_maps) if value)
        (data / "JPEGImages" / name).mkdir(parents=True)
        for frame, image in zip(names, images, strict=True):
            Image.fromarray(image).save(data / "JPEGImages" / name / f"{frame}.jpg", quality=90)
        with VideoMaskWriter(data / "Annotations", name, layout=layout) as writer:
            for frame, label_map in zip(names, label_maps, strict=True):
                separate = {object_id: label_map == object_id for object_id in objects}
                writer.write(frame, label_map if layout == LABEL_MAPS else separate)
        prompts = tuple(
            Prompt(
                object_id,
                names[0],
                f"Annotations/{name}/{names[0]}.png"
                if layout == LABEL_MAPS
                else f"Annotations/{name}/{object_folder(object_id)}/{names[0]}.png",
                "label_map" if layout == LABEL_MAPS else "binary",
            )
            for object_id in objects
        )
        entries.append(
            VideoEntry(
                name=name,
                frames=ImageFolder(f"JPEGImages/{name}", ".jpg", names),
                height=images.shape[1],
                width=images.shape[2],
                objects=objects,
                prompts=prompts,
                ground_truth=ImageFolder(f"Annotations/{name}", ".png", names) if ground_truth else None,
            )
        )
    manifest = Manifest(
        dataset, split, str(data), tuple(entries), layout=layout, protocol="davis2017" if ground_truth else None
    )
    save_manifest(manifest, root / "results" / f"{dataset}-{split}" / "manifest.json")
    return manifest


def make_run(
    root: Path,
    manifest: Manifest,
    run: str,
    predictions: dict[str, np.ndarray],
    *,
    tracker: str = "static",
    checkpoint: str | None = None,
    settings: dict | None = None,
    swept: dict | None = None,
    notes: list[str] | None = None,
    speed: float = 10.0,
    device: str = "cpu",
) -> Path:
    """Write masks, scores (J as it is, F = 0.9 J) and run.json of a run; return the path of run.json."""
    folder = root / "results" / f"{manifest.dataset}-{manifest.split}" / run
    scored = manifest.protocol is not None
    rows, per_object, videos = [], [], []
    for entry in manifest.videos:
        predicted, names = predictions[entry.name], entry.frames.names
        with VideoMaskWriter(folder / "masks", entry.name, layout=manifest.layout) as writer:
            for frame, label_map in zip(names, predicted, strict=True):
                separate = {object_id: label_map == object_id for object_id in entry.objects}
                writer.write(frame, label_map if manifest.layout == LABEL_MAPS else separate)
        for object_id in entry.objects if scored else ():
            values = []
            for frame in names[1:-1]:
                folders = [entry.ground_truth.folder] + [object_folder(object_id)] * (manifest.layout == PER_OBJECT)
                truth = np.array(Image.open(Path(manifest.root, *folders, f"{frame}.png")))
                truth = truth > 0 if manifest.layout == PER_OBJECT else truth == object_id
                mask = predicted[names.index(frame)] == object_id
                values.append(float((truth & mask).sum() / max(1, (truth | mask).sum())))
                rows.append([entry.name, object_id, frame, repr(values[-1]), repr(0.9 * values[-1])])
            mean = math.fsum(values) / len(values)
            per_object.append([f"{entry.name}_{object_id}", mean, 0.9 * mean])
        frames = len(names)
        videos.append(
            {
                "video": entry.name,
                "frames": frames,
                "objects": len(entry.objects),
                "seconds": frames / speed,
                "frames_per_second": speed,
                "peak_memory_bytes": 300 * 2**20,
                "device": device,
                "precision": "float32",
                "finished": "2026-11-20T10:00:00+00:00",
            }
        )
    if scored:
        j, f = np.mean([row[1] for row in per_object]), np.mean([row[2] for row in per_object])
        row = [float((j + f) / 2), float(j), 0.75, -0.0125, float(f), 0.5, 0.1]
        write_csv(folder / "scores.csv", ["video", "object", "frame", "J", "F"], rows)
        write_csv(folder / "global_results.csv", list(GLOBAL_COLUMNS), [[repr(value) for value in row]])
        write_csv(folder / "per_object_results.csv", ["Sequence", "J-Mean", "F-Mean"], per_object)
    total = sum(video["frames"] for video in videos)
    description = {
        "format": 1,
        "dataset": manifest.dataset,
        "split": manifest.split,
        "run": run,
        "tracker": tracker,
        "settings": settings or {},
        "swept": swept or {},
        "checkpoint": checkpoint
        and {"id": checkpoint, "file": f"data/checkpoints/{checkpoint}.pt", "sha256": "5e" * 32, "config": "net.yaml"},
        "manifest": str(folder.parent / "manifest.json"),
        "folder": str(folder),
        "scored": scored,
        "notes": notes or [],
        "videos": videos,
        "totals": {
            "videos": len(videos),
            "frames": total,
            "objects": sum(video["objects"] for video in videos),
            "seconds": total / speed,
            "frames_per_second": speed,
            "peak_memory_bytes": 300 * 2**20,
        },
        "provenance": {"vosflow": "0.1.0", "git": None, "python": "3.11.7", "devices": [device]},
    }
    (folder / "run.json").write_text(json.dumps(description))
    return folder / "run.json"


def write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
