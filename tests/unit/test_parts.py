"""Weights by role: planning, building the tracker, keys, records, the command line, licences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.clips import make_videos
from tests.unit.part_tracker import PartTracker
from vosflow import engine, method, weights
from vosflow.artefacts import ArtefactStore
from vosflow.catalog import find_checkpoint
from vosflow.command_line import given_method, track_parser
from vosflow.describe import describe_run
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.forecast import finished_records
from vosflow.method import Method
from vosflow.records import RunFolder
from vosflow.report.published import compare
from vosflow.report.results import RunResult
from vosflow.review import review_results
from vosflow.study import Study, load_study
from vosflow.trackers.registry import load_tracker

HOUSE = Path(method.__file__).parents[1]
TRACKER = "tests.unit.part_tracker:PartTracker"
NON_COMMERCIAL = "weights cotracker_stride_4_wind_8: for non-commercial use only (CC-BY-NC-4.0)"


def plan(checkpoint: object = None, settings: dict | None = None, **more: object) -> Study:
    line = {"dataset": "demo/val", "tracker": TRACKER, "settings": settings or {}}
    return load_study({"runs": [{**line, "checkpoint": checkpoint} if checkpoint else line], **more})


@pytest.fixture
def own(tmp_path) -> dict[str, dict]:
    for name in ("sam", "points"):
        (tmp_path / f"{name}.pt").write_bytes(name.encode())
    return {f"my_{name}": {"path": str(tmp_path / f"{name}.pt")} for name in ("sam", "points")}


def test_roles_that_are_not_named_get_the_weights_that_the_tracker_says():
    (run,) = plan().runs
    assert {role: source.id for role, source in run.checkpoint.items()} == {
        "sam": "mobile_sam",
        "point_tracker": "pips",
    }
    files = [find_checkpoint(name).file for name in ("pips", "mobile_sam")]
    assert sorted(run.checkpoint_inputs) == sorted(f"data/checkpoints/{file}.fetched" for file in files)
    assert plan().checkpoint_files == sorted(run.checkpoint_inputs) and run.id == "PartTracker"
    assert set(plan(settings={"points": "none"}).runs[0].checkpoint) == {"sam"}


def test_own_weights_and_sweeps_by_role(own):
    study = plan({"sam": ["mobile_sam", "my_sam"], "point_tracker": "my_points"}, checkpoints=own)
    assert [run.id for run in study.runs] == [
        "PartTracker@checkpoint.sam=mobile_sam",
        "PartTracker@checkpoint.sam=my_sam",
    ]
    assert [run.checkpoint["sam"].id for run in study.runs] == ["mobile_sam", "my_sam"]
    assert study.runs[1].checkpoint_inputs == [own["my_points"]["path"], own["my_sam"]["path"]]
    assert len({run.made for run in study.runs}) == 2
    assert json.loads(json.dumps(study.runs[1].method))["checkpoint"]["sam"]["path"] == own["my_sam"]["path"]
    assert study.runs[1].description["checkpoint"]["point_tracker"]["id"] == "my_points"


def test_files_that_one_has_already_are_used_by_role(tmp_path):
    (tmp_path / "sam.pt").write_bytes(b"x")
    (run,) = plan(paths={"checkpoints": {"mobile_sam": str(tmp_path / "sam.pt")}}).runs
    assert run.checkpoint["sam"].path == str(tmp_path / "sam.pt")


@pytest.mark.parametrize(
    ("checkpoint", "settings", "told"),
    [
        ({"smm": "mobile_sam"}, {}, "unknown role of weights.*'smm'"),
        ({"point_tracker": "pips"}, {"points": "none"}, "unknown role of weights.*'point_tracker'"),
        (
            {"sam": "sam_vit_b"},
            {},
            r"sam_vit_b holds weights of sam \(vit_b\), and role sam of .* runs mobile_sam .*network for this role",
        ),
        ({"sam": "mobile_samm"}, {}, "did you mean 'mobile_sam'"),
        ("mobile_sam", {}, "takes its weights by role"),
        ({"sam": []}, {}, "an empty list"),
    ],
)
def test_weights_that_do_not_fit_their_role_are_refused_at_planning(checkpoint, settings, told):
    with pytest.raises(VosflowError, match=f"(?s){told}"):
        plan(checkpoint, settings)


def test_a_tracker_of_one_network_takes_no_roles():
    with pytest.raises(VosflowError, match="takes one checkpoint, and none by role"):
        load_study({"runs": [{"dataset": "demo/val", "tracker": "sam2", "checkpoint": {"sam": "sam2.1_tiny"}}]})


def built(tmp_path: Path, settings: dict | None = None, **contents: str) -> Method:
    """A method whose weights hold these texts."""
    given = {}
    for role, content in contents.items():
        path = tmp_path / f"{role}-{content}.pt"
        path.write_text(content)
        given[role] = {"id": content, "path": str(path)}
    return Method.of(TRACKER, settings or {}, given)


def test_the_weights_of_every_role_are_part_of_the_key(tmp_path):
    one = built(tmp_path, sam="a", point_tracker="b")
    keys = {
        built(tmp_path, settings, **weights).key({}, "cpu", "float32")
        for settings in ({}, {"shift": 1})
        for weights in ({"sam": "a", "point_tracker": "b"}, {"sam": "b", "point_tracker": "a"})
    }
    assert len(keys) == 4 and one.key({}, "cpu", "float32") in keys
    assert set(one.marks["weights"]) == {"sam", "point_tracker"}
    moved = built(tmp_path / "..", sam="a", point_tracker="b")
    assert moved.key({}, "cpu", "float32") == one.key({}, "cpu", "float32") and moved.marks == one.marks


def test_modules_that_a_tracker_takes_by_name_are_part_of_its_code(tmp_path):
    names = {"sam": "a", "point_tracker": "b"}
    pips, cotracker = (built(tmp_path, {"points": points}, **names).code for points in ("pips", "cotracker"))
    assert pips != cotracker
    runs = plan(settings={"points": ["pips", "cotracker"]}).runs
    assert {run.settings["points"]: run.code for run in runs} == {"pips": pips, "cotracker": cotracker}


@pytest.mark.parametrize("given", [{"sam": "a"}, {"sam": "a", "point_tracker": "b", "more": "c"}])
def test_roles_must_be_complete_when_the_tracker_is_built(tmp_path, given):
    with pytest.raises(VosflowError, match="needs weights for point_tracker, sam, and was given some for"):
        built(tmp_path, **given)


def test_records_run_json_and_tables_name_all_weights_and_what_was_shared(tmp_path):
    manifest = make_videos(tmp_path / "data", {"a": 3, "b": 4})
    runs = []
    for shift in (0, 1):
        how = built(tmp_path, {"shift": shift}, sam="my-sam", point_tracker="my-points")
        track_videos(how, manifest, ["a", "b"], tmp_path / f"run{shift}", store=ArtefactStore(tmp_path / "cache", 1))
        described = {
            role: {"id": one.id, "file": str(one.path), "config": None} for role, one in how.checkpoint.items()
        }
        facts = {"run": f"run{shift}", "settings": {"shift": shift}, "checkpoint": described, "notes": []}
        same = {"dataset": "toy", "split": "val", "tracker": TRACKER, "swept": {}, "scored": False}
        runs.append(describe_run(facts | same, manifest, "manifest.json", tmp_path / f"run{shift}"))
    assert {role: one.path.read_text() for role, one in PartTracker.built_with.items()} == {
        "sam": "my-sam",
        "point_tracker": "my-points",
    }
    assert [run["totals"]["artefacts"]["brightness"] for run in runs] == [
        {"made": 7, "reused": 0},
        {"made": 0, "reused": 7},
    ]
    sums = how.marks["weights"]
    assert runs[1]["checkpoint"]["sam"]["sha256"] == sums["sam"] != sums["point_tracker"]
    assert runs[1]["provenance"]["weights of point_tracker"] == sums["point_tracker"]
    result = RunResult(tmp_path / "run1/run.json", runs[1], None)
    assert result.checkpoint == "point_tracker=my-points, sam=my-sam"
    assert result.family == f"{TRACKER} + my-points + my-sam"
    assert result.artefacts == "brightness: 0 made, 7 reused"


def test_published_numbers_stand_beside_runs_with_the_same_weights_in_all_roles(tmp_path):
    settings = load_tracker("sam_pt").Settings(sam="vit_l").model_dump(mode="json")
    described = {
        "tracker": "sam_pt",
        "dataset": "davis2017",
        "split": "val",
        "protocol": "davis2017",
        "settings": settings,
        "swept": {},
        "totals": {"videos": 30, "frames": 1999, "objects": 61},
    }
    for sam, found in {"sam_vit_l": [(0.7643, True)], "sam_vit_b": []}.items():
        weights = {"sam": {"id": sam}, "point_tracker": {"id": "pips"}}
        result = RunResult(tmp_path / "run.json", described | {"checkpoint": weights}, {"J&F-Mean": 0.765})
        rows = [row for row in compare(result) if row.row.settings == {"sam": "vit_l"}]
        assert [(round(row.published, 6), row.within_tolerance) for row in rows] == found


def test_the_cache_is_no_part_of_a_key_and_shapes_no_mask(tmp_path):
    manifest = make_videos(tmp_path / "data", {"a": 4})
    how = built(tmp_path, sam="a", point_tracker="b")
    masks, keys = [], []
    for name, store in (("with", ArtefactStore(tmp_path / "cache", 1)), ("again", ArtefactStore(tmp_path / "cache", 1)),
                        ("without", None)):  # fmt: skip
        keys.append(track_videos(how, manifest, ["a"], tmp_path / name, store=store))
        masks.append([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.png"))])
    assert keys[0] == keys[1] == keys[2] and masks[0] == masks[1] == masks[2] != []
    base = plan(paths={"cache": "elsewhere"}, execution={"cache_gigabytes": 0})
    assert base.runs[0].made == plan().runs[0].made and base.runs[0].shard_records == plan().runs[0].shard_records
    assert base.config.cache == "elsewhere" and plan(paths={"data": "d"}).config.cache == "d/cache"


def test_artefacts_are_shared_only_where_they_would_come_out_the_same(tmp_path, monkeypatch):
    """Other threads give other last bits, another device or code another result."""
    manifest = make_videos(tmp_path / "data", {"a": 3})
    how = built(tmp_path, sam="a", point_tracker="b")
    code, device = {"": how.code}, {"": "cpu"}
    monkeypatch.setattr(Method, "code", property(lambda self: code[""]))
    monkeypatch.setattr(engine.machine, "device_name", lambda kind: device[""])

    def made(name: str) -> int:
        track_videos(how, manifest, ["a"], tmp_path / name, store=ArtefactStore(tmp_path / "cache", 1))
        return RunFolder(tmp_path / name).read_record("a")["artefacts"]["brightness"]["made"]

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert [made("first"), made("same")] == [3, 0]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert made("threads") == 3
    device[""] = "another"
    assert made("device") == 3
    code[""] = "edited"
    assert made("code") == 3 and made("once more") == 0


def test_what_is_finished_is_known_by_the_weights_of_all_roles(tmp_path, own):
    manifest = make_videos(tmp_path / "data", {"a": 3})
    paths = {"results": str(tmp_path / "results")}
    (run,) = plan({"sam": "my_sam", "point_tracker": "my_points"}, checkpoints=own, paths=paths).runs
    given = run.method
    track_videos(Method.of(given["tracker"], given["settings"], given["checkpoint"]), manifest, ["a"], run.folder)
    assert set(finished_records(run, manifest)) == {"a"}
    Path(own["my_points"]["path"]).write_bytes(b"others")
    assert finished_records(run, manifest) == {}


def test_licences_that_forbid_commercial_use_are_told_before_use_and_with_the_numbers(tmp_path):
    study = plan(settings={"points": ["cotracker", "pips"]}, paths={"results": str(tmp_path)})
    assert [run.description["notes"] for run in study.runs] == [[NON_COMMERCIAL], []]
    told: list[str] = []
    review_results(study, told.append)
    assert told == [NON_COMMERCIAL]
    for name in ("superglue_outdoor", "superpoint_v1", "cotracker3_scaled_offline"):
        assert find_checkpoint(name).non_commercial, name
    assert not find_checkpoint("pips").non_commercial and weights.non_commercial_notes(["mine"]) == []


def arguments(tmp_path: Path, *options: str) -> object:
    needed = ["--tracker", TRACKER, "--base_video_dir", "b", "--input_mask_dir", "m", "--output_mask_dir", "o"]
    return track_parser("").parse_args([*needed, "--data", str(tmp_path / "data"), *options])


def test_command_line_takes_files_by_role_and_several_settings_after_one_flag(tmp_path):
    for name in ("s.pt", "p=1.pt"):
        (tmp_path / name).write_text(name)
    files = ["--checkpoint", f"sam={tmp_path / 's.pt'}", f"point_tracker={tmp_path / 'p=1.pt'}"]
    given = given_method(arguments(tmp_path, *files, "--set", "points=pips", "shift=3", "--set", "shift=4"))
    assert given.settings.shift == 4 and given.checkpoint["point_tracker"].path.read_text() == "p=1.pt"
    for wrong, told in {"mask=x.pt": "unknown role", str(tmp_path / "s.pt"): "for which role"}.items():
        with pytest.raises(VosflowError, match=told):
            given_method(arguments(tmp_path, "--checkpoint", wrong))


def test_command_line_takes_fetched_weights_for_roles_that_are_not_given(tmp_path, monkeypatch):
    (tmp_path / "s.pt").write_text("s")
    options = ["--checkpoint", f"sam={tmp_path / 's.pt'}", "--set", "points=cotracker"]
    with pytest.raises(VosflowError, match="cotracker_stride_4_wind_8 are not there") as caught:
        given_method(arguments(tmp_path, *options))
    assert "scripts/fetch.py --checkpoint cotracker_stride_4_wind_8" in caught.value.remedy
    fetched = tmp_path / "data/checkpoints" / find_checkpoint("cotracker_stride_4_wind_8").file
    fetched.parent.mkdir(parents=True)
    fetched.write_text("c")
    expected = find_checkpoint("cotracker_stride_4_wind_8").sha256
    if expected is not None:
        with pytest.raises(VosflowError, match="sha256"):
            given_method(arguments(tmp_path, *options))
        monkeypatch.setattr(method, "file_digest", lambda path: expected)
    given = given_method(arguments(tmp_path, *options))
    assert given.checkpoint["point_tracker"].path == fetched and given.licence_notes == [NON_COMMERCIAL]


def test_track_script_with_roles_and_a_cache(tmp_path):
    make_videos(tmp_path / "data", {"a": 3})
    for name in ("s.pt", "p.pt"):
        (tmp_path / name).write_text(name)
    command = [sys.executable, "scripts/track.py", "--tracker", TRACKER, "--checkpoint", f"sam={tmp_path / 's.pt'}"]
    command += [f"point_tracker={tmp_path / 'p.pt'}", "--base_video_dir", str(tmp_path / "data/JPEGImages/480p")]
    command += ["--input_mask_dir", str(tmp_path / "data/Annotations/480p"), "--cache", str(tmp_path / "cache")]
    for number in (1, 2):
        out = tmp_path / f"out{number}"
        subprocess.run([*command, "--output_mask_dir", str(out), "--set", f"shift={number}"], cwd=HOUSE, check=True)
        record = json.loads((out / ".vosflow/videos/a.json").read_text())
        assert record["artefacts"]["brightness"] == (
            {"made": 3, "reused": 0} if number == 1 else {"made": 0, "reused": 3}
        )
