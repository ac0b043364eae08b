"""SAM 2's two modes: exact depends on no threads and no eviction; fast shares calls, among fewer objects if it must."""

from __future__ import annotations

import io
import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.unit.clips import moving_boxes, save_label_map
from tests.unit.test_sam2 import authors, checkpoint, run
from tests.unit.threads import one_thread
from tests.unit.tiny_sam2 import FRAMES, clip, video_of
from tests.unit.toy_tracker import all_bytes
from vosflow import mask_writer
from vosflow.ahead import Behind
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.masks import merge_objects
from vosflow.method import Method
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam2 import Sam2Tracker, Settings, modes, session, tracking
from vosflow.trackers.sam2.memory import ObjectMemory
from vosflow.trackers.sam2.modes import Mode, resolve_mode
from vosflow.trackers.sam2.steps import Steps

__all__ = ["checkpoint", "clip", "one_thread"]  # fixtures

LONG = 42


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One video of two objects, several times as long as the memory; object 2 appears on frame 20."""
    folder = tmp_path_factory.mktemp("long")
    images, label_maps = (np.concatenate([part] * 6) for part in moving_boxes(LONG // 6))
    for t, (image, label_map) in enumerate(zip(images, label_maps, strict=True)):
        (folder / "frames/v").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"frames/v/{t:05d}.jpg", quality=90)
        if t == 0:
            save_label_map(folder / f"late/v/{t:05d}.png", np.where(label_map == 2, 0, label_map).astype(np.uint8))
        if t == 20:
            save_label_map(folder / f"late/v/{t:05d}.png", label_map)
    return folder


def files(clip: Path, masks: str, checkpoint: Checkpoint, folder: Path, **settings: object) -> dict[str, bytes]:
    """The mask files of a run of the engine."""
    weights = {"id": "tiny", "path": str(checkpoint.path), "config": checkpoint.config}
    manifest = folder_manifest(clip / "frames", clip / masks, late_objects=True)
    track_videos(Method.of("sam2", settings, weights), manifest, ["v"], folder)
    return all_bytes(folder)


class AtOnce(Behind):
    """Writes in the caller's thread."""

    def call(self, function, *arguments):
        function(*arguments)


@pytest.mark.parametrize("settings", [{}, {"num_maskmem": 4, "memory_temporal_stride_for_eval": 3}, {"num_maskmem": 1}])
@pytest.mark.parametrize("length", ["short", "long"])
def test_exact_is_the_same_without_threads_and_with_all_memories(
    length: str, settings: dict, clip: Path, long_clip: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch
) -> None:
    folder = clip if length == "short" else long_clip
    expected = files(folder, "late", checkpoint, tmp_path / "as it is", **settings)

    def remember_all(self: ObjectMemory, index: int, memory: torch.Tensor | None, pointer: torch.Tensor) -> None:
        self._pointers[index] = pointer
        if memory is not None:
            self._memories[index] = memory

    monkeypatch.setattr(ObjectMemory, "remember", remember_all)
    monkeypatch.setattr(session, "ahead", lambda function, items, **_: (function(item) for item in items))
    monkeypatch.setattr(mask_writer, "Behind", AtOnce)
    plain = files(folder, "late", checkpoint, tmp_path / "plain", **settings)
    assert plain == expected and len(plain) == (FRAMES if length == "short" else LONG)


def test_a_long_video_is_as_the_authors_track_it(long_clip: Path, checkpoint: Checkpoint, monkeypatch) -> None:
    monkeypatch.setattr("tests.unit.test_sam2.FRAMES", LONG)
    expected = authors(long_clip, "late", checkpoint, late=True)
    got = run(checkpoint, video_of(long_clip, "late", late_objects=True))
    assert all(np.array_equal(got[t], merge_objects(masks, *masks[1].shape)) for t, masks in expected.items())
    assert len(got) == LONG


def test_the_memory_holds_what_is_still_read_and_no_more(clip: Path, checkpoint: Checkpoint, monkeypatch) -> None:
    """Every memory that is kept is read by the next frame or a later one, and what is read is there."""
    made: list[ObjectMemory] = []

    class Watched(ObjectMemory):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(tracking, "ObjectMemory", Watched)
    for size, stride, memories in ((7, 1, 6), (3, 1, 2), (2, 1, 1), (1, 1, 0), (4, 3, 3)):
        made.clear()
        settings = {"num_maskmem": size, "memory_temporal_stride_for_eval": stride, "max_obj_ptrs_in_encoder": 4}
        frames = Sam2Tracker(Settings(**settings), checkpoint, "cpu").track(video_of(clip, "together"))
        for _ in zip(range(FRAMES - 1), frames, strict=False):
            pass
        assert [(len(memory._memories), len(memory._pointers)) for memory in made] == [(memories, 3)] * 3, size
        frames.close()


