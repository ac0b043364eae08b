"""The summary of a study: its rows, its files, what the terminal shows."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from tests.unit import report_folder
from tests.unit.report_folder import DEFAULTS, make_dataset, make_run, moving_squares, read_rows, write_study
from vosflow.report import filmstrips, results, tables
from vosflow.report.markdown import markdown
from vosflow.trackers.registry import load_tracker

study = report_folder.study


def test_summary_repeats_the_scores_exactly(study, tmp_path):
    summary, _ = write_study(study, tmp_path / "out")
    rows = read_rows(summary)
    assert [row["run"] for row in rows] == [json.loads(path.read_text())["run"] for path in study]
    for row, path in zip(rows, study, strict=True):
        if row["dataset"] == "mose/valid":
            continue
        (scores,) = read_rows(path.parent / "global_results.csv")
        for column in ("J&F", "J", "F"):
            assert row[column] == scores[f"{column}-Mean"]
        for column in ("J-Recall", "F-Recall", "J-Decay", "F-Decay"):
            assert row[column] == scores[column]
        assert row["peak_memory_MiB"] == "300.0" and row["videos"] == "4" and row["objects"] == "8"


def test_markdown_rounds_to_a_tenth_of_a_percent_and_marks_the_best(study):
    rows = tables.summary_rows(results.load_runs(study), ())
    text = markdown(rows)
    best = max((row for row in rows if row["J&F"]), key=lambda row: float(row["J&F"]))
    assert f"**{100 * float(best['J&F']):.1f}**" in text
    assert text.count("**") == 2
    assert "Published" not in text
    demo, mose = text.split("### ")[1:]
    for table in (demo, mose):
        assert len({line.count("|") - line.count("\\|") for line in table.splitlines() if line.startswith("|")}) == 1
    assert "| J-Recall |" in demo and "J-Recall" not in mose  # columns that only other datasets have
    assert demo.startswith("demo/val\n\n4 videos, precision float32\n")
    assert "[1]" in next(line for line in text.splitlines() if "maskmem=9" in line)


def test_percent_has_no_negative_zero_and_names_what_is_not_a_number():
    assert tables.percent(-0.0001) == "0.0"
    assert tables.percent(-0.0001, signed=True) == "0.0"
    assert tables.percent(0.0512, signed=True, decimals=2) == "+5.12"
    assert tables.percent(math.nan) == "n/a"


def test_a_run_without_ground_truth_has_no_number(study, tmp_path):
    summary, text = write_study(study, tmp_path / "out")
    row = next(row for row in read_rows(summary) if row["dataset"] == "mose/valid")
    assert all(row[column] == "" for column in [*tables.SCORE_COLUMNS, "published", "difference"])
    assert json.loads(row["notes"]) == [tables.NO_GROUND_TRUTH]
    assert row["frames_per_second"] == "10.0"
    _, _, table = (tmp_path / "out/summary.md").read_text().partition("### mose/valid\n\n1 video, ")
    assert f"| {tables.NO_GROUND_TRUTH} |" in table
    strips = filmstrips.make_filmstrips(results.load_runs(study))
    hidden = [strip for strip in strips if strip.dataset == "mose/valid"]
    assert [label for label, _ in hidden[0].rows] == ["frame", "prediction"]
    assert all(score is None for _, scores in hidden[0].frames for score in scores)


def test_settings_are_those_that_differ_and_those_that_are_swept(study):
    shown = [json.loads(row["settings"]) for row in tables.summary_rows(results.load_runs(study), ())]
    assert shown == [{}, {"num_maskmem": 1}, {"num_maskmem": 7}, {"num_maskmem": 9}, {}]
    assert results.non_default_settings("sam2", DEFAULTS | {"score_thresh": 0.5}) == {"score_thresh": 0.5}
    assert results.non_default_settings("nobody.has:This", {"a": 1}) == {"a": 1}


def test_a_preset_stands_for_what_it_sets():
    """What a reader would write into a config, not the twenty values that follow from it."""
    kind = load_tracker("sam_pt").Settings
    for given in (
        {},
        {"preset": "head"},
        {"preset": "head", "point_tracker": "tapir", "positive_points_per_mask": 8},  # 8: that of the other one
        {"sam": "hq_vit_h", "use_point_reinit": True},
    ):
        assert results.written_settings("sam_pt", kind(**given).model_dump(mode="json")) == given
    older = {**kind().model_dump(mode="json"), "gone": 1}
    assert results.written_settings("sam_pt", older) == {"gone": 1}
    assert results.written_settings("nobody.has:This", {"a": 1}) == {"a": 1}


def test_notes_of_all_runs_are_told_once(tmp_path):
    manifest = make_dataset(tmp_path, {"a": moving_squares(1)})
    notes = {"one": ["of all"], "two": ["of all", "of one"]}
    paths = [make_run(tmp_path, manifest, name, {"a": moving_squares(1)[1]}, notes=notes[name]) for name in notes]
    rows = tables.summary_rows(results.load_runs(paths), ())
    assert tables.common_notes(rows) == ["of all"] and tables.common_notes(rows[:1]) == []
    text = markdown(rows)
    assert text.count("of all") == 1 and "| two [1] |" in text and "- [1] of one" in text and "| one |" in text


def test_a_score_that_is_no_number_is_never_the_best(study):
    first, *others = [run for run in results.load_runs(study) if run.dataset == "demo/val"]
    nan = replace(first, scores=dict.fromkeys(first.scores, math.nan))
    assert results.main_runs([nan, *others])["demo/val"] is not nan
    assert results.main_runs([nan])["demo/val"] is nan
