"""Training of RDE-VOS that goes on: after numbers that are not finite, full disks, kills, and elsewhere."""

from __future__ import annotations

import errno
import itertools
import json
import multiprocessing
import os
import resource
import shutil
import signal
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event
from torch.distributed.run import main as torchrun

from tests.unit import tiny_rde
from tests.unit.tiny_rde import check_same_but_for_rounding, curve, make_still_images, same_weights, stage_plan
from vosflow.errors import DiskError, VosflowError
from vosflow.training.planning import read_plan
from vosflow.training.rde import saving, trainer
from vosflow.training.rde.continuing import check_agreement
from vosflow.training.rde.curves import TensorBoard
from vosflow.training.rde.files import CURVES, PLAN, SETS, WEIGHTS, WORK
from vosflow.training.rde.run import train_alone, train_in_group
from vosflow.training.rde.saving import save_state
from vosflow.training.rde.trainer import StageTraining

HOUSE = Path(__file__).resolve().parents[2]
SHORT = {"iterations": 4, "save_every": 1, "held_out": 0, "milestones": ()}
sets = tiny_rde.sets
denormal_numbers = tiny_rde.denormal_numbers
short_calibration = tiny_rde.short_calibration


@pytest.fixture(scope="module")
def whole(sets, tmp_path_factory) -> Path:
    """A short stage 0, trained without being stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_alone(stage_plan(sets, 0, **SHORT), folder, "cpu")
    return folder


def work_of(folder: Path) -> dict:
    return torch.load(folder / WORK, weights_only=True)


def is_finite(state: dict) -> bool:
    adam = [part for one in state["optimizer"]["state"].values() for part in one.values()]
    return all(bool(torch.isfinite(part).all()) for part in [*state["network"].values(), *adam])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_gradients_that_are_not_finite_change_nothing_and_are_counted(sets, tmp_path, bad):
    """In the iteration before a work file is due, with a finite loss."""
    training = StageTraining(stage_plan(sets, 0, **{**SHORT, "save_every": 2, "clip_gradient": None}), tmp_path)
    weight = training.step.network.decoder.pred.weight
    weight.register_hook(lambda gradient: gradient * (bad if training.iteration == 1 else 1.0))
    (first, second, third) = training._batches(3)
    assert training.update(first)["skipped"] == 0
    before = [parameter.detach().clone() for parameter in training.step.parameters()]
    numbers = training.update(second)
    assert numbers["skipped"] == 1 and torch.isfinite(torch.tensor(numbers["loss"]))
    assert all(torch.equal(old, new) for old, new in zip(before, training.step.parameters(), strict=True))
    training.save()
    assert is_finite(work_of(tmp_path))
    assert training.update(third)["skipped"] == 0


@pytest.fixture
def scaled(monkeypatch) -> None:
    """Losses are scaled as for float16 on a GPU; the scale doubles every second iteration."""
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler("cpu", 2.0**8, growth_interval=2))


def test_the_loss_scale_goes_on_where_it_was(sets, scaled, tmp_path):
    train_alone(stage_plan(sets, 0), tmp_path / "whole", "cpu")
    for stop in (3, None):
        train_alone(stage_plan(sets, 0), tmp_path / "stopped", "cpu", stop_at=stop)
    whole, stopped = (torch.load(tmp_path / name / WORK, weights_only=True) for name in ("whole", "stopped"))
    assert whole["scaler"] == stopped["scaler"] and whole["scaler"]["scale"] == 2.0**11
    assert curve(tmp_path / "whole")[-1] == curve(tmp_path / "stopped")[-1]


def test_a_loss_too_large_for_its_scale_changes_no_weights(sets, scaled, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "BROKEN_STEPS", 1)
    training = StageTraining(stage_plan(sets, 0), tmp_path)
    (batch,) = training._batches(1)
    training.step.network.decoder.pred.bias.data.fill_(torch.nan)
    before = [parameter.detach().clone() for parameter in training.step.parameters()]
    training.update(batch)
    assert training.scaler.get_scale() == 2.0**7 and training.iteration == 1
    for old, new in zip(before, training.step.parameters(), strict=True):
        assert torch.equal(old.nan_to_num(7), new.nan_to_num(7))
    with pytest.raises(VosflowError, match="the loss is nan in iteration 1"):
        training.update(batch)


def test_gradients_that_adam_would_never_forget_are_skipped_or_clipped(sets, tmp_path):
    for clip, skipped in ((None, 1), (1.0, 0)):
        training = StageTraining(stage_plan(sets, 0, **SHORT, clip_gradient=clip), tmp_path / str(clip))
        training.step.network.decoder.pred.weight.register_hook(lambda gradient: gradient * 1e12)
        (batch,) = training._batches(1)
        assert training.update(batch)["skipped"] == skipped


def test_what_all_processes_see_decides_whether_an_iteration_is_skipped(sets, tmp_path, monkeypatch):
    """The norm of one gradient may differ in last bits between two kinds of GPU: here it is too large on the other."""
    training = StageTraining(stage_plan(sets, 0, **SHORT), tmp_path)
    monkeypatch.setattr(training, "_over_processes", lambda numbers: {**numbers, "norm": float("inf")})
    (batch,) = training._batches(1)
    numbers = training.update(batch)
    assert numbers["skipped"] == 1 and "norm" not in numbers


def test_all_processes_clip_by_the_norm_that_all_see(sets, tmp_path, monkeypatch):
    """Else weights would drift apart between two kinds of GPU: here the mean is 8."""
    training, own = StageTraining(stage_plan(sets, 0, **SHORT, clip_gradient=1.0), tmp_path), []
    monkeypatch.setattr(
        training, "_over_processes", lambda numbers: own.append(numbers["norm"]) or {**numbers, "norm": 8}
    )
    (batch,) = training._batches(1)
    training.update(batch)
    clipped = torch.nn.utils.get_total_norm([weight.grad for weight in training.step.parameters()])
    assert float(clipped) == pytest.approx(own[0] / 8, rel=1e-4)


def test_rows_count_what_was_skipped_and_leave_its_numbers_out(sets, tmp_path, monkeypatch):
    update = StageTraining.update

    def broken(self, batch):
        numbers = update(self, batch)
        return {**numbers, "loss": float("nan"), "skipped": 1.0} if self.iteration == 2 else numbers

    monkeypatch.setattr(StageTraining, "update", broken)
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert [(row["iteration"], row["skipped"]) for row in curve(tmp_path)[1:]] == [("2", "1"), ("4", "0")]
    assert "nan" not in (tmp_path / CURVES).read_text()


def test_a_state_from_which_no_loss_is_finite_is_not_saved(sets, whole, tmp_path, monkeypatch):
    """The weights after two iterations are finite, and so large that no loss is: the work file stays before them."""
    update = StageTraining.update

    def exploding(self, batch):
        numbers = update(self, batch)
        if self.iteration == 2:
            self.step.network.decoder.pred.weight.data.fill_(1e38)
        return numbers

    monkeypatch.setattr(StageTraining, "update", exploding)
    monkeypatch.setattr(trainer, "BROKEN_STEPS", 1)
    with pytest.raises(VosflowError, match="(?s)the loss is .* in iteration 3 of stage 0.*the work file.*start again"):
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert work_of(tmp_path)["iteration"] == 1
    monkeypatch.setattr(StageTraining, "update", update)
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert same_weights(whole, tmp_path)


@pytest.mark.parametrize(("broken_after", "steps", "times"), [(3, 50, 4), (4, 50, 4), (4, 2, 3)])
def test_a_stage_whose_last_weights_give_no_finite_loss_is_not_done(
    broken_after, steps, times, sets, whole, tmp_path, monkeypatch
):
    """Of four iterations, so that none is left that could show it, or only the last: far fewer than end a stage."""
    update = StageTraining.update
    monkeypatch.setattr(trainer, "BROKEN_STEPS", steps)

    def exploding(self, batch):
        numbers = update(self, batch)
        if self.iteration == broken_after:
            self.step.network.decoder.pred.weight.data.fill_(1e38)
        return numbers

    monkeypatch.setattr(StageTraining, "update", exploding)
    with pytest.raises(
        VosflowError, match=f"(?s)in iteration 4 of stage 0.* {times} times, .*the work file.*start again"
    ):
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert not (tmp_path / WEIGHTS).exists() and work_of(tmp_path)["iteration"] == broken_after - 1
    monkeypatch.setattr(StageTraining, "update", update)
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert same_weights(whole, tmp_path)


def test_a_stage_whose_last_gradients_alone_are_too_large_is_done(sets, tmp_path, monkeypatch):
    """As when the loss scale has just doubled: the last iteration is skipped, and so would be the next one."""
    seen, begin = [], StageTraining._begin

    def begin_hooked(self):
        def spoil(gradient):
            seen.append(self.iteration)
            return gradient * (torch.inf if len(seen) in (4, 5) else 1.0)

        network = begin(self)
        network.decoder.pred.weight.register_hook(spoil)
        return network

    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "_begin", begin_hooked)
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert seen == [0, 1, 2, 3, 4, 4] and curve(tmp_path)[-1]["skipped"] == "1"
    for stop in (3, 2):  # the second has nothing to do
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path / "third", "cpu", stop_at=stop)
    third, saved, given = work_of(tmp_path / "third"), work_of(tmp_path), load_file(tmp_path / WEIGHTS)
    assert saved["iteration"] == 4
    for state in (saved, third):
        assert all(torch.equal(state["network"][name], given[name]) for name in given)


def test_what_is_saved_where_a_clip_cannot_be_read_is_sound(sets, tmp_path):
    training, unreadable = StageTraining(stage_plan(sets, 0, **SHORT), tmp_path), VosflowError("it cannot be read")
    first, last = training._batches(2)
    training.update(first)

    def is_saved(last) -> bool:
        with pytest.raises(VosflowError, match="it cannot be read"):
            training._end_together(unreadable, last)
        return (tmp_path / WORK).exists()

    assert not is_saved(None), "nothing was trained on: what there was before still holds"
    weight = training.step.network.decoder.pred.weight
    sound = weight.detach().clone()
    weight.data.fill_(1e38)
    assert not is_saved(last)
    weight.data.copy_(sound)
    assert is_saved(last) and work_of(tmp_path)["iteration"] == 1


@pytest.mark.parametrize("readable", [0, 1])
def test_a_clip_after_the_last_iteration_that_cannot_be_read_ends_nothing(sets, whole, tmp_path, monkeypatch, readable):
    """Nobody trains on it: it is only looked at to see that the last weights are sound."""
    batches = StageTraining._batches

    def few(self, end):
        return itertools.chain(
            itertools.islice(batches(self, end), 4 + readable), itertools.repeat(VosflowError("it cannot be read"), 50)
        )

    gradient, seen = StageTraining._gradient, []

    def unsound_at_first(self, batch):
        seen.append(self.iteration)
        found = gradient(self, batch)
        return replace(found, sound=found.sound and len(seen) != 5)

    monkeypatch.setattr(StageTraining, "_batches", few)
    monkeypatch.setattr(StageTraining, "_gradient", unsound_at_first)
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert seen == [0, 1, 2, 3, 4, 4] and work_of(tmp_path)["iteration"] == 4
    assert same_weights(whole, tmp_path)


def test_a_stage_whose_first_clip_cannot_be_read_has_one_row_before_training(sets, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "_batches", lambda self, end: iter([VosflowError("it cannot be read")]))
        with pytest.raises(VosflowError):
            train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert [row["iteration"] for row in curve(tmp_path)] == ["0", "2", "4"]


def test_events_hide_those_of_a_killed_job_after_its_work_file_and_no_others(sets, tmp_path, monkeypatch):
    """TensorBoard hides what has the step of a session's start, or a later one."""
    TensorBoard(tmp_path, 5).close()
    (path,) = tmp_path.iterdir()
    data, starts = path.read_bytes(), []
    while data:  # records: length, its checksum, an event, its checksum
        (length,) = struct.unpack_from("<Q", data)
        event = Event.FromString(data[12 : 12 + length])
        starts += [event.step] * event.HasField("session_log")
        data = data[16 + length :]
    assert starts == [5]
    started = []
    monkeypatch.setattr(
        trainer, "TensorBoard", lambda folder, first: started.append(first) or TensorBoard(folder, first)
    )
    for stop in (1, None):
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path / "stage", "cpu", stop_at=stop)
    assert started == [0, 2], "also the first row of a job that had not saved anything"


