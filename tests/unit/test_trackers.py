"""The trackers without a network, and what all trackers share: prompts in order, layouts, late objects."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import HEIGHT, WIDTH, make_videos, moving_boxes, save_label_map
from tests.unit.scripts import run_script
from vosflow.errors import VosflowError
from vosflow.manifest import PER_OBJECT, Manifest, Prompt
from vosflow.trackers import flow
from vosflow.trackers.flow import FlowTracker
from vosflow.trackers.prompts import prompts_by_frame
from vosflow.trackers.registry import BUILT_IN, load_tracker
from vosflow.trackers.static import StaticTracker
from vosflow.video import Video

FRAMES = 6


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_videos(tmp_path, {"boxes": FRAMES})


def with_prompts(manifest: Manifest, *prompts: tuple[int, int], **changes: object) -> Video:
    """The video with prompts on (object, frame index), all from the annotations of that frame."""
    entry = manifest.videos[0]
    names = entry.frames.names
    made = tuple(Prompt(k, names[t], f"Annotations/480p/boxes/{names[t]}.png") for k, t in prompts)
    changed = replace(manifest, videos=(replace(entry, prompts=made),), **changes)
    return Video.of(changed, "boxes")


def track(kind: type, video: Video, **settings: object) -> dict:
    return dict(kind(kind.Settings(**settings), None, "cpu").track(video))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.logical_and(a, b).sum() / np.logical_or(a, b).sum()


def test_every_built_in_tracker_has_the_interface() -> None:
    for name in BUILT_IN:
        kind = load_tracker(name)
        assert all(note and isinstance(note, str) for note in kind.Settings().notes())
        assert isinstance(kind.needs_checkpoint, bool) and isinstance(kind.uses_gpu, bool)
        assert callable(kind.load) and callable(kind.track)


def test_planning_imports_no_heavy_library() -> None:
    code = (
        "import sys; from vosflow.trackers.registry import BUILT_IN, load_tracker\n"
        "for name in BUILT_IN: load_tracker(name).Settings()\n"
        "sys.exit(bool({'torch', 'sam2', 'cv2', 'pandas', 'hydra', 'omegaconf'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


def test_static_repeats_the_prompt(manifest: Manifest) -> None:
    _, truth = moving_boxes(FRAMES)
    masks = track(StaticTracker, with_prompts(manifest, (1, 0), (2, 0)))
    assert list(masks) == list(manifest.videos[0].frames.names)
    assert all(np.array_equal(mask, truth[0]) for mask in masks.values())


def test_static_takes_later_prompts_and_late_objects(manifest: Manifest) -> None:
    _, truth = moving_boxes(FRAMES)
    masks = list(track(StaticTracker, with_prompts(manifest, (1, 1), (1, 4), (2, 3), late_objects=True)).values())
    assert len(masks) == FRAMES and not masks[0].any()
    assert np.array_equal(masks[2], np.where(truth[1] == 1, 1, 0))
    assert np.array_equal(masks[5] == 1, truth[4] == 1) and np.array_equal(masks[5] == 2, truth[3] == 2)


@pytest.mark.parametrize("kind", [StaticTracker, FlowTracker])
def test_layout_per_object_may_overlap(kind: type, manifest: Manifest, tmp_path: Path) -> None:
    names = manifest.videos[0].frames.names
    binary = tuple(Prompt(k, names[0], f"overlapping/{k}.png", "binary") for k in (1, 2))
    for k in (1, 2):
        save_label_map(tmp_path / f"overlapping/{k}.png", (moving_boxes(1)[1][0] > 0).astype(np.uint8))
    entry = replace(manifest.videos[0], prompts=binary)
    masks = track(kind, Video.of(replace(manifest, videos=(entry,), layout=PER_OBJECT), "boxes"))
    for frame in masks.values():
        assert list(frame) == [1, 2] and all(
            mask.dtype == bool and mask.shape == (HEIGHT, WIDTH) for mask in frame.values()
        )
        assert frame[1].any() and np.array_equal(frame[1], frame[2])


@pytest.mark.parametrize("preset", ["fast", "medium"])
def test_flow_follows_moving_boxes(manifest: Manifest, preset: str) -> None:
    _, truth = moving_boxes(FRAMES)
    masks = list(track(FlowTracker, with_prompts(manifest, (1, 0), (2, 0)), preset=preset).values())
    still = iou(truth[-1] == 1, truth[0] == 1)
    assert np.array_equal(masks[0], truth[0])
    assert iou(masks[-1] == 1, truth[-1] == 1) > max(0.6, still + 0.1)
    assert iou(masks[-1] == 2, truth[-1] == 2) > max(0.6, still + 0.1)


def test_flow_is_deterministic_and_leaves_opencv_as_it_was(manifest: Manifest) -> None:
    video = with_prompts(manifest, (1, 0), (2, 0))
    before = cv2.getNumThreads()
    tracked = FlowTracker(FlowTracker.Settings(), None, "cpu").track(video)
    first = [next(tracked)[1]]
    assert cv2.getNumThreads() == before  # also between frames
    first += [mask for _, mask in tracked]
    assert np.array_equal(first, list(track(FlowTracker, video).values()))


def test_flow_takes_late_objects_and_later_prompts(manifest: Manifest) -> None:
    _, truth = moving_boxes(FRAMES)
    video = with_prompts(manifest, (1, 1), (2, 3), (1, 4), late_objects=True)
    masks = list(track(FlowTracker, video).values())
    assert len(masks) == FRAMES and not masks[0].any()
    assert set(np.unique(masks[2])) == {0, 1} and np.array_equal(masks[3] == 2, truth[3] == 2)
    assert np.array_equal(masks[4] == 1, truth[4] == 1)


def test_flow_keeps_small_objects_on_long_ways() -> None:
    """A 3 x 3 object under a flow of a third of a pixel per frame: rounding at each frame would freeze or lose it."""
    small = np.zeros((40, 60), np.float32)
    small[20:23, 10:13] = 1
    field = flow._identity(40, 60)
    steps = flow._identity(40, 60) - np.float32([1 / 3, 0])
    for _ in range(90):
        field = flow._follow(field, steps)
    assert field[20, :, 0] == pytest.approx(np.arange(60) - 30, abs=0.1)
    moved = flow._sample(small, field)
    assert moved[20:23, 40:43].min() > 0.9 and moved.sum() == pytest.approx(9, abs=0.1)


def test_flow_does_not_smear_what_enters_the_frame() -> None:
    """An object that touches the left border, while the camera pans: what comes in behind it is background."""
    touching = np.zeros((40, 60), np.float32)
    touching[:, :5] = 1
    field = flow._follow(flow._identity(40, 60), flow._identity(40, 60) - np.float32([4, 0]))
    assert np.array_equal(np.flatnonzero(flow._sample(touching, field)[20] > 0.5), np.arange(4, 9))


def test_flow_finds_an_object_again_when_the_camera_pans_back() -> None:
    at_the_border = np.zeros((40, 60), np.float32)
    at_the_border[:, :5] = 1
    field = flow._identity(40, 60)
    for pan in (-8, 8):
        field = flow._follow(field, flow._identity(40, 60) - np.float32([pan, 0]))
    assert np.array_equal(flow._sample(at_the_border, field), at_the_border)


@pytest.mark.parametrize("size", [(16, 16), (16, 40), (17, 33), (16, 300), (240, 640), (300, 16)])
def test_flow_survives_small_and_flat_frames(size: tuple[int, int]) -> None:
    """OpenCV's DIS crashes on some of these sizes, see `_backward_coordinates`."""
    image = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    coordinates = flow._backward_coordinates(image, image, "medium")
    assert coordinates.shape == (*size, 2) and np.isfinite(coordinates).all()


