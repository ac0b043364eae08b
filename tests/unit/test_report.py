"""Tables, plots, filmstrips and the page, on a small results folder made here."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from vosflow.catalog import PublishedRow
from vosflow.errors import VosflowError
from vosflow.evaluation.scores import GLOBAL_COLUMNS
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, ImageFolder, Manifest, Prompt, VideoEntry, save_manifest
from vosflow.mask_writer import VideoMaskWriter
from vosflow.masks import object_folder
from vosflow.report import filmstrips, page, plots, published, results, tables
from vosflow.trackers.registry import load_tracker

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
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


DEFAULTS = load_tracker("sam2").Settings().model_dump(mode="json")


def write_study(paths: list[Path], folder: Path, **options) -> tuple[Path, str]:
    """Write summary and page; return the summary's path and the page's text."""
    runs = results.load_runs(paths)
    known = options.get("published", ())
    tables.write_summary(tables.summary_rows(runs, known), folder / "summary.csv", folder / "summary.md")
    written = page.write_page(runs, folder / "summary.csv", folder, **{"published": known, **options})
    return folder / "summary.csv", written.read_text()


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Reader(HTMLParser):
    """Collects tags, attributes and text of a page, and fails on tags that do not match."""

    VOID = {"meta", "img", "br", "hr", "link", "input"}

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


def test_summary_repeats_the_scores_exactly(study, tmp_path):
    summary, _ = write_study(study, tmp_path / "out")
    rows = read_rows(summary)
    assert [row["run"] for row in rows] == [json.loads(path.read_text())["run"] for path in study]
    for row, path in zip(rows, study, strict=True):
        if row["dataset"] == "mose/valid":
            continue
        (scores,) = read_rows(path.parent / "global_results.csv")
        for column in ("J&F", "J", "F"):
            assert row[column] == scores[f"{column}-Mean"]
        for column in ("J-Recall", "F-Recall", "J-Decay", "F-Decay"):
            assert row[column] == scores[column]
        assert row["peak_memory_MiB"] == "300.0" and row["videos"] == "4" and row["objects"] == "8"


def test_markdown_rounds_to_a_tenth_of_a_percent_and_marks_the_best(study, tmp_path):
    rows = tables.summary_rows(results.load_runs(study), ())
    text = tables.markdown(rows)
    best = max((row for row in rows if row["J&F"]), key=lambda row: float(row["J&F"]))
    assert f"**{100 * float(best['J&F']):.1f}**" in text
    assert text.count("**") == 2
    assert "Published" not in text
    widths = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert "[1]" in next(line for line in text.splitlines() if "maskmem=9" in line)


def test_percent_has_no_negative_zero_and_names_what_is_not_a_number():
    assert tables.percent(-0.0001) == "0.0"
    assert tables.percent(-0.0001, signed=True) == "0.0"
    assert tables.percent(0.0512, signed=True, decimals=2) == "+5.12"
    assert tables.percent(math.nan) == "n/a"


def test_a_run_without_ground_truth_has_no_number(study, tmp_path):
    summary, text = write_study(study, tmp_path / "out")
    row = next(row for row in read_rows(summary) if row["dataset"] == "mose/valid")
    assert all(row[column] == "" for column in [*tables.SCORE_COLUMNS, "published", "difference"])
    assert json.loads(row["notes"]) == [tables.NO_GROUND_TRUTH]
    assert row["frames_per_second"] == "10.0"
    line = next(line for line in (tmp_path / "out/summary.md").read_text().splitlines() if "mose" in line)
    assert tables.NO_GROUND_TRUTH in line
    strips = filmstrips.make_filmstrips(results.load_runs(study))
    hidden = [strip for strip in strips if strip.dataset == "mose/valid"]
    assert [label for label, _ in hidden[0].rows] == ["frame", "prediction"]
    assert all(score is None for _, scores in hidden[0].frames for score in scores)


def test_settings_are_those_that_differ_and_those_that_are_swept(study):
    shown = [json.loads(row["settings"]) for row in tables.summary_rows(results.load_runs(study), ())]
    assert shown == [{}, {"num_maskmem": 1}, {"num_maskmem": 7}, {"num_maskmem": 9}, {}]
    assert results.non_default_settings("sam2", DEFAULTS | {"score_thresh": 0.5}) == {"score_thresh": 0.5}
    assert results.non_default_settings("nobody.has:This", {"a": 1}) == {"a": 1}


def published_row(**changes) -> PublishedRow:
    row = {"method": "SAM 2", "tracker": "sam2", "checkpoint": "sam2_demo", "dataset": "demo", "split": "val"}
    row |= {"metric": "J&F"}
    return PublishedRow(**{**row, "value": 90.5, "source": "a paper <Table 4>", "note": "", **changes})


@pytest.fixture
def as_large_as_the_catalog_says(monkeypatch, study):
    monkeypatch.setattr(
        published, "find_split", lambda dataset, split: SimpleNamespace(videos=4, frames=None, objects=None)
    )


def test_published_numbers_join_runs_at_default_settings(study, tmp_path, as_large_as_the_catalog_says):
    known = (published_row(), published_row(value=80.0, source="a later paper"), published_row(metric="J", value=91.0))
    summary, text = write_study(study, tmp_path / "out", published=known)
    rows = {row["run"]: row for row in read_rows(summary) if row["dataset"] == "demo/val"}
    assert [run for run, row in rows.items() if row["published"]] == ["sam2_demo@num_maskmem=7"]  # 7 is as trained
    row = rows["sam2_demo@num_maskmem=7"]
    assert float(row["published"]) == 0.905
    assert float(row["difference"]) == float(row["J&F"]) - 0.905
    comparable, _, others = text.partition("Published, but not comparable")
    assert comparable.count("<td>J&amp;F</td>") == 2 and comparable.count("<td>J</td>") == 1
    assert others.count("other settings: num_maskmem=") == 6  # two runs with 1 and 9 memories, three numbers
    assert "a paper &lt;Table 4&gt;" in text
    assert f"{100 * float(row['J&F']):.2f}" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "sam2_large"},
        {"dataset": "davis2017"},
        {"split": "train"},
        {"tracker": "sam2long"},
        {"metric": "G"},
    ],
)
def test_published_numbers_of_something_else_do_not_join(study, changes, as_large_as_the_catalog_says):
    assert not any(published.compare(run, [published_row(**changes)]) for run in results.load_runs(study))


def why_not(study, name: str = "sam2_demo@num_maskmem=7", **changes) -> tuple[str, ...]:
    """The reasons why the run of that name is not comparable with a published row."""
    (run,) = (run for run in results.load_runs(study) if run.key == ("demo/val", name))
    (comparison,) = published.compare(run, [published_row(**changes)])
    assert (comparison.difference is None) == bool(comparison.reasons) == (comparison.within_tolerance is None)
    return comparison.reasons


def test_published_numbers_are_compared_with_all_of_the_videos(study, monkeypatch):
    facts = SimpleNamespace(videos=30, frames=None, objects=61)
    monkeypatch.setattr(published, "find_split", lambda dataset, split: facts)
    (objects,) = {run.description["totals"]["objects"] for run in results.load_runs(study) if run.dataset == "demo/val"}
    assert why_not(study) == ("4 of 30 videos", f"{objects} of 61 objects")


def test_a_preset_is_no_setting_of_its_own():
    """What it stands for are other settings, and these are compared."""
    settings = {"preset": "script", "num_pathway": 3, "iou_thre": 0.3, "uncertainty": 2.0}
    run = SimpleNamespace(tracker="sam2long", changed_settings=results.non_default_settings("sam2long", settings))
    assert published._method_settings(run) == {"iou_thre": 0.3}


@pytest.mark.parametrize(
    "name, changes, reasons",
    [
        ("sam2_demo@num_maskmem=7", {}, ()),
        ("sam2_demo@num_maskmem=1", {}, ("other settings: num_maskmem=1",)),
        ("sam2_demo@num_maskmem=1", {"settings": {"num_maskmem": 1}}, ()),
        ("sam2_demo@num_maskmem=7", {"settings": {"num_maskmem": 1}}, ("other settings: num_maskmem=default",)),
        ("sam2_demo@num_maskmem=7", {"evaluator": "davis2017"}, ()),
        (
            "sam2_demo@num_maskmem=7",
            {"evaluator": "server"},
            ("scored by the publisher's server, here by the rules of davis2017",),
        ),
        ("sam2_demo@num_maskmem=7", {"not_comparable": "other weights"}, ("other weights",)),
    ],
)
def test_why_published_numbers_are_not_comparable(study, name, changes, reasons, as_large_as_the_catalog_says):
    assert why_not(study, name, **changes) == reasons


def test_tolerance(study, as_large_as_the_catalog_says):
    (run,) = (run for run in results.load_runs(study) if run.key == ("demo/val", "sam2_demo@num_maskmem=7"))
    score = 100 * run.scores["J&F-Mean"]
    for value, within in ((score, True), (score - 0.5, True), (score - 0.52, False)):
        (comparison,) = published.compare(run, [published_row(value=value)])
        assert comparison.within_tolerance is within


def test_what_is_not_comparable_is_told_and_not_counted(study, tmp_path, as_large_as_the_catalog_says):
    summary, text = write_study(study, tmp_path / "out", published=(published_row(not_comparable="other weights"),))
    rows = [row for row in read_rows(summary) if row["not_comparable"]]
    assert rows and all(row["published"] == row["difference"] == "" for row in rows)
    assert rows[-1]["not_comparable"].startswith("90.5 published for SAM 2: other weights")
    assert "Published, but not comparable" in text and "<h2>Published and reproduced" in text
    assert "other weights" in (tmp_path / "out/summary.md").read_text()


def test_what_a_server_gave_others_stands_beside_a_run_that_it_will_score(study, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "find_split", lambda *split: SimpleNamespace(videos=2, frames=None, objects=None))
    theirs = {"dataset": "mose", "split": "valid", "evaluator": "server", "value": 73.7}
    known = (published_row(**theirs), published_row(**theirs, tracker="sam2long"))
    summary, text = write_study(study, tmp_path / "out", published=known)
    _, _, table = text.partition("Where ground truth is not public")
    assert table.count("73.7") == 1 and "<td>1 of 2 videos</td>" in table
    assert "73.7" not in summary.read_text()


def test_agreement_is_labelled_and_never_compared(study, tmp_path, as_large_as_the_catalog_says):
    """MOSE's sample submission is somebody's prediction: what agrees with it has reproduced nothing."""
    runs = results.load_runs(study)
    changed = [replace(run, description={**run.description, "agreement_with": "the sample submission"}) for run in runs]
    assert not any(published.compare(run, [published_row()]) for run in changed)
    rows = tables.summary_rows(changed, (published_row(),))
    assert {row["compared_with"] for row in rows} == {"agreement with the sample submission", ""}
    assert "agreement with the sample submission" in tables.markdown(rows)
    assert "agreement" not in tables.markdown(tables.summary_rows(runs, ()))
    assert all(row["published"] == row["not_comparable"] == "" for row in rows)


def test_the_page_loads_nothing_and_is_well_formed(study, tmp_path):
    _, text = write_study(study, tmp_path / "out")
    reader = Reader(text)
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|https?://", text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (target[0] or target[1]) in ids


def test_names_and_notes_are_escaped_everywhere(tmp_path):
    nasty = "<script>alert(1)</script>"
    manifest = make_dataset(tmp_path, {"a|b $x$ & <i>": moving_squares(1), "[red]c": moving_squares(2)})
    predictions = {entry.name: shifted(moving_squares(1)[1], 2) for entry in manifest.videos}
    paths = [
        make_run(tmp_path, manifest, "one<b>", predictions, notes=[nasty], device=nasty),
        make_run(tmp_path, manifest, "[bold]two|$y$", predictions, speed=20.0),
    ]
    summary, text = write_study(paths, tmp_path / "out", title=nasty)
    for raw in (nasty, "one<b>", "& <i>"):
        assert raw not in text
    reader = Reader(text)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    words = "".join(reader.words)
    assert "one<b>" in words and "[bold]two|$y$" in words and "a|b $x$ & <i>" in words
    runs = results.load_runs(paths)
    drawn = plots.plot_speed(runs) + plots.plot_videos(runs)["demo/val"]
    assert {"one<b>", "[bold]two|$y$", "a|b $x$ & <i>", "[red]c"} <= set(Reader(drawn).words)
    table = [line for line in (tmp_path / "out/summary.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    console = Console(width=100, record=True, file=StringIO())
    tables.print_summary(summary, console)
    assert "[bold]two|$y$" in console.export_text()


def test_the_same_results_give_the_same_bytes(study, tmp_path):
    _, first = write_study(study, tmp_path / "one")
    _, second = write_study(study, tmp_path / "two")
    assert first == second
    assert (tmp_path / "one/summary.md").read_bytes() == (tmp_path / "two/summary.md").read_bytes()


def test_a_study_of_one_run_of_one_video(tmp_path):
    manifest = make_dataset(tmp_path, {"alone": moving_squares(3, frames=4, objects=1)})
    path = make_run(tmp_path, manifest, "static", {"alone": shifted(moving_squares(3, 4, 1)[1], 2)})
    _, text = write_study([path], tmp_path / "out")
    assert ">only video</span>" in text and ">largest gap</span>" not in text
    assert "J&amp;F against" not in text  # nothing to compare
    assert "**" not in (tmp_path / "out/summary.md").read_text()


def test_sweeps_have_a_line_per_checkpoint_and_hollow_marks_out_of_distribution(study):
    runs = results.load_runs(study)
    lines = plots._sweep_lines(runs, "num_maskmem")
    scores = {run.description["swept"].get("num_maskmem"): 100 * run.score for run in runs if run.scores}
    assert lines == {
        ("demo/val", "sam2_demo", "sam2_demo"): [(1, scores[1], False), (7, scores[7], False), (9, scores[9], True)]
    }
    assert list(plots.plot_sweeps(runs)) == ["num_maskmem"]
    assert plots.plot_sweeps(runs[:2]) == {}  # one value is no sweep


def test_sweeps_of_two_settings_keep_the_other_one_apart(tmp_path):
    """The legend names what differs; what all lines share would only push that out of the picture."""
    manifest = make_dataset(tmp_path, {"a": moving_squares(1)})
    paths = []
    for memory in (1, 7):
        for size in (256, 512):
            swept = {"num_maskmem": memory, "image_size": size}
            settings = {**swept, "precision": "bfloat16"}
            predictions = {"a": shifted(moving_squares(1)[1], memory)}
            name = f"net@num_maskmem={memory}@image_size={size}"
            paths.append(
                make_run(
                    tmp_path,
                    manifest,
                    name,
                    predictions,
                    tracker="sam2",
                    checkpoint="net",
                    settings=settings,
                    swept=swept,
                )
            )
    runs = results.load_runs(paths)
    assert [label for _, _, label in plots._sweep_lines(runs, "num_maskmem")] == [
        "net, image_size=256",
        "net, image_size=512",
    ]
    assert list(plots.plot_sweeps(runs)) == ["num_maskmem", "image_size"]


def test_a_speed_that_other_runs_helped_is_marked(tmp_path):
    """Frames/s of a run whose embeddings were there already says nothing of its method."""
    manifest = make_dataset(tmp_path, {"a": moving_squares(1)})
    predictions = {"a": shifted(moving_squares(1)[1], 1)}
    paths = [make_run(tmp_path, manifest, name, predictions) for name in ("first", "second")]
    for path, reused in zip(paths, (0, 6), strict=True):
        facts = json.loads(path.read_text())
        facts["totals"]["artefacts"] = {"image_embedding": {"made": 8 - reused, "reused": reused}}
        path.write_text(json.dumps(facts))
    first, second = results.load_runs(paths)
    assert results.SPED_UP not in first.notes and results.SPED_UP in second.notes
    assert "Hollow marks: faster" in write_study(paths, tmp_path / "out")[1]


def test_labels_of_crowded_marks_do_not_collide():
    figure, (axis,) = plots.make_panels(1, width=6.4, height=4.2)
    for index in range(12):
        spot = (10 + 0.02 * index, 80 + 0.1 * (index % 3))
        axis.plot(*spot, "o")
        label = axis.annotate(f"num_maskmem={index}", spot, (0, 0), textcoords="offset points", va="center")
        label.set_in_layout(False)
    axis.set_xlim(5, 15)
    axis.set_ylim(75, 85)
    figure.draw_without_rendering()
    plots._place_labels(axis)
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in axis.texts]
    frame = axis.get_window_extent()
    for index, box in enumerate(boxes):
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1 and box.y0 >= frame.y0 - 1 and box.y1 <= frame.y1 + 1
        for other in boxes[:index]:
            assert plots._overlap(box.extents, other.extents) < 4  # pixels


def test_every_video_is_in_the_bars(study):
    runs = results.load_runs(study)
    figure = plots.plot_videos(runs)["demo/val"]
    words = Reader(figure).words
    for video in ("crossing", "twins", "zoom", "fast_1"):
        assert video in words
    for run in runs:
        for score in run.video_scores.values():
            assert f"{100 * score:.1f}" in words


def test_video_scores_are_means_over_objects(study):
    run = results.load_run(study[1])
    rows = read_rows(study[1].parent / "scores.csv")
    for video, score in run.video_scores.items():
        values = [(float(row["J"]) + float(row["F"])) / 2 for row in rows if row["video"] == video]
        assert score == pytest.approx(np.mean(values), abs=1e-12)
    frame = [
        (float(row["J"]) + float(row["F"])) / 2 for row in rows if (row["video"], row["frame"]) == ("zoom", "00003")
    ]
    assert run.frame_scores["zoom"]["00003"] == pytest.approx(np.mean(frame), abs=1e-12)


def test_filmstrips_show_best_worst_and_largest_gap(study):
    runs = results.load_runs(study)
    main = results.main_runs(runs)["demo/val"]
    assert main.name == "sam2_demo@num_maskmem=7"
    ranked = sorted(main.video_scores, key=main.video_scores.get)
    strips = [strip for strip in filmstrips.make_filmstrips(runs, 1) if strip.dataset == "demo/val"]
    assert [(strip.title, strip.video) for strip in strips[:2]] == [("worst", ranked[0]), ("best", ranked[-1])]
    gap = strips[2]
    assert gap.title == "largest gap" and len(gap.runs) == 2
    family = [run for run in runs if run.checkpoint == "sam2_demo" and run.scores]  # not the baseline
    expected = max(
        abs(a.video_scores[video] - b.video_scores[video]) for a in family for b in family for video in a.video_scores
    )
    assert gap.runs[0][1] - gap.runs[1][1] == expected
    labels = ["frame", "ground truth", "prediction", "difference"]
    assert [label for label, _ in strips[0].rows] == labels
    assert all(len(pictures) == len(strips[0].frames) == 6 for _, pictures in strips[0].rows)
    lowest = min(main.frame_scores[strips[0].video].values())
    assert [lowest] in [scores for _, scores in strips[0].frames]


def test_filmstrips_can_be_left_out(study, tmp_path):
    _, text = write_study(study, tmp_path / "out", filmstrips=0)
    assert "<img" not in text and "data:image" not in text


def test_a_short_lapse_is_among_the_frames_shown(tmp_path):
    images, label_maps = moving_squares(5, frames=40, objects=1)
    label_maps, images = np.repeat(label_maps[:1], 40, 0), np.repeat(images[:1], 40, 0)
    lapse = label_maps.copy()
    lapse[20] = 0
    manifest = make_dataset(tmp_path, {"a": (images, label_maps)})
    run = results.load_run(make_run(tmp_path, manifest, "static", {"a": lapse}))
    (strip,) = filmstrips.make_filmstrips([run])
    assert ("00020", [0.0]) in strip.frames and len(strip.frames) == 6


def test_errors_are_painted_by_kind():
    truth = {1: np.zeros((8, 8), bool), 2: np.zeros((8, 8), bool)}
    guess = {1: np.zeros((8, 8), bool), 2: np.zeros((8, 8), bool)}
    truth[1][0, 0] = guess[1][0, 0] = True  # correct
    truth[1][2, 2] = True  # missed
    guess[2][4, 4] = True  # extra
    truth[1][6, 6] = guess[2][6, 6] = True  # swapped
    image = filmstrips.paint_errors(np.zeros((8, 8, 3), np.float32), truth, guess).astype(int)
    for (row, column), colour, strength in [
        ((0, 0), filmstrips.CORRECT, 0.35),
        ((2, 2), filmstrips.MISSED, 0.9),
        ((4, 4), filmstrips.EXTRA, 0.9),
        ((6, 6), filmstrips.SWAPPED, 0.9),
        ((7, 0), (0, 0, 0), 1.0),
    ]:
        assert np.abs(image[row, column] - strength * np.array(colour)).max() <= 1


def test_filmstrips_of_the_per_object_layout(tmp_path):
    clip = moving_squares(1)
    manifest = make_dataset(tmp_path, {"a": clip}, layout=PER_OBJECT)
    path = make_run(tmp_path, manifest, "perfect", {"a": clip[1]})
    (strip,) = filmstrips.make_filmstrips([results.load_run(path)])
    assert strip.runs == [("perfect", pytest.approx(0.95))]
    rows = dict(strip.rows)
    assert [picture.uri for picture in rows["ground truth"]] == [picture.uri for picture in rows["prediction"]]
    (path.parent / "masks/a/001/00003.png").unlink()
    with pytest.raises(VosflowError, match="00003.png"):
        filmstrips.make_filmstrips([results.load_run(path)])


def test_strips_show_frames_that_a_submission_must_hold():
    """A tracker may leave out the others."""
    names = tuple(f"{time:05d}" for time in range(9))
    entry = VideoEntry("bear", ImageFolder("bear", ".jpg", names), 8, 8, (1,), (), required=names[::4])
    unscored = [SimpleNamespace(frame_scores={})]
    assert filmstrips._chosen_frames(entry, unscored) == [0, 4, 8]
    assert len(filmstrips._chosen_frames(replace(entry, required=()), unscored)) == filmstrips.FRAMES


def test_frames_before_the_first_prompt_need_no_prediction(tmp_path):
    clip = moving_squares(1)
    manifest = make_dataset(tmp_path, {"a": clip})
    path = make_run(tmp_path, manifest, "late", {"a": clip[1]})
    entry = manifest.videos[0]
    late = replace(entry, prompts=tuple(replace(prompt, frame="00004") for prompt in entry.prompts))
    save_manifest(replace(manifest, videos=(late,), late_objects=True), path.parent.parent / "manifest.json")
    (path.parent / "masks/a/00002.png").unlink()
    assert len(filmstrips.make_filmstrips([results.load_run(path)])) == 1


def test_moved_results_are_found_beside_the_run(study, tmp_path):
    shutil.move(tmp_path / "results", tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "results") for path in study]
    _, text = write_study(moved, tmp_path / "out")
    assert "<img" in text


def break_json(path: Path) -> None:
    path.write_text("{")


def drop_scores(path: Path) -> None:
    (path.parent / "global_results.csv").unlink()


def scores_of_other_videos(path: Path) -> None:
    text = (path.parent / "scores.csv").read_text()
    (path.parent / "scores.csv").write_text(text.replace("zoom,", "other,"))


def drop_frame(path: Path) -> None:
    for frame in (path.parents[3] / "data/demo-val/JPEGImages").glob("*/*.jpg"):
        frame.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_json, "run.json"),
        (drop_scores, "global_results.csv"),
        (scores_of_other_videos, "scores.csv: the scores are not those of this run's videos"),
        (drop_frame, "00001.jpg"),
    ],
)
def test_damaged_inputs_are_named(study, tmp_path, damage, words):
    for path in study[:4]:
        damage(path)
    with pytest.raises(VosflowError, match=re.escape(words)):
        write_study(study, tmp_path / "out")


def test_a_page_with_another_studys_table_is_refused(study, tmp_path):
    runs = results.load_runs(study)
    tables.write_summary(tables.summary_rows(runs[:2], ()), tmp_path / "summary.csv", tmp_path / "summary.md")
    with pytest.raises(VosflowError, match="not that of the given runs"):
        page.write_page(runs, tmp_path / "summary.csv", tmp_path, published=())


def test_a_run_given_twice_is_refused(study):
    with pytest.raises(VosflowError, match="given twice"):
        results.load_runs([*study, study[0]])


def test_the_page_names_protocol_checkpoint_and_versions(study, tmp_path):
    _, text = write_study(study, tmp_path / "out")
    assert "<code>davis2017</code>" in text
    assert "4. 255 in the ground truth is background." in text  # the rules are the protocol's own words
    assert "5e" * 32 in text and "3.11.7" in text
    assert "No public ground truth" in text
    assert "out of distribution" in text


def test_scripts(study, tmp_path):
    def call(script: str, *arguments: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    summary = tmp_path / "tables/summary.csv"
    done = call("summarize", "--runs", *study, "--csv", summary, "--md", tmp_path / "tables/summary.md")
    assert done.returncode == 0, done.stderr
    output = ("--output", tmp_path / "report", "--title", "A & B", "--filmstrips", "1")
    done = call("write_report", "--runs", *study, "--summary", summary, *output)
    assert done.returncode == 0, done.stderr
    assert "<title>A &amp; B</title>" in (tmp_path / "report/index.html").read_text()
    done = call("show_results", "--summary", summary, "--page", tmp_path / "report/index.html")
    assert done.returncode == 0, done.stderr
    best = results.main_runs(results.load_runs(study))["demo/val"]
    assert f"{100 * best.score:.1f}" in done.stdout and str(tmp_path / "report/index.html") in done.stdout.replace(
        "\n", ""
    )
    assert tables.NO_GROUND_TRUTH in done.stdout
    done = call("show_results", "--summary", tmp_path / "none.csv", "--page", tmp_path / "report/index.html")
    assert done.returncode == 1 and "none.csv" in done.stderr and "Traceback" not in done.stderr
