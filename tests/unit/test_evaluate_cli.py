"""scripts/evaluate.py: its options, what it prints, and what it says of bad input. Scores: test_evaluate_script.py."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.scored_clips import HEIGHT, WIDTH, davis2017_clips, disc, paint, save_label_map, write_clips
from tests.unit.scored_folders import score_objects
from tests.unit.scripts import run_script
from tests.unit.test_ytvis import found, square, truth, write
from vosflow.errors import VosflowError
from vosflow.evaluation import table
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.evaluation.run import evaluate_run

run_evaluate = partial(run_script, "evaluate.py")


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations and predictions of three of the DAVIS 2017 clips."""
    return write_clips(
        tmp_path, {name: clip for name, clip in davis2017_clips().items() if name in ("gap", "void", "late")}
    )


def test_without_output_there_is_only_the_table(clips, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = run_evaluate("--annotations", clips[0], "--predictions", clips[1], "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "davis2017: 5 objects in 3 videos (%)" in done.stdout
    assert re.search(r"J&F-Mean +\d+\.\d", done.stdout) and re.search(r"gap_3 +\d+\.\d +\d+\.\d +\d+\.\d", done.stdout)
    assert "missing" not in done.stdout and done.stderr == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_every_protocol_is_described(capsys):
    table.print_protocols()
    text = " ".join(capsys.readouterr().out.split())
    for name in BUILT_IN:
        rules = load_protocol(name)
        assert " ".join(rules.about.split()) in text and all(" ".join(note.split()) in text for note in rules.notes)
        assert f"Main number: {rules.headline}." in text


def test_protocol_list_needs_nothing_else():
    done = run_evaluate("--protocol", "list")
    assert done.returncode == 0 and done.stdout.startswith("davis2016\n") and done.stderr == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give --predictions, and either --annotations or --manifest"),
        (["--annotations", "a", "--manifest", "m", "--predictions", "p"], "either --annotations or --manifest"),
        (["--manifest", "m", "--predictions", "p", "--meta", "meta.json"], "--meta go with --annotations"),
    ],
)
def test_options_that_do_not_go_together(arguments, message):
    done = run_evaluate(*arguments)
    assert done.returncode == 2 and message in done.stderr


def test_missing_predictions_abort_or_count_as_empty(clips):
    (clips[1] / "gap/00002.png").unlink()
    shutil.rmtree(clips[1] / "late")
    (clips[1] / "void/00001.png").unlink()
    strict = run_evaluate("--annotations", clips[0], "--predictions", clips[1], "--workers", 1)
    assert strict.returncode == 1 and "1 of 3 videos have no prediction: late" in strict.stderr
    done = run_evaluate("--annotations", clips[0], "--predictions", clips[1], "--workers", 1, "--no-strict")
    assert done.returncode == 0, done.stderr
    assert "missing predictions, counted as empty: 4, in gap, late, void" in done.stdout
    assert re.search(r"late_1 +0\.0 +0\.0 +0\.0", done.stdout)