def test_flow_refuses_frames_without_room_for_a_patch(manifest: Manifest) -> None:
    entry = replace(manifest.videos[0], height=9, width=64)
    with pytest.raises(VosflowError, match="64x9 pixels"):
        track(FlowTracker, Video.of(replace(manifest, videos=(entry,)), "boxes"))


def test_prompts_come_in_temporal_order(manifest: Manifest) -> None:
    video = with_prompts(manifest, (2, 0), (1, 4), (1, 0), (2, 2))
    listed = [(index, [prompt.object for prompt in prompts]) for index, prompts in prompts_by_frame(video).items()]
    assert listed == [(0, [1, 2]), (2, [2]), (4, [1])]


def test_prompts_that_contradict_the_dataset_are_refused(manifest: Manifest) -> None:
    with pytest.raises(VosflowError, match="object 2 of video boxes first appears on frame 00003"):
        prompts_by_frame(with_prompts(manifest, (1, 0), (2, 3)))
    assert list(prompts_by_frame(with_prompts(manifest, (1, 0), (2, 3), late_objects=True))) == [0, 3]
    with pytest.raises(VosflowError, match="has no prompt"):
        prompts_by_frame(with_prompts(manifest))
    entry = manifest.videos[0]
    lost = replace(entry, prompts=(replace(entry.prompts[0], frame="00077"),))
    with pytest.raises(VosflowError, match="frame 00077, which the video does not have"):
        prompts_by_frame(Video.of(replace(manifest, videos=(lost,)), "boxes"))


def test_track_script_writes_masks_beside_each_other(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("boxes\n")
    command = ["track.py", "--tracker", "static", "--device", "cpu"]
    command += ["--base_video_dir", f"{tmp_path}/JPEGImages/480p", "--input_mask_dir", f"{tmp_path}/Annotations/480p"]
    command += ["--video_list_file", f"{tmp_path}/list.txt", "--output_mask_dir", f"{tmp_path}/out"]
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "out/boxes").iterdir())
    assert written == [f"{name}.png" for name in manifest.videos[0].frames.names]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out/boxes/00005.png")), moving_boxes(1)[1][0])
    refused = run_script(*command, "--set", "presett=fast")
    assert refused.returncode == 1 and "presett" in refused.stderr and "Traceback" not in refused.stderr
    assert run_script(*command, "--set", "preset").returncode == 1
    before = (tmp_path / "Annotations/480p/boxes/00005.png").read_bytes()
    refused = run_script(*command[:-1], f"{tmp_path}/Annotations/480p", "--overwrite")
    assert refused.returncode == 1 and "would replace the files of the dataset" in refused.stderr
    assert (tmp_path / "Annotations/480p/boxes/00005.png").read_bytes() == before
