"""Small results folders for tests of the report: datasets, runs with masks and scores, and a study of them."""

from __future__ import annotations

import csv
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vosflow.catalog import PublishedRow
from vosflow.evaluation.scores import GLOBAL_COLUMNS
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, ImageFolder, Manifest, Prompt, VideoEntry, save_manifest
from vosflow.mask_writer import VideoMaskWriter
from vosflow.masks import object_folder
from vosflow.records import write_text
from vosflow.report import page, results, tables
from vosflow.report.markdown import markdown
from vosflow.trackers.registry import load_tracker

HEIGHT, WIDTH = 48, 64
DEFAULTS = load_tracker("sam2").Settings().model_dump(mode="json")


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
        "protocol": manifest.protocol,
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


@pytest.fixture
def study(tmp_path: Path) -> list[Path]:
    """run.json files: a baseline, a sweep of a checkpoint, and a dataset without ground truth."""
    videos = {name: moving_squares(seed) for seed, name in enumerate(["crossing", "twins", "zoom", "fast_1"])}
    demo = make_dataset(tmp_path, videos)
    mose = make_dataset(tmp_path, {"hidden": videos["zoom"]}, dataset="mose", split="valid", ground_truth=False)

    def lagging(pixels: int) -> dict[str, np.ndarray]:
        return {name: shifted(gt, pixels + index) for index, (name, (_, gt)) in enumerate(videos.items())}

    runs = [make_run(tmp_path, demo, "static", lagging(6), speed=400.0)]
    for memory, pixels, note in [
        (1, 4, []),
        (7, 1, []),
        (9, 2, ["num_maskmem=9 is out of distribution: trained with 7"]),
    ]:
        swept = {"num_maskmem": memory}
        runs.append(
            make_run(
                tmp_path,
                demo,
                f"sam2_demo@num_maskmem={memory}",
                lagging(pixels),
                tracker="sam2",
                checkpoint="sam2_demo",
                settings=DEFAULTS | swept,
                swept=swept,
                notes=note,
                speed=10.0 - memory / 2,
            )
        )
    hidden = {"hidden": videos["zoom"][1]}
    runs.append(
        make_run(tmp_path, mose, "sam2_demo", hidden, tracker="sam2", checkpoint="sam2_demo", settings=DEFAULTS)
    )
    return runs


def write_study(paths: list[Path], folder: Path, **options) -> tuple[Path, str]:
    """Write summary and page; return the summary's path and the page's text."""
    runs = results.load_runs(paths)
    known = options.get("published", ())
    rows = tables.summary_rows(runs, known)
    tables.write_summary(rows, folder / "summary.csv")
    write_text(folder / "summary.md", markdown(rows))
    written = page.write_page(runs, folder / "summary.csv", folder, **{"published": known, **options})
    return folder / "summary.csv", written.read_text()


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page, and fails on tags that do not match."""

    VOID = {"meta", "img", "br", "wbr", "hr", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def published_row(**changes) -> PublishedRow:
    row = {"method": "SAM 2", "tracker": "sam2", "checkpoint": "sam2_demo", "dataset": "demo", "split": "val"}
    row |= {"metric": "J&F"}
    return PublishedRow(**{**row, "value": 90.5, "source": "a paper <Table 4>", "note": "", **changes})
