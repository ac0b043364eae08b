"""SAM2Long on a tiny SAM 2: the same pixels as the published algorithm done plainly, for less work.

What plainly means is said in plain_sam2long.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from pydantic import ValidationError

from tests.unit.plain_sam2long import plainly
from tests.unit.scripts import run_script
from tests.unit.threads import one_thread
from tests.unit.tiny_sam2 import CONFIG, FRAMES, clip, make_checkpoint, video_of
from vosflow.errors import VosflowError
from vosflow.masks import merge_objects, read_label_map
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam2long import Sam2LongTracker, Settings, tracking
from vosflow.trackers.sam2long.tracking import key_weights
from vosflow.trackers.sam2long.tree import Memory

__all__ = ["clip", "one_thread"]  # fixtures

UNDECIDED = 1000.0  # no object score is further from 0: every frame is uncertain


@pytest.fixture(scope="module")
def checkpoint(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Random weights, with predicted IoUs and object scores spread: else all frames and pathways were much alike."""
    made = make_checkpoint(tmp_path_factory.mktemp("weights"))
    heads = {"iou_prediction_head": (300.0, -0.8), "pred_obj_score_head": (1500.0, 1.0)}  # (gain, mean)
    tracker = Sam2LongTracker(Settings(uncertainty=UNDECIDED), made, "cpu")
    tracker.load()
    decoder, seen = tracker._steps.predictor.sam_mask_decoder, {name: [] for name in heads}
    for name, outputs in seen.items():
        last = getattr(decoder, name).layers[2]
        last.register_forward_hook(lambda module, _, output, outputs=outputs: outputs.append(output - module.bias))
    for _ in tracker.track(video_of(clip, "together")):
        pass
    weights = torch.load(made.path, weights_only=True)
    for name, (gain, mean) in heads.items():
        last = f"sam_mask_decoder.{name}.layers.2."
        weights["model"][last + "weight"] *= gain
        weights["model"][last + "bias"] = mean - gain * torch.cat(seen[name]).mean(dim=0).clone()
    torch.save(weights, made.path)
    return made


def run(checkpoint: Checkpoint, video: object, settings: Settings) -> tuple[dict, dict[str, int]]:
    """({frame index: masks}, how often each part of the network was called)."""
    tracker = Sam2LongTracker(settings, checkpoint, "cpu")
    tracker.load()
    calls = dict.fromkeys(("image_encoder", "memory_attention", "sam_mask_decoder", "memory_encoder"), 0)
    for name in calls:
        part = getattr(tracker._steps.predictor, name)
        part.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls[name] + 1))
    return {int(frame): masks for frame, masks in tracker.track(video)}, calls


def assert_equal(got: dict, expected: dict[int, dict[int, np.ndarray]], per_object: bool) -> None:
    assert list(got) == list(expected)
    for index, masks in expected.items():
        if per_object:
            assert list(got[index]) == list(masks)
            assert all(np.array_equal(got[index][k], masks[k]) for k in masks), index
        else:
            assert np.array_equal(got[index], merge_objects(masks, *next(iter(masks.values())).shape)), index


