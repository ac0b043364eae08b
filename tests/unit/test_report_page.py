"""The page as a whole: well formed, complete, the same each time, and refused where its inputs are damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.unit import report_folder
from tests.unit.report_folder import Reader, make_dataset, make_run, moving_squares, shifted, write_study
from tests.unit.scripts import run_script
from vosflow.errors import VosflowError
from vosflow.report import page, plots, results, tables
from vosflow.report.terminal import print_summary

study = report_folder.study


def test_the_page_loads_nothing_and_is_well_formed(study, tmp_path):
    _, text = write_study(study, tmp_path / "out")
    reader = Reader(text)
    for tag, attributes in reader.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "action", "srcset", "poster", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttp|https?://", text)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (target[0] or target[1]) in ids


def test_names_and_notes_are_escaped_everywhere(tmp_path):
    nasty = "<script>alert(1)</script>"
    manifest = make_dataset(tmp_path, {"a|b $x$ & <i>": moving_squares(1), "[red]c": moving_squares(2)})
    predictions = {entry.name: shifted(moving_squares(1)[1], 2) for entry in manifest.videos}
    paths = [
        make_run(tmp_path, manifest, "one<b>", predictions, notes=[nasty], device=nasty),
        make_run(tmp_path, manifest, "[bold]two|$y$", predictions, speed=20.0),
    ]
    summary, text = write_study(paths, tmp_path / "out", title=nasty)
    for raw in (nasty, "one<b>", "& <i>"):
        assert raw not in text
    reader = Reader(text)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    words = "".join(reader.words)
    assert "one<b>" in words and "[bold]two|$y$" in words and "a|b $x$ & <i>" in words
    runs = results.load_runs(paths)
    drawn = plots.plot_speed(runs) + plots.plot_videos(runs)["demo/val"]
    assert {"one<b>", "[bold]two|$y$", "a|b $x$ & <i>", "[red]c"} <= set(Reader(drawn).words)
    table = [line for line in (tmp_path / "out/summary.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    console = Console(width=100, record=True, file=StringIO())
    print_summary(summary, console)
    assert "[bold]two|$y$" in console.export_text()


def test_the_same_results_give_the_same_bytes(study, tmp_path):
    _, first = write_study(study, tmp_path / "one")
    _, second = write_study(study, tmp_path / "two")
    assert first == second
    assert (tmp_path / "one/summary.md").read_bytes() == (tmp_path / "two/summary.md").read_bytes()


def test_a_study_of_one_run_of_one_video(tmp_path):
    manifest = make_dataset(tmp_path, {"alone": moving_squares(3, frames=4, objects=1)})
    path = make_run(tmp_path, manifest, "static", {"alone": shifted(moving_squares(3, 4, 1)[1], 2)})
    _, text = write_study([path], tmp_path / "out")
    assert ">only video</span>" in text and ">largest gap</span>" not in text
    assert "J&amp;F against" not in text  # nothing to compare
    assert "**" not in (tmp_path / "out/summary.md").read_text()


def test_a_video_without_objects_is_shown_without_masks(tmp_path):
    images, label_maps = moving_squares(1)
    manifest = make_dataset(tmp_path, {"empty": (images, np.zeros_like(label_maps))}, ground_truth=False)
    path = make_run(tmp_path, manifest, "static", {"empty": np.zeros_like(label_maps)})
    _, text = write_study([path], tmp_path / "out")
    assert text.count("<img") == 2 * 6  # frames and predictions


def test_filmstrips_can_be_left_out(study, tmp_path):
    _, text = write_study(study, tmp_path / "out", filmstrips=0)
    assert "<img" not in text and "data:image" not in text


def test_moved_results_are_found_beside_the_run(study, tmp_path):
    shutil.move(tmp_path / "results", tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / path.relative_to(tmp_path / "results") for path in study]
    _, text = write_study(moved, tmp_path / "out")
    assert "<img" in text


def break_json(path: Path) -> None:
    path.write_text("{")


def drop_scores(path: Path) -> None:
    (path.parent / "global_results.csv").unlink()


def scores_of_other_videos(path: Path) -> None:
    text = (path.parent / "scores.csv").read_text()
    (path.parent / "scores.csv").write_text(text.replace("zoom,", "other,"))


def drop_frame(path: Path) -> None:
    for frame in (path.parents[3] / "data/demo-val/JPEGImages").glob("*/*.jpg"):
        frame.unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_json, "run.json"),
        (drop_scores, "global_results.csv"),
        (scores_of_other_videos, "scores.csv: the scores are not those of this run's videos"),
        (drop_frame, "00001.jpg"),
    ],
)
def test_damaged_inputs_are_named(study, tmp_path, damage, words):
    for path in study[:4]:
        damage(path)
    with pytest.raises(VosflowError, match=re.escape(words)):
        write_study(study, tmp_path / "out")


def test_a_page_with_another_studys_table_is_refused(study, tmp_path):
    runs = results.load_runs(study)
    tables.write_summary(tables.summary_rows(runs[:2], ()), tmp_path / "summary.csv")
    with pytest.raises(VosflowError, match="not that of the given runs"):
        page.write_page(runs, tmp_path / "summary.csv", tmp_path, published=())


def test_the_page_names_protocol_checkpoint_and_versions(study, tmp_path):
    _, text = write_study(study, tmp_path / "out")
    assert "<code>davis2017</code>" in text
    assert "4. 255 in the ground truth is background." in text  # the rules are the protocol's own words
    assert "5e" * 32 in text and "3.11.7" in text
    assert "No public ground truth" in text
    assert "out of distribution" in text


def test_scripts(study, tmp_path):
    call = partial(run_script, cwd=tmp_path, env={**os.environ, "COLUMNS": "120"})

    summary = tmp_path / "tables/summary.csv"
    done = call("summarize.py", "--runs", *study, "--csv", summary, "--md", tmp_path / "tables/summary.md")
    assert done.returncode == 0, done.stderr
    output = ("--output", tmp_path / "report", "--title", "A & B", "--filmstrips", "1")
    done = call("write_report.py", "--runs", *study, "--summary", summary, *output)
    assert done.returncode == 0, done.stderr
    assert "<title>A &amp; B</title>" in (tmp_path / "report/index.html").read_text()
    done = call("show_results.py", "--summary", summary, "--page", tmp_path / "report/index.html")
    assert done.returncode == 0, done.stderr
    best = results.main_runs(results.load_runs(study))["demo/val"]
    assert f"{100 * best.score:.1f}" in done.stdout and str(tmp_path / "report/index.html") in done.stdout.replace(
        "\n", ""
    )
    assert tables.NO_GROUND_TRUTH in done.stdout
    done = call("show_results.py", "--summary", tmp_path / "none.csv", "--page", tmp_path / "report/index.html")
    assert done.returncode == 1 and "none.csv" in done.stderr and "Traceback" not in done.stderr


def test_a_study_of_long_names_and_of_many_methods(tmp_path):
    manifest = make_dataset(tmp_path, {"v" * 90: moving_squares(1)})
    paths = []
    for index in range(10):
        name = f"run{index}@some_setting_of_a_tracker=" + "x" * 100
        predictions = {"v" * 90: shifted(moving_squares(1)[1], index)}
        facts = {"tracker": "sam2", "checkpoint": f"net{index}", "speed": 1.0 + index}
        paths.append(make_run(tmp_path, manifest, name, predictions, **facts))
    _, text = write_study(paths, tmp_path / "out", filmstrips=0)
    assert "sam2 with 10 sets of weights on demo/val." in " ".join(text.split())
    words = Reader(text).words
    assert all(json.loads(path.read_text())["run"] in words for path in paths)
