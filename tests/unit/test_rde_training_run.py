"""Training stages of RDE-VOS: stopped and continued, by several processes, of full size, and planned by a study."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.unit import tiny_rde
from tests.unit.tiny_rde import (
    check_same_but_for_rounding,
    curve,
    make_still_images,
    make_training_videos,
    same_weights,
    stage_plan,
)
from vosflow import digest
from vosflow.config import parse_config
from vosflow.datasets.training_sets import FLAT_SETS
from vosflow.errors import VosflowError, run_command
from vosflow.report.training import load_stages, training_sections
from vosflow.study import Study
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde.checkpoint import build_network
from vosflow.training import set_identity
from vosflow.training.forecast import forecast_trainings
from vosflow.training.planning import find_trained, plan_trainings, read_plan, stage_variables
from vosflow.training.rde import trainer
from vosflow.training.rde.files import CURVES, PLAN, SAMPLES, WEIGHTS, WORK
from vosflow.training.rde.run import train_alone
from vosflow.training.rde.samples import Samples
from vosflow.training.rde.sets import read_set
from vosflow.training.rde.settings import PRESETS, SETS, StageSettings
from vosflow.training.rde.stage import SetFolder, StagePlan
from vosflow.training.rde.telling import Telling
from vosflow.training.rde.trainer import Group, StageTraining

CALIBRATION = trainer.CALIBRATION
HOUSE = Path(__file__).resolve().parents[2]
sets = tiny_rde.sets
denormal_numbers = tiny_rde.denormal_numbers
short_calibration = tiny_rde.short_calibration


@pytest.fixture(scope="module")
def stage0(sets, tmp_path_factory) -> Path:
    """Stage 0, trained without being stopped."""
    folder = tmp_path_factory.mktemp("stage0")
    train_alone(stage_plan(sets, 0), folder, "cpu")
    return folder


def test_a_stage_ends_in_weights_curves_and_samples(stage0):
    weights = load_file(stage0 / WEIGHTS)
    assert weights["value_encoder.conv1.weight"].shape == (8, 4, 7, 7)
    assert [row["iteration"] for row in curve(stage0)] == ["0", "2", "4", "6"]
    assert [bool(row["held_out_J"]) for row in curve(stage0)] == [True, False, True, True]
    assert [row["learning_rate"] for row in curve(stage0)] == ["", "0.001", "0.001", "0.0001"]
    assert Image.open(stage0 / SAMPLES).size == (3 * 192, 2 * 192)  # small crops are enlarged
    assert list((stage0 / "tensorboard").iterdir())


def test_a_row_is_written_wherever_j_is_measured(sets, tmp_path):
    train_alone(stage_plan(sets, 0, iterations=4, log_every=4, measure_every=3), tmp_path, "cpu")
    assert [(row["iteration"], bool(row["held_out_J"])) for row in curve(tmp_path)] == [
        ("0", True),
        ("3", True),
        ("4", True),
    ]


def test_a_killed_stage_goes_on_with_the_same_curve(sets, stage0, tmp_path, monkeypatch):
    update = StageTraining.update

    def killed(self, batch):
        if self.iteration == 5:  # two after the last work file, in the middle of a row
            raise KeyboardInterrupt
        return update(self, batch)

    monkeypatch.setattr(StageTraining, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        train_alone(stage_plan(sets, 0), tmp_path, "cpu")
    assert torch.load(tmp_path / WORK, weights_only=True)["iteration"] == 3
    monkeypatch.setattr(StageTraining, "update", update)
    torch.manual_seed(99)  # another process begins with another state
    train_alone(stage_plan(sets, 0), tmp_path, "cpu")
    assert curve(tmp_path) == curve(stage0)
    assert same_weights(stage0, tmp_path)


def test_a_stage_that_another_job_trains_is_refused(sets, tmp_path):
    held = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); file.write('node7');"
    held += "file.flush(); print('held', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", held, str(tmp_path / ".lock")], **pipes) as other:
        other.stdout.readline()
        with pytest.raises(VosflowError, match="another job is training this stage .node7."):
            train_alone(stage_plan(sets, 0), tmp_path, "cpu", stop_at=1)
        other.stdin.close()
    train_alone(stage_plan(sets, 0), tmp_path, "cpu", stop_at=1)


def test_files_that_are_gone_come_back_from_the_work_file_alone(sets, stage0, tmp_path, monkeypatch):
    shutil.copytree(stage0, tmp_path / "mine")
    for name in (CURVES, WEIGHTS, SAMPLES):  # as Snakemake leaves it when the disk is full in the end
        (tmp_path / "mine" / name).unlink()
    monkeypatch.setattr(StageTraining, "update", None)
    train_alone(stage_plan(sets, 0), tmp_path / "mine", "cpu")
    for name in (CURVES, WEIGHTS, SAMPLES):
        assert (tmp_path / "mine" / name).read_bytes() == (stage0 / name).read_bytes()


def test_the_next_stage_takes_up_the_weights_and_the_tracker_takes_those(sets, stage0, tmp_path, capsys):
    plan = stage_plan(sets, 3, str(stage0 / WEIGHTS), iterations=2, workers=1)
    train_alone(plan, tmp_path, "cpu")
    assert "stage 3: the weights before have no SAM, it begins as the mean" in capsys.readouterr().err
    StageTraining(plan, tmp_path)  # goes on with the SAM that is trained
    assert "no SAM" not in capsys.readouterr().err
    network, remarks = build_network(Checkpoint("trained", tmp_path / WEIGHTS, ""), "two-frames-compress")
    assert network.mem_compress is not None and not remarks
    assert curve(tmp_path)[-1]["f4"]
    build_network(Checkpoint("stage0", stage0 / WEIGHTS, ""), "stm")


def test_what_is_on_the_page(stage0, tmp_path):
    place = tmp_path / "rde" / "stage0-0123abcd"
    place.parent.mkdir()
    place.symlink_to(stage0)
    (section, other) = training_sections(load_stages([("mine", place / CURVES), ("other", place / CURVES)]))
    assert other["rows"][0] == ["other.stage0", *section["rows"][0][1:]]
    rows = curve(stage0)
    before, after = (f"{100 * float(rows[i]['held_out_J']):.1f}" for i in (0, -1))
    assert section["name"] == "mine" and section["rows"][0][:2] == ["mine.stage0", "6"]
    assert section["rows"][0][4:6] == [before, after]
    assert "<svg" in section["curves"] and section["samples"][0][1].startswith("data:image/png;base64,")
    assert section["columns"][4] == "J of held-out clips, before" and section["measured"]
    (stage,) = load_stages([("mine", place / CURVES)])
    unmeasured = [{key: value for key, value in row.items() if key != "held_out_J"} for row in stage.rows]
    (section,) = training_sections([replace(stage, rows=unmeasured)])
    assert not any("held-out" in column or column == "after" for column in section["columns"])
    assert len(section["rows"][0]) == len(section["columns"]) and not section["measured"]
    (place / CURVES).write_text("nothing")
    with pytest.raises(VosflowError, match="not readable as the curves of a training"):
        load_stages([("mine", place / CURVES)])


def test_work_files_of_other_plans_and_damaged_ones_are_refused(sets, tmp_path):
    train_alone(stage_plan(sets, 0), tmp_path, "cpu", stop_at=1)
    StageTraining(stage_plan(sets, 0, save_every=100, workers=5), tmp_path)  # decides nothing
    with pytest.raises(VosflowError, match="belongs to another training"):
        StageTraining(stage_plan(sets, 0, learning_rate=1e-4), tmp_path)
    assert read_plan(str(tmp_path / PLAN)).settings.workers == 5, "still the plan that it goes on with"
    (tmp_path / WORK).write_bytes(b"no state")
    with pytest.raises(VosflowError, match="not a readable state of training"):
        StageTraining(stage_plan(sets, 0), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_stage(sets, tmp_path):
    training = StageTraining(stage_plan(sets, 0), tmp_path)
    with torch.no_grad():
        training.step.network.decoder.pred.weight.fill_(torch.nan)
    batch = next(iter(training._batches(1)))
    for _ in range(5):
        assert training.update(batch)["skipped"] == 1
    with pytest.raises(VosflowError, match="the loss is nan in iteration 5 .* 6 times, one after"):
        training.update(batch)


def test_an_unreadable_image_ends_the_stage_with_its_path(sets, tmp_path):
    copied = make_training_videos(tmp_path / "davis", dict.fromkeys(("v0", "v1"), 5))
    for path in (copied / "JPEGImages/480p").glob("*/0000[1-4].jpg"):
        path.write_bytes(b"")
    save_file(StageTraining(stage_plan(sets, 0), tmp_path / "0").step.network.state_dict(), tmp_path / "0.safetensors")
    broken = stage_plan(tmp_path, 3, str(tmp_path / "0.safetensors"), held_out=0, workers=1)
    with pytest.raises(VosflowError, match="the image cannot be read") as caught:
        train_alone(broken, tmp_path / "3", "cpu")
    assert caught.value.path.startswith(str(copied / "JPEGImages"))


def test_held_out_images_that_are_all_skipped_leave_a_stage_without_j(sets, tmp_path, capsys):
    shutil.copytree(sets / "static", tmp_path / "static")
    plan = stage_plan(tmp_path, 0, held_out=1, skip_unreadable=True, iterations=1)
    ((unit, _),) = Samples([read_set("static", tmp_path / "static")], plan.settings, ()).held_out
    unit.image.write_bytes(b"")
    train_alone(plan, tmp_path / "0", "cpu")
    assert not any(row["held_out_J"] for row in curve(tmp_path / "0")) and (tmp_path / "0" / SAMPLES).is_file()
    assert f"skipped: {unit.image}" in capsys.readouterr().err


def train_one_of_two(rank: int, plan: StagePlan, folder: Path) -> None:
    """A process of two, of which the second finds no third batch. What they compute does not matter.

    Before, it sees another training set, as on a node with another disk.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    if rank == 1:
        make_still_images(folder / "other", each=2)
    seen = replace(plan, sets=(SetFolder("static", str(folder / "other")),)) if rank == 1 else plan
    with pytest.raises(VosflowError, match="static is .*'images': 6.* in number 0, .*'images': 12.* in number 1"):
        StageTraining(seen, folder, Group(rank, 2))
    training = StageTraining(plan, folder, Group(rank, 2))
    error = VosflowError("the image cannot be read", path="0.jpg")
    batches = [*list(training._batches(2)), error if rank == 1 else next(training._batches(1))]
    training._batches = lambda end: iter(batches)
    with Telling("stage 0", 9, silent=True) as telling:
        run_command(lambda: training.run(telling))


