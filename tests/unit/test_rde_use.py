"""RDE-VOS as it is used: weights of every kind, presets, the engine, the command line, published numbers."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.unit import threads, tiny_rde
from tests.unit.tiny_rde import FRAMES, OBJECTS, save_checkpoint, video_of
from vosflow.datasets.folder import folder_manifest
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.masks import read_label_map
from vosflow.method import Method
from vosflow.report import published
from vosflow.report.results import non_default_settings, written_settings
from vosflow.study import load_study
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde import RdeTracker, Settings
from vosflow.trackers.rde.checkpoint import build_network
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.trackers.rde.tracking import _arriving

TRACK = Path(__file__).parents[2] / "scripts" / "track.py"
SMALL = {"mem_every": 2, "top_k": 7}


one_thread, clip, weights, checkpoint = threads.one_thread, tiny_rde.clip, tiny_rde.weights, tiny_rde.checkpoint


# -- checkpoints


def test_the_network_has_the_official_names_and_shapes():
    """The digest is of the state dict of the authors' network at 548a889: sorted lines of "name (shape)"."""
    with torch.device("meta"):
        state = RdeNetwork().state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    assert len(lines) == 435
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == OFFICIAL


OFFICIAL = "066627c228609f094ce0ea635741d3434e49940aa3497c1c48cde3327fafb5e3"


def stage_0(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As training stage 0 leaves them: no SAM, no input for the others' masks."""
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("mem_compress.")}
    return {**kept, "value_encoder.conv1.weight": kept["value_encoder.conv1.weight"][:, :4]}


def test_weights_of_stage_0_are_refused_by_name_where_sam_is_needed(weights, tmp_path):
    checkpoint = save_checkpoint(stage_0(weights), tmp_path / "stage_0.pth")
    with pytest.raises(VosflowError, match="no SAM .* training stage 0") as error:
        RdeTracker(Settings(), checkpoint, "cpu").load()
    assert "stage_0.pth" in str(error.value) and "--set mode=stm" in str(error.value)


def test_weights_of_stage_0_are_converted_for_stm(clip, weights, tmp_path):
    video = video_of(clip)
    tracker = RdeTracker(Settings(mode="stm", **SMALL), save_checkpoint(stage_0(weights), tmp_path / "s0.pth"), "cpu")
    masks = dict(tracker.track(video))
    assert len(masks) == FRAMES and "stage 0 (4 input channels)" in video.remarks[0]
    zeroed = {**weights, "value_encoder.conv1.weight": weights["value_encoder.conv1.weight"].clone()}
    zeroed["value_encoder.conv1.weight"][:, 4] = 0
    same = RdeTracker(Settings(mode="stm", **SMALL), save_checkpoint(zeroed, tmp_path / "zeroed.pth"), "cpu")
    assert all(np.array_equal(masks[frame], label_map) for frame, label_map in same.track(video_of(clip)))
    assert same._network.mem_compress is None  # what is not used is not compiled, either, and takes no memory


def spoil(weights: dict[str, Tensor], how: str) -> object:
    name = "mem_compress.value_encoder.non_local.W.weight"
    return {
        "one of SAM is missing": {key: tensor for key, tensor in weights.items() if key != name},
        "another shape": {**weights, name: weights[name][:, :1]},
        "SE blocks": {**weights, "mem_compress.key_encoder.se.0.weight": torch.zeros(1)},
        "another network": {"trunk.weight": torch.zeros(1)},
        "keys are a number": {**weights, "key_proj.key_proj.weight": torch.tensor(3.0)},
        "not finite": {**weights, name: weights[name] / 0},
        "no state dict": {"it": 3, "network": [1, 2]},
    }[how]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("one of SAM is missing", "1 missing: mem_compress.value_encoder.non_local.W.weight"),
        ("another shape", "1 of another shape: mem_compress.value_encoder.non_local.W.weight"),
        ("SE blocks", "1 unexpected: mem_compress.key_encoder.se.0.weight"),
        ("another network", "no usable value_encoder.conv1.weight"),
        ("keys are a number", "no usable key_proj.key_proj.weight"),
        ("not finite", "infinite values in 1 of .* .mem_compress.value_encoder.non_local.W.weight"),
        ("no state dict", "does not hold a state dict"),
    ],
)
@pytest.mark.parametrize("mode", ["two-frames-compress", "stm"])
def test_wrong_weights_are_refused(how, words, mode, weights, tmp_path):
    checkpoint = save_checkpoint(spoil(weights, how), tmp_path / "wrong.pth")
    with pytest.raises(VosflowError, match=words) as error:
        RdeTracker(Settings(mode=mode), checkpoint, "cpu").load()
    assert "wrong.pth" in str(error.value)


