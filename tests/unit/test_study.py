"""Planning: run ids, sweeps, shards, and what is refused before anything runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.clips import make_videos
from vosflow.config import parse_config
from vosflow.engine import track_shard
from vosflow.errors import VosflowError
from vosflow.method import Method
from vosflow.records import write_json
from vosflow.review import review_results
from vosflow.study import Study, load_study

HOUSE = Path(__file__).resolve().parents[2]


@pytest.fixture
def weights(tmp_path):
    """A file that stands for weights of one's own."""
    (tmp_path / "weights.pt").write_bytes(b"weights")
    return {"mine": {"path": str(tmp_path / "weights.pt"), "config": "configs/sam2.1/sam2.1_hiera_b+.yaml"}}


def plan(*runs, **more) -> Study:
    return Study(parse_config({"runs": list(runs), **more}))


def ids(study: Study) -> list[str]:
    return [f"{run.dataset.id}/{run.id}" for run in study.runs]


def sam2(**settings):
    return {"dataset": "demo/val", "tracker": "sam2", "checkpoint": "mine", "settings": settings}


def sam_pt(point_tracker: str, weights: str) -> dict:
    settings = {"point_tracker": point_tracker}
    return {"dataset": "demo/val", "tracker": "sam_pt", "checkpoint": {"point_tracker": weights}, "settings": settings}


def test_swept_settings_are_in_the_folder_name(weights):
    study = plan({**sam2(num_maskmem=[1, 7]), "name": "sam2_b+"}, checkpoints=weights)
    assert ids(study) == ["demo-val/sam2_b+@num_maskmem=1", "demo-val/sam2_b+@num_maskmem=7"]
    assert study.runs[0].swept == {"num_maskmem": 1} and study.runs[0].settings["score_thresh"] == 0.0


def test_sweeps_multiply_in_alphabetical_order(weights):
    study = plan(sam2(score_thresh=[0, 0.5], num_maskmem=[1, 7]), checkpoints=weights)
    assert [run.id for run in study.runs] == [
        "mine@num_maskmem=1@score_thresh=0",
        "mine@num_maskmem=1@score_thresh=0.5",
        "mine@num_maskmem=7@score_thresh=0",
        "mine@num_maskmem=7@score_thresh=0.5",
    ]


def test_swept_settings_that_are_mappings_have_plain_names():
    knobs = [{"iters": 2}, {"iters": 4}]
    settings = {"point_tracker": "raft", "point_tracker_settings": knobs}
    study = plan({"dataset": "demo/val", "tracker": "sam_pt", "settings": settings})
    assert [run.id.rpartition("@")[2] for run in study.runs] == [
        "point_tracker_settings=iters-2",
        "point_tracker_settings=iters-4",
    ]


def test_no_name_has_a_comma(weights):
    """Snakemake cannot hand such a wildcard to a job on a cluster."""
    study = plan({**sam2(num_maskmem=[1, 7]), "name": "a.b+c"}, sam2(score_thresh=[0, 1]), checkpoints=weights)
    assert not any("," in run.id for run in study.runs)
    with pytest.raises(VosflowError, match="letters, digits"):
        plan({**sam2(), "name": "a,b"}, checkpoints=weights)
    with pytest.raises(VosflowError, match="part of a folder's name"):
        plan({**sam2(), "checkpoint": "a,b"}, checkpoints={"a,b": weights["mine"]})


def test_datasets_and_checkpoints_are_swept():
    study = plan(
        {"dataset": ["davis2017/val", "mose/valid"], "tracker": "sam2", "checkpoint": ["sam2.1_tiny", "sam2.1_large"]}
    )
    assert ids(study) == [
        "davis2017-val/sam2.1_tiny",
        "davis2017-val/sam2.1_large",
        "mose-valid/sam2.1_tiny",
        "mose-valid/sam2.1_large",
    ]
    assert [run.scored for run in study.runs] == [True, True, False, False]
    assert study.runs[0].checkpoint_inputs == ["data/checkpoints/sam2.1_hiera_tiny.pt.fetched"]


