"""run.json joins the plan with what the video records say, and shows mixtures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.unit.clips import make_videos
from vosflow.describe import describe_run
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.method import Method

PLAN = {
    "dataset": "toy",
    "split": "val",
    "run": "static",
    "tracker": "static",
    "settings": {},
    "swept": {},
    "notes": ["of the settings"],
    "checkpoint": None,
    "scored": True,
}


@pytest.fixture
def tracked(tmp_path):
    manifest = replace(make_videos(tmp_path / "data", {"a": 3, "b": 5}), notes=("of the dataset",))
    track_videos(Method.of("static"), manifest, ["a", "b"], tmp_path / "run")
    return manifest, tmp_path / "run"


def test_totals_are_sums_of_the_videos(tracked):
    manifest, folder = tracked
    run = describe_run(PLAN, manifest, "manifest.json", folder)
    seconds = sum(video["seconds"] for video in run["videos"])
    assert run["totals"]["videos"] == 2 and run["totals"]["frames"] == 8 and run["totals"]["objects"] == 4
    assert run["totals"]["frames_per_second"] == pytest.approx(8 / seconds)
    assert run["totals"]["peak_memory_bytes"] == max(video["peak_memory_bytes"] for video in run["videos"])
    assert run["notes"] == ["of the settings", "of the dataset"] and run["protocol"] == "davis2017"
    assert len(run["provenance"]["code"]) == 64 and run["provenance"]["devices"] == ["cpu"]


def test_videos_tell_what_made_them_slow_or_fast(tracked):
    """Also those of older records."""
    manifest, folder = tracked
    path = folder / "videos/b.json"
    counts = {"flow": {"made": 1, "reused": 2}, "point_tracks": {"made": 0, "reused": 3}}
    older = {name: value for name, value in json.loads(path.read_text()).items() if name != "load_seconds"}
    path.write_text(json.dumps({**older, "artefacts": counts}))
    run = describe_run(PLAN, manifest, "manifest.json", folder)
    assert [video["reused"] for video in run["videos"]] == [0, 5]
    assert run["videos"][0]["load_seconds"] >= 0 and run["videos"][1]["load_seconds"] is None


def test_remarks_of_videos_become_notes(tracked):
    manifest, folder = tracked
    for name, remarks in {"a": ["had too little memory", "was late"], "b": ["had too little memory"]}.items():
        path = folder / f"videos/{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"remarks": remarks}))
    notes = describe_run(PLAN, manifest, "manifest.json", folder)["notes"]
    assert notes[2:] == ["had too little memory (video a, b)", "was late (video a)"]


def test_weights_are_named_by_the_digest_that_was_tracked_with(tracked):
    manifest, folder = tracked
    record = json.loads((folder / "videos/a.json").read_text())
    record["weights"] = "a" * 64
    record["provenance"]["torch"] = "1.0"
    (folder / "videos/a.json").write_text(json.dumps(record))
    plan = {**PLAN, "checkpoint": {"id": "mine", "file": "w.pt", "config": None}}
    run = describe_run(plan, manifest, "manifest.json", folder)
    assert run["checkpoint"]["sha256"] == "a" * 64
    assert run["provenance"]["torch"].startswith("1.0, "), "videos of two versions show both"


def test_a_missing_record_is_an_error(tracked):
    manifest, folder = tracked
    (folder / "videos/b.json").unlink()
    with pytest.raises(VosflowError, match="video b has no record"):
        describe_run(PLAN, manifest, "manifest.json", folder)