@pytest.mark.parametrize(("mode", "most"), [("exact", 1), ("fast", 3)])
def test_of_objects_that_share_no_call_one_has_its_memory_put_together(
    mode: str, most: int, clip: Path, checkpoint: Checkpoint, monkeypatch
) -> None:
    """It is many times as large as what else is kept of an object for a frame."""
    real, made, alive = Steps.attended, [], []

    def attended(self: Steps, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        memory, positions = real(self, *arguments)
        made.append(weakref.ref(memory))
        alive.append(sum(one() is not None for one in made))
        return memory, positions

    monkeypatch.setattr(Steps, "attended", attended)
    run(checkpoint, video_of(clip, "together"), mode=mode)
    assert max(alive) == most


@pytest.mark.parametrize(("settings", "encoded"), [({}, FRAMES - 1), ({"num_maskmem": 1}, 1)])
def test_no_memory_is_encoded_that_nobody_reads(settings: dict, encoded: int, clip, checkpoint, monkeypatch) -> None:
    real, calls = Steps.encode_memory, []
    monkeypatch.setattr(Steps, "encode_memory", lambda self, *a, **k: calls.append(len(a[1])) or real(self, *a, **k))
    run(checkpoint, video_of(clip, "together"), **settings)
    assert calls == [1] * 3 * encoded  # three objects; not on the last frame


def test_automatic_mixed_precision_is_the_authors(clip: Path, checkpoint: Checkpoint) -> None:
    """Weights that are rounded once give the pixels of weights that are rounded at each use."""
    with torch.autocast("cpu", torch.bfloat16):
        expected = authors(clip, "together", checkpoint)
    got = run(checkpoint, video_of(clip, "together"), precision="bfloat16")
    assert all(np.array_equal(got[t], merge_objects(masks, *masks[1].shape)) for t, masks in expected.items())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many objects each call of the decoder had."""
    real, calls = Steps.decode, []
    monkeypatch.setattr(Steps, "decode", lambda self, f, pixels: calls.append(len(pixels)) or real(self, f, pixels))
    return calls


def equal_share(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> float:
    assert list(one) == list(other)
    return float(np.mean([one[t] == other[t] for t in one]))


def test_fast_gives_all_objects_to_one_call(clip: Path, checkpoint: Checkpoint, decoded: list[int]) -> None:
    video = video_of(clip, "together")
    fast = run(checkpoint, video, mode="fast")
    assert decoded == [3] * (FRAMES - 1)
    decoded.clear()
    exact = run(checkpoint, video)
    assert decoded == [1] * 3 * (FRAMES - 1)
    assert equal_share(fast, exact) > 0.999


def test_objects_that_share_a_call_stay_apart(clip: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A network may say that memories must not overlap: to the authors' predictor, object by object, that is void."""
    config = OmegaConf.load(checkpoint.config)
    config.model.non_overlap_masks_for_mem_enc = True
    OmegaConf.save(config, tmp_path / "apart.yaml")
    video = video_of(clip, "together")
    expected = run(checkpoint, video)
    apart = replace(checkpoint, config=str(tmp_path / "apart.yaml"))
    assert equal_share(run(apart, video), expected) == 1
    assert equal_share(run(apart, video, mode="fast"), expected) > 0.999


def test_late_objects_join_when_their_memory_is_as_full(
    long_clip: Path, checkpoint: Checkpoint, decoded: list[int]
) -> None:
    video = video_of(long_clip, "late", late_objects=True)
    fast = run(checkpoint, video, mode="fast")
    alone, full = 19, 15  # frames before object 2 appears, and until 15 pointers are there
    assert decoded[:alone] == [1] * alone and decoded[-(LONG - 21 - full) :] == [2] * (LONG - 21 - full)
    assert sum(decoded) == (LONG - 1) + (LONG - 21)
    assert equal_share(fast, run(checkpoint, video)) > 0.99


@pytest.mark.parametrize("masks", ["together", "late", "sparse", "later"])
def test_frames_that_are_encoded_together(masks: str, clip: Path, checkpoint: Checkpoint, monkeypatch) -> None:
    """As on a GPU."""
    real, calls = Steps.encode_images, []
    monkeypatch.setattr(Steps, "encode_images", lambda self, images: calls.append(len(images)) or real(self, images))
    video = video_of(clip, masks, late_objects=masks in ("late", "later"), use_all_masks=masks == "sparse")
    expected = run(checkpoint, video)
    calls.clear()
    monkeypatch.setattr(modes, "resolve_mode", lambda *_: Mode("float32", 1, 4))
    got = run(checkpoint, video, mode="fast")
    assert equal_share(got, expected) > 0.999
    assert calls == {"sparse": [1, 4, 4, 2], "later": [2, 4, 2]}.get(masks, [4, 4, 2])


def out_of_memory_above(limit: int, monkeypatch: pytest.MonkeyPatch, method: str = "attend", argument: int = 2) -> list:
    """Have a step of the network run out of memory if it is called for more than `limit` objects (or images)."""
    real, sizes = getattr(Steps, method), []

    def limited(self: Steps, *arguments: object, **named: object) -> object:
        size = arguments[argument - 1].shape[1 if method == "attend" else 0]
        sizes.append(size)
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Steps, method, limited)
    return sizes


