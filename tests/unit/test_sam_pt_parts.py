"""The pieces of SAM-PT: points from masks, visibility, windows, boxes, merging, settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vosflow import digest
from vosflow.config import read_config
from vosflow.errors import VosflowError
from vosflow.method import Method, code_modules
from vosflow.study import load_study
from vosflow.trackers.sam_pt.clip import Clip, working_size
from vosflow.trackers.sam_pt.merging import Merger, resize_mask
from vosflow.trackers.sam_pt.parts import POINT_TRACKERS, SAMS, load_part
from vosflow.trackers.sam_pt.prompting import Prediction, Prompter, tight_boxes
from vosflow.trackers.sam_pt.queries import PointSampler, generator, kmedoids, sample
from vosflow.trackers.sam_pt.reinit import choose_frames
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.tracker import SamPtTracker
from vosflow.trackers.sam_pt.visibility import Visibility, mark_differing_patches, mark_outside, to_lab

STUDY = Path(__file__).parents[2] / "studies/sam_pt.yaml"
METHODS = ["random", "kmedoids", "shi-tomasi", "mixed"]
TOY = {"point_tracker": "tests.unit.toy_sam_pt:ToyPoints", "sam": "tests.unit.toy_sam_pt:ToySam"}


def disc(height: int = 60, width: int = 80, radius: int = 15) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - 30) ** 2 + (x - 40) ** 2 < radius**2


def noise(height: int = 60, width: int = 80, frames: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 8, 72])
def test_points_lie_on_the_mask(method, count):
    mask = disc()
    points = sample(method, noise()[0], mask, count, np.random.default_rng(1))
    assert points.shape == (count, 2) and points.dtype == np.float32
    x, y = points.round().astype(int).T
    assert mask[y, x].all()
    if method in ("random", "kmedoids"):
        assert len(np.unique(points, axis=0)) == count, "none twice"


@pytest.mark.parametrize("method", METHODS)
def test_few_pixels_are_repeated_and_empty_masks_give_the_corner(method):
    mask = np.zeros((20, 20), bool)
    assert (sample(method, noise(20, 20)[0], mask, 5, np.random.default_rng(0)) == 0).all()
    mask[7, 9] = mask[8, 9] = True
    points = sample(method, noise(20, 20)[0], mask, 5, np.random.default_rng(0))
    assert {tuple(point) for point in points} <= {(9, 7), (9, 8)}


def test_medoids_are_central():
    """One medoid is the point with the least sum of distances, and so is each of several in its cluster."""
    points = np.random.default_rng(3).normal(size=(60, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert kmedoids(points, 1) == [distances.sum(1).argmin()]
    medoids = kmedoids(points, 7)
    assert len(set(medoids)) == 7
    cluster = distances[medoids].argmin(0)
    for k, medoid in enumerate(medoids):
        members = np.flatnonzero(cluster == k)
        assert distances[medoid, members].sum() == pytest.approx(distances[np.ix_(members, members)].sum(1).min())


def test_what_is_drawn_depends_on_object_video_and_frame_only():
    settings, clip = Settings(**TOY), Clip.of_array(noise(frames=3))
    masks = np.stack([disc(radius=8), disc(radius=12), disc(radius=16)])
    together = PointSampler(settings, "a")(clip, masks, [0, 1, 2], [4, 5, 6])
    backwards = PointSampler(settings, "a")(clip, masks[::-1], [2, 1, 0], [6, 5, 4])
    assert (together == backwards[::-1]).all()
    assert together.shape == (3, 9, 3) and (together[:, :, 0] == [[0], [1], [2]]).all()
    assert (PointSampler(settings, "b")(clip, masks, [0, 1, 2], [4, 5, 6]) != together).any()
    assert (PointSampler(Settings(**TOY, seed=1), "a")(clip, masks, [0, 1, 2], [4, 5, 6]) != together).any()
    assert generator(1, "a", 2).integers(1 << 30) == generator(1, "a", 2).integers(1 << 30)


def test_negative_points_are_outside():
    settings = Settings(**TOY, negative_points_per_mask=30)
    points = PointSampler(settings, "a")(Clip.of_array(noise()), disc()[None], [0], [1])[0]
    inside = disc()[points[:, 2].round().astype(int), points[:, 1].round().astype(int)]
    assert inside[:8].all() and not inside[8:].any()


def test_points_at_the_border_are_outside():
    positions = np.array([[[0.9, 50], [1, 50], [99, 50], [99.1, 50], [50, -3], [50, 50]]], np.float32)
    visibility = np.ones((1, 6), np.int8)
    mark_outside(visibility, positions, 100, 100)
    assert visibility[0].tolist() == [-2, 1, 1, -2, -2, 1]


def test_lab_is_that_of_opencv():
    import cv2

    frame = noise()[0]
    theirs = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    np.testing.assert_allclose(to_lab(frame), theirs, atol=0.5)
    np.testing.assert_array_equal(to_lab(frame, as_bgr=True), to_lab(frame[..., ::-1]))


def test_points_on_other_patches_are_left_out_from_there_on():
    """The points' surroundings change on frames 1, 2 and 6; they were given on frame 4."""
    frames = np.full((8, 20, 20, 3), 40, np.uint8)
    frames[[1, 2, 6]] = 250
    visibility = np.ones((8, 2), np.int8)
    visibility[6, 1] = Visibility.HIDDEN
    queries = np.array([[4, 10, 10], [4, 5, 5]], np.float32)
    positions = np.broadcast_to(queries[None, :, 1:], (8, 2, 2))
    mark_differing_patches(visibility, positions, Clip.of_array(frames), queries, size=3, threshold=0.01, as_bgr=False)
    assert visibility[:, 0].tolist() == [-4, -4, -3, 1, 1, 1, -3, -4]
    assert visibility[:, 1].tolist() == [-4, -4, -3, 1, 1, 1, 0, 1], "a hidden point is not compared"


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_boxes_are_tight(seed, share):
    masks = np.random.default_rng(seed).random((3, 7, 9)) < share * 0.2
    boxes, pixels = tight_boxes(torch.from_numpy(masks))
    assert pixels.tolist() == masks.sum((1, 2)).tolist()
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        y, x = np.nonzero(mask)
        if len(y):
            assert box == [x.min(), y.min(), x.max(), y.max()]