def test_reordered_keys_and_number_types_plan_the_same(weights):
    one = plan(sam2(score_thresh=1, num_maskmem=[2, 4]), checkpoints=weights)
    two = plan(dict(reversed(sam2(num_maskmem=[2, 4], score_thresh=1.0).items())), checkpoints=weights)
    assert [run.method for run in one.runs] == [run.method for run in two.runs] and ids(one) == ids(two)


def test_a_value_added_to_a_list_adds_one_run(weights):
    before = plan(sam2(num_maskmem=[1, 7]), checkpoints=weights)
    after = plan(sam2(num_maskmem=[1, 2, 7]), checkpoints=weights)
    kept = {run.id: run.method for run in after.runs}
    assert set(ids(after)) - set(ids(before)) == {"demo-val/mine@num_maskmem=2"}
    assert all(kept[run.id] == run.method for run in before.runs)


def test_shards_follow_the_work():
    line = {"dataset": "davis2017/val", "tracker": "flow"}  # 1999 frames
    study = plan(line, execution={"shards": "auto", "minutes_per_job": 1, "frames_per_second": 10})
    assert study.runs[0].shards == 4
    assert plan(line).runs[0].shards == 1
    assert study.runs[0].shard_records[0].startswith("results/davis2017-val/flow/shards/1-of-4-")
    assert plan({"dataset": "davis2017/val", "tracker": "flow"}, execution={"shards": 7}).runs[0].shards == 7


def test_time_limits_follow_the_work():
    line = {"dataset": "davis2017/val", "tracker": "flow"}  # 1999 frames
    (run,) = plan(line, execution={"shards": 2, "frames_per_second": 0.1}).runs
    assert run.minutes == pytest.approx(1999 / 2 / 0.1 / 60) and run.time_limit == 667, "four times the expected time"
    assert plan(line).runs[0].time_limit == 30, "but not less"


def test_runs_of_one_name_must_compute_on_one_kind_of_device(weights):
    """The rules for jobs with and without a GPU know runs by their names."""
    on_gpu, on_cpu = sam2(), {"dataset": "davis2017/val", "tracker": "flow"}
    with pytest.raises(VosflowError, match="different devices"):
        plan({**on_gpu, "name": "same"}, {**on_cpu, "name": "same"}, checkpoints=weights)
    study = plan({**on_gpu, "name": "one"}, {**on_cpu, "name": "two"}, checkpoints=weights)
    assert [study.run_pattern_by_device(gpus) for gpus in (1, 0)] == ["one", "two"]
    assert plan(on_cpu).run_pattern_by_device(1) == "(?!)"


def test_gpus_are_asked_for_only_where_they_are_used(weights):
    lines = [sam2(), {"dataset": "demo/val", "tracker": "flow"}]
    assert [run.gpus for run in plan(*lines, checkpoints=weights).runs] == [1, 0]
    assert [run.gpus for run in plan(*lines, checkpoints=weights, execution={"device": "cpu"}).runs] == [0, 0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"dataset": "demo/val", "tracker": "flwo"}, "did you mean 'flow'"),
        ({"dataset": "demo/vall", "tracker": "flow"}, "did you mean 'val'"),
        ({"dataset": "davis2017", "tracker": "flow"}, "davis2017/val"),
        ({"dataset": "demo/val", "tracker": "sam2"}, "needs a checkpoint"),
        ({"dataset": "demo/val", "tracker": "flow", "checkpoint": "sam2.1_tiny"}, "takes no checkpoint"),
        ({"dataset": "demo/val", "tracker": "sam2", "checkpoint": "sam2.1_tinny"}, "did you mean 'sam2.1_tiny'"),
        ({"dataset": "demo/val", "tracker": "flow", "settings": {"prest": 1}}, "did you mean 'preset'"),
        (sam_pt("raft", "raft_small"), "holds weights of raft_small"),
        (sam_pt("cotracker3", "cotracker3_scaled_offline"), "holds weights of cotracker3_offline"),
        (
            {"dataset": "demo/val", "tracker": "sam_pt", "checkpoint": {"sam": "sam_vit_b"}},
            "sam_vit_b holds weights of sam (vit_b), and role sam of tracker sam_pt runs sam (vit_h)",
        ),
        ({"dataset": "demo/val", "tracker": "no.such.module:Tracker"}, "cannot be imported"),
        ({"dataset": "demo/val", "tracker": "vosflow.study:Study"}, "is no tracker: it lacks Settings"),
    ],
)
def test_mistakes_in_a_line_are_named(line, words):
    with pytest.raises(VosflowError) as caught:
        plan(line)
    assert words in str(caught.value)


