"""Filmstrips: which videos and frames are chosen, and what is painted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.unit import report_folder
from tests.unit.report_folder import make_dataset, make_run, moving_squares
from vosflow.errors import VosflowError
from vosflow.manifest import PER_OBJECT, ImageFolder, VideoEntry, save_manifest
from vosflow.report import filmstrips, results

study = report_folder.study


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