@pytest.mark.parametrize(("most", "others"), [(None, 16), (3, 3), (0, 0)])
def test_points_of_other_objects_are_negative_ones(most, others):
    """At most so many as wished, drawn at random, but the same ones each time."""
    positions = np.arange(3 * 9 * 2, dtype=np.float32).reshape(3, 9, 2)
    visibility = np.ones((3, 9), np.int8)
    prompter = Prompter(None, Settings(**TOY, max_other_objects_positive_points=most), None, "a")
    prompt, again = (prompter._prompt(0, positions, visibility, [1, 2, 3], 1) for _ in range(2))
    assert prompt.positives == 8 and len(prompt.points) == 9 + others
    assert (prompt.points[:9] == positions[1]).all() and (prompt.points == again.points).all()
    foreign = {tuple(point) for k in (0, 2) for point in positions[k, :8]}
    assert {tuple(point) for point in prompt.points[9:]} <= foreign


def test_which_points_of_others_are_drawn_is_the_objects_own():
    """Not that of its place among the objects of a call: these differ with batches and with who is there."""
    positions = np.arange(2 * 9 * 2, dtype=np.float32).reshape(2, 9, 2)
    visibility = np.ones((2, 9), np.int8)
    prompter = Prompter(None, Settings(**TOY, max_other_objects_positive_points=3), None, "a")
    seventh = [prompter._prompt(t, positions, visibility, [7, 4], 0).points.tolist() for t in range(9)]
    behind = [prompter._prompt(t, positions[::-1], visibility, [4, 7], 1).points.tolist() for t in range(9)]
    other = [prompter._prompt(t, positions, visibility, [8, 4], 0).points.tolist() for t in range(9)]
    assert seventh == behind != other
    assert len({str(points) for points in seventh}) > 1, "each frame has others"


