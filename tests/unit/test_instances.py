"""Proposed objects: what a tracker must yield, what is written, what is scored, what the page shows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.unit.clips import make_videos
from tests.unit.part_tracker import BoxTracker
from vosflow.describe import describe_run
from vosflow.engine import track_videos
from vosflow.errors import DiskError, VosflowError
from vosflow.evaluation.run import evaluate_run
from vosflow.instances import FILE, InstanceWriter, read_instances, write_results
from vosflow.manifest import INSTANCES, ImageFolder, Manifest, VideoEntry, save_manifest
from vosflow.method import Method
from vosflow.records import RunFolder, write_json
from vosflow.report.filmstrips import make_filmstrips
from vosflow.report.markdown import markdown
from vosflow.report.page import render_page
from vosflow.report.results import RunResult, load_runs
from vosflow.report.tables import summary_rows, write_summary
from vosflow.report.terminal import print_summary
from vosflow.study import load_study
from vosflow.submission.formats import FORMATS
from vosflow.submission.pack import write_submission

BOXES = "tests.unit.part_tracker:BoxTracker"
HEIGHT, WIDTH, FRAMES = 24, 30, 5
NAMES = tuple(str(t) for t in range(FRAMES))


def box(top: int, left: int, side: int = 6, width: int = 7) -> dict:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top : top + side, left : left + width] = 1
    code = rle.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}


def make_split(root: Path) -> Manifest:
    """Three videos in the manner of UVO: one as BoxTracker sees it, one with a crowd only, one without annotations."""
    late = [box(4, 3) if t >= 2 and t % 2 == 0 else None for t in range(FRAMES)]
    truths = [
        {"id": 1, "video_id": 5, "iscrowd": 0, "segmentations": [box(3, 2)] * FRAMES},
        {"id": 2, "video_id": 5, "iscrowd": 0, "segmentations": late},
        {"id": 3, "video_id": 2, "iscrowd": 1, "segmentations": [box(3, 2)] * FRAMES},
    ]
    entries = []
    for name, number in {"boxes": 5, "crowd": 2, "none": 9}.items():
        for frame in NAMES:
            path = root / f"frames/{name}/{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 9 * number, np.uint8)).save(path)
        frames = ImageFolder(f"frames/{name}", ".png", NAMES)
        entries.append(VideoEntry(name, frames, HEIGHT, WIDTH, (), (), external_id=number))
    content = {
        "videos": [{"id": e.external_id, "height": HEIGHT, "width": WIDTH, "file_names": NAMES} for e in entries],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{**truth, "category_id": 1} for truth in truths],
    }
    (root / "uvo.json").write_text(json.dumps(content))
    return Manifest(
        "uvo", "val", str(root), tuple(entries), layout=INSTANCES, late_objects=True, protocol="uvo",
        annotations="uvo.json",
    )  # fmt: skip


@pytest.fixture
def split(tmp_path) -> Manifest:
    return make_split(tmp_path)


def track(split: Manifest, folder: Path, **settings: object) -> RunFolder:
    track_videos(Method.of(BOXES, settings), split, [video.name for video in split.videos], folder)
    return RunFolder(folder)


def test_masks_are_kept_as_run_lengths_with_scores_and_counted(split, tmp_path):
    run = track(split, tmp_path / "run")
    found = read_instances(run.masks, split.video("boxes"))
    assert found.scores == {1: 0.9, 2: 0.25} and [sorted(found.counts[name]) for name in NAMES] == [
        [1], [1], [1, 2], [1], [1, 2],
    ]  # fmt: skip
    masks = found.masks("2")
    assert masks[1].dtype == bool and masks[1].sum() == masks[2].sum() == 42 and (masks[1] & masks[2]).sum() == 30
    assert masks[1][3:9, 2:9].all() and found.encoded("1", 2) is None
    record = run.read_record("boxes")
    assert record["objects"] == 0 and record["proposed"] == 2 and record["masks"]["."]["files"] == 1
    assert run.is_finished("boxes", record["key"])
    (run.masks / "boxes" / FILE).unlink()
    assert not run.is_finished("boxes", record["key"])


def test_results_are_scored_like_those_of_any_other_program(split, tmp_path):
    """Both boxes are right from their first frame on; what is proposed in the crowd counts for nothing."""
    run = track(split, tmp_path / "run")
    path = tmp_path / "run/results.json"
    assert write_results(split, run.masks, path) == 6
    results = json.loads(path.read_text())
    assert [(r["video_id"], r["score"]) for r in results] == [
        (5, 0.9),
        (5, 0.25),
        (2, 0.9),
        (2, 0.25),
        (9, 0.9),
        (9, 0.25),
    ]
    assert [mask is None for mask in results[1]["segmentations"]] == [True, True, False, True, False]
    totals = evaluate_run(split, path).summary.totals
    assert totals["AR@100"] == totals["AR@10"] == 1.0 and totals["AR@1"] == 0.5
    # Falling scores: the right box, the wrong one of "none" (after it, as its video's id is larger); later the others.
    assert 0.5 < totals["AP"] < 1.0
    before = path.read_bytes()
    write_results(split, run.masks, path)
    assert path.read_bytes() == before
    packed = write_submission(split, path, tmp_path / "submission.zip", FORMATS["uvo"])
    assert packed.files == 1


class Odd(BoxTracker):
    """Does one thing wrong, or something unusual."""

    how = ""

    def track(self, video):
        mask, other = np.zeros((2, video.height, video.width), bool)
        mask[2:4, 2:4] = True
        yielded = {
            "label map": mask.astype(np.uint8),
            "id 0": {0: mask},
            "text id": {"1": mask},
            "numbers": {1: mask.astype(np.uint8)},
            "size": {1: mask[:-1]},
        }
        for index, name in enumerate(video.frame_names):
            if self.how == "left out" and index == 1:
                continue
            yield name, {} if self.how == "nothing" else yielded.get(self.how, {1: mask, 7: other})
        if self.how not in ("no score", "nothing"):
            video.scores |= {1: {"nan": math.nan, "-inf": -math.inf}.get(self.how, 1.0), 7: 0.5}


@pytest.mark.parametrize(
    ("how", "told"),
    [
        *((how, "unusable masks on frame 0") for how in ("label map", "id 0", "text id", "numbers", "size")),
        ("left out", "no masks for 1 frames .*the first is 1"),
        ("no score", "gave objects of video boxes no score, the first is object 1: None"),
        ("nan", "the first is object 1: nan"),
    ],
)
def test_what_breaks_the_rules_is_refused_and_leaves_nothing(split, tmp_path, monkeypatch, how, told):
    monkeypatch.setattr(Odd, "how", how)
    with pytest.raises(VosflowError, match=f"(?s){told}"):
        track_videos(Method("tests.unit.test_instances:Odd", Odd.Settings()), split, ["boxes"], tmp_path / "run")
    assert list((tmp_path / "run/masks").iterdir()) == []


def test_objects_with_a_score_are_results_and_videos_may_have_none(split, tmp_path, monkeypatch):
    odd = "tests.unit.test_instances:Odd"
    track_videos(Method.of(odd), split, ["boxes"], tmp_path / "run")
    assert read_instances(tmp_path / "run/masks", split.video("boxes")).scores == {1: 1.0, 7: 0.5}  # 7 has no pixel
    monkeypatch.setattr(Odd, "how", "nothing")
    track_videos(Method.of(odd), split, ["crowd", "none"], tmp_path / "run")
    assert write_results(split, tmp_path / "run/masks", tmp_path / "r.json") == 2
    results = json.loads((tmp_path / "r.json").read_text())
    assert [result["segmentations"] == [None] * FRAMES for result in results] == [False, True]
    assert evaluate_run(split, tmp_path / "r.json", strict=False).missing == {"crowd": 1, "none": 1}


def test_a_score_may_be_minus_infinity_and_is_the_last_of_all(split, tmp_path, monkeypatch):
    monkeypatch.setattr(Odd, "how", "-inf")
    track_videos(Method.of("tests.unit.test_instances:Odd"), split, ["boxes"], tmp_path / "run")
    only = replace(split, videos=(split.video("boxes"),))
    write_results(only, tmp_path / "run/masks", tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())[0]["score"] == -math.inf
    assert evaluate_run(only, tmp_path / "r.json").summary.totals["AR@1"] == 0.0
    with pytest.raises(VosflowError, match="not finite"):
        write_submission(only, tmp_path / "r.json", tmp_path / "s.zip", FORMATS["uvo"])


@pytest.mark.parametrize("damage", ["cut", "gone", "other frames", "no JSON"])
def test_damaged_files_are_named(split, tmp_path, damage):
    run = track(split, tmp_path / "run")
    path = run.masks / "boxes" / FILE
    lines = path.read_text().splitlines()
    if damage == "gone":
        path.unlink()
    else:
        left = {"cut": lines[:-1], "other frames": [lines[0], *lines[2:]], "no JSON": [*lines[:2], "{", *lines[2:]]}
        path.write_text("\n".join(left[damage]))
    (tmp_path / "r.json").write_text("old")
    with pytest.raises(VosflowError, match="not the instances of video boxes") as caught:
        write_results(split, run.masks, tmp_path / "r.json")
    assert str(path) in str(caught.value) and (tmp_path / "r.json").read_text() == "old"
    assert not list(tmp_path.glob(".r.json*"))


def test_a_full_disk_is_told_and_publishes_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError), InstanceWriter(tmp_path, "v", height=4, width=4, scores={1: 1.0}) as writer:
        monkeypatch.setattr("vosflow.instances.json.dumps", full)
        for name in NAMES:
            writer.write(name, {1: np.ones((4, 4), bool)})
    assert list(tmp_path.iterdir()) == []


def test_more_objects_than_a_label_map_can_hold_are_an_error_that_says_so(tmp_path):
    manifest = make_videos(tmp_path, {"a": 3})
    (video,) = manifest.videos
    prompts = (*video.prompts, replace(video.prompts[0], object=300))
    many = replace(manifest, videos=(replace(video, objects=(1, 2, 300), prompts=prompts),))
    with pytest.raises(VosflowError, match="an object 300, which no label map of 8 bits can hold"):
        track_videos(Method.of("static"), many, ["a"], tmp_path / "run")


def test_planning_takes_trackers_that_propose_objects_where_no_masks_are_given():
    study = load_study({"runs": [{"dataset": ["uvo/val", "demo/val"], "tracker": BOXES}]})
    uvo, demo = study.runs
    assert uvo.predictions == "results/uvo-val/BoxTracker/results.json" in uvo.results
    assert demo.predictions == "results/demo-val/BoxTracker/masks" and demo.prediction_files == []
    with pytest.raises(VosflowError, match="which static does not") as caught:
        load_study({"runs": [{"dataset": "uvo/val", "tracker": "static"}]})
    assert "proposes_objects = True" in caught.value.expected


@pytest.fixture
def results(split, tmp_path) -> list[RunResult]:
    """Two runs, tracked and scored, as the workflow leaves them."""
    top = tmp_path / "results/uvo-val"
    save_manifest(split, top / "manifest.json")
    paths = []
    for side in (6, 3):
        run = track(split, top / f"side{side}", side=side)
        write_results(split, run.masks, run.path / "results.json")
        evaluate_run(split, run.path / "results.json", run.path, strict=False)
        facts = {"run": run.path.name, "settings": {"side": side, "late": 2}, "swept": {"side": side}}
        facts |= {"dataset": "uvo", "split": "val", "tracker": BOXES, "checkpoint": None, "notes": [], "scored": True}
        described = describe_run(facts, split, str(top / "manifest.json"), run.path)
        write_json(run.path / "run.json", described)
        paths.append(run.path / "run.json")
    return load_runs(paths)


def test_tables_and_page_of_instances(results, tmp_path, capsys):
    rows = summary_rows(results)
    assert [row["headline"] for row in rows] == ["AR@100"] * 2 and rows[0]["J&F"] == "" and rows[0]["objects"] == "6"
    assert float(rows[0]["AR@100"]) == 1.0 > float(rows[1]["AR@100"])
    assert "**100.0**" in markdown(rows)
    write_summary(rows, tmp_path / "s.csv")
    print_summary(tmp_path / "s.csv")
    assert "AR@100" in capsys.readouterr().out
    page = render_page(results, rows, title="uvo", filmstrips=2, published=())
    text = " ".join(page.split())
    assert (
        ">nan<" not in page and "6 objects proposed" in text and "mean over a video's objects of their highest" in text
    )
    assert "J is the intersection over union of an object's mask" not in text
    best, worse = (result.video_scores["boxes"] for result in results)
    assert best == 1.0 > worse > 0 and all(result.frame_scores == {} for result in results)
    assert set(results[0].video_scores) == {"boxes"}  # a crowd is nobody's score


def test_filmstrips_of_instances_show_what_is_there_and_the_highest_scores(results):
    strips = make_filmstrips(results, 2)
    assert [(strip.title, strip.video) for strip in strips] == [("only video", "boxes"), ("largest gap", "boxes")]
    assert [label for label, _ in strips[1].rows] == [
        "frame", "ground truth", "highest scores: side6", "highest scores: side3",
    ]  # fmt: skip
    assert [frame for frame, _ in strips[0].frames] == list(NAMES) and not strips[0].scored_by_frame
    assert strips[0].runs == [("side6", 1.0)]