@pytest.mark.parametrize("step", ["attend", "decode", "encode_memory", "encode_prompt"])
def test_too_many_objects_for_the_memory(step: str, clip: Path, checkpoint, tmp_path: Path, monkeypatch) -> None:
    """It goes on with fewer at once, for this video; the masks are there, and the record says so."""
    expected = run(checkpoint, video_of(clip, "late", late_objects=True))
    sizes = out_of_memory_above(1, monkeypatch, step)
    written = files(clip, "late", checkpoint, tmp_path / "fast", mode="fast").values()
    got = {t: np.asarray(Image.open(io.BytesIO(content))) for t, content in enumerate(written)}
    assert equal_share(got, expected) > 0.99
    assert sizes.count(2) == 1 and set(sizes) == {1, 2}
    record = json.loads((tmp_path / "fast/videos/v.json").read_text())
    assert record["remarks"] == ["out of memory with 2 objects at once: went on with 1"]


def test_too_many_frames_for_the_memory(clip: Path, checkpoint: Checkpoint, monkeypatch) -> None:
    video = video_of(clip, "together")
    expected = run(checkpoint, video)
    monkeypatch.setattr(modes, "resolve_mode", lambda *_: Mode("float32", 1, 8))
    sizes = out_of_memory_above(3, monkeypatch, "encode_images", 1)
    assert equal_share(run(checkpoint, video, mode="fast"), expected) > 0.999
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    assert video.remarks == [
        "out of memory with 8 frames at once: went on with 4",
        "out of memory with 4 frames at once: went on with 2",
    ]


def test_too_little_memory_for_one_object_is_an_error(clip: Path, checkpoint, tmp_path: Path, monkeypatch) -> None:
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(VosflowError, match="out of memory on cpu while tracking video v"):
        files(clip, "late", checkpoint, tmp_path / "run", mode="fast")
    assert not (tmp_path / "run/masks/v").exists()


@pytest.mark.parametrize(
    ("settings", "image_size", "device", "rounds", "expected"),
    [
        ({}, 1024, "cuda", True, Mode("float32", 1, 1)),
        ({"precision": "bfloat16"}, 1024, "cuda", True, Mode("bfloat16", 1, 1)),
        ({"mode": "fast"}, 1024, "cuda", True, Mode("bfloat16", modes.ALL_OBJECTS, modes.FRAMES_ON_A_GPU)),
        ({"mode": "fast"}, 1024, "cuda", False, Mode("float32", modes.ALL_OBJECTS, modes.FRAMES_ON_A_GPU)),
        ({"mode": "fast", "precision": "float32"}, 512, "cuda", True, Mode("float32", modes.ALL_OBJECTS, 4)),
        ({"mode": "fast"}, 256, "cpu", False, Mode("float32", modes.ALL_OBJECTS, 1)),
        ({"mode": "fast"}, 512, "cpu", False, Mode("float32", 1, 1)),
    ],
)
def test_what_the_modes_mean(settings, image_size, device, rounds, expected, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: rounds)
    assert resolve_mode(Settings(**settings), image_size, device) == expected


def test_mode_and_precision_are_known(clip: Path, checkpoint: Checkpoint, tmp_path: Path) -> None:
    weights = {"id": "tiny", "path": str(checkpoint.path), "config": checkpoint.config}
    exact, fast = (Method.of("sam2", settings, weights) for settings in ({}, {"mode": "fast"}))
    assert exact.key({}, "cpu", "float32") != fast.key({}, "cpu", "float32") and exact.digest != fast.digest
    files(clip, "late", checkpoint, tmp_path, precision="bfloat16")
    assert json.loads((tmp_path / "videos/v.json").read_text())["precision"] == "bfloat16"
    assert "mode fast" in Settings(mode="fast").notes()[0]


def test_a_gpu_that_computes_in_another_precision_does_not_share_keys(
    clip: Path, checkpoint: Checkpoint, tmp_path: Path, monkeypatch
) -> None:
    """Where precision is left open, masks of an old GPU (float32) do not pass for those of a new one (bfloat16)."""
    decide, found = Settings.precision_on, []
    monkeypatch.setattr(Settings, "precision_on", lambda self, _: decide(self, "cuda"))
    for rounds in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, rounds=rounds: rounds)
        given = ({}, {"mode": "fast", "precision": "bfloat16"})
        assert [Settings(**settings).precision_on("cpu") for settings in given] == ["float32", "bfloat16"]
        files(clip, "late", checkpoint, tmp_path, mode="fast")
        record = json.loads((tmp_path / "videos/v.json").read_text())
        found.append((record["precision"], record["key"]))
    assert [precision for precision, _ in found] == ["float32", "bfloat16"] and found[0][1] != found[1][1]