def areas(*rows: list[int]) -> np.ndarray:
    """Masks bool [O, L, 20, 50] with these numbers of pixels."""
    return np.array([[np.arange(1000) < area for area in row] for row in rows]).reshape(len(rows), -1, 20, 50)


HORIZON = "reinit-on-horizon-and-sync-masks"
MEDIAN = "reinit-at-median-of-area-diff"
SIMILAR = "reinit-on-similar-mask-area"
TOGETHER = "reinit-on-similar-mask-area-and-sync-masks"


@pytest.mark.parametrize(
    ("variant", "rows", "next_start", "expected", "usable"),
    [
        (HORIZON, [[100] * 8, [10] * 8], None, [6, 6], [True, False]),
        (HORIZON, [[100] * 8], 3, [3], [True]),
        (HORIZON, [[100] * 8], 9, [6], [True]),
        (
            HORIZON,
            [[100] * 8, [100, 9] + [100] * 6],
            0,
            [0, 0],
            [True, False],
        ),  # in the first quarter, for another's sake
        # the first quarter and areas up to 25 say nothing: the median of 50, 70, 90 (the lower one of an even number)
        (MEDIAN, [[100, 1, 1, 90, 50, 25, 70, 80]], None, [5], [True]),
        (SIMILAR, [[100, 100, 100, 90, 50, 104, 70, 80], [60, 0, 0, 90, 0, 0, 55, 61]], None, [4, 6], [True, True]),
        (SIMILAR, [[100] + [3] * 7], None, [0], [False]),
        (TOGETHER, [[100, 0, 0, 90, 50, 104, 70, 80], [60, 0, 0, 90, 60, 0, 55, 61]], None, [6, 6], [True, True]),
        (TOGETHER, [[100, 0, 0, 90, 50, 104, 70, 80]], 2, [2], [True]),
        (TOGETHER, [[100, 0, 0, 90, 50, 104, 70, 80]], 20, [4], [True]),
    ],
)
def test_where_points_are_sampled_anew(variant, rows, next_start, expected, usable):
    chosen, large_enough = choose_frames(variant, areas(*rows), 8, next_start)
    assert chosen.tolist() == expected and large_enough.tolist() == usable


def merge(index, logits, *, spreads, starts=(0, 0), size=(8, 8)):
    prompts = [np.zeros(size, bool) for _ in starts]
    prompts[0][2:4], prompts[1][5:7] = True, True
    merger = Merger(starts, prompts, size=(4, 4), device="cpu", spreads=spreads)
    predictions = {k: Prediction(None if one is None else torch.full((4, 4), one), 0.9) for k, one in logits.items()}
    return merger.winners(index, predictions)


def test_the_largest_logit_above_zero_wins():
    assert (merge(1, {0: 1.0, 1: 2.0}, spreads=True) == 2).all()
    assert (merge(1, {0: 3.0, 1: 2.0}, spreads=True) == 1).all()
    assert (merge(1, {0: -3.0, 1: -2.0}, spreads=True) == 0).all()


def test_prompts_are_written_where_objects_start():
    first = merge(0, {}, spreads=True)
    assert (first[2:4] == 1).all() and (first[5:7] == 2).all() and (first[[0, 1, 4, 7]] == 0).all()
    late = merge(1, {0: 1.0}, spreads=True, starts=(0, 1))
    assert (late[5:7] == 2).all() and (late[:5] == 1).all(), "the prompt wins over the prediction of another object"
    assert (merge(0, {}, spreads=True, starts=(1, 1)) == 0).all()