def test_a_stage_all_of_whose_losses_are_not_finite_ends_in_no_weights(sets, tmp_path, monkeypatch):
    begin = StageTraining._begin

    def begin_broken(self):
        network = begin(self)
        network.decoder.pred.bias.data.fill_(torch.nan)
        return network

    monkeypatch.setattr(StageTraining, "_begin", begin_broken)
    with pytest.raises(VosflowError, match="the loss is nan"):
        train_alone(stage_plan(sets, 0, **{**SHORT, "iterations": 2}), tmp_path, "cpu")
    assert not (tmp_path / WEIGHTS).exists() and not (tmp_path / WORK).exists()


def test_a_disk_that_is_full_while_saving_leaves_the_last_state(sets, whole, tmp_path, monkeypatch):
    def save(state, path):
        if state["iteration"] < 2:
            return save_state(state, path)
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trainer, "save_state", save)
    with pytest.raises(DiskError, match=r"(?s)work\.pt: the disk .* is full.*The last work file is kept"):
        train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert work_of(tmp_path)["iteration"] == 1 and not list(tmp_path.glob(".work*"))
    monkeypatch.setattr(trainer, "save_state", save_state)
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
    assert same_weights(whole, tmp_path)


def test_torch_tells_a_full_disk_as_such():
    with pytest.raises(OSError) as caught:
        save_state({"weights": torch.zeros(100_000)}, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


def test_torch_tells_a_disk_that_fills_up_half_way_as_such(tmp_path):
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, room[1]))  # bytes: the first tensor fits, the second does not
    try:
        with pytest.raises(OSError) as caught:
            save_state({"first": torch.zeros(10_000), "second": torch.zeros(20_000)}, tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, room)
    assert caught.value.errno == errno.EFBIG