def test_own_weights_need_their_network(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    with pytest.raises(VosflowError, match="needs the network configuration"):
        plan(
            {"dataset": "demo/val", "tracker": "sam2", "checkpoint": "mine"},
            checkpoints={"mine": {"path": str(tmp_path / "w.pt")}},
        )


def test_runs_of_one_dataset_stand_together():
    lines = [{"dataset": ["davis2017/val", "demo/val"], "tracker": tracker} for tracker in ("static", "flow")]
    assert ids(plan(*lines)) == ["davis2017-val/static", "davis2017-val/flow", "demo-val/static", "demo-val/flow"]


def test_tables_of_another_study_are_announced(tmp_path):
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables/summary.csv"
    data = {"runs": [{"dataset": "demo/val", "tracker": "flow"}], "paths": {"results": str(tmp_path)}}
    for rows, expected in ((["demo/val,flow", "demo/val,old"], 0), (["mine/val,flow"], 1)):
        table.write_text("\n".join(["dataset,run", *rows]))
        said = []
        review_results(load_study(data), said.append)
        assert len(said) == expected
    assert "another study (1 runs)" in said[0]


def test_runs_in_the_same_folder_are_refused():
    with pytest.raises(VosflowError, match="same folder: demo-val/flow"):
        plan({"dataset": "demo/val", "tracker": "flow"}, {"dataset": "demo/val", "tracker": "flow"})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tracker": "flwo"}, ["study.yaml: runs.1: unknown tracker 'flwo'"]),
        ({"settings": {"speed": 1}}, ["study.yaml: runs.1: settings of tracker flow: not valid"]),
        ({"dataset": "davis2017"}, ["study.yaml: runs.1: dataset: 'davis2017' is not a dataset split"]),
        ({"tracker": "sam2"}, ["study.yaml: runs.1: checkpoint: tracker sam2 needs a checkpoint"]),
        ({"name": "first"}, ["study.yaml: runs: several runs", "demo-val/first"]),
    ],
)
def test_mistakes_name_the_file_and_the_line_of_runs(wrong, words):
    line = {"dataset": "demo/val", "tracker": "flow"}
    with pytest.raises(VosflowError) as caught:
        load_study({"runs": [{**line, "name": "first"}, {**line, **wrong}]}, "study.yaml")
    assert all(word in str(caught.value) for word in words)


def test_weights_of_stage_0_in_a_mode_with_sam_are_refused_before_they_are_trained():
    training = {"t": {"method": "rde", "stages": [0], "data": {"static": "demo"}}}
    line = {"dataset": "demo/val", "tracker": "rde", "checkpoint": "t.stage0"}
    assert plan({**line, "settings": {"mode": "stm"}}, training=training).runs
    with pytest.raises(VosflowError, match=r"checkpoint: the weights t.stage0 .* no SAM, which mode gt-compress needs"):
        plan({**line, "settings": {"mode": ["stm", "gt-compress"]}}, training=training)


def test_results_cannot_lie_below_a_file(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path / "notes.txt", tmp_path / "notes.txt/results"):
        data = {"runs": [{"dataset": "demo/val", "tracker": "flow"}], "paths": {"results": str(folder)}}
        with pytest.raises(VosflowError, match="notes.txt: this is a file"):
            review_results(load_study(data), announce=print)


def test_missing_files_fail_at_planning(tmp_path):
    line = {"dataset": "davis2017/val", "tracker": "flow"}
    with pytest.raises(VosflowError, match="paths.datasets.davis2017"):
        plan(line, paths={"datasets": {"davis2017": str(tmp_path / "absent")}})
    own = {"base_video_dir": str(tmp_path / "absent"), "input_mask_dir": str(tmp_path)}
    with pytest.raises(VosflowError, match="datasets.mine/val"):
        plan({"dataset": "mine/val", "tracker": "flow"}, datasets={"mine/val": own})
    with pytest.raises(VosflowError, match="absent.pt"):
        plan(
            {"dataset": "demo/val", "tracker": "sam2", "checkpoint": "mine"},
            checkpoints={"mine": {"path": str(tmp_path / "absent.pt")}},
        )


