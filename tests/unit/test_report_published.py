"""Published numbers: which runs they are compared with, and what is said where they are not."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.unit import report_folder
from tests.unit.report_folder import Reader, published_row, read_rows, write_study
from vosflow.report import published, results, tables
from vosflow.report.markdown import markdown
from vosflow.report.published import as_printed
from vosflow.report.result_tables import result_tables

study = report_folder.study


@pytest.fixture
def as_large_as_the_catalog_says(monkeypatch):
    monkeypatch.setattr(
        published, "find_split", lambda dataset, split: SimpleNamespace(videos=4, frames=None, objects=None)
    )


def test_published_numbers_join_runs_at_default_settings(study, tmp_path, as_large_as_the_catalog_says):
    known = (published_row(), published_row(value=80.0, source="a later paper"), published_row(metric="J", value=91.0))
    summary, text = write_study(study, tmp_path / "out", published=known)
    rows = {row["run"]: row for row in read_rows(summary) if row["dataset"] == "demo/val"}
    assert [run for run, row in rows.items() if row["published"]] == ["sam2_demo@num_maskmem=7"]  # 7 is as trained
    row = rows["sam2_demo@num_maskmem=7"]
    assert float(row["published"]) == 0.905
    assert float(row["difference"]) == float(row["J&F"]) - 0.905
    comparable, _, others = text.partition("Published, but not comparable")
    assert comparable.count("<td>J&amp;F</td>") == 2 and comparable.count("<td>J</td>") == 1
    assert others.count("other settings here: num_maskmem=") == 6  # two runs with 1 and 9 memories, three numbers
    assert "a paper &lt;Table 4&gt;" in text
    assert f"{100 * float(row['J&F']):.2f}" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "sam2_large"},
        {"dataset": "davis2017"},
        {"split": "train"},
        {"tracker": "sam2long"},
        {"metric": "G"},
    ],
)
def test_published_numbers_of_something_else_do_not_join(study, changes, as_large_as_the_catalog_says):
    assert not any(published.compare(run, [published_row(**changes)]) for run in results.load_runs(study))


def why_not(study, name: str = "sam2_demo@num_maskmem=7", **changes) -> tuple[str, ...]:
    """The reasons why the run of that name is not comparable with a published row."""
    (run,) = (run for run in results.load_runs(study) if run.key == ("demo/val", name))
    (comparison,) = published.compare(run, [published_row(**changes)])
    assert (comparison.difference is None) == bool(comparison.reasons) == (comparison.within_tolerance is None)
    return comparison.reasons


def test_published_numbers_are_compared_with_all_of_the_videos(study, monkeypatch):
    facts = SimpleNamespace(videos=30, frames=None, objects=61)
    monkeypatch.setattr(published, "find_split", lambda dataset, split: facts)
    (objects,) = {run.description["totals"]["objects"] for run in results.load_runs(study) if run.dataset == "demo/val"}
    assert why_not(study) == ("4 of 30 videos", f"{objects} of 61 objects")


def test_a_preset_is_no_setting_of_its_own():
    """What it stands for are other settings, and these are compared."""
    settings = {"preset": "script", "num_pathway": 3, "iou_thre": 0.3, "uncertainty": 2.0}
    run = SimpleNamespace(tracker="sam2long", changed_settings=results.non_default_settings("sam2long", settings))
    assert published._method_settings(run) == {"iou_thre": 0.3}


@pytest.mark.parametrize(
    "name, changes, reasons",
    [
        ("sam2_demo@num_maskmem=7", {}, ()),
        ("sam2_demo@num_maskmem=1", {}, ("other settings here: num_maskmem=1 (published: default)",)),
        ("sam2_demo@num_maskmem=1", {"settings": {"num_maskmem": 1}}, ()),
        (
            "sam2_demo@num_maskmem=7",
            {"settings": {"num_maskmem": 1}},
            ("other settings here: num_maskmem=7 (published: 1)",),
        ),
        ("sam2_demo@num_maskmem=7", {"evaluator": "davis2017"}, ()),
        (
            "sam2_demo@num_maskmem=7",
            {"evaluator": "server"},
            ("scored by the publisher's server, here by the rules of davis2017",),
        ),
        ("sam2_demo@num_maskmem=7", {"not_comparable": "other weights"}, ("other weights",)),
    ],
)
def test_why_published_numbers_are_not_comparable(study, name, changes, reasons, as_large_as_the_catalog_says):
    assert why_not(study, name, **changes) == reasons


def test_tolerance(study, as_large_as_the_catalog_says):
    (run,) = (run for run in results.load_runs(study) if run.key == ("demo/val", "sam2_demo@num_maskmem=7"))
    score = 100 * run.scores["J&F-Mean"]
    for value, within in ((score, True), (score - 0.5, True), (score - 0.52, False)):
        (comparison,) = published.compare(run, [published_row(value=value)])
        assert comparison.within_tolerance is within


def test_what_is_not_comparable_is_told_and_not_counted(study, tmp_path, as_large_as_the_catalog_says):
    summary, text = write_study(study, tmp_path / "out", published=(published_row(not_comparable="other weights"),))
    rows = [row for row in read_rows(summary) if row["not_comparable"]]
    assert rows and all(row["published"] == row["difference"] == "" for row in rows)
    assert rows[-1]["not_comparable"].startswith("90.5 published for SAM 2: other weights")
    assert "Published, but not comparable" in text and "<h2>Published and reproduced" in text
    assert "other weights" in (tmp_path / "out/summary.md").read_text()


def test_what_a_server_gave_others_stands_beside_a_run_that_it_will_score(study, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "find_split", lambda *split: SimpleNamespace(videos=2, frames=None, objects=None))
    theirs = {"dataset": "mose", "split": "valid", "evaluator": "server", "value": 73.7}
    known = (published_row(**theirs), published_row(**theirs, tracker="sam2long"))
    summary, text = write_study(study, tmp_path / "out", published=known)
    before, _, table = text.partition("Published, but not comparable")
    assert table.count("73.7") == 1 and "<td>1 of 2 videos</td>" in table
    assert "Where ground truth is not public" not in before and before.count("73.7") == 1  # beside the run's speed
    assert "73.7" not in summary.read_text()
    monkeypatch.setattr(published, "find_split", lambda *split: SimpleNamespace(videos=1, frames=None, objects=None))
    _, text = write_study(study, tmp_path / "all", published=known)
    assert "not comparable" not in text and "73.7" in text.partition("Where ground truth is not public")[2]


def test_a_score_that_is_no_number_is_compared_with_nothing(study, as_large_as_the_catalog_says):
    """As that of LVOS without its lists of videos: the published number is shown, and no difference."""
    runs = [run for run in results.load_runs(study) if run.name.endswith("=7")]
    runs = [replace(run, scores=dict.fromkeys(run.scores, math.nan)) for run in runs]
    rows = tables.summary_rows(runs, [published_row()])
    assert rows[0]["not_comparable"] == "90.5 published for SAM 2: no J&F could be computed here"
    assert rows[0]["published"] == rows[0]["difference"] == ""
    ((table,), _) = result_tables(runs, rows, [published_row()])
    assert [cell.text for cell in table.lines[0].cells[:3]] == ["n/a", "90.5", "not comparable"]


def test_what_is_published_stands_beside_each_run(study, as_large_as_the_catalog_says):
    """Where its own number is looked for: the published one, how far it is, or that they cannot be compared."""
    runs = results.load_runs(study)
    known = (published_row(value=90.0, settings={"num_maskmem": 1}), published_row(value=99.25))
    (table, _), _ = result_tables(runs, tables.summary_rows(runs, known), known)
    places = [heading for heading, _ in table.columns]
    assert places[:3] == ["J&F", "Published", "Difference"]
    shown = {line.name: [cell.text for cell in line.cells[1:3]] for line in table.lines}
    assert shown.pop("static") == ["", ""]
    best = next(run for run in runs if run.name.endswith("=7")).score
    assert shown["sam2_demo@num_maskmem=7"] == ["99.25", f"{100 * best - 99.25:.1f}".replace("-", "−")]
    assert shown["sam2_demo@num_maskmem=1"][0] == "90.0"  # comparable, though it is not the first
    assert shown["sam2_demo@num_maskmem=9"][1] == "not comparable"
    (why,) = (line.cells[2].hint for line in table.lines if line.name.endswith("=9"))
    assert why == "other settings here: num_maskmem=9 (published: 1)"


def test_links_to_published_numbers_lead_somewhere(study, tmp_path, as_large_as_the_catalog_says):
    known = (published_row(value=99.25), published_row(dataset="mose", split="valid", evaluator="server", value=70.0))
    _, text = write_study(study, tmp_path / "out", published=known)
    places = {attributes["id"] for _, attributes in Reader(text).tags if "id" in attributes}
    links = {attributes["href"][1:] for tag, attributes in Reader(text).tags if tag == "a"}
    assert links <= places
    kinds = {place.partition("-")[0] for place in links}
    assert {"published", "why", "run", "results", "note"} <= kinds


def test_of_what_cannot_be_compared_the_nearest_comes_first(study, as_large_as_the_catalog_says):
    far = published_row(value=80.0, settings={"num_maskmem": 1, "image_size": 512})
    near = published_row(value=70.0, settings={"num_maskmem": 1})
    other = published_row(value=60.0, not_comparable="other weights")
    server = published_row(value=50.0, evaluator="server")
    (run,) = (run for run in results.load_runs(study) if run.name.endswith("=7"))
    assert [one.row.value for one in published.compare(run, [other, server, far, near])] == [70.0, 80.0, 50.0, 60.0]


def test_published_numbers_are_shown_as_printed():
    assert [as_printed(published_row(value=value)) for value in (77.0, 76.65, 90.2)] == ["77.0", "76.65", "90.2"]


def test_agreement_is_labelled_and_never_compared(study, as_large_as_the_catalog_says):
    """MOSE's sample submission is somebody's prediction: what agrees with it has reproduced nothing."""
    runs = results.load_runs(study)
    changed = [replace(run, description={**run.description, "agreement_with": "the sample submission"}) for run in runs]
    assert not any(published.compare(run, [published_row()]) for run in changed)
    rows = tables.summary_rows(changed, (published_row(),))
    assert {row["compared_with"] for row in rows} == {"agreement with the sample submission", ""}
    assert "agreement with the sample submission" in markdown(rows)
    assert "agreement" not in markdown(tables.summary_rows(runs, ()))
    assert all(row["published"] == row["not_comparable"] == "" for row in rows)


def test_what_its_source_says_of_a_published_number_stands_with_it(study, as_large_as_the_catalog_says):
    known = [published_row(value=84.2, note="two users get 82.1")]
    rows = tables.summary_rows(results.load_runs(study), known)
    told = {row["run"]: row["notes"] for row in rows if "two users" in row["notes"]}
    assert told == {"sam2_demo@num_maskmem=7": '["published 84.2: two users get 82.1"]'}
    assert "] published 84.2: two users get 82.1" in markdown(rows)