def killed_between_writing_and_renaming(plan, folder: Path) -> None:
    replace = os.replace

    def kill(aside, path):
        if path.name == WORK and path.exists():  # the second one
            os.kill(os.getpid(), signal.SIGKILL)
        replace(aside, path)

    saving.os.replace = kill
    trainer.CALIBRATION = tiny_rde.SHORT_CALIBRATION
    torch.set_num_threads(1)
    train_alone(plan, folder, "cpu")


def test_a_kill_between_writing_and_renaming_loses_one_state_and_leaves_nothing(sets, whole, tmp_path):
    plan = stage_plan(sets, 0, **SHORT)
    process = multiprocessing.get_context("spawn").Process(
        target=killed_between_writing_and_renaming, args=(plan, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".work.pt.*"))) == 1 and work_of(tmp_path)["iteration"] == 1
    train_alone(plan, tmp_path, "cpu")
    assert same_weights(whole, tmp_path) and curve(tmp_path) == curve(whole)
    assert not list(tmp_path.glob(".work.pt.*"))


@pytest.fixture
def begun(sets, tmp_path) -> Path:
    """A short stage 0 after its first iteration."""
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path / "begun", "cpu", stop_at=1)
    return tmp_path / "begun"


def change_work(folder: Path, **changes) -> None:
    torch.save({**work_of(folder), **changes}, folder / WORK)