def test_comparison_names_intervals_and_videos(clips, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(clips[1], other)
    for path in (other / "late").iterdir():
        save_label_map(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    shutil.copy(clips[0] / "void/00001.png", other / "void/00001.png")
    Image.open(other / "void/00001.png").point(lambda value: value if value < 255 else 0).save(other / "void/00001.png")
    done = run_evaluate(
        *("--annotations", clips[0], "--predictions", clips[1], "--compare", other, "--workers", 1),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"J-Mean +\d+\.\d +\d+\.\d +\+\d+\.\d\d +-?\+?\d+\.\d\d to \+\d+\.\d\d", done.stdout)
    assert "95% interval" in done.stdout and "10000 resamples of 3 videos (the unit of resampling)" in done.stdout
    assert re.search(r"A is better, most in \(J&F-Mean\): late \(\+\d", done.stdout)
    assert re.search(r"A is worse, most in \(J&F-Mean\): void \(-\d", done.stdout)
    assert f"A: {clips[1]}\nB: {other}\n" in done.stdout


def test_what_the_other_set_lacks_is_said(clips, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(clips[1], other)
    (other / "gap/00002.png").unlink()
    manifest = annotated_folder(clips[0], protocol="davis2017")
    first, second = (evaluate_run(manifest, folder, strict=False) for folder in (clips[1], other))
    table.print_comparison(first, second, clips[1], other)
    assert "missing predictions, counted as empty: 1, in gap" in capsys.readouterr().out


def test_of_many_objects_the_lowest_are_shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(table, "SHOWN_OBJECTS", 2)
    clips = write_clips(tmp_path, davis2017_clips())
    manifest = replace(annotated_folder(clips[0], protocol="davis2017"), notes=("a remark",), agreement_with="a sample")
    table.print_evaluation(evaluate_run(manifest, clips[1]), manifest)
    out = capsys.readouterr().out
    assert "note: this is the agreement with a sample, no score" in out
    assert "the 2 lowest of 9 objects" in out and "extreme_1" in out and "short_1" in out and "late_1" not in out
    assert "note: a remark" in out


def test_notes_of_the_protocol_stand_below_its_numbers(clips, capsys):
    manifest = annotated_folder(clips[0], protocol="vos-benchmark")
    table.print_evaluation(evaluate_run(manifest, clips[1]), manifest)
    out = capsys.readouterr().out
    assert "vos-benchmark: " in out and f"note: {load_protocol('vos-benchmark').notes[0]}" in out


def test_progress_in_a_log_is_a_line_now_and_then(capsys, monkeypatch):
    clock = iter([0.0, 0.0, *range(1, 100)])
    monkeypatch.setattr(table.time, "monotonic", lambda: next(clock))
    with table.show_progress() as report:
        for done in range(1, 26):
            report(f"video{done}", done, 50)
    assert capsys.readouterr().err.splitlines() == [
        "scoring: 10 of 50 videos, 40 s left",
        "scoring: 20 of 50 videos, 30 s left",
    ]


def test_instances_from_two_files(tmp_path):
    annotations, results = write(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], [found(1, 0.9, [square(0)])])
    done = run_evaluate("--annotations", annotations, "--predictions", results, "--protocol", "uvo")
    assert done.returncode == 0, done.stderr
    assert re.search(r"AR@100 +100\.0", done.stdout) and re.search(r"AR-small +100\.0", done.stdout)
    assert re.search(r"AP-large +-", done.stdout)  # no such object
    in_folder = evaluate_run(annotated_folder(annotations, protocol="uvo"), tmp_path)
    assert in_folder.summary.totals["AR@100"] == 1.0
    (tmp_path / "list.txt").write_text("v1")
    with pytest.raises(VosflowError, match="takes all of its videos from the annotations"):
        annotated_folder(annotations, protocol="uvo", videos=tmp_path / "list.txt")


def fails(annotations: Path, predictions: Path, protocol: str, **more) -> str:
    """The message of an evaluation that must fail; it must name a file and a remedy."""
    with pytest.raises(VosflowError) as caught:
        evaluate_run(annotated_folder(annotations, protocol=protocol, **more), predictions, protocol=protocol)
    assert caught.value.path and caught.value.expected and caught.value.remedy
    return str(caught.value)


LABEL_MAP_PROTOCOLS = ("davis2016", "davis2017", "davis2017-unsupervised", "mose", "vos-benchmark")


@pytest.mark.parametrize("protocol", LABEL_MAP_PROTOCOLS)
def test_bad_label_maps_are_named(tmp_path, protocol):
    clip = [paint((1, disc(60, 80 + 9 * t, 30))) for t in range(5)]
    annotations, predictions = write_clips(tmp_path, {"a": (clip, clip), "b": (clip, clip)})
    path = predictions / "b/00002.png"
    good = path.read_bytes()

    path.unlink()
    assert "b/00002.png" in fails(annotations, predictions, protocol)
    path.write_bytes(good[:60])
    assert f"{path}: " in fails(annotations, predictions, protocol)
    path.write_bytes(good)
    Image.open(path).convert("RGB").save(path)
    assert f"{path}: " in fails(annotations, predictions, protocol)
    save_label_map(path, np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    assert f"{path}: the prediction is {WIDTH + 1}x{HEIGHT} pixels" in fails(annotations, predictions, protocol)
    shutil.rmtree(predictions / "b")
    assert "1 of 2 videos have no prediction: b" in fails(annotations, predictions, protocol)
    shutil.rmtree(predictions / "a")
    assert "2 of 2 videos have no prediction" in fails(annotations, predictions, protocol)
    shutil.rmtree(annotations / "a")
    shutil.rmtree(annotations / "b")
    assert f"{annotations}: no video to score" in fails(annotations, predictions, protocol)


@pytest.mark.parametrize("protocol", LABEL_MAP_PROTOCOLS)
def test_what_is_no_label_map_is_refused(tmp_path, protocol):
    clip = [paint((1, disc(60, 80 + 9 * t, 30))) for t in range(5)]
    annotations, predictions = write_clips(tmp_path, {"a": (clip, clip)})
    path = predictions / "a/00002.png"
    Image.fromarray(clip[2]).save(path, format="JPEG")
    assert f"{path}: the mask is a JPEG" in fails(annotations, predictions, protocol)
    if protocol != "vos-benchmark":  # where each value is an object
        probabilities = np.where(clip[2] == 1, np.arange(WIDTH) % 256, 0).astype(np.uint8)
        save_label_map(path, probabilities)
        message = fails(annotations, predictions, protocol)
        assert f"{path}: the prediction has" in message and len(message) < 700


def test_nothing_of_the_right_name_is_no_empty_prediction(clips, tmp_path):
    masks = np.ones((9, 9), bool)
    score_objects(tmp_path / "o", {"v": {0: ({t: masks for t in range(4)}, {t: masks for t in range(1, 3)})}})
    folders = {"davis2017": clips, "sav": (tmp_path / "o/Annotations", tmp_path / "o/predictions")}
    for protocol, (truth_folder, predictions) in folders.items():
        manifest = annotated_folder(truth_folder, protocol=protocol)
        for path in list(predictions.rglob("*.png")):
            path.rename(path.with_name(f"000{path.name}"))
        with pytest.raises(VosflowError, match="lacks .* masks: .*00001.png") as error:
            evaluate_run(manifest, predictions, strict=False)
        assert "--no-strict" not in error.value.remedy
        with pytest.raises(VosflowError, match="videos have no prediction") as error:
            evaluate_run(manifest, predictions.parent, strict=False)
        assert "sub-folder" in error.value.remedy


@pytest.mark.parametrize("number", [0, 256])
def test_ids_that_no_label_map_holds(clips, number):
    (clips[0].parent / "meta.json").write_text(
        json.dumps({"videos": {name: {"objects": {"1": {}, str(number): {}}} for name in ("gap", "void", "late")}})
    )
    assert f"has an object {number}, which no label map can hold" in fails(*clips, "mosev2")


def test_a_mark_before_the_list_of_videos(clips, tmp_path):
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfgap\r\nvoid\r\n")
    manifest = annotated_folder(clips[0], protocol="davis2017", videos=tmp_path / "val.txt")
    assert [video.name for video in manifest.videos] == ["gap", "void"]


def test_extra_ids_are_an_error_or_ignored(tmp_path):
    clip = [paint((1, disc(60, 80 + 9 * t, 30))) for t in range(5)]
    guess = [paint((1, disc(60, 80 + 9 * t, 30)), (4, disc(20, 200, 9))) for t in range(5)]
    annotations, predictions = write_clips(tmp_path, {"a": (clip, guess)})
    for protocol in ("davis2017", "mose"):
        message = fails(annotations, predictions, protocol)
        assert f"{predictions / 'a/00001.png'}: the prediction has ids that the video does not have: 4" in message
    for protocol in ("vos-benchmark", "davis2017-unsupervised"):
        scored = evaluate_run(annotated_folder(annotations, protocol=protocol), predictions)
        assert scored.summary.totals["J&F-Mean"] == 1.0 and len(scored.summary.objects) == 1


def test_a_protocol_of_another_layout(clips, tmp_path):
    message = fails(*clips, "sav")  # label maps where folders of objects are wanted
    assert "has no folders of objects" in message and "use another protocol" in message
    with pytest.raises(VosflowError, match="protocol sav cannot score .*: its layout is label_maps"):
        evaluate_run(annotated_folder(clips[0], protocol="davis2017"), clips[1], protocol="sav")
    with pytest.raises(VosflowError, match="protocol uvo cannot score .*: its layout is label_maps"):
        evaluate_run(annotated_folder(clips[0], protocol="davis2017"), clips[1], protocol="uvo")
    (tmp_path / "objects/a/000").mkdir(parents=True)
    save_label_map(tmp_path / "objects/a/000/00000.png", paint())
    message = fails(tmp_path / "objects", clips[1], "davis2017")
    assert f"{tmp_path / 'objects/a'}" in message and "use protocol sav" in message
    assert "is not readable as JSON" in fails(clips[0], clips[1], "ytvis")


def test_label_maps_as_predictions_of_objects(clips, tmp_path):
    truth_folder = tmp_path / "objects"
    for name in ("gap", "late"):
        for frame in range(5):
            path = truth_folder / name / "001" / f"{frame:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_label_map(path, paint((1, disc(60, 80, 30))))
    message = fails(truth_folder, clips[1], "sav")
    assert "001/00001.png" in message and "{object}/{frame}.png" in message


@pytest.mark.parametrize("protocol", ["mosev2", "lvos", "youtube-vos"])
def test_the_meta_file(clips, protocol):
    message = fails(*clips, protocol)
    assert "needs the dataset's meta file" in message and "--meta" in message
    path = clips[0].parent / "somewhere.json"
    assert str(path) in fails(*clips, protocol, meta=path)
    path.write_text(json.dumps({"videos": {}}))
    assert str(path) in fails(*clips, protocol, meta=path)
    assert "reads no meta file" in fails(*clips, "davis2017", meta=path)


@pytest.mark.parametrize(("protocol", "warned"), [("vos-benchmark", True), ("davis2016", False)])
def test_wrong_ids_are_warned_of(tmp_path: Path, protocol: str, warned: bool) -> None:
    for side, value in (("annotations", 1), ("predictions", 255)):
        for frame in range(4):
            target = tmp_path / side / "car" / f"{frame:05d}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            save_label_map(target, paint((value, disc(10, 10, 5))))
    done = run_evaluate(
        *("--annotations", tmp_path / "annotations", "--predictions", tmp_path / "predictions"),
        *("--protocol", protocol, "--workers", 1),
    )
    assert done.returncode == 0, done.stderr
    assert ("(car: 255)" in done.stdout) == warned