def test_an_error_of_one_process_ends_all_after_the_first_has_saved(sets, tmp_path):
    plan = stage_plan(sets, 0, processes=2, batch_size=1, held_out=0, save_every=100)
    context = multiprocessing.get_context("spawn")  # autograd refuses forks of a process that has compiled something
    both = [context.Process(target=train_one_of_two, args=(rank, plan, tmp_path)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(600)
        process.kill()
    assert [process.exitcode for process in both] == [1, 1]
    assert torch.load(tmp_path / WORK, weights_only=True)["iteration"] == 2


def test_two_processes_train_as_one_with_their_batches(sets, tmp_path, monkeypatch):
    """Over gloo. Gradients are means over both, so the weights are those of one with twice the batch."""
    monkeypatch.setattr(trainer, "CALIBRATION", CALIBRATION)  # as in the other processes
    together = stage_plan(sets, 0, iterations=2, processes=2, batch_size=1, held_out=0, clip_gradient=None)
    command = [sys.executable, str(HOUSE / "scripts/train_rde.py"), "--plan", json.dumps(together.as_data())]
    answer = subprocess.run(
        [*command, "--folder", str(tmp_path / "two"), "--device", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    alone = stage_plan(sets, 0, iterations=2, processes=1, batch_size=2, held_out=0, clip_gradient=None)
    train_alone(alone, tmp_path / "one", "cpu")
    check_same_but_for_rounding(tmp_path / "two", tmp_path / "one")
    with pytest.raises(VosflowError, match="to be trained by 2 processes, and these are 1"):
        StageTraining(together, tmp_path / "two", Group())


def test_stages_of_full_size(sets, tmp_path, monkeypatch):
    """Two iterations of each, with the authors' rates and losses, but small crops and an SAM that begins calmly."""
    monkeypatch.setattr(trainer, "CALIBRATION", CALIBRATION)  # with less of it values blow up also so
    for stage, before in ((0, None), (1, 0), (2, 1), (3, 0)):
        previous = None if before is None else str(tmp_path / f"{before}.safetensors")
        values = {"batch_size": 1, "crop": 32, "processes": 1, "workers": 0, "compression": "average"}
        settings = StageSettings(**{**PRESETS["released"][stage], **values})
        folders = tuple(SetFolder(kind, str(sets / kind)) for kind in SETS[stage])
        training = StageTraining(StagePlan(stage, settings, 64, 64, folders, previous), tmp_path / str(stage))
        start = training.step.network.decoder.pred.weight.detach().clone()
        rows = [training.update(batch) for batch in training._batches(2)]
        assert len(rows) == 2 and all(torch.isfinite(torch.tensor(list(row.values()))).all() for row in rows)
        assert not torch.equal(start, training.step.network.decoder.pred.weight)
        count = sum(parameter.numel() for parameter in training.step.parameters())
        assert (count == 64_020_836) == (stage > 0)
        if stage < 2:
            save_file(training.step.network.state_dict(), tmp_path / f"{stage}.safetensors")


# --- planning

DEMO = dict.fromkeys(("static", "bl30k", "davis", "youtube"), "demo")


def config(*checkpoints: str, **training) -> dict:
    given = {"method": "rde", "stages": [0, 1, 2], "width": 16, "backbone": "random", "data": DEMO, **training}
    runs = [{"dataset": "demo/val", "tracker": "rde", "checkpoint": name} for name in checkpoints]
    runs = runs or [{"dataset": "demo/val", "tracker": "static"}]
    return {"runs": runs, "training": {"mine": given}, "execution": {"device": "cpu"}}


def test_stages_are_a_chain_and_runs_wait_for_theirs():
    study = Study(parse_config(config("mine", "mine.stage1")))
    jobs = study.trainings
    assert [job.id for job in jobs] == ["mine.stage0", "mine.stage1", "mine.stage2"]
    assert jobs[1].plan.previous == jobs[0].weights and jobs[0].weights in jobs[1].inputs
    assert [run.checkpoint_inputs for run in study.runs] == [[jobs[2].weights], [jobs[1].weights]]
    assert jobs[0].gpus == 0 and study.stage_pattern(gpus=False) == "0|1|2" and study.stage_pattern(gpus=True) == "(?!)"
    assert not any("training" in file for file in study.checkpoint_files)


def test_names_of_stages_and_runs_hold_what_decides_the_weights():
    def made(**training) -> list[str]:
        study = Study(parse_config(config("mine", **training)))
        return [*(job.made for job in study.trainings), study.runs[0].made]

    first = made()
    assert made() == first
    assert made(settings={"log_every": 7, "workers": 1, "hours": 3, "skip_unreadable": True}) == first
    later = made(stage_settings={1: {"learning_rate": 1e-4}})
    assert later[0] == first[0] and all(a != b for a, b in zip(later[1:], first[1:], strict=True))
    assert all(a != b for a, b in zip(made(settings={"seed": 1}), first, strict=True))


@pytest.mark.parametrize(
    "module, trains_again",
    [
        ("vosflow.trackers.rde.policies", False),
        ("vosflow.trackers.rde", False),
        ("vosflow.catalog", False),
        ("vosflow.training.rde.telling", False),
        ("vosflow.trackers.rde.network", True),
        ("vosflow.training.rde.augmentation", True),
        ("vosflow.datasets.training_sets", True),
    ],
)
def test_only_code_that_decides_weights_trains_again(module, trains_again, monkeypatch):
    def made() -> str:
        return plan_trainings(parse_config(config()))[0].made

    before, read = made(), digest._module_logic

    def edited(name, *file):
        logic, imports = read(name, *file)
        return (logic + "edited" if name == module else logic), imports

    monkeypatch.setattr(digest, "_module_logic", edited)
    assert (made() != before) == trains_again


def test_what_decides_no_weights_reaches_the_job_past_its_plan():
    def job(**settings):
        return plan_trainings(parse_config(config(settings={"held_out": 3, **settings})))[1]

    first, other = job(workers=1), job(workers=5, skip_unreadable=True)
    assert first.plan.deciding() == other.plan.deciding() and first.folder == other.folder
    told = stage_variables("cpu", [other])
    assert told["VOSFLOW_TRAINING_DEVICE"] == "cpu"
    assert read_plan(json.dumps(other.plan.deciding()), told[other.variable]) == other.plan
    assert read_plan(json.dumps(other.plan.as_data())) == other.plan
    assert first.mem_mb == 14_000 and other.mem_mb == 22_000  # for two processes


def test_stages_that_trainings_have_in_common_are_trained_once():
    given = config("mine.stage1", "other.one.stage1", "other.one", settings={"workers": 1})
    given["training"]["other.one"] = {**given["training"]["mine"], "preset": "released", "settings": {"workers": 5}}
    study = Study(parse_config(given))
    jobs = study.trainings
    assert [a.folder == b.folder for a, b in zip(jobs[:3], jobs[3:], strict=True)] == [True, True, False]
    assert [run.checkpoint_inputs for run in study.runs] == [[jobs[n].weights] for n in (1, 1, 5)]
    assert jobs[5].plan.previous == jobs[1].weights
    told = stage_variables("cpu", jobs)
    plans = [read_plan(json.dumps(job.plan.deciding()), told[job.variable]) for job in jobs]
    assert [plan.settings.workers for plan in plans] == [1] * 5 + [5], "the first one's counts"
    assert plans[4].names == ("mine.stage1", "other.one.stage1") and plans[5].names == ("other.one.stage2",)
    assert [line.partition(": ")[2][:12] for line in forecast_trainings(jobs)][3:5] == ["the same as "] * 2
    assert all(name.isidentifier() for name in told)


def test_a_stage_is_the_same_under_another_name_and_alone():
    given = config()
    given["training"]["released"] = {**given["training"]["mine"], "preset": "released"}
    both = plan_trainings(parse_config(given))
    del given["training"]["mine"]
    assert [job.folder for job in plan_trainings(parse_config(given))] == [job.folder for job in both[3:]]


GIVEN = '{"stage": 0, "sets": [], "settings": {"iterations": 1, "learning_rate": 1, "clips": 4}}'


@pytest.mark.parametrize(
    ("plan", "practical", "problem"),
    [
        ("nowhere.json", "{}", "nowhere.json, --practical: not the plan of a stage .FileNotFoundError"),
        ('{"stage": 0', "{}", "--plan, --practical: not the plan of a stage .JSONDecodeError"),
        ("{}", "", "(?s)--practical: not the plan of a stage .JSONDecodeError.*name that file, without --practical"),
        ('{"stage": 0}', None, "not the plan of a stage .KeyError: 'deciding'"),
        (GIVEN, '{"settings": {"workrs": 1}}', "did you mean 'workers'"),
        (GIVEN, '{"settings": {"batch_size": 3, "processes": 2}}', "are 6 clips in an iteration, and .* with 4"),
    ],
)
def test_plans_by_hand_that_are_none(plan, practical, problem):
    with pytest.raises(VosflowError, match=problem):
        read_plan(plan, practical)


def test_a_job_of_an_edited_training_is_refused():
    study = Study(parse_config(config()))
    job = study.trainings[0]
    assert study.stage("0", job.made) is job
    with pytest.raises(VosflowError, match="mine.stage0: .* edited after its jobs were planned"):
        study.stage("0", "00000000")


def test_full_size_asks_for_gpus_imagenet_and_the_catalogs_sets():
    given = {"method": "rde", "stages": [0, 3]}
    jobs = plan_trainings(
        parse_config({"runs": [{"dataset": "demo/val", "tracker": "static"}], "training": {"rde": given}})
    )
    assert [job.gpus for job in jobs] == [4, 2]
    assert [Path(file).name for file in jobs[0].inputs] == [
        "resnet50-0676ba61.pth.fetched",
        "resnet18-f37072fd.pth.fetched",
        "static.json",
    ]
    assert jobs[1].inputs[1:] == (
        "data/datasets/davis2017/trainval-480p.json",
        "data/datasets/youtubevos2019/train.json",
    )


def test_sets_may_be_named_like_other_datasets(sets):
    given = {"stages": [0, 1], "data": {}}
    paths = {"datasets": {"static_images": str(sets / "static"), "bl30k": str(sets / "davis")}}
    jobs = plan_trainings(parse_config({**config(**given), "paths": paths}))
    assert [job.plan.sets[0].root for job in jobs] == [str(sets / "static"), str(sets / "davis")]
    with pytest.raises(VosflowError, match="no fss") as caught:
        plan_trainings(parse_config({**config(**given), "paths": {"datasets": {"static_images": str(sets)}}}))
    assert "paths.datasets.static_images" in str(caught.value)


def test_a_set_that_is_empty_or_cannot_be_listed_is_told_as_such(sets, tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    for name in ("JPEGImages", "Annotations", *(f"static/{name}" for name in ("fss", *FLAT_SETS))):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(VosflowError, match="(?s)the training set bl30k has no videos.*at training.mine.data.bl30k"):
        plan_trainings(parse_config(config(stages=[0, 1], data={**DEMO, "bl30k": str(tmp_path)})))
    with pytest.raises(VosflowError, match="the training set static has no images"):
        plan_trainings(parse_config(config(stages=[0], data={"static": str(tmp_path / "static")})))
    monkeypatch.setattr(set_identity, "folder_names", refuse)
    set_identity.describe_set.cache_clear()
    with pytest.raises(VosflowError, match="(?s)the training set bl30k cannot be listed .*at training.mine.data.bl30k"):
        plan_trainings(parse_config(config(stages=[0, 1], data={**DEMO, "bl30k": str(tmp_path)})))


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"stages": [1, 0]}, r"no training with the stages \[1, 0\]"),
        ({"stages": [0, 3, 2]}, r"no training with the stages \[0, 3, 2\]"),
        ({"stage_settings": {3: {}}}, "settings for stage 3, which is not trained"),
        ({"backbone": "imagenet"}, "ImageNet weights are for networks of width 64"),
        ({"data": {**DEMO, "davis": "nowhere"}}, "the folder is missing"),
        ({"data": {**DEMO, "davis": str(HOUSE)}}, "is not the training set davis: it has no JPEGImages"),
        ({"data": {**DEMO, "static": str(HOUSE)}}, "is not the training set static: it has no fss"),
        ({"data": {"static": "demo"}}, "BL30K"),
        ({"settings": {"learning_rat": 1}}, "did you mean 'learning_rate'"),
        ({"settings": {"crop": 50}}, "multiple of 16"),
        ({"settings": {"bootstrap": [5, 1]}}, "must not be above"),
    ],
)
def test_what_is_refused_at_planning(changes, problem):
    with pytest.raises(VosflowError, match=problem):
        plan_trainings(parse_config(config(**changes)))


def test_names_of_weights_that_are_not_trained():
    named = config()
    named["training"]["rde_s03"] = named["training"].pop("mine")
    with pytest.raises(VosflowError, match="a training and a checkpoint have one name"):
        plan_trainings(parse_config(named))
    study = parse_config(config())
    assert find_trained(study, "mine").plan.stage == 2 and find_trained(study, "sam2.1_large") is None
    with pytest.raises(VosflowError, match="no weights called mine.stage3"):
        find_trained(study, "mine.stage3")
    other = config()
    other["runs"] = [{"dataset": "demo/val", "tracker": "sam2", "checkpoint": "mine"}]
    with pytest.raises(VosflowError, match="is trained here for rde, and tracker sam2 runs"):
        Study(parse_config(other))
