"""scripts/evaluate.py as its users see it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.scored_clips import HEIGHT, WIDTH, davis2016_clips, davis2017_clips, save_label_map, write_clips
from tests.unit.scripts import run_script
from tests.unit.test_protocols import DAVIS2016_TOTALS, DAVIS2017_OBJECTS, DAVIS2017_TOTALS
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.scores import read_global_results, read_per_object_results, read_scores
from vosflow.manifest import save_manifest

evaluate = partial(run_script, "evaluate.py")


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations and predictions of the DAVIS 2017 clips."""
    return write_clips(tmp_path, davis2017_clips())


def failure(clips: tuple[Path, Path], *more: str | Path) -> str:
    """Evaluate what must fail; returns the message, after checking that it is one and that nothing was written."""
    annotations, predictions = clips
    output = annotations.parents[1] / "out"
    done = evaluate(
        "--annotations", annotations, "--predictions", predictions, "--output", output, "--workers", 1, *more
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "expected: " in done.stderr
    assert "what to do: " in done.stderr
    assert not output.exists()
    return done.stderr


def test_davis2017(clips: tuple[Path, Path], tmp_path: Path) -> None:
    annotations, predictions = clips
    done = evaluate("--annotations", annotations, "--predictions", predictions, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "69.8" in done.stdout  # J&F
    totals = read_global_results(tmp_path / "out" / "global_results.csv")
    assert tuple(totals.values()) == pytest.approx(DAVIS2017_TOTALS, abs=1e-12)
    assert read_per_object_results(tmp_path / "out" / "per_object_results.csv") == DAVIS2017_OBJECTS
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert [(r.video, r.object, r.frame) for r in rows] == sorted((r.video, r.object, r.frame) for r in rows)


def test_davis2016_with_its_list_of_frame_pairs(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, davis2016_clips())
    pairs = tmp_path / "val.txt"
    frames = {"cow": 5, "bear": 8}
    pairs.write_text(
        "".join(
            f"/JPEGImages/480p/{video}/{t:05d}.jpg /Annotations/480p/{video}/{t:05d}.png\n"
            for video, count in frames.items()
            for t in range(count)
        )
    )
    arguments = ["--predictions", predictions, "--output", tmp_path / "out", "--workers", 2]
    done = evaluate("--annotations", annotations, "--videos", pairs, "--protocol", "davis2016", *arguments)
    assert done.returncode == 0, done.stderr
    totals = read_global_results(tmp_path / "out" / "global_results.csv")
    assert tuple(totals.values()) == pytest.approx(DAVIS2016_TOTALS, abs=1e-12)
    rows = read_scores(tmp_path / "out" / "scores.csv")
    assert list(dict.fromkeys(row.video for row in rows)) == ["cow", "bear"]  # in the list's order


def test_videos_and_manifest(clips: tuple[Path, Path], tmp_path: Path) -> None:
    annotations, predictions = clips
    names = tmp_path / "val.txt"
    names.write_text("void\ngap\n")
    done = evaluate(
        "--annotations", annotations, "--videos", names, "--predictions", predictions, "--output", tmp_path / "a"
    )
    assert done.returncode == 0, done.stderr
    save_manifest(annotated_folder(annotations, protocol="davis2017", videos=names), tmp_path / "manifest.json")
    done = evaluate("--manifest", tmp_path / "manifest.json", "--predictions", predictions, "--output", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    rows = read_scores(tmp_path / "a" / "scores.csv")
    assert list(dict.fromkeys(row.video for row in rows)) == ["void", "gap"]
    assert read_scores(tmp_path / "b" / "scores.csv") == rows


def test_an_old_evaluation_is_no_cache(clips: tuple[Path, Path], tmp_path: Path) -> None:
    annotations, predictions = clips
    arguments = ["--annotations", annotations, "--predictions", predictions, "--output", tmp_path / "out"]
    assert evaluate(*arguments).returncode == 0
    for path in (predictions / "late").iterdir():
        save_label_map(path, np.zeros((HEIGHT, WIDTH), np.uint8))
    assert evaluate(*arguments).returncode == 0
    assert read_per_object_results(tmp_path / "out" / "per_object_results.csv")["late_1"] == (0.0, 0.0)


def test_missing_video(clips: tuple[Path, Path]) -> None:
    for name in ("gap", "void"):
        (clips[1] / name).rename(clips[1].parent / f"away-{name}")
    message = failure(clips)
    assert "2 of 6 videos have no prediction: gap, void" in message
    assert str(clips[1] / "gap") in message


def test_missing_frames(clips: tuple[Path, Path]) -> None:
    for name in ("00002", "00005"):
        (clips[1] / "returns" / f"{name}.png").unlink()
    message = failure(clips)
    assert "lacks 2 of 7 masks: 00002.png, 00005.png" in message
    assert str(clips[1] / "returns" / "00002.png") in message


def test_prediction_of_another_size(clips: tuple[Path, Path]) -> None:
    path = clips[1] / "gap" / "00002.png"
    save_label_map(path, np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8))
    message = failure(clips)
    assert f"{path}: the prediction is 150x60 pixels" in message
    assert "300x120" in message


def test_rgb_prediction(clips: tuple[Path, Path]) -> None:
    path = clips[1] / "gap" / "00002.png"
    Image.open(path).convert("RGB").save(path)
    assert f"{path}: the mask is a RGB image" in failure(clips)


@pytest.mark.parametrize("keep", [0, 20, 200])
def test_truncated_prediction(clips: tuple[Path, Path], keep: int) -> None:
    path = clips[1] / "gap" / "00002.png"
    content = path.read_bytes()
    assert len(content) > keep
    path.write_bytes(content[:keep])
    assert f"{path}: the mask is unreadable" in failure(clips)


def test_truncated_ground_truth(clips: tuple[Path, Path]) -> None:
    path = clips[0] / "gap" / "00000.png"
    path.write_bytes(path.read_bytes()[:20])
    assert f"{path}: the annotation is unreadable" in failure(clips)


def test_unknown_ids_from_a_worker(clips: tuple[Path, Path]) -> None:
    path = clips[1] / "void" / "00001.png"
    save_label_map(path, np.full((HEIGHT, WIDTH), 12, np.uint8))
    message = failure(clips, "--workers", 2)
    assert f"{path}: the prediction has ids that the video does not have: 12" in message


def test_unknown_protocol(clips: tuple[Path, Path]) -> None:
    assert "unknown protocol 'davis2071', did you mean 'davis2017'?" in failure(clips, "--protocol", "davis2071")


def test_output_among_the_predictions(clips: tuple[Path, Path]) -> None:
    annotations, predictions = clips
    before = sorted(predictions.iterdir())
    done = evaluate("--annotations", annotations, "--predictions", predictions, "--output", predictions / "scores")
    assert done.returncode == 1
    assert "the output folder lies in the folder of predictions" in done.stderr
    assert sorted(predictions.iterdir()) == before


@pytest.mark.parametrize(
    "broken, message",
    [
        ("annotations", "the folder of annotations does not exist"),
        ("predictions", "the folder of predictions does not exist"),
        ("videos", "the list of videos cannot be read"),
        ("listed", "video nowhere has no ground truth: its folder is missing"),
        ("empty", "no videos"),
    ],
)
def test_wrong_paths(clips: tuple[Path, Path], tmp_path: Path, broken: str, message: str) -> None:
    annotations, predictions = clips
    videos = tmp_path / "val.txt"
    videos.write_text({"listed": "gap\nnowhere\n", "empty": "\n"}.get(broken, "gap\n"))
    options = {"annotations": annotations, "predictions": predictions, "videos": videos}
    if broken in options:
        options[broken] = tmp_path / "nothing"
    done = evaluate(*(x for name, value in options.items() for x in (f"--{name}", value)), "--output", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert "what to do: " in done.stderr


def test_a_manifest_has_its_own_videos(tmp_path: Path) -> None:
    done = evaluate("--manifest", "m.json", "--videos", "val.txt", "--predictions", "p", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "--videos and --meta go with --annotations" in done.stderr


def test_help_names_every_option() -> None:
    text = evaluate("--help").stdout
    for option in ("--annotations", "--manifest", "--predictions", "--videos", "--protocol", "--workers", "--output"):
        assert option in text
