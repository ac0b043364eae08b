"""Tables and pages of runs that were scored by protocols with scores of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.unit.report_folder import make_dataset, make_run, moving_squares, shifted
from vosflow.evaluation.run import evaluate_run
from vosflow.manifest import LABEL_MAPS, PER_OBJECT, Manifest, save_manifest
from vosflow.report import tables
from vosflow.report.filmstrips import make_filmstrips
from vosflow.report.markdown import markdown
from vosflow.report.page import render_page
from vosflow.report.results import RunResult, load_runs, main_runs
from vosflow.report.terminal import print_summary


def scored_dataset(root: Path, protocol: str) -> list[Path]:
    """Two runs on a dataset named like its protocol, the first one better; really scored."""
    clip = moving_squares(1)
    layout = PER_OBJECT if protocol == "sav" else LABEL_MAPS
    manifest = make_dataset(root, {"a": clip}, dataset=protocol, layout=layout)
    (video,) = manifest.videos
    if protocol == "lvos":  # all objects are seen ones: there is no mean over both groups
        frames = dict.fromkeys(video.objects, video.ground_truth.names)
        video = replace(video, object_frames=frames, groups=dict.fromkeys(video.objects, "seen"))
    manifest: Manifest = replace(manifest, videos=(video,), protocol=protocol)
    save_manifest(manifest, root / "results" / f"{protocol}-val" / "manifest.json")
    paths = []
    for name, lag in (("near", 1), ("far", 3)):
        swept = {"lag": lag}
        paths.append(make_run(root, manifest, name, {"a": shifted(clip[1], lag)}, settings=swept, swept=swept))
        evaluate_run(manifest, paths[-1].parent / "masks", paths[-1].parent)
    return paths


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[RunResult]:
    root = tmp_path_factory.mktemp("study")
    return load_runs(path for name in ("davis2017", "mosev2", "sav", "lvos") for path in scored_dataset(root, name))


def of(rows: list[tables.Row], dataset: str) -> tables.Row:
    return next(row for row in rows if row["dataset"] == f"{dataset}/val")


def test_rows_hold_what_each_protocol_adds_and_nothing_where_it_does_not(runs) -> None:
    rows = tables.summary_rows(runs)
    davis, mosev2, sav, lvos = (of(rows, name) for name in ("davis2017", "mosev2", "sav", "lvos"))
    assert all(set(row) == set(rows[0]) for row in rows)
    assert [row["headline"] for row in (davis, mosev2, sav, lvos)] == ["J&F", "J&F-dot", "J&F", "J&F"]
    assert davis["J-Recall"] and not davis["J&F-dot"] and not davis["V-seen"]
    assert mosev2["J&F-dot"] and mosev2["J&F-dot-reappearance"] == "nan" and not mosev2["J-Recall"]
    assert sav["J&F"] and not sav["J-Recall"] and not sav["J&F-dot"]
    assert (lvos["J&F"], lvos["J-unseen"]) == ("nan", "nan") and float(lvos["J-seen"]) > 0
    for row, run in zip(rows, runs, strict=True):
        assert row[row["headline"]] == str(run.score)


def test_summary_files(runs, tmp_path: Path) -> None:
    rows = tables.summary_rows(runs)
    tables.write_summary(rows, tmp_path / "summary.csv")
    assert tables.read_summary(tmp_path / "summary.csv") == rows
    headings, bold, dataset = {}, {}, ""
    for line in markdown(rows).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        dataset = line.removeprefix("### ") if line.startswith("### ") else dataset
        headings |= {dataset: cells} if cells[0] == "Run" else {}
        bold.update((dataset, headings[dataset][n]) for n, cell in enumerate(cells) if cell.startswith("**"))
    assert bold == {"davis2017/val": "J&F", "mosev2/val": "J&F-dot", "sav/val": "J&F"}  # lvos has no number to compare
    assert {dataset: names[2] for dataset, names in headings.items()} == {**bold, "lvos/val": "J&F"}  # the main score
    assert "J-Recall" in headings["davis2017/val"] and "J-Recall" not in headings["sav/val"]
    assert "V-seen" in headings["lvos/val"] and "V-seen" not in headings["mosev2/val"]


def test_notes_of_the_protocol_stand_with_the_numbers(runs) -> None:
    rows = tables.summary_rows(runs)
    assert any("+1" in note for note in json.loads(of(rows, "mosev2")["notes"]))
    assert json.loads(of(rows, "davis2017")["notes"]) == []
    assert "The SA-V evaluator counts an object only from its first sight" in markdown(rows)


def test_columns_that_no_run_has_are_not_shown(runs) -> None:
    sav = [run for run in runs if run.dataset == "sav/val"]
    headings = tables.shown_columns(tables.summary_rows(sav))
    assert {"J&F", "J", "F"} <= set(headings)
    assert not {"J-Recall", "F-Decay", "J&F-dot"} & set(headings)


def test_terminal_shows_the_main_score_first(runs, tmp_path: Path, capsys) -> None:
    tables.write_summary(tables.summary_rows(runs), tmp_path / "summary.csv")
    print_summary(tmp_path / "summary.csv", Console(width=80))
    text = capsys.readouterr().out
    title = text.index("mosev2/val")
    assert text[title:].split("\n")[2].split()[:5] == ["Run", "J&F-dot", "J&F", "J", "F"]


def test_the_page_and_its_figures(runs) -> None:
    runs = [run for run in runs if run.dataset in ("mosev2/val", "lvos/val")]
    text = render_page(runs, tables.summary_rows(runs), title="study", filmstrips=2)
    assert "Protocol <code>mosev2</code>" in text and "Its main score is J&amp;F-dot." in text
    assert "J is smoothed: (intersection + 1) / (union + 1)" in text  # the rules, as the code states them
    assert "<li>MOSEv2&#39;s J is (I+1)/(U+1)" in text
    assert "J&amp;F-dot (%)" in text  # an axis


def test_runs_are_ranked_by_the_main_score(runs) -> None:
    assert {dataset: run.name for dataset, run in main_runs(runs).items()} == dict.fromkeys(
        ("davis2017/val", "mosev2/val", "sav/val", "lvos/val"), "near"
    )
    first = next(run for run in runs if run.dataset == "mosev2/val")
    assert replace(first, scores={**first.scores, "J&F-dot-Mean": 0.125}).score == 0.125
    assert first.score_name == "J&F-dot"


def test_filmstrips_of_runs_whose_scored_frames_differ(tmp_path: Path) -> None:
    """By vos-benchmark's rules a false positive on frame 1 makes the list of an object longer."""
    images, label_maps = moving_squares(1, objects=1)
    label_maps[1:4] = 0
    early = label_maps.copy()
    early[1] = label_maps[0]
    manifest = replace(make_dataset(tmp_path, {"a": (images, label_maps)}), protocol="vos-benchmark")
    save_manifest(manifest, tmp_path / "results" / "demo-val" / "manifest.json")
    paths = []
    for name, masks in (("lagging", shifted(label_maps, 8)), ("early", early)):
        paths.append(make_run(tmp_path, manifest, name, {"a": masks}))
        evaluate_run(manifest, paths[-1].parent / "masks", paths[-1].parent)
    lagging, early_one = runs = load_runs(paths)
    assert early_one.score > lagging.score
    assert set(lagging.frame_scores["a"]) == {"00004", "00005", "00006"}
    assert set(early_one.frame_scores["a"]) == {"00001", "00002", "00003", "00004", "00005", "00006"}
    gap = next(strip for strip in make_filmstrips(runs) if strip.title == "largest gap")
    assert {frame for frame, _ in gap.frames} == set(lagging.frame_scores["a"])
