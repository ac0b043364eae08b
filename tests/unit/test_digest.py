"""What changes a code digest and what does not."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import sys
from pathlib import Path

import pytest

import vosflow
from vosflow.digest import canonical_json, code_digest, data_digest, file_digest

BASE = '''
"""Docstring."""
from helper_of_toy import double


def f(x):
    """Says what it does."""
    if x < 0:
        raise ValueError("x is negative")
    return double(x) + 1
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Writes the modules of a user's package `toy_package` and returns a function that digests them."""
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper_of_toy.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    written = itertools.count(1)

    def write(path, text):
        path.write_text(text)
        os.utime(path, (next(written),) * 2)  # two edits within a tick of the clock are none to a file system

    def digest(source=None, helper=None):
        if source is not None:
            write(package / "module.py", source)
        if helper is not None:
            write(package / "helper_of_toy.py", helper)
        importlib.invalidate_caches()
        return code_digest("toy_package.module")

    yield digest
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]


RELATIVE = BASE.replace("from helper_of_toy", "from .helper_of_toy")


@pytest.mark.parametrize(
    "edited",
    [
        RELATIVE + "\n# a comment\n",
        RELATIVE.replace("Says what it does.", "Says it in other words."),
        RELATIVE.replace("x is negative", "x must not be negative"),
        RELATIVE.replace("double(x) + 1", "(double(x)\n        + 1)"),
    ],
    ids=["comment", "docstring", "error message", "formatting"],
)
def test_cosmetic_edits_keep_the_digest(toy, edited):
    assert toy(RELATIVE) == toy(edited)


@pytest.mark.parametrize(
    "edited",
    [
        RELATIVE.replace("+ 1", "+ 2"),
        RELATIVE.replace("x < 0", "x <= 0"),
        RELATIVE.replace("ValueError", "TypeError"),
        RELATIVE + "\nlimit = 'text'\n",
    ],
    ids=["constant", "comparison", "kind of error", "new name"],
)
def test_logic_edits_change_the_digest(toy, edited):
    assert toy(RELATIVE) != toy(edited)


def test_logic_of_an_imported_module_counts(toy):
    before = toy(RELATIVE)
    assert toy(helper="def double(x):\n    return x + x\n") != before
    assert toy(helper="def double(x):\n    return 2 * x  # twice\n") == before


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of vosflow's sources to edit; digests are taken from it."""
    copy = tmp_path / "vosflow"
    shutil.copytree(Path(vosflow.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.setattr(vosflow, "__file__", str(copy / "__init__.py"))
    return copy


def test_a_module_of_one_tracker_changes_only_that_tracker(copied_package):
    before = {name: code_digest(f"vosflow.trackers.{name}") for name in ("static", "flow", "sam2")}
    path = copied_package / "trackers" / "flow.py"
    path.write_text(path.read_text() + "\nEDITED = True\n")
    after = {name: code_digest(f"vosflow.trackers.{name}") for name in ("static", "flow", "sam2")}
    assert before["flow"] != after["flow"]
    assert before["static"] == after["static"] and before["sam2"] == after["sam2"]


def test_errors_and_version_are_not_logic(copied_package):
    before = code_digest("vosflow.trackers.sam2")
    for name in ("__init__.py", "errors.py"):
        (copied_package / name).write_text((copied_package / name).read_text() + "\nEDITED = True\n")
    assert code_digest("vosflow.trackers.sam2") == before


def test_words_for_readers_are_not_logic(copied_package):
    before = {name: code_digest(f"vosflow.trackers.{name}") for name in ("static", "sam2")}
    for path, old, new in (
        ("trackers/sam2/__init__.py", "does not fill holes", "leaves holes open"),
        ("video.py", "is missing", "is not there"),
    ):
        text = (copied_package / path).read_text()
        assert old in text
        (copied_package / path).write_text(text.replace(old, new))
    assert {name: code_digest(f"vosflow.trackers.{name}") for name in ("static", "sam2")} == before


def test_data_digest_ignores_the_order_of_keys():
    assert data_digest({"a": 1, "b": [1, 2]}) == data_digest({"b": [1, 2], "a": 1})
    assert data_digest({"a": [1, 2]}) != data_digest({"a": [2, 1]})
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'


def test_file_digest_is_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_digest(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_modules_beside_a_users_module_count_and_installed_ones_do_not(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lone_tracker.py").write_text("import numpy\nimport lone_helper\nimport torch.nn.functional as F\n")
    (tmp_path / "lone_helper.py").write_text("x = 1\n")
    before = code_digest("lone_tracker")
    (tmp_path / "lone_helper.py").write_text("x = 22\n")
    assert code_digest("lone_tracker") != before
    assert "lone_helper" not in sys.modules, "a digest must not import what it reads"
