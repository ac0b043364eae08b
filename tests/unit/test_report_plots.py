"""The figures of the page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit import report_folder
from tests.unit.report_folder import Reader, make_dataset, make_run, moving_squares, shifted, write_study
from vosflow.report import figures, labels, plots, results, tables, video_tables
from vosflow.report.page import render_page

study = report_folder.study


def test_sweeps_have_a_line_per_checkpoint_and_hollow_marks_out_of_distribution(study):
    runs = results.load_runs(study)
    lines = plots._sweep_lines(runs, "num_maskmem")
    scores = {run.description["swept"].get("num_maskmem"): 100 * run.score for run in runs if run.scores}
    assert lines == {
        ("demo/val", "sam2_demo", "sam2_demo"): [(1, scores[1], False), (7, scores[7], False), (9, scores[9], True)]
    }
    assert list(plots.plot_sweeps(runs)) == ["num_maskmem"]
    assert plots.plot_sweeps(runs[:2]) == {}  # one value is no sweep


def test_sweeps_of_two_settings_keep_the_other_one_apart(tmp_path):
    """The legend names what differs; what all lines share would only push that out of the picture."""
    manifest = make_dataset(tmp_path, {"a": moving_squares(1)})
    paths = []
    for memory in (1, 7):
        for size in (256, 512):
            swept = {"num_maskmem": memory, "image_size": size}
            settings = {**swept, "precision": "bfloat16"}
            predictions = {"a": shifted(moving_squares(1)[1], memory)}
            name = f"net@num_maskmem={memory}@image_size={size}"
            paths.append(
                make_run(
                    tmp_path,
                    manifest,
                    name,
                    predictions,
                    tracker="sam2",
                    checkpoint="net",
                    settings=settings,
                    swept=swept,
                )
            )
    runs = results.load_runs(paths)
    assert [label for _, _, label in plots._sweep_lines(runs, "num_maskmem")] == [
        "net, image_size=256",
        "net, image_size=512",
    ]
    assert list(plots.plot_sweeps(runs)) == ["num_maskmem", "image_size"]


def test_a_speed_that_other_runs_helped_is_marked(tmp_path):
    """Frames/s of a run whose embeddings were there already says nothing of its method."""
    manifest = make_dataset(tmp_path, {"a": moving_squares(1)})
    predictions = {"a": shifted(moving_squares(1)[1], 1)}
    paths = [make_run(tmp_path, manifest, name, predictions) for name in ("first", "second")]
    for path, reused in zip(paths, (0, 6), strict=True):
        facts = json.loads(path.read_text())
        facts["totals"]["artefacts"] = {"image_embedding": {"made": 8 - reused, "reused": reused}}
        path.write_text(json.dumps(facts))
    first, second = results.load_runs(paths)
    assert results.SPED_UP not in first.notes and results.SPED_UP in second.notes
    assert "Hollow marks: faster" in write_study(paths, tmp_path / "out")[1]


def test_labels_of_crowded_marks_do_not_collide():
    figure, (axis,) = figures.make_panels(1, width=6.4, height=4.2)
    for index in range(12):
        spot = (10 + 0.02 * index, 80 + 0.1 * (index % 3))
        axis.plot(*spot, "o")
        label = axis.annotate(f"num_maskmem={index}", spot, (0, 0), textcoords="offset points", va="center")
        label.set_in_layout(False)
    axis.set_xlim(5, 15)
    axis.set_ylim(75, 85)
    figure.draw_without_rendering()
    labels.place_labels(axis)
    boxes = [text.get_window_extent(figure.canvas.get_renderer()) for text in axis.texts]
    frame = axis.get_window_extent()
    for index, box in enumerate(boxes):
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1 and box.y0 >= frame.y0 - 1 and box.y1 <= frame.y1 + 1
        for other in boxes[:index]:
            assert labels.overlap(box.extents, other.extents) < 4  # pixels


def test_every_video_is_in_the_bars(study):
    runs = results.load_runs(study)
    figure = plots.plot_videos(runs)["demo/val"]
    words = Reader(figure).words
    for video in ("crossing", "twins", "zoom", "fast_1"):
        assert video in words
    for run in runs:
        for score in run.video_scores.values():
            assert f"{100 * score:.1f}" in words


def test_a_long_name_takes_no_room_from_the_bars(study):
    """It stands above them in lines of 20 characters, by which the figure grows."""

    def height(name: str) -> float:
        run = results.load_run(study[0])
        (figure,) = plots.plot_videos([replace(run, description={**run.description, "run": name})]).values()
        return float(re.search(r'height="([\d.]+)pt"', figure)[1]) / 72  # inches

    assert height("x" * 120) - height("x" * 20) == pytest.approx(5 * 0.14, abs=0.01)


def many_runs(folder: Path, count: int) -> list[results.RunResult]:
    """Runs of one video each; faster ones are worse, and the last is beaten by the first in both."""
    clip = moving_squares(1, frames=4)
    manifest = make_dataset(folder, {"a": clip})
    for index in range(count):
        lag, speed = (7, 1.0) if index == count - 1 else (1 + index % 6, 10.0 + index % 6)
        make_run(folder, manifest, f"run{index:02d}", {"a": shifted(clip[1], lag)}, speed=speed)
    return results.load_runs(sorted((folder / "results/demo-val").glob("*/run.json")))


def test_of_many_runs_only_those_are_labelled_that_no_other_beats(tmp_path):
    runs = many_runs(tmp_path, plots.MOST_LABELS + 1)
    assert runs[-1] not in plots.unbeaten(runs) and runs[0] in plots.unbeaten(runs)
    assert len(plots.unbeaten(runs)) == plots.MOST_LABELS  # equals do not beat each other
    words = Reader(plots.plot_speed(runs)).words
    assert "run00" in words and runs[-1].name not in words
    assert any(word.startswith(f"{runs[-1].name}: ") for word in words)  # what the mouse finds
    assert runs[-1].name in Reader(plots.plot_speed(runs[1:])).words  # few enough


def test_videos_of_many_runs_are_a_table(tmp_path):
    runs = many_runs(tmp_path, video_tables.MOST_RUNS + 1)
    assert plots.plot_videos(runs) == {} and video_tables.video_tables(runs[1:]) == []
    (table,) = video_tables.video_tables(runs)
    assert [name for name, is_main in table.runs if is_main] == [results.main_runs(runs)["demo/val"].name]
    ((video, cells, gap),) = table.rows
    scores = [run.video_scores["a"] for run in runs]
    assert video == "a" and [text for text, _ in cells] == [f"{100 * score:.1f}" for score in scores]
    assert [shade for _, shade in cells] == [round(10 * (1 - score)) for score in scores]
    assert gap == f"{100 * (max(scores) - min(scores)):.1f}"
    assert video_tables._cells([None, math.nan, 0.25]) == ([("", 0), ("n/a", 0), ("25.0", 8)], "0.0")
    text = render_page(runs, tables.summary_rows(runs, ()), title="many", filmstrips=0, published=())
    assert "1 video × 7" in text and f'<td class="s{cells[-1][1]}">{cells[-1][0]}</td>' in text


def test_methods_look_different():
    assert len({figures.series(index) for index in range(64)}) == 64


def test_a_legend_makes_the_figure_higher_and_not_the_panels_lower():
    heights = []
    for count in (1, 30):
        figure, (axis,) = figures.make_panels(1, width=6.4, height=4.2)
        for index in range(count):
            axis.plot([], [], label=f"sam_pt + cotracker_stride_4_wind_8 + hq_sam_vit_h {index}")
        figures.legend_below(figure)
        figure.draw_without_rendering()
        heights.append(axis.get_window_extent().height)
    assert heights[1] == pytest.approx(heights[0], rel=0.15)
