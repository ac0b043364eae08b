"""The config: what is refused, and in which words; the schema is current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vosflow import config
from vosflow.config import config_schema, parse_config, read_config
from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]
LINE = {"dataset": "demo/val", "tracker": "static"}


def refusal(data) -> str:
    with pytest.raises(VosflowError) as caught:
        parse_config(data)
    return str(caught.value)


def test_defaults():
    study = parse_config({"runs": [LINE]})
    assert study.execution.device == "auto" and study.paths.results == "results"
    assert study.runs[0].checkpoint is None and study.runs[0].settings == {}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["runs", "required"]),
        ({"runs": []}, ["runs", "at least 1"]),
        ({"runs": [LINE], "exectuion": {}}, ["exectuion: unknown key", "did you mean 'execution'?"]),
        ({"runs": [{**LINE, "chekpoint": "x"}]}, ["runs.0.chekpoint", "did you mean 'checkpoint'?"]),
        ({"runs": [LINE], "execution": {"device": "gpu"}}, ["execution.device", "'cpu' or 'cuda'", "'gpu'"]),
        ({"runs": [LINE], "execution": {"shards": 0}}, ["execution.shards: ", "from 1 to 10000, or 'auto'"]),
        ({"runs": [LINE], "execution": {"shards": "many"}}, ["execution.shards: ", "from 1 to 10000, or 'auto'"]),
        ({"runs": [{**LINE, "dataset": []}]}, ["runs.0.dataset", "empty list"]),
        ({"runs": [{**LINE, "settings": {"shift": []}}]}, ["runs.0.settings", "shift", "empty list"]),
        ({"runs": [LINE], "paths": {"results": "a{b}"}}, ["paths.results", "braces"]),
        ({"runs": [LINE], "execution": {"shrads": 2}}, ["did you mean 'shards'?", "Known here: device, shards"]),
        ({"runs": [{**LINE, "name": "a/b"}]}, ["runs.0.name", "folder"]),
        ({"runs": [LINE], "datasets": {"mine": {"base_video_dir": "x", "input_mask_dir": "y"}}}, ["name/split"]),
    ],
)
def test_mistakes_are_named(data, words):
    message = refusal(data)
    for word in words:
        assert word in message


def test_paths_have_one_spelling(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = parse_config({"runs": [LINE], "paths": {"results": "./results//", "data": "~/data"}}).paths
    assert (paths.results, paths.data) == ("results", "/home/me/data")


def test_all_mistakes_are_told_at_once():
    message = refusal({"runs": [{"tracker": "static"}], "report": {"tilte": "x"}})
    assert "runs.0.dataset" in message and "did you mean 'title'?" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs: [a]\npaths: {}\nruns: [b]\n", ["'runs'", "lines 1 and 3"]),
        ("runs:\n  - tracker: a\n    settings:\n      x: 1\n      x: 2\n", ["'x'", "lines 4 and 5"]),
        ("runs:\n\t- tracker: a\n", ["line 2", "found character"]),
        ("- a\n", ["no keys"]),
    ],
)
def test_a_file_that_says_something_twice_or_nothing_is_named(text, words, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(VosflowError) as caught:
        read_config(tmp_path / "study.yaml")
    assert all(word in str(caught.value) for word in ["study.yaml", *words])


def test_anchors_may_be_used(tmp_path):
    (tmp_path / "study.yaml").write_text("runs:\n  - &a {tracker: x}\n  - {<<: *a, name: b}\n  - {<<: *a, name: c}\n")
    assert [line.get("name") for line in read_config(tmp_path / "study.yaml")["runs"]] == [None, "b", "c"]


def test_the_schema_is_current():
    path = Path(config.__file__).with_name("config.schema.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(config_schema())), "run: python scripts/make_schema.py"


@pytest.mark.parametrize(
    "path", [HOUSE / "config.yaml", *sorted((HOUSE / "studies").glob("*.yaml"))], ids=lambda p: p.name
)
def test_shipped_configs_are_valid_and_name_their_schema(path):
    parse_config(yaml.safe_load(path.read_text()), str(path))
    hint = path.read_text().splitlines()[0]
    assert hint.startswith("# yaml-language-server: $schema=")
    assert (path.parent / hint.partition("=")[2]).resolve() == Path(config.__file__).with_name("config.schema.json")