def test_a_lost_object_takes_the_border_of_the_others_in_published_code_only():
    """Where logits are enlarged, minus infinity times a weight of 0 is no number."""
    published = merge(1, {0: 5.0, 1: None}, spreads=True)
    assert (published[0] == 0).all() and (published[:, 0] == 0).all() and (published[1:, 1:] == 1).all()
    assert (merge(1, {0: 5.0, 1: None}, spreads=False) == 1).all()


def test_the_working_size_is_that_of_sam():
    assert working_size(480, 854, 1024) == (576, 1024)
    assert working_size(3, 4000, 1024) == (1, 1024)
    mask = np.eye(4, dtype=bool)
    assert (resize_mask(mask, 8, 8) == mask.repeat(2, 0).repeat(2, 1)).all()


def test_presets_are_the_two_sam_pts():
    paper, head = Settings(), Settings(preset="head")
    assert (paper.point_tracker, paper.sam, paper.positive_points_per_mask) == ("pips", "vit_h", 8)
    assert (head.point_tracker, head.sam, head.positive_points_per_mask) == ("cotracker", "hq_vit_h", 16)
    assert (paper.reinit_horizon, head.reinit_horizon) == (8, 24)
    assert (paper.masks_batch_size, head.masks_batch_size) == (5, 100)
    assert paper.negative_points_per_mask == head.negative_points_per_mask == 1
    assert Settings(use_point_reinit=True).negative_points_per_mask == 72
    assert Settings(use_point_reinit=True, negative_points_per_mask=8).negative_points_per_mask == 8
    assert Settings(preset="head", use_point_reinit=True).negative_points_per_mask == 1
    assert Settings(preset="head", positive_points_per_mask=8).positive_points_per_mask == 8
    assert Settings(**paper.model_dump(mode="json")) == paper, "what is written down reads back as the same"
    tapir = Settings(point_tracker="tapir")
    assert tapir.point_tracker_settings["visibility_threshold"] == 0.5
    assert SamPtTracker.parts(tapir)["point_tracker"].checkpoint == "tapir_causal"
    assert Settings(preset="head", point_tracker="tapir").point_tracker_settings["visibility_threshold"] == 0.1


@pytest.mark.parametrize("preset", ["paper", "head"])
@pytest.mark.parametrize("point_tracker", POINT_TRACKERS)
def test_each_point_tracker_can_be_planned(preset, point_tracker):
    settings = Settings(preset=preset, point_tracker=point_tracker)
    assert set(SamPtTracker.parts(settings)) >= {"sam", "point_tracker"}
    assert settings.notes()[0].startswith(f"preset {preset} (") and point_tracker in settings.notes()[0]


VOS = ("davis2016-val", "davis2017-val", "davis2017-test-dev", "youtubevos2018-valid_all_frames")
NO_REFINEMENT = {"iterative_refinement_iterations": 0}
INSTANCES = {
    **NO_REFINEMENT,
    "add_other_objects_positive_points_as_negative_points": False,
    "point_tracker_mask_batch_size": 100,
    "masks_batch_size": 100,
    "size": 360,
    "seed": 36,
}
SUPERGLUE = {
    "point_tracker": "superglue",
    "negative_points_per_mask": 0,
    "positive_point_selection_method": "random",
    "negative_point_selection_method": "random",
    "iterative_refinement_iterations": 3,
}
TAPIR = {"positive_points_per_mask": 32, "negative_points_per_mask": 72, "iterative_refinement_iterations": 24}
REINIT = {"use_point_reinit": True}
COMMANDS = [  # of docs/04-running-experiments.md at both commits: dataset, preset, what the command line says
    *((dataset, "paper", more) for dataset in (*VOS, "mose-valid") for more in ({}, REINIT)),
    *(("davis2017-val", "paper", {"point_tracker": name}) for name in ("raft", "tapnet", "cotracker")),
    *(("davis2017-val", "paper", {"sam": name}) for name in ("vit_h", "vit_l", "vit_b", "hq_vit_h")),
    ("uvo-val", "paper", INSTANCES),
    ("uvo-val-tiny", "paper", {**INSTANCES, **REINIT, "negative_points_per_mask": 8}),
    *((dataset, "head", {}) for dataset in VOS),
    ("mose-valid", "head", NO_REFINEMENT),
    ("bdd100k_mots-val", "head", {**NO_REFINEMENT, "point_tracker_mask_batch_size": 100}),
    ("davis2017-val", "head", REINIT),
    *(("davis2017-val", "head", {"point_tracker": name}) for name in ("raft", "tapnet")),
    *(
        ("davis2017-val", "head", {"point_tracker": name, "positive_points_per_mask": 8})
        for name in ("pips", "pips_plus_plus")
    ),
    ("davis2017-val", "head", {"point_tracker": "tapir", **TAPIR}),
    ("davis2017-val", "head", SUPERGLUE),
    *(("davis2017-val", "head", {"sam": name}) for name in ("vit_h", "vit_l", "vit_b", "hq_vit_h")),
    *(
        ("davis2017-val", preset, {"sam": name, "iterative_refinement_iterations": 3})
        for preset in ("paper", "head")
        for name in ("light_hq_tiny", "mobile_sam")
    ),
]