def test_a_dataset_of_ones_own(tmp_path):
    make_videos(tmp_path, {"a": 3, "b": 3})
    own = {
        "base_video_dir": str(tmp_path / "JPEGImages/480p"),
        "input_mask_dir": str(tmp_path / "Annotations/480p"),
        "annotations": str(tmp_path / "Annotations/480p"),
        "protocol": "davis2017",
    }
    before = plan({"dataset": "mine/val", "tracker": "static"}, datasets={"mine/val": own}).runs[0]
    assert before.scored and before.dataset.requires == ()
    state = before.dataset.state
    (tmp_path / "JPEGImages/480p/a/00003.jpg").write_bytes(b"")
    after = plan({"dataset": "mine/val", "tracker": "static"}, datasets={"mine/val": own}).runs[0]
    assert after.dataset.state != state, "a file that comes or goes is noticed"


def test_data_that_one_has_already_is_not_fetched(tmp_path):
    study = plan({"dataset": "davis2017/val", "tracker": "flow"}, paths={"datasets": {"davis2017": str(tmp_path)}})
    assert study.data_files == [] and study.runs[0].dataset.root == str(tmp_path)
    fetched = plan({"dataset": "davis2017/val", "tracker": "flow"})
    assert fetched.data_files and fetched.data_files[0].startswith("data/datasets/davis2017/")


def finished_study(tmp_path, **settings):
    """A study of one run of the tracker `flow` that is finished, and its config."""
    manifest = make_videos(tmp_path / "videos", {"a": 3, "b": 3})
    data = {
        "runs": [{"dataset": "demo/val", "tracker": "flow", "settings": settings}],
        "paths": {"results": str(tmp_path / "results")},
        "execution": {"shards": 1, "device": "cpu"},
    }
    study = load_study(data)
    run = study.runs[0]
    write_json(run.shard_records[0], track_shard(Method.of("flow", settings), manifest, run.folder, shard=1, shards=1))
    return study, data


def test_lost_masks_are_announced_and_their_promise_withdrawn(tmp_path):
    study, _ = finished_study(tmp_path)
    run, said = study.runs[0], []
    review_results(study, said.append)
    assert said == [] and Path(run.shard_records[0]).exists()
    Path(run.folder, "masks/a/00001.png").unlink()
    review_results(study, said.append)
    assert not Path(run.shard_records[0]).exists() and "masks of a are gone" in said[0]


def test_masks_of_other_settings_are_announced_before_they_are_replaced(tmp_path):
    study, data = finished_study(tmp_path)
    data["runs"][0]["settings"] = {"preset": "fast"}
    changed, said = load_study(data), []
    assert changed.runs[0].shard_records != study.runs[0].shard_records
    review_results(changed, said.append)
    assert "holds 2 videos of other settings" in said[0] and "name:" in said[0]
    assert Path(study.runs[0].shard_records[0]).exists(), "looking at a plan takes nothing back"


