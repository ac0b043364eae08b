"""Numbers among the options of scripts that are too small to do anything with: refused, and the option is named."""

from __future__ import annotations

import argparse
import ast

import pytest

from tests.unit.scripts import SCRIPTS, run_script
from vosflow.options import at_least


def refusal(script: str, *options: str) -> str:
    """The last line of what a script says when it refuses its options."""
    done = run_script(script, *options)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", ["0", "-3", "2.5", "many", ""])
def test_numbers_that_are_too_small_or_none(text, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=at_least(1))
    with pytest.raises(SystemExit):
        parser.parse_args([f"--workers={text}"])
    assert f"argument --workers: {text}: expected a whole number, 1 or more" in capsys.readouterr().err
    assert [parser.parse_args(["--workers", good]).workers for good in ("1", "64")] == [1, 64]
    assert at_least(0)("0") == 0


def test_evaluating_in_no_process():
    folders = ("--annotations", "a", "--predictions", "p")
    assert refusal("evaluate.py", *folders, "--workers", "0").endswith(
        "argument --workers: 0: expected a whole number, 1 or more"
    )


@pytest.mark.parametrize(
    "shard, said", [("0", "argument --shard: 0: expected"), ("4", "--shard 4: expected one of the 3")]
)
def test_a_shard_that_there_is_not(shard, said):
    """Number 0 was the last one, silently."""
    places = ("--manifest", "m", "--method", "{}", "--folder", "f", "--record", "r")
    assert said in refusal("track_shard.py", *places, "--shard", shard, "--shards", "3")


def test_no_script_takes_just_any_whole_number():
    """Numbers of track.py, see `vosflow.command_line`, are checked together there, or as settings of trackers."""
    bounded = set()
    for path in SCRIPTS.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            loose = words.get("type") == "int" and "choices" not in words
            assert not loose, f"{path.name}: {ast.unparse(call)}: say type=at_least(...)"
            if words.get("type", "").startswith("at_least("):
                bounded.add(path.name)
    assert {"submit.py", "write_report.py"} <= bounded  # one with brackets in its default, one over several lines