CASES = {  # annotations, one PNG per object, settings, what they change in the network
    "as in the README": ("together", False, {}, {}),
    "as in the script": ("together", False, {"preset": "script", "score_thresh": 0.7}, {}),
    "always uncertain": ("together", False, {"uncertainty": UNDECIDED}, {}),
    "never uncertain": ("together", False, {"uncertainty": 0.0}, {}),
    "two pathways, few good frames": ("together", False, {"num_pathway": 2, "iou_thre": 0.6}, {}),
    "one pathway": ("together", False, {"num_pathway": 1}, {}),
    "late": ("late", False, {"uncertainty": 1.0}, {}),
    "late, nobody at first": ("later", False, {"uncertainty": 1.0}, {}),
    "one PNG per object": ("late_objects", True, {"uncertainty": UNDECIDED}, {}),
    "short reach of pointers": ("together", False, {"max_obj_ptrs_in_encoder": 3}, {"max_obj_ptrs_in_encoder": 3}),
    "image size": ("together", False, {"image_size": 96}, {"image_size": 96}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_pixels_as_without_any_savings(name: str, clip: Path, checkpoint: Checkpoint) -> None:
    masks, per_object, given_values, changes = CASES[name]
    settings = Settings(**given_values)
    expected, evaluations = plainly(clip, masks, checkpoint, settings, per_object=per_object, changes=changes)
    got, calls = run(checkpoint, video_of(clip, masks, per_obj_png_file=per_object, late_objects=True), settings)
    assert_equal(got, expected, per_object)
    assert calls["memory_attention"] <= evaluations
    before = 2 if masks == "later" else 0  # nobody is there yet
    assert calls["image_encoder"] == FRAMES - before  # each frame once for all objects and pathways


@pytest.mark.parametrize(("size", "rows"), [(1, [6]), (3, [0, 1, 6]), (9, [0, 1, 2, 3, 4, 5, 5, 5, 6])])
def test_memory_of_another_size(size: int, rows: list[int], clip: Path, checkpoint: Checkpoint) -> None:
    weights = torch.load(checkpoint.path, weights_only=True)["model"]
    weights["maskmem_tpos_enc"] = weights["maskmem_tpos_enc"][rows]
    settings = Settings(num_maskmem=size)
    expected, _ = plainly(clip, "together", checkpoint, settings, changes={"num_maskmem": size}, weights=weights)
    got, calls = run(checkpoint, video_of(clip, "together"), settings)
    assert_equal(got, expected, per_object=False)
    assert (calls["memory_encoder"] == 3) == (size == 1)  # then only the prompts' are read


def test_the_comparison_is_not_empty(clip: Path, checkpoint: Checkpoint) -> None:
    """Frames are certain and uncertain, masks are good and bad: the settings compared do make a difference."""
    names = (
        "never uncertain",
        "two pathways, few good frames",
        "as in the script",
        "as in the README",
        "always uncertain",
    )
    ran = {name: run(checkpoint, video_of(clip, "together"), Settings(**CASES[name][2])) for name in names}
    masks = [np.stack(list(got.values())) for got, _ in ran.values()]
    assert all((masks[3] != other).sum() > 100 for other in masks[:2])
    evaluations = [calls["memory_attention"] for _, calls in ran.values()]
    assert sorted(set(evaluations)) == evaluations


def test_what_the_savings_are(clip: Path, checkpoint: Checkpoint) -> None:
    """Three objects from the first frame on; the plain way takes 3 x (1 + 3 x 8) evaluations."""
    _, calls = run(checkpoint, video_of(clip, "together"), Settings(uncertainty=0.0))  # one hypothesis all the time
    steps = 3 * (FRAMES - 1)
    assert calls["image_encoder"] == FRAMES
    assert calls["memory_attention"] == steps
    assert calls["sam_mask_decoder"] == 3 + steps  # the prompts' pointers, too
    assert calls["memory_encoder"] == 3 + steps - 3  # the prompts', too, but nothing of the last frame
    _, calls = run(checkpoint, video_of(clip, "together"), Settings(uncertainty=UNDECIDED))
    assert steps < calls["memory_attention"] <= 3 * (1 + 3 * (FRAMES - 2))
    _, calls = run(checkpoint, video_of(clip, "together"), Settings(compat="corrected", uncertainty=0.0))
    assert calls["memory_attention"] == 3 * (1 + 1 + 3 * (FRAMES - 3))  # different from the start: nothing to share


def test_pathways_and_objects_share_calls_in_fast_mode(clip: Path, checkpoint: Checkpoint) -> None:
    """Only the last bits differ. Here the objects' memories are equally large except where some masks are bad."""
    video = video_of(clip, "late", late_objects=True)
    exact, calls = run(checkpoint, video, Settings(uncertainty=UNDECIDED))
    fast, shared = run(checkpoint, video, Settings(uncertainty=UNDECIDED, mode="fast"))
    assert np.mean([(exact[t] == fast[t]).mean() for t in exact]) > 0.999
    assert shared["memory_attention"] < calls["memory_attention"] / 2
    assert shared["memory_encoder"] < calls["memory_encoder"] / 2


def test_bfloat16_is_another_precision(clip: Path, checkpoint: Checkpoint) -> None:
    got, calls = run(checkpoint, video_of(clip, "together"), Settings(precision="bfloat16"))
    exact, _ = run(checkpoint, video_of(clip, "together"), Settings())
    assert list(got) == list(exact) and any(not np.array_equal(got[t], exact[t]) for t in got)
    assert not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")


def test_corrected_is_another_method(clip: Path, checkpoint: Checkpoint) -> None:
    published, corrected = (
        run(checkpoint, video_of(clip, "together"), Settings(compat=compat))[0] for compat in ("published", "corrected")
    )
    assert any(not np.array_equal(published[t], corrected[t]) for t in published)


def test_frames_come_as_soon_as_they_are_decided(clip: Path, checkpoint: Checkpoint) -> None:
    read: list[int] = []
    video = video_of(clip, "together")
    tracker = Sam2LongTracker(Settings(uncertainty=0.0), checkpoint, "cpu")
    tracker.load()
    tracker._steps.predictor.image_encoder.register_forward_hook(lambda *_: read.append(1))
    for given_frames, _ in enumerate(tracker.track(video), start=1):
        assert len(read) == given_frames  # never uncertain: at once


def test_objects_are_merged_in_the_order_of_their_ids(
    clip: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the order in which they appear: where two are equal, the smaller id wins."""
    merged = []
    merge = tracking.to_masks
    monkeypatch.setattr(tracking, "to_masks", lambda logits, *rest: merged.append(list(logits)) or merge(logits, *rest))
    run(checkpoint, video_of(clip, "late", late_objects=True), Settings(uncertainty=0.0))
    assert merged == [[1, 3]] * 3 + [[1, 2, 3]] * (FRAMES - 3)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_videos(frames: int, clip: Path, checkpoint: Checkpoint) -> None:
    video = video_of(clip, "together")
    entry = replace(video._entry, frames=replace(video._entry.frames, names=video.frame_names[:frames]))
    short = type(video)(entry, video._root, layout=video.layout, late_objects=True)
    got, calls = run(checkpoint, short, Settings(uncertainty=UNDECIDED))
    assert list(got) == list(range(frames))
    assert calls["memory_encoder"] == 3 * (1 + max(frames - 2, 0))


def test_several_prompts_of_an_object_are_refused(clip: Path, checkpoint: Checkpoint) -> None:
    video = video_of(clip, "sparse", use_all_masks=True)
    with pytest.raises(VosflowError, match=r"object 1 of video v has 2 prompts[\s\S]*leave out use_all_masks"):
        run(checkpoint, video, Settings())


def test_networks_without_what_the_tree_needs_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    OmegaConf.save(
        OmegaConf.create({"model": CONFIG | {"multimask_output_for_tracking": False}}), tmp_path / "odd.yaml"
    )
    odd = replace(checkpoint, config=str(tmp_path / "odd.yaml"))
    with pytest.raises(VosflowError, match="multimask_output_for_tracking is False"):
        Sam2LongTracker(Settings(), odd, "cpu").load()


@given(scores=st.lists(st.floats(-20, 20), min_size=1, max_size=16))
def test_keys_weigh_more_the_more_certain_the_object(scores: list[float]) -> None:
    weights = key_weights([Memory(t, score, None) for t, score in enumerate(scores)])
    assert torch.equal(weights.sort().values, torch.linspace(0.95, 1.05, len(scores)))
    assert all(weights[a] <= weights[b] for a, x in enumerate(scores) for b, y in enumerate(scores) if x < y)


def test_presets_fill_what_is_not_given() -> None:
    assert Settings().model_dump() | Settings(preset="readme").model_dump() == Settings().model_dump()
    readme, script, own = Settings(), Settings(preset="script"), Settings(preset="script", iou_thre=0.2)
    assert (readme.num_pathway, readme.iou_thre, readme.uncertainty) == (3, 0.1, 2.0)
    assert (script.num_pathway, script.iou_thre, script.uncertainty) == (3, 0.3, 1.0)
    assert (own.iou_thre, own.uncertainty) == (0.2, 1.0)
    again = Settings(**script.model_dump())  # as the tracking job gets them
    assert again == script


def test_notes_say_what_is_unusual() -> None:
    assert Settings().notes() == [] and Settings(image_size=1024).notes() == []
    assert "preset script (num_pathway=3, iou_thre=0.3, uncertainty=1)" in Settings(preset="script").notes()[0]
    assert any("4096 tokens" in note for note in Settings(image_size=512).notes())
    assert "Published numbers were not made so" in Settings(compat="corrected").notes()[0]
    assert "num_maskmem=9" in Settings(num_maskmem=9).notes()[0]


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"num_pathway": 0}, "greater than or equal to 1"),
        ({"num_pathway": 2.5}, "valid integer"),
        ({"iou_thre": 1.5}, "less than or equal to 1"),
        ({"uncertainty": -1}, "greater than or equal to 0"),
        ({"uncertainty": float("inf")}, "finite"),
        ({"preset": "paper"}, "'readme' or 'script'"),
        ({"preset": ["readme"]}, "'readme' or 'script'"),
        ({"compat": "fixed"}, "'published' or 'corrected'"),
        ({"memory_temporal_stride_for_eval": 2}, "selects frames by their predicted IoU"),
        ({"num_maskmem": 0}, "skips memory attention"),
        ({"num_path": 3}, "not permitted"),
    ],
)
def test_impossible_settings_are_refused_at_planning(setting: dict, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(**setting)


def test_track_script(clip: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Late objects without a flag for them, settings by flags of their own, and pieces."""
    command = ["track.py", "--tracker", "sam2long", "--device", "cpu"]
    command += ["--checkpoint", checkpoint.path, "--config", checkpoint.config]
    command += ["--base_video_dir", f"{clip}/frames", "--input_mask_dir", f"{clip}/late"]
    command += ["--output_mask_dir", f"{tmp_path}/out"]
    command += ["--num_pathway", 2, "--uncertainty", 1000, "--num_chunks", 2]
    empty = run_script(*command, "--chunk_id", 1)
    assert empty.returncode == 0 and "none is left" in empty.stderr and not (tmp_path / "out").exists()
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    settings = Settings(num_pathway=2, uncertainty=UNDECIDED)
    expected, _ = run(checkpoint, video_of(clip, "late", late_objects=True), settings)
    got = {int(path.stem): read_label_map(path)[0] for path in sorted((tmp_path / "out/v").glob("*.png"))}
    assert list(got) == list(range(FRAMES)) and all(np.array_equal(got[t], expected[t]) for t in got)
    assert any(2 in got[t] for t in got)