def test_a_checkpoint_of_training_is_taken(weights, tmp_path):
    network, remarks = build_network(save_checkpoint({"it": 7, "network": weights}, tmp_path / "t.pth"), "compress")
    assert remarks == [] and all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "half.pth"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(VosflowError, match="half.pth: the checkpoint is unreadable"):
        RdeTracker(Settings(), Checkpoint("half", path, ""), "cpu").load()


# -- settings, outputs


def test_presets_are_the_commands_of_the_authors():
    values = {p: Settings(preset=p).model_dump() for p in ("davis2017", "davis2016", "youtubevos2019")}
    assert all((v["mode"], v["speed"]) == ("two-frames-compress", "exact") for v in values.values())
    assert [(v["mem_every"], v["top_k"]) for v in values.values()] == [(3, 40), (3, 40), (4, 20)]
    assert [(v["policy"], v["short_side"]) for v in values.values()] == [("davis", None)] * 2 + [("youtube", 480)]
    assert [v["frames"] for v in values.values()] == ["all", "all", "required"]
    assert Settings() == Settings(preset="davis2017").model_copy(update={"preset": None}) and Settings().notes() == []
    assert "but top_k=50" in Settings(preset="davis2016", top_k=50).notes()[0]
    assert "but" not in Settings(preset="davis2016", top_k=40).notes()[0]


@pytest.mark.parametrize("given", [{}, {"preset": "davis2016"}, {"preset": "youtubevos2019", "top_k": 40}])
def test_tables_name_the_preset_and_what_is_not_of_it(given):
    assert written_settings("rde", Settings(**given).model_dump(mode="json")) == given