def test_what_a_stage_goes_on_with_is_told_if_last_digits_depend_on_it(sets, begun, capsys):
    plan = stage_plan(sets, 0, **SHORT)
    assert StageTraining(plan, begun).iteration == 1 and "goes on" not in capsys.readouterr().err
    change_work(begun, made_with="torch 1.8.0 on 1 x cuda")
    assert StageTraining(plan, begun).iteration == 1
    assert "goes on after iteration 1 with torch 2" in capsys.readouterr().err


def test_a_stage_begun_without_a_loss_scale_goes_on_with_one_and_back(sets, begun, monkeypatch):
    """As between a CPU and a GPU."""
    plan, scaler = stage_plan(sets, 0, **SHORT), torch.amp.GradScaler
    assert work_of(begun)["scaler"] == {}
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scaler("cpu", 2.0**8))
    scaled = StageTraining(plan, begun)
    assert scaled.iteration == 1 and scaled.scaler.get_scale() == 2.0**8
    scaled.save()
    monkeypatch.undo()
    assert StageTraining(plan, begun).iteration == 1


def test_work_files_of_the_first_layout_are_continued(sets, begun):
    plan = stage_plan(sets, 0, **SHORT)
    settings = {**plan.settings.deciding, "batch_size": plan.settings.batch_size, "processes": 1}
    del settings["clips"]
    older = {"stage": 0, "settings": settings, "width": 8, "key_channels": 16, "previous": None, "imagenet": {}}
    change_work(begun, plan={**older, "sets": [{"kind": "static", "root": "/where/it/was"}]})
    assert StageTraining(plan, begun).iteration == 1
    with pytest.raises(VosflowError, match="another training: clips is 4 and was 2, seed is 1 and was 14159265"):
        StageTraining(stage_plan(sets, 0, **SHORT, seed=1, batch_size=4), begun)