def test_the_study_has_a_run_for_each_documented_command():
    runs = [(run.dataset.id, run.settings) for run in load_study(read_config(STUDY)).runs]
    for dataset, preset, more in COMMANDS:
        wanted = Settings(preset=preset, **more).model_dump(mode="json")
        assert (dataset, wanted) in runs, (dataset, preset, more)


@pytest.mark.parametrize("sam", SAMS)
def test_each_sam_can_be_planned(sam):
    assert load_part("sam", sam).image_size == 1024


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"point_tracker": "pip"}, "unknown point_tracker 'pip', did you mean 'pips'"),
        ({"sam": "hq_vith"}, "unknown sam 'hq_vith', did you mean 'hq_vit_h'"),
        ({"point_tracker": "json:loads"}, "json:loads is no point_tracker: it lacks"),
        ({"point_tracker": "no_such_module:X"}, "cannot be imported"),
        ({"point_tracker_settings": {"strid": 4}}, "did you mean 'stride'"),
        ({"reinit_horizon": 9}, "must not be less than reinit_horizon"),
        ({"patch_size": 4}, "patch_size must be odd"),
        ({"use_point_reinit": "false"}, "use_point_reinit"),  # a text that is true, and would choose 72 negative points
        ({"preset": "papers"}, "Input should be 'paper' or 'head'"),
        ({"positive_points": 3}, "did you mean 'positive_points_per_mask'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(VosflowError) as error:
        SamPtTracker.parts(Method.of("sam_pt", settings, {}).settings)
    assert message in str(error.value)


def test_the_code_of_other_parts_does_not_matter():
    modules = SamPtTracker.code_modules(Settings(point_tracker="raft", sam="vit_b"))
    assert modules == ("vosflow.trackers.sam_pt.points.raft", "vosflow.trackers.sam_pt.sams.sam")


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from vosflow.trackers.sam_pt.tracker import SamPtTracker as T;"
        "from vosflow.trackers.sam_pt.parts import POINT_TRACKERS, SAMS;"
        "[T.parts(T.Settings(point_tracker=p)) for p in POINT_TRACKERS]; [T.parts(T.Settings(sam=s)) for s in SAMS];"
        "print(sorted({'torch', 'cv2', 'pandas', 'numba', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_new_name_in_the_table_changes_no_digest(monkeypatch):
    modules = code_modules("sam_pt", Settings(point_tracker="pips"))
    assert "vosflow.trackers.sam_pt.points.pips" in modules
    before = digest.code_digest(*modules)
    monkeypatch.setattr(digest, "UNRELATED", digest.UNRELATED - {"vosflow.trackers.sam_pt.parts"})
    assert digest.code_digest(*modules) != before, "the table is imported, and left out on purpose"
