"""RDE-VOS on videos that are unlike most: each is tracked as by the method done plainly, whatever shares a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from tests.unit import threads, tiny_rde
from tests.unit.clips import save_label_map
from tests.unit.plain_rde import PlainRde
from vosflow.datasets.folder import folder_manifest
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde import Settings, tracking
from vosflow.trackers.rde.checkpoint import build_network
from vosflow.trackers.rde.computing import Computing
from vosflow.trackers.rde.images import Frame
from vosflow.trackers.rde.network import Features, RdeNetwork
from vosflow.trackers.rde.tracking import Tracking
from vosflow.video import Video

one_thread, weights, checkpoint = threads.one_thread, tiny_rde.weights, tiny_rde.checkpoint

Box = tuple[int, int, int, int]
"""Rows from and to, columns from and to."""
EVERYWHERE = (0, 1_000, 0, 1_000)


@dataclass(frozen=True)
class Case:
    """A video of noise, and what is given on it.

    Attributes:
        size: (height, width) of its frames.
        frames: how many.
        given: {frame: masks of the objects that are given on it}; objects are counted in this order.
        settings: of the tracker.
    """

    size: tuple[int, int]
    frames: int
    given: Mapping[int, Sequence[Box]]
    settings: Mapping[str, object]

    def first(self) -> list[int]:
        """The frame on which each object is given."""
        return [frame for frame, boxes in self.given.items() for _ in boxes]


def grid(rows: int, columns: int) -> list[Box]:
    """Boxes of 8 x 10 pixels beside each other."""
    return [(9 * r, 9 * r + 8, 11 * c, 11 * c + 10) for r in range(rows) for c in range(columns)]


LATE = {"policy": "youtube", "mem_every": 2, "top_k": 7}
TOGETHER = {"policy": "davis", "mem_every": 2, "top_k": 7}
BOXES = [(2, 20, 3, 25), (22, 38, 20, 44)]
CASES = {
    "one frame": Case((40, 50), 1, {0: BOXES}, TOGETHER),
    "one object": Case((40, 50), 5, {0: BOXES[:1]}, TOGETHER),
    "twelve objects": Case((40, 50), 3, {0: grid(3, 4)}, {**TOGETHER, "mem_every": 1}),
    "twelve objects, one after the other": Case(
        (40, 50), 4, {t: grid(3, 4)[3 * t : 3 * t + 3] for t in range(4)}, LATE
    ),
    "objects of one pixel": Case((40, 50), 5, {0: [(0, 1, 0, 1), (39, 40, 49, 50)], 2: [(17, 18, 30, 31)]}, LATE),
    "an object that is lost when frames are resized": Case(
        (66, 74), 5, {0: [(2, 30, 3, 40), (35, 36, 45, 46)]}, {**TOGETHER, "short_side": 33}
    ),
    "an object that covers the others": Case((40, 50), 5, {0: BOXES, 2: [EVERYWHERE]}, LATE),
    "an object that covers everything": Case((40, 50), 5, {0: [EVERYWHERE]}, TOGETHER),
    "an object on the last frame": Case((40, 50), 5, {0: BOXES[:1], 4: BOXES[1:]}, LATE),
    "all objects on the last frame": Case((40, 50), 5, {4: BOXES}, LATE),
    "all objects on a later frame": Case((40, 50), 8, {2: BOXES}, {**TOGETHER, "mem_every": 3}),
    "an object on each frame": Case(
        (40, 50), 4, {t: [box] for t, box in enumerate(grid(2, 2))}, {**LATE, "mem_every": 1}
    ),
    "more places to read than there are": Case((40, 50), 5, {0: BOXES}, {**TOGETHER, "top_k": 1_000}),
    "nothing is remembered": Case((40, 50), 5, {0: BOXES}, {**TOGETHER, "mem_every": 100}),
    "all is remembered": Case((40, 50), 5, {0: BOXES}, {**TOGETHER, "mem_every": 1, "mode": "stm"}),
    "an odd number of places": Case((33, 71), 5, {0: [(2, 20, 3, 25), (22, 31, 20, 64)]}, TOGETHER),
    "an upright video, resized": Case(
        (61, 37), 5, {0: [(2, 20, 3, 25)], 1: [(22, 60, 20, 36)]}, {**LATE, "short_side": 41}
    ),
    "sides that are multiples of 16": Case((32, 48), 5, {0: [(2, 20, 3, 25)]}, TOGETHER),
}


def make_video(case: Case, folder: Path) -> Video:
    """Write the case's frames and label maps, and take them as a tracker does."""
    rng = np.random.default_rng(5)
    height, width = case.size
    number = 0
    for t in range(case.frames):
        coarse = rng.integers(0, 255, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
        path = folder / "frames" / "video" / f"{t:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((width, height)).save(path)
        label_map = np.zeros(case.size, np.uint8)
        for top, bottom, left, right in case.given.get(t, ()):
            number += 1
            label_map[top:bottom, left:right] = number
        if t in case.given:
            save_label_map(folder / "masks" / "video" / f"{t:05d}.png", label_map)
    late = list(case.given) != [0]
    return Video.of(folder_manifest(folder / "frames", folder / "masks", late_objects=late), "video")


def done_plainly(case: Case, video: Video, weights: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """{t: probabilities [1 + all objects, H, W]} by tests/unit/plain_rde.py, on frames as torchvision makes them."""
    settings = Settings(**case.settings)
    images = torch.stack([TF.to_image(video.read_frame(t).copy()) for t in range(len(video))]).float() / 255
    images = TF.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    prompts = sorted(video.prompts, key=lambda prompt: prompt.object)
    masks = torch.stack([torch.from_numpy(video.read_prompt(prompt)).float() for prompt in prompts])
    if settings.short_side is not None:
        images = TF.resize(images, [settings.short_side], InterpolationMode.BICUBIC, antialias=False)
        masks = TF.resize(masks, [settings.short_side], InterpolationMode.NEAREST)
    down, across = (-side % 16 for side in images.shape[-2:])
    padding = [across // 2, down // 2, across - across // 2, down - down // 2]
    images, masks = TF.pad(images, padding), TF.pad(masks, padding)
    method, first = PlainRde(weights, settings.mode, settings.mem_every, settings.top_k), case.first()
    if settings.policy == "youtube":
        return method.youtube(images, masks, first)
    return {first[0] + t: p for t, p in enumerate(method.davis(images[first[0] :], masks))}


def track(checkpoint: Checkpoint, case: Case, video: Video, computing: Computing) -> dict[int, tuple[Tensor, Tensor]]:
    """{t: (probabilities, label map)}."""
    settings = Settings(**case.settings)
    network = computing.prepare(build_network(checkpoint, settings.mode)[0])
    work = Tracking(network, computing, video, settings)
    return {index: (p, work.frame.label_map(p, work.ids)) for index, p in work.run()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_is_tracked_as_by_the_method_done_plainly(case, weights, checkpoint, tmp_path, monkeypatch):
    video = make_video(case, tmp_path)
    expected = done_plainly(case, video, weights)
    alone = track(checkpoint, case, video, Computing("cpu"))
    monkeypatch.setattr(tracking, "FRAMES_AHEAD", 2)
    monkeypatch.setattr(tracking, "READERS", {"cpu": 3})
    shared = track(checkpoint, case, video, Computing("cpu", objects_at_once=5, frames_at_once=3))
    first = case.first()
    assert list(alone) == list(shared) == list(range(first[0], case.frames))
    for t, (probabilities, label_map) in alone.items():
        rows = [0, *(1 + k for k, start in enumerate(first) if start <= t)]
        assert probabilities.shape == expected[t][rows].shape
        assert (probabilities - expected[t][rows]).abs().max() < 1e-5
        assert (shared[t][0] - probabilities).abs().max() < 1e-5
        assert torch.allclose(probabilities.sum(0), torch.ones(()), atol=1e-6)
        assert label_map.shape == case.size and label_map.dtype == torch.uint8
        assert set(label_map.unique().tolist()) <= set(rows)


@pytest.mark.parametrize("size", [(16, 40), (40, 9)])
def test_frames_too_small_for_sam_are_refused_by_name(size, checkpoint, tmp_path):
    case = Case(size, 3, {0: [(2, 9, 2, 8)]}, TOGETHER)
    video = make_video(case, tmp_path)
    with pytest.raises(VosflowError, match=f"video video are {size[1]}x{size[0]} pixels, too small for mode") as error:
        track(checkpoint, case, video, Computing("cpu"))
    assert "short_side" in str(error.value) and "mode: stm" in str(error.value)
    for change in ({"mode": "stm"}, {"short_side": 32}):
        assert len(track(checkpoint, replace(case, settings={**TOGETHER, **change}), video, Computing("cpu"))) == 3


def test_a_new_object_takes_its_place_from_others_that_are_sure_of_it(checkpoint, tmp_path, monkeypatch):
    """Soft aggregation alone would leave both with one half."""

    def sure(self: RdeNetwork, readout: Tensor, features: Features) -> Tensor:
        return torch.full((len(readout), 16 * readout.shape[2], 16 * readout.shape[3]), 30.0)

    monkeypatch.setattr(RdeNetwork, "decode", sure)
    case = Case((40, 50), 4, {0: BOXES[:1], 2: BOXES[1:]}, LATE)
    _, label_map = track(checkpoint, case, make_video(case, tmp_path), Computing("cpu"))[2]
    top, bottom, left, right = BOXES[1]
    expected = torch.ones(case.size, dtype=torch.uint8)
    expected[top:bottom, left:right] = 2
    assert torch.equal(label_map, expected)


def test_frames_that_do_not_change_are_tracked(weights, checkpoint, tmp_path):
    """All remembered keys are the same then: which of these places are read, nothing decides. Masks stay masks."""
    case = Case((40, 50), 6, {0: BOXES}, TOGETHER)
    video = make_video(case, tmp_path)
    video.read_frame = lambda index: np.zeros((*case.size, 3), np.uint8)
    results = track(checkpoint, case, video, Computing("cpu"))
    assert len(results) == 6 and all(torch.isfinite(p).all() for p, _ in results.values())


@given(st.integers(8, 70), st.integers(8, 70), st.none() | st.integers(32, 50))
def test_frames_of_any_size_are_padded_and_cut_again(height, width, short_side):
    frame = Frame.of(height, width, short_side)
    left, right, top, bottom = frame.padding
    padded = frame.size[0] + top + bottom, frame.size[1] + left + right
    assert not any(side % 16 for side in padded)
    assert left <= right <= left + 1 <= 8 and top <= bottom <= top + 1 <= 8
    assert short_side in (None, min(frame.size))
    assert frame.image(np.zeros((height, width, 3), np.uint8)).shape == (3, *padded)
    mask = np.random.default_rng(0).random((height, width)) < 0.5
    given_mask = frame.mask(mask)
    label_map = frame.label_map(torch.stack([1 - given_mask, given_mask]), torch.tensor([0, 5], dtype=torch.uint8))
    assert label_map.shape == mask.shape
    assert frame.size != mask.shape or np.array_equal(label_map, mask * 5)