@pytest.mark.parametrize("wrong", [{"preset": "davis"}, {"mode": "exact"}, {"mem_every": 0}, {"top_k": 2.5}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_each_label_map_comes_with_its_frame_once_the_next_is_under_way():
    begun = []

    def label_maps() -> Iterator[tuple[int, Tensor]]:
        for index in (2, 5, 6):
            begun.append(index)
            yield index, torch.tensor([[index]], dtype=torch.uint8)

    came = [(index, label_map.item(), len(begun)) for index, label_map in _arriving(label_maps())]
    assert came == [(2, 2, 2), (5, 5, 3), (6, 6, 3)]
    assert list(_arriving(iter(()))) == []


def test_one_png_per_object(clip, checkpoint):
    video = video_of(clip)
    label_maps = dict(RdeTracker(Settings(**SMALL), checkpoint, "cpu").track(video))
    video.layout = "per_object"
    for frame, masks in RdeTracker(Settings(**SMALL), checkpoint, "cpu").track(video):
        assert set(masks) == set(OBJECTS)
        assert all(np.array_equal(mask, label_maps[frame] == k) for k, mask in masks.items())


def test_ids_that_no_label_map_of_8_bits_holds(clip, checkpoint):
    video = video_of(clip)
    tracker, read = RdeTracker(Settings(**SMALL), checkpoint, "cpu"), video.read_prompt
    label_maps = dict(tracker.track(video))
    video.layout, video.objects = "per_object", tuple(k + 300 for k in OBJECTS)
    video.prompts = tuple(replace(prompt, object=prompt.object + 300) for prompt in video.prompts)
    video.read_prompt = lambda prompt: read(replace(prompt, object=prompt.object - 300))
    for frame, masks in tracker.track(video):
        assert all(np.array_equal(masks[k + 300], label_maps[frame] == k) for k in OBJECTS)


def test_published_numbers_are_of_the_authors_memory_mode(monkeypatch):
    monkeypatch.setattr(published, "_missing", lambda run: iter(()))

    def comparisons(checkpoint: str, **given: object) -> list[published.Comparison]:
        return published.compare(result(checkpoint, "davis2017/val", {"J&F-Mean": 0.82, "J-Mean": 0.8}, **given))

    fast = {"speed": "fast", "precision": "bfloat16", "compile": False}
    for chosen in ({}, {"preset": "davis2017"}, fast):
        values = {c.row.value: c for c in comparisons("rde_s03", **chosen) if c.row.metric == "J&F" and not c.reasons}
        assert set(values) == {84.2, 82.1} and all("82.1" in c.row.note for c in values.values())
        found = [c for c in comparisons("rde_s012", **chosen) if c.row.metric == "J&F"]
        assert [(c.row.value, bool(c.reasons)) for c in found] == [(86.1, False), (85.7, True)]
    other = ("other settings here: mode=gt-compress (published: default)",)
    assert all(c.reasons == other for c in comparisons("rde_s03", mode="gt-compress"))


def test_what_servers_gave_the_authors_stands_beside_submissions(monkeypatch):
    monkeypatch.setattr(published, "_missing", lambda run: iter(()))

    def found(*run: object, **settings: object) -> dict[tuple[str, float], list[str]]:
        return {(row.metric, row.value): reasons for row, reasons in published.awaited(result(*run, **settings))}

    test_dev = found("rde_s012", "davis2017/test-dev", None, preset="davis2017")
    assert [test_dev["J&F", value] == [] for value in (78.9, 79.2)] == [True, False]
    assert test_dev["F", 82.9] == []
    preset = {"preset": "youtubevos2019"}
    youtube = found("rde_s012_yv", "youtubevos2019/valid_all_frames", None, **preset)
    assert youtube["J-unseen", 78.0] == [] and youtube["G", 81.9] == ["other weights: trained without BL30K"]
    assert found("rde_s012_yv", "youtubevos2019/valid", None, **preset) == youtube
    other = found("rde_s012_yv", "youtubevos2019/valid", None, **{**preset, "top_k": 40})
    assert other["G", 83.3] == ["other settings here: top_k=40 (published: 20)"]
    assert found("rde_s012", "davis2017/val", {"J&F-Mean": 0.8}) == {}


def result(checkpoint: str, dataset: str, scores: dict[str, float] | None, **settings: object) -> SimpleNamespace:
    """What comparisons look at in a run's result."""
    name, split = dataset.split("/")
    values = Settings(**settings).model_dump()
    return SimpleNamespace(
        tracker="rde",
        checkpoint=checkpoint,
        description={"dataset": name, "split": split, "protocol": "davis2017", "settings": values},
        scores=scores,
        changed_settings=non_default_settings("rde", values),
    )


def test_where_objects_may_come_late_the_davis_policy_is_refused_at_planning(clip):
    files = {"base_video_dir": str(clip / "frames"), "input_mask_dir": str(clip / "late")}

    def plan(dataset: str, late: bool = True, **settings: object) -> list[str]:
        line = {"dataset": dataset, "tracker": "rde", "checkpoint": "rde_s012", "settings": settings}
        datasets = {"mine/all": {**files, "late_objects": late}}
        return [run.settings["policy"] for run in load_study({"runs": [line], "datasets": datasets}).runs]

    for dataset in ("mine/all", "lvos_v2/valid"):
        with pytest.raises(VosflowError, match="objects may be given on later frames here, which rde") as caught:
            plan(dataset, preset="davis2017")
        assert f"dataset: {dataset}" in str(caught.value) and "only policy: youtube" in caught.value.expected
        assert plan(dataset, policy="youtube") == plan(dataset, preset="youtubevos2019") == ["youtube"]
    assert plan("mine/all", late=False) == ["davis"]


def test_the_engine_takes_the_required_frames_alone(clip, checkpoint, tmp_path):
    whole = folder_manifest(clip / "frames", clip / "late", late_objects=True)
    required = ("00000", "00004", "00007")
    manifest = replace(whole, videos=(replace(whole.videos[0], required=required),))
    settings = {"preset": "youtubevos2019", "short_side": 40, **SMALL}
    method = Method.of("rde", settings, {"id": "narrow", "path": str(checkpoint.path)})
    track_videos(method, manifest, ["clip"], tmp_path)
    assert tuple(path.stem for path in sorted((tmp_path / "masks" / "clip").iterdir())) == required
    assert manifest.tracking_view("clip") != whole.tracking_view("clip")  # or the finished masks would stay


def test_track_by_hand(clip, checkpoint, tmp_path):
    command = [sys.executable, str(TRACK), "--tracker", "rde", "--checkpoint", str(checkpoint.path), "--device", "cpu"]
    command += ["--base_video_dir", str(clip / "frames"), "--input_mask_dir", str(clip / "together")]
    command += ["--output_mask_dir", str(tmp_path / "masks")]
    command += ["--set", "preset=davis2017", "--set", "mode=gt-compress", "mem_every=2", "top_k=7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "preset davis2017" in done.stderr and "mode=gt-compress" in done.stderr
    settings = Settings(mode="gt-compress", **SMALL)
    for frame, label_map in RdeTracker(settings, replace(checkpoint), "cpu").track(video_of(clip)):
        assert np.array_equal(read_label_map(tmp_path / "masks" / "clip" / f"{frame}.png")[0], label_map)
