"""BDD100K MOTS: RGBA masks become label maps, late objects become prompts, and scores follow SAM-PT's evaluator."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.publisher_trees import make_bdd100k_tree
from tests.unit.scored_clips import disc
from tests.unit.scored_folders import score_clips
from tests.unit.slow_measures import score
from vosflow.datasets import bdd100k_masks, build_manifest
from vosflow.datasets.bdd100k_masks import convert_split
from vosflow.errors import VosflowError
from vosflow.evaluation.run import evaluate_run
from vosflow.masks import read_label_map

SIZE = (40, 60)


def test_masks_become_label_maps_and_prompts(tmp_path):
    make_bdd100k_tree(tmp_path / "bdd100k")
    assert list(convert_split(tmp_path, "val")) == [("0000f77c-6257be58", ("0000f77c-6257be58",))]
    manifest = build_manifest("bdd100k_mots", "val", tmp_path)
    (video,) = manifest.videos
    assert video.objects == (1, 2, 3) and manifest.late_objects and manifest.protocol == "bdd100k"
    assert [(p.object, p.frame) for p in video.prompts] == [(1, "0000001"), (3, "0000001"), (2, "0000002")]
    truth, _ = read_label_map(tmp_path / "vos/val/Annotations" / video.name / "0000002.png")
    assert sorted(np.unique(truth)) == [0, 1, 2, 3], "ids 300, 513 and 70000 % 65536, ascending; no crowd, none ignored"
    frame = tmp_path / "vos/val/JPEGImages" / video.name / "0000001.jpg"
    assert frame.is_symlink() and not os.path.isabs(os.readlink(frame)) and frame.is_file()
    assert video.object_frames[2] == video.frames.names[1:]


def test_many_objects_are_cut_into_several_videos(tmp_path, monkeypatch):
    monkeypatch.setattr(bdd100k_masks, "OBJECTS_PER_CHUNK", 2)
    make_bdd100k_tree(tmp_path)
    ((_, names),) = convert_split(tmp_path, "val")
    assert names == ("0000f77c-6257be58", "0000f77c-6257be58-chunk2")
    videos = {video.name: video for video in build_manifest("bdd100k_mots", "val", tmp_path).videos}
    assert [videos[name].objects for name in names] == [(1, 2), (1,)]


def test_a_conversion_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    make_bdd100k_tree(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(convert_split(tmp_path, "val"))
    assert not (tmp_path / "vos/val/Annotations/0000f77c-6257be58").exists()
    list(convert_split(tmp_path, "val"))
    whole = sorted((tmp_path / "vos/val/Annotations/0000f77c-6257be58").iterdir())
    before = [path.stat().st_mtime_ns for path in whole]
    list(convert_split(tmp_path, "val"))
    assert len(whole) == 4 and [path.stat().st_mtime_ns for path in whole] == before, "what is finished is kept"


def test_what_is_missing_is_named(tmp_path):
    make_bdd100k_tree(tmp_path)
    with pytest.raises(VosflowError, match="have not been turned into label maps") as caught:
        build_manifest("bdd100k_mots", "val", tmp_path)
    assert "scripts/convert_bdd100k.py" in caught.value.remedy
    masks = tmp_path / "labels/seg_track_20/bitmasks/val/0000f77c-6257be58"
    Image.new("P", (8, 8)).save(masks / "0000f77c-6257be58-0000001.png")
    with pytest.raises(VosflowError, match="not a mask of BDD100K .its mode is P") as caught:
        list(convert_split(tmp_path, "val"))
    assert "not colormaps" in caught.value.remedy
    (masks / "0000f77c-6257be58-0000001.png").unlink()
    with pytest.raises(VosflowError, match="frame 0000001 of video 0000f77c-6257be58 has no mask"):
        list(convert_split(tmp_path, "val"))


def random_clip(seed: int, frames: int = 7) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Objects that come, go and return at random; object 3 shows on the last frame only."""
    random = np.random.default_rng(seed)
    starts = {1: 0, 2: int(random.integers(1, 4)), 3: frames - 1}
    clip = []
    for surely in (True, False):
        maps = [np.zeros(SIZE, np.uint8) for _ in range(frames)]
        for t, label_map in enumerate(maps):
            for number, start in starts.items():
                if t >= start and random.random() < 0.7:
                    y, x, radius = random.integers((8, 8, 3), (30, 50, 9))
                    label_map[disc(y, x, radius, *SIZE)] = number
            for number, start in starts.items():
                if surely and t == start:
                    label_map[0, number] = number
        clip.append(maps)
    return clip[0], clip[1]


def reference(clips: dict) -> dict[str, float]:
    """The evaluator's totals, by its rules, one object after the other, with slow measures."""
    rows = []
    for truth, guess in clips.values():
        for number in range(1, max(int(t.max()) for t in truth) + 1):
            shown = [bool((t == number).any()) for t in truth]
            start = shown.index(True)
            if start == len(truth) - 1:
                rows.append((1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1))
                continue
            after = range(start + 1, len(truth))
            both = {t: score(truth[t] == number, guess[t] == number) for t in after}
            J, F = {t: pair[0] for t, pair in both.items()}, {t: pair[1] for t, pair in both.items()}

            def mean(values, chosen):
                return float(np.mean([values[t] for t in chosen])) if chosen else math.nan

            seen, hidden = [t for t in after if shown[t]], [t for t in after if not shown[t]]
            rows.append((
                mean(J, after), mean(F, after), mean(J, seen), mean(F, seen), mean(J, hidden), mean(F, hidden),
                1 + len(seen),
            ))  # fmt: skip
    table = np.array(rows)
    J, F, J_vis, F_vis, J_non, F_non = (float(np.nanmean(column)) for column in table[:, :6].T)
    short = table[table[:, 6] < 5]
    medium = table[(table[:, 6] >= 5) & (table[:, 6] < 30)]
    return {
        "J&F-Mean": (J + F) / 2, "J-Mean": J, "F-Mean": F,
        "J&F-Vis-Mean": (J_vis + F_vis) / 2, "J&F-NonVis-Mean": (J_non + F_non) / 2,
        "J-Vis-Mean": J_vis, "F-Vis-Mean": F_vis, "J-NonVis-Mean": J_non, "F-NonVis-Mean": F_non,
        "J-Short-Mean": short[:, 0].mean(), "F-Short-Mean": short[:, 1].mean(),
        "J-Medium-Mean": medium[:, 0].mean() if len(medium) else math.nan,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_scores_are_those_of_the_evaluator(tmp_path, seed):
    clips = {name: random_clip(10 * seed + place) for place, name in enumerate(("a", "b"))}
    totals = score_clips(tmp_path, clips, "bdd100k").summary.totals
    for name, value in reference(clips).items():
        assert totals[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name
    assert math.isnan(totals["J-Long-Mean"]), "no object shows on 30 frames"


def test_an_id_that_is_no_object_is_an_error(tmp_path):
    truth, guess = random_clip(3)
    guess[-1][0, 0] = 4
    with pytest.raises(VosflowError, match="the predicted id 4 is no object"):
        score_clips(tmp_path, {"a": (truth, guess)}, "bdd100k")


def test_ground_truth_scores_1_through_the_manifest(tmp_path):
    make_bdd100k_tree(tmp_path)
    list(convert_split(tmp_path, "val"))
    manifest = build_manifest("bdd100k_mots", "val", tmp_path)
    scored = evaluate_run(manifest, Path(tmp_path / "vos/val/Annotations"), tmp_path / "scores")
    assert scored.summary.totals["J&F-Mean"] == 1.0
    assert len(scored.scores) == 3 + 2 + 3