def test_a_state_of_another_network_is_named(sets, begun):
    network = work_of(begun)["network"]
    del network["decoder.pred.weight"]
    change_work(begun, network=network)
    with pytest.raises(VosflowError, match=r"(?s)work\.pt: not a readable state .*decoder\.pred\.weight"):
        StageTraining(stage_plan(sets, 0, **SHORT), begun)


def test_a_set_that_changed_meanwhile_is_named_and_one_that_moved_is_not(sets, begun, tmp_path):
    shutil.copytree(sets / "static", tmp_path / "moved/static")
    moved = stage_plan(tmp_path / "moved", 0, **SHORT)
    assert StageTraining(moved, begun).iteration == 1
    assert read_plan(str(begun / PLAN)) == moved, "written down, for who starts it by hand"
    for suffix in (".jpg", ".png"):
        (tmp_path / f"moved/static/fss/thing/0{suffix}").rename(tmp_path / f"moved/static/fss/thing/1{suffix}")
    with pytest.raises(VosflowError, match=r"(?s)static has 6 images .*, and had 6 images .*delete .*sets\.json"):
        StageTraining(moved, begun)
    (begun / SETS).unlink()
    edited = replace(moved, origin={"code": "edited"})
    for plan in (edited, edited):
        assert StageTraining(plan, begun).iteration == 1
    written = json.loads((begun / PLAN).read_text())
    assert written["earlier"] == [json.loads(json.dumps(moved.deciding()))], "what it was made from at first"


def test_a_set_may_change_as_long_as_nothing_is_trained_on_it(sets, tmp_path):
    make_still_images(tmp_path / "static")
    plan = stage_plan(tmp_path, 0, **SHORT)
    StageTraining(plan, tmp_path / "stage")
    shutil.rmtree(tmp_path / "static")
    make_still_images(tmp_path / "static", each=2)
    StageTraining(plan, tmp_path / "stage")
    assert json.loads((tmp_path / "stage" / SETS).read_text())["static"]["images"] == 12


def test_processes_that_see_different_things_are_refused(monkeypatch):
    def gather(into, mine):
        into[:] = [{**mine, "node": "n0", "the iteration": 7}, mine]

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    check_agreement({"the iteration": 7})
    with pytest.raises(VosflowError, match="the iteration is 7 in number 0, on n0, and 0 in number 1"):
        check_agreement({"the iteration": 0})


def one_node(port: int, folder: Path) -> None:
    """What `torchrun` does on one of two nodes, on which one process each trains."""
    os.environ["OMP_NUM_THREADS"] = "1"
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-conf", "is_host=0")
    command = (str(HOUSE / "scripts/train_rde.py"), "--plan", str(folder / PLAN), "--folder", str(folder))
    torchrun(["--nnodes", "2", "--nproc-per-node", "1", *meeting, *command, "--device", "cpu"])


def test_a_stage_that_one_process_began_goes_on_on_two_nodes(sets, whole, tmp_path):
    """Which the plan that it wrote does not name: two processes share the two clips of each iteration."""
    train_alone(stage_plan(sets, 0, **SHORT), tmp_path, "cpu", stop_at=2)
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # outlives both nodes
    context = multiprocessing.get_context("spawn")
    nodes = [context.Process(target=one_node, args=(store.port, tmp_path)) for _ in range(2)]
    for node in nodes:
        node.start()
    for node in nodes:
        node.join()
    assert [node.exitcode for node in nodes] == [0, 0]
    check_same_but_for_rounding(tmp_path, whole)


def test_processes_that_cannot_share_the_clips_are_refused(sets, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(VosflowError, match="3 processes cannot share the 2 clips of an iteration"):
        train_in_group(stage_plan(sets, 0, **SHORT), tmp_path, "cpu")
