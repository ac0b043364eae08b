"""Scoring masks while they are in memory: the same numbers as from files, and no file is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.clips import make_videos
from tests.unit.scored_clips import davis2017_clips, write_clips
from tests.unit.scored_folders import score_clips, score_objects
from tests.unit.scripts import run_script
from vosflow.engine import track_videos
from vosflow.errors import VosflowError
from vosflow.evaluation.annotations import annotated_folder
from vosflow.evaluation.live import LiveScorer
from vosflow.evaluation.predictions import Predictions
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.run import Evaluation, evaluate, evaluate_run
from vosflow.manifest import LABEL_MAPS, Manifest
from vosflow.masks import read_label_map
from vosflow.method import Method


def tracked(manifest: Manifest, predictions: Path) -> Iterator[tuple[str, str, np.ndarray | dict[int, np.ndarray]]]:
    """(video, frame, masks) as a tracker would have made them, from what is on disk: all frames, also unscored ones."""
    for video in manifest.videos:
        folder = predictions / video.name
        if manifest.layout == LABEL_MAPS:
            for path in sorted(folder.iterdir()):
                yield video.name, path.stem, read_label_map(path)[0]
        else:
            frames = sorted({path.stem for path in folder.glob("*/*.png")})
            for frame in frames:
                files = {int(path.parent.name): path for path in folder.glob(f"*/{frame}.png")}
                yield video.name, frame, {number: read_label_map(path)[0] > 0 for number, path in files.items()}


def score_live(manifest: Manifest, predictions: Path, protocol: str) -> LiveScorer:
    scorer = LiveScorer(manifest, load_protocol(protocol))
    for video, frame, masks in tracked(manifest, predictions):
        scorer.add(video, frame, masks)
    return scorer


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_) -> None:
        raise AssertionError("predictions must not be read")

    monkeypatch.setattr(Predictions, "read", refuse)


@pytest.mark.parametrize("protocol", ["davis2017", "davis2016", "mose", "vos-benchmark"])
def test_label_maps_score_as_from_files(tmp_path: Path, request: pytest.FixtureRequest, protocol: str) -> None:
    clips = {name: davis2017_clips()[name] for name in ("returns", "gap", "void", "short")}
    expected = score_clips(tmp_path, clips, protocol)
    annotations, predictions = tmp_path / "valid" / "Annotations", tmp_path / "predictions"
    manifest = annotated_folder(annotations, protocol=protocol)
    scorer = score_live(manifest, predictions, protocol)
    request.getfixturevalue("no_reading")
    again = evaluate_run(manifest, predictions, protocol=protocol, scored=scorer.rows)
    assert again.scores == expected.scores
    assert again.summary == expected.summary


def test_objects_score_as_from_files(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    noise = np.random.default_rng(0)
    sides = [{t: noise.random((20, 30)) < 0.5 for t in range(5)} for _ in range(4)]
    expected = score_objects(tmp_path, {"v": {1: (sides[0], sides[1]), 7: (sides[2], sides[3])}})
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    scorer = score_live(manifest, tmp_path / "predictions", "sav")
    request.getfixturevalue("no_reading")
    assert evaluate_run(manifest, tmp_path / "predictions", scored=scorer.rows).scores == expected.scores


def test_an_object_that_cannot_be_scored_is_told_with_its_files(tmp_path: Path) -> None:
    masks = {t: np.ones((20, 30), bool) for t in range(5)}
    score_objects(tmp_path, {name: {1: (masks, masks)} for name in "vw"})
    for frame in range(1, 4):
        Image.new("P", (30, 20)).save(tmp_path / f"Annotations/w/001/{frame:05d}.png")
    manifest = annotated_folder(tmp_path / "Annotations", protocol="sav")
    scorer = score_live(manifest, tmp_path / "predictions", "sav")
    assert set(scorer.rows) == {"v"}
    with pytest.raises(VosflowError, match="object 1 of video w is on none of the frames that count"):
        finish(manifest, tmp_path / "predictions", scorer)


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Manifest, Path]:
    chosen = {name: davis2017_clips()[name] for name in ("returns", "short")}
    annotations, predictions = write_clips(tmp_path, chosen)
    return annotated_folder(annotations, protocol="davis2017"), predictions


def finish(manifest: Manifest, predictions: Path, scorer: LiveScorer) -> Evaluation:
    return evaluate_run(manifest, predictions, scored=scorer.rows)


@pytest.mark.parametrize("fault", ["frame left out", "frames swapped", "frame twice", "another size"])
def test_what_cannot_be_scored_in_memory_is_scored_from_its_files(clips: tuple[Manifest, Path], fault: str) -> None:
    manifest, predictions = clips
    scorer = LiveScorer(manifest, load_protocol("davis2017"))
    frames = list(tracked(manifest, predictions))
    third = next(i for i, (video, frame, _) in enumerate(frames) if (video, frame) == ("returns", "00003"))
    if fault == "frame left out":
        del frames[third]
    elif fault == "frames swapped":
        frames[third], frames[third + 1] = frames[third + 1], frames[third]
    elif fault == "frame twice":
        frames.insert(third, frames[third])
    else:
        frames[third] = (*frames[third][:2], frames[third][2][::2, ::2])
    for video, frame, masks in frames:
        scorer.add(video, frame, masks)
    assert set(scorer.rows) == {"short"}
    expected = evaluate(manifest, Predictions(predictions), load_protocol("davis2017"))
    assert finish(manifest, predictions, scorer).scores == expected.scores


def test_a_broken_rule_is_told_in_the_end_with_the_file(clips: tuple[Manifest, Path]) -> None:
    manifest, predictions = clips
    (predictions / "short" / "00001.png").write_bytes((predictions / "returns" / "00000.png").read_bytes())  # id 99
    scorer = score_live(manifest, predictions, "davis2017")
    assert set(scorer.rows) == {"returns"}
    with pytest.raises(VosflowError, match="ids that the video does not have: 99") as error:
        finish(manifest, predictions, scorer)
    assert error.value.path == str(predictions / "short" / "00001.png")


def test_a_defect_of_scoring_fails_no_tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_videos(tmp_path, {"a": 4, "b": 3})
    scorer = LiveScorer(manifest, load_protocol("davis2017"))
    begin = LiveScorer._begin

    def defective(self: LiveScorer, video: str) -> object:
        return [][1] if video == "a" else begin(self, video)

    monkeypatch.setattr(LiveScorer, "_begin", defective)
    track_videos(Method.of("static"), manifest, ["a", "b"], tmp_path / "run", on_masks=scorer.add)
    assert set(scorer.rows) == {"b"}


def test_ground_truth_is_checked_before_the_first_frame(clips: tuple[Manifest, Path]) -> None:
    manifest, _ = clips
    (Path(manifest.root) / "short" / "00001.png").unlink()
    with pytest.raises(VosflowError, match="ground truth of video short lacks 1 of 3"):
        LiveScorer(manifest, load_protocol("davis2017"))


def test_the_engine_shows_every_frame_once_it_is_written(tmp_path: Path) -> None:
    manifest = make_videos(tmp_path, {"a": 4, "b": 3})
    method = Method.of("static")
    seen: list[tuple[str, str]] = []
    scorer = LiveScorer(manifest, load_protocol("davis2017"))

    def watch(video: str, frame: str, masks: np.ndarray) -> None:
        seen.append((video, frame))
        scorer.add(video, frame, masks)

    track_videos(method, manifest, ["a", "b"], tmp_path / "run", on_masks=watch)
    assert seen == [(video.name, frame) for video in manifest.videos for frame in video.frames.names]
    live = finish(manifest, tmp_path / "run" / "masks", scorer)
    assert live.scores == evaluate(manifest, Predictions(tmp_path / "run" / "masks"), live.protocol).scores
    seen.clear()
    track_videos(method, manifest, ["a", "b"], tmp_path / "run", on_masks=watch)
    assert seen == []  # finished before: nothing is in memory


def test_scripts_write_the_same_files(tmp_path: Path) -> None:
    """Scored by track.py from memory, by track.py from the files of its first call, and by evaluate.py."""
    make_videos(tmp_path, {"b": 6, "a": 5})
    images, annotations = tmp_path / "JPEGImages" / "480p", tmp_path / "Annotations" / "480p"
    folders = ["--base_video_dir", images, "--input_mask_dir", annotations, "--output_mask_dir", tmp_path / "out"]
    for folder in ("live", "again"):
        options = ["--annotations", annotations, "--scores", tmp_path / folder]
        done = run_script("track.py", "--tracker", "static", *folders, *options)
        assert done.returncode == 0, done.stderr
        assert "J&F-Mean" in done.stdout
    arguments = ["--annotations", annotations, "--predictions", tmp_path / "out", "--output", tmp_path / "files"]
    assert run_script("evaluate.py", *arguments).returncode == 0
    for name in ("scores.csv", "global_results.csv", "per_object_results.csv"):
        content = (tmp_path / "files" / name).read_bytes()
        assert (tmp_path / "live" / name).read_bytes() == content == (tmp_path / "again" / name).read_bytes()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--scores", "{out}/scores"], "the output folder lies in the folder of predictions"),
        (["--protocol", "sav"], "sav scores masks of layout per_object, and these are label_maps"),
        (["--protocol", "davis2018"], "unknown protocol 'davis2018'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_tracked(tmp_path: Path, options: list[str], message: str) -> None:
    make_videos(tmp_path, {"a": 3})
    images, annotations = tmp_path / "JPEGImages" / "480p", tmp_path / "Annotations" / "480p"
    out = tmp_path / "out"
    folders = ["--base_video_dir", images, "--input_mask_dir", annotations, "--output_mask_dir", out]
    given = [option.format(out=out) for option in options]
    done = run_script("track.py", "--tracker", "static", *folders, "--annotations", annotations, *given)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (out / "a").exists()


def test_videos_that_are_not_of_this_run_are_not_scored(clips: tuple[Manifest, Path]) -> None:
    manifest, predictions = clips
    part = dataclasses.replace(manifest, videos=manifest.videos[:1])
    scorer = score_live(manifest, predictions, "davis2017")
    assert {row.video for row in finish(part, predictions, scorer).scores} == {manifest.videos[0].name}