def test_an_overwritten_file_of_ones_own_is_noticed(tmp_path):
    make_videos(tmp_path / "videos", {"a": 3})
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/a").symlink_to(tmp_path / "videos/JPEGImages/480p/a")
    own = {"base_video_dir": str(tmp_path / "linked"), "input_mask_dir": str(tmp_path / "videos/Annotations/480p")}

    def state():
        return plan({"dataset": "mine/val", "tracker": "static"}, datasets={"mine/val": own}).runs[0].dataset.state

    before = state()
    mask = tmp_path / "videos/Annotations/480p/a/00000.png"
    content = bytearray(mask.read_bytes())
    with open(mask, "r+b") as file:
        file.write(content)
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 1))
    in_place = state()
    (tmp_path / "videos/JPEGImages/480p/a/00002.jpg").unlink()
    removed = state()
    assert len({before, in_place, removed}) == 3
    (tmp_path / "videos/Annotations/480p/README.md").write_text("about")
    assert state() == removed, "what is no data does not count"
    (tmp_path / "linked/dangling.png").symlink_to("nowhere")
    assert state() != removed, "a dangling link is no reason to stop here"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"protocol": "davis2017"}, "no `annotations`"),
        ({"protocol": "davis2017", "annotations": "masks", "late_objects": True}, "may appear later"),
        ({"protocol": "davis2017", "annotations": "masks", "per_obj_png_file": True}, "one file per object"),
        ({"protocol": "sav", "annotations": "masks"}, "say per_obj_png_file"),
        ({"protocol": "lvos", "annotations": "masks", "late_objects": True}, "meta file of the publisher"),
        ({"protocol": "davis2017", "annotations": "masks", "binary": True}, "davis2016"),
        ({"protocol": "davis2071", "annotations": "masks"}, "did you mean 'davis2017'"),
        ({"annotations": "masks"}, "no `protocol`"),
    ],
)
def test_a_protocol_that_cannot_score_is_refused_at_planning(tmp_path, monkeypatch, more, words):
    make_videos(tmp_path, {"a": 3})
    (tmp_path / "Annotations/480p").rename(tmp_path / "masks")
    monkeypatch.chdir(tmp_path)
    own = {"base_video_dir": "JPEGImages/480p", "input_mask_dir": "masks", **more}
    with pytest.raises(VosflowError) as caught:
        plan({"dataset": "mine/val", "tracker": "static"}, datasets={"mine/val": own})
    assert words in str(caught.value)


def test_paths_of_unknown_things_are_refused(tmp_path):
    line = {"dataset": "demo/val", "tracker": "static"}
    with pytest.raises(VosflowError, match="'davis17'"):
        plan(line, paths={"datasets": {"davis17": str(tmp_path)}})
    with pytest.raises(VosflowError, match="'sam2.1_larg'"):
        plan(line, paths={"checkpoints": {"sam2.1_larg": "x.pt"}})


def test_a_job_of_a_study_that_was_edited_meanwhile_is_refused(weights):
    """A job on a cluster reads the config again; with other settings, its record would be a false promise."""
    planned, edited = (plan({**sam2(num_maskmem=n), "name": "x"}, checkpoints=weights) for n in (7, 3))
    made = planned.runs[0].made
    assert planned.run("demo-val", "x", made) is planned.runs[0] is planned.run("demo-val", "x")
    with pytest.raises(VosflowError, match="edited after its jobs were planned"):
        edited.run("demo-val", "x", made)


def test_names_of_the_catalog_are_taken(tmp_path, weights):
    line = {"dataset": "demo/val", "tracker": "static"}
    with pytest.raises(VosflowError, match="checkpoints.sam2_large: this name is one of the catalog's"):
        plan(line, checkpoints={"sam2_large": weights["mine"]})
    make_videos(tmp_path, {"a": 3})
    own = {"base_video_dir": str(tmp_path / "JPEGImages/480p"), "input_mask_dir": str(tmp_path / "Annotations/480p")}
    with pytest.raises(VosflowError, match="datasets.davis2017/val: this name is one of the catalog's"):
        plan(line, datasets={"davis2017/val": own})


def test_weights_of_ones_own_replace_those_of_the_catalog(tmp_path):
    (tmp_path / "mine.safetensors").write_bytes(b"weights")
    line = {"dataset": "demo/val", "tracker": "sam2", "checkpoint": "sam2_demo"}
    given = plan(line, paths={"checkpoints": {"sam2_demo": str(tmp_path / "mine.safetensors")}}).runs[0].checkpoint
    assert given.path == str(tmp_path / "mine.safetensors") and given.sha256 is None


def test_planning_imports_nothing_heavy():
    code = (
        "import sys; from vosflow.study import Study; from vosflow.config import parse_config;"
        "Study(parse_config({'runs': [{'dataset': 'davis2017/val', 'tracker': 'sam2', 'checkpoint': 'sam2.1_tiny'},"
        "{'dataset': 'demo/val', 'tracker': 'flow'}]}));"
        "print([m for m in ('torch', 'pandas', 'cv2', 'matplotlib', 'snakemake', 'sam2') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
