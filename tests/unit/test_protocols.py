"""The rules of the protocols, the statistics, the score files and the process pool."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit import slow_measures
from tests.unit.scored_clips import (
    HEIGHT,
    WIDTH,
    Clip,
    davis2016_clips,
    davis2017_clips,
    disc,
    paint,
    save_label_map,
    write_clips,
)
from vosflow.errors import VosflowError
from vosflow.evaluation import run
from vosflow.evaluation.annotations import annotated_folder, read_video_list
from vosflow.evaluation.predictions import Predictions
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.evaluation.protocols.base import Rules
from vosflow.evaluation.protocols.davis import Davis2017
from vosflow.evaluation.run import Evaluation, evaluate, evaluate_run
from vosflow.evaluation.scores import (
    GLOBAL_COLUMNS,
    Score,
    read_global_results,
    read_per_object_results,
    read_scores,
    write_results,
)
from vosflow.evaluation.statistics import Statistics, Summary, statistics, summarize
from vosflow.manifest import PER_OBJECT, Manifest

# Made once on the clips of scored_clips.py with db_eval_iou, f_measure and db_statistics of davis2017-evaluation.
DAVIS2017_TOTALS = (
    0.6977656219958117,
    0.7362417055789205,
    0.9007936507936508,
    -0.07270951760635133,
    0.6592895384127028,
    0.6150793650793651,
    0.054030022980824245,
)
DAVIS2017_OBJECTS = {
    "extreme_1": (0.45562678062678064, 0.5828176035757263),
    "gap_1": (0.8165817508105604, 0.696078431372549),
    "gap_2": (0.75, 0.75),
    "gap_3": (0.8443935926773455, 0.7131147540983606),
    "late_1": (0.8677563150074294, 1.0),
    "returns_1": (0.8144532214671878, 0.6359202205482315),
    "returns_2": (0.6934834297266252, 0.6078779182948685),
    "short_1": (0.5806451612903226, 0.5),
    "void_1": (0.8032350986040327, 0.4477969178245895),
}
RETURNS_2_J = (0.8198992443324937, 0.8279569892473119, 1.0, 0.0, 0.769748928352725, 0.7367788461538461, 0.7)

# The same functions on the merged masks (those of fperazzi/davis are the same, and so are its bins).
DAVIS2016_TOTALS = (
    0.7323453271159828,
    0.8294447525926214,
    1.0,
    0.11496026373701207,
    0.6352459016393442,
    0.5,
    0.12295081967213116,
)


def score(
    folder: Path, clips: dict[str, Clip], protocol: str = "davis2017", workers: int = 1
) -> tuple[list[Score], Summary]:
    annotations, predictions = write_clips(folder, clips)
    result = evaluate_folders(annotations, predictions, protocol, workers=workers)
    return result.scores, result.summary


def evaluate_folders(annotations: Path, predictions: Path, protocol: str = "davis2017", **options) -> Evaluation:
    manifest = annotated_folder(annotations, protocol=protocol)
    return evaluate(manifest, Predictions(predictions), load_protocol(protocol), **options)


def same_frame(frames: int, truth: np.ndarray, guess: np.ndarray) -> Clip:
    return [truth] * frames, [guess] * frames


# --- DAVIS 2017 -------------------------------------------------------------------------------------------------------


def test_davis2017_equals_the_original_toolkit(tmp_path: Path) -> None:
    scores, summary = score(tmp_path, davis2017_clips())
    assert {f"{o.video}_{o.object}": (o.J.mean, o.F.mean) for o in summary.objects} == DAVIS2017_OBJECTS
    assert tuple(s.J for s in scores if (s.video, s.object) == ("returns", 2)) == RETURNS_2_J
    assert tuple(summary.totals.values()) == pytest.approx(DAVIS2017_TOTALS, abs=1e-12)
    assert tuple(summary.totals) == GLOBAL_COLUMNS


def test_first_and_last_frame_do_not_count_and_their_predictions_need_not_exist(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, {"v": same_frame(5, paint((1, disc(50, 50, 20))), paint())})
    for name in ("00000", "00004"):
        (predictions / "v" / f"{name}.png").unlink()
    scores = evaluate_folders(annotations, predictions).scores
    assert [s.frame for s in scores] == ["00001", "00002", "00003"]


def test_a_gap_in_the_ids_is_an_object(tmp_path: Path) -> None:
    truth = paint((3, disc(50, 50, 20)))
    scores, summary = score(tmp_path, {"v": same_frame(3, truth, truth)})
    assert [(s.object, s.J, s.F) for s in scores] == [(1, 1.0, 1.0), (2, 1.0, 1.0), (3, 1.0, 1.0)]
    assert len(summary.objects) == 3


def test_void_is_background_not_ignored(tmp_path: Path) -> None:
    object_, void = disc(50, 50, 20), disc(50, 150, 10)
    clip = same_frame(3, paint((1, object_), (255, void)), paint((1, object_), (1, void)))
    (row,), _ = score(tmp_path, {"v": clip})
    expected = object_.sum() / (object_ | void).sum()
    assert expected == row.J
    assert row.F < 1


def test_an_object_that_comes_late_with_a_larger_id_does_not_count(tmp_path: Path) -> None:
    one = paint((1, disc(50, 50, 20)))
    both = paint((1, disc(50, 50, 20)), (2, disc(50, 150, 20)))
    scores, _ = score(tmp_path, {"v": ([one, both, both, both], [one] * 4)})
    assert {s.object for s in scores} == {1}
    assert {s.J for s in scores} == {1.0}


def test_an_object_that_comes_late_within_the_ids_counts_as_absent_until_then(tmp_path: Path) -> None:
    first = paint((2, disc(50, 150, 20)))
    later = paint((1, disc(50, 50, 20)), (2, disc(50, 150, 20)))
    truth = [first] * 5 + [later] * 5
    scores, summary = score(tmp_path, {"v": (truth, [first] * 10)})
    assert [s.J for s in scores if s.object == 1] == [1.0] * 4 + [0.0] * 4
    assert summary.objects[0].J.mean == 0.5


def test_fewer_predicted_ids_score_zero(tmp_path: Path) -> None:
    truth = paint((1, disc(50, 50, 20)), (2, disc(50, 150, 20)))
    scores, _ = score(tmp_path, {"v": same_frame(4, truth, paint())})
    assert {(s.J, s.F) for s in scores} == {(0.0, 0.0)}


@pytest.mark.parametrize("extra, named", [((2,), "2"), ((255,), "255"), ((7, 3), "3, 7")])
def test_unknown_predicted_ids_are_an_error(tmp_path: Path, extra: tuple[int, ...], named: str) -> None:
    truth = paint((1, disc(50, 50, 20)))
    guess = [truth.copy() for _ in range(4)]
    for column, object_id in enumerate(extra):
        guess[2][0, column] = object_id
    with pytest.raises(VosflowError, match=rf"does not have: {named}\n") as error:
        score(tmp_path, {"v": ([truth] * 4, guess)})
    assert error.value.path.endswith("predictions/v/00002.png")


def test_unknown_ids_on_an_uncounted_frame_do_not_matter(tmp_path: Path) -> None:
    truth = paint((1, disc(50, 50, 20)))
    scores, _ = score(tmp_path, {"v": ([truth] * 3, [paint((9, disc(9, 9, 9))), truth, paint((9, disc(9, 9, 9)))])})
    assert [s.J for s in scores] == [1.0]


def test_binary_ground_truth_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(VosflowError, match="no object on the first") as error:
        score(tmp_path, davis2016_clips(), "davis2017")
    assert error.value.path.endswith("bear/00000.png")
    assert "davis2016" in error.value.remedy


@pytest.mark.parametrize("change", [{"binary_ground_truth": True}, {"layout": PER_OBJECT}])
def test_manifests_that_do_not_fit_are_refused(tmp_path: Path, change: dict) -> None:
    annotations, predictions = write_clips(tmp_path, {"short": davis2017_clips()["short"]})
    manifest = dataclasses.replace(annotated_folder(annotations, protocol="davis2017"), **change)
    with pytest.raises(VosflowError, match="protocol davis2017 cannot score"):
        evaluate(manifest, Predictions(predictions), load_protocol("davis2017"))


def test_two_frames_are_too_few(tmp_path: Path) -> None:
    truth = paint((1, disc(50, 50, 20)))
    with pytest.raises(VosflowError, match="2 ground-truth frames, none is left"):
        score(tmp_path, {"v": same_frame(2, truth, truth)})


# --- DAVIS 2016 -------------------------------------------------------------------------------------------------------


def test_davis2016_equals_the_original_toolkit(tmp_path: Path) -> None:
    _, summary = score(tmp_path, davis2016_clips(), "davis2016")
    assert tuple(summary.totals.values()) == pytest.approx(DAVIS2016_TOTALS, abs=1e-12)
    assert [(o.video, o.object) for o in summary.objects] == [("bear", 1), ("cow", 1)]


def test_davis2016_merges_all_ids(tmp_path: Path) -> None:
    left, right = disc(50, 50, 20), disc(50, 150, 20)
    scores, _ = score(
        tmp_path, {"v": same_frame(3, paint((255, left | right)), paint((1, left), (2, right)))}, "davis2016"
    )
    assert [(s.object, s.J, s.F) for s in scores] == [(1, 1.0, 1.0)]


def test_list_of_frame_pairs(tmp_path: Path) -> None:
    annotations, _ = write_clips(tmp_path, davis2016_clips())
    pairs = tmp_path / "val.txt"
    pairs.write_text(
        "".join(f"/JPEGImages/480p/cow/{t:05d}.jpg /Annotations/480p/cow/{t:05d}.png\n" for t in range(4)) + "\n"
    )
    assert read_video_list(pairs) == {"cow": ("00000", "00001", "00002", "00003")}
    manifest = annotated_folder(annotations, protocol="davis2016", videos=pairs)
    assert [v.name for v in manifest.videos] == ["cow"]
    assert manifest.videos[0].ground_truth.names == ("00000", "00001", "00002", "00003")  # of 5 in the folder


def test_list_of_frame_pairs_with_a_missing_frame(tmp_path: Path) -> None:
    annotations, _ = write_clips(tmp_path, davis2016_clips())
    pairs = tmp_path / "val.txt"
    pairs.write_text("/JPEGImages/480p/cow/00009.jpg /Annotations/480p/cow/00009.png\n")
    with pytest.raises(VosflowError, match="lacks 1 of 1 listed") as error:
        annotated_folder(annotations, protocol="davis2016", videos=pairs)
    assert error.value.path.endswith("cow/00009.png")


@pytest.mark.parametrize("line", ["/JPEGImages/480p/cow/00000.jpg", "/a/cow/0.jpg /b/cow/0.jpg", "cow /b/cow/0.png x"])
def test_broken_list_of_frame_pairs(tmp_path: Path, line: str) -> None:
    pairs = tmp_path / "val.txt"
    pairs.write_text("/JPEGImages/480p/cow/00000.jpg /Annotations/480p/cow/00000.png\n" + line + "\n")
    with pytest.raises(VosflowError, match="line 2 is not a pair"):
        read_video_list(pairs)


# --- the registry -----------------------------------------------------------------------------------------------------


def test_every_protocol_loads_under_its_name() -> None:
    for name in BUILT_IN:
        protocol = load_protocol(name)
        assert isinstance(protocol, Rules)
        assert protocol.name == name


def test_unknown_protocol() -> None:
    with pytest.raises(VosflowError, match="unknown protocol 'davis-2017', did you mean 'davis2017'\\?"):
        load_protocol("davis-2017")
    with pytest.raises(VosflowError, match="unknown protocol 'zzz'\n"):
        load_protocol("zzz")


# --- statistics -------------------------------------------------------------------------------------------------------


def test_recall_is_strictly_above_one_half() -> None:
    assert statistics([0.5, 0.5, 0.51, 1.0]).recall == 0.5


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.7], 0.0),
        ([1.0, 0.0], 1.0),  # bins [0] and [1]
        ([1.0, 0.8, 0.6, 0.4, 0.2], 0.6),  # bins [0, 1] and [3, 4]: neighbours share a value
        ([1.0, 0.9, 0.7, 0.5, 0.3, 0.2, 0.0], 0.7666666666666667),  # bins [0, 1, 2] and [5, 6]: 1.5 rounds up to 2
    ],
)
def test_decay(values: list[float], expected: float) -> None:
    assert statistics(values).decay == pytest.approx(expected, abs=1e-12)


def test_decay_of_long_videos_does_not_wrap() -> None:
    values = np.linspace(1, 0, 401)  # bins [0..100] and [300..400]; edges in uint8 would be 44 and 144
    assert statistics(values).decay == pytest.approx(0.75, abs=1e-12)


def test_totals_are_means_over_objects_not_over_videos() -> None:
    rows = [Score("a", 1, "00001", 1.0, 0.0), Score("a", 2, "00001", 1.0, 0.0), Score("b", 1, "00001", 0.0, 0.6)]
    summary = summarize(rows)
    assert summary.totals["J-Mean"] == pytest.approx(2 / 3)
    assert summary.totals["F-Mean"] == pytest.approx(0.2)
    assert summary.totals["J&F-Mean"] == pytest.approx((2 / 3 + 0.2) / 2)


def test_frames_are_averaged_per_object_first() -> None:
    rows = [Score("a", 1, f"{t:05d}", 1.0, 1.0) for t in range(9)] + [Score("b", 1, "00001", 0.0, 0.0)]
    assert summarize(rows).totals["J-Mean"] == 0.5


# --- score files ------------------------------------------------------------------------------------------------------


def test_files_keep_every_digit_and_order(tmp_path: Path) -> None:
    rows = [Score("b, the video", 1, "00001", 0.1 + 0.2, 1 / 3), Score("a", 12, "00001", 1e-17, 1.0)]
    summary = summarize(rows)
    write_results(tmp_path / "new" / "folder", rows, summary)
    folder = tmp_path / "new" / "folder"
    assert read_scores(folder / "scores.csv") == rows
    assert read_global_results(folder / "global_results.csv") == summary.totals
    assert read_per_object_results(folder / "per_object_results.csv") == {
        "b, the video_1": (0.1 + 0.2, 1 / 3),
        "a_12": (1e-17, 1.0),
    }
    assert (folder / "scores.csv").read_text().splitlines()[0] == "video,object,frame,J,F"
    assert sorted(os.listdir(folder)) == ["global_results.csv", "per_object_results.csv", "scores.csv"]


def test_a_file_where_the_folder_for_scores_should_be(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("a file")
    rows = [Score("a", 1, "00001", 0.5, 0.5)]
    with pytest.raises(VosflowError, match="the scores cannot be written"):
        write_results(tmp_path / "scores", rows, summarize(rows))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    rows = [Score("a", 1, "00001", 0.5, 0.5)]
    write_results(tmp_path, rows, summarize(rows))

    def broken():
        yield Score("a", 1, "00001", 0.9, 0.9)
        raise OSError(28, "No space left on device")

    with pytest.raises(VosflowError, match="No space left"):
        write_results(tmp_path, broken(), summarize(rows))
    assert read_scores(tmp_path / "scores.csv") == rows
    assert sorted(os.listdir(tmp_path)) == ["global_results.csv", "per_object_results.csv", "scores.csv"]


@pytest.mark.parametrize(
    "text",
    ["", "video,object,frame,J\n", "video,object,frame,J,F\na,1,00001,0.5\n", "video,object,frame,J,F\na,x,0,1,1\n"],
)
def test_broken_score_files_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(VosflowError, match="not a readable table") as error:
        read_scores(tmp_path / "scores.csv")
    assert error.value.path.endswith("scores.csv")


@pytest.mark.parametrize("read", [read_scores, read_global_results, read_per_object_results])
def test_missing_score_files_are_named(tmp_path: Path, read) -> None:
    with pytest.raises(VosflowError, match="not a readable table"):
        read(tmp_path / "nothing.csv")


# --- the whole run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes even for the few pixels of a test."""
    monkeypatch.setattr(run, "PIXELS_PER_WORKER", 1)


def test_workers_do_not_change_the_rows(tmp_path: Path, many_processes: None) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    finished = []
    alone = evaluate_folders(annotations, predictions).scores
    pooled = evaluate_folders(
        annotations, predictions, workers=2, progress=lambda *report: finished.append(report)
    ).scores
    assert pooled == alone
    assert [row.video for row in alone] == sorted(row.video for row in alone)
    assert sorted(video for video, _, _ in finished) == sorted(davis2017_clips())
    assert [(done, total) for _, done, total in finished] == [(i + 1, 6) for i in range(6)]


def test_an_error_in_a_worker_arrives_whole(tmp_path: Path, many_processes: None) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    save_label_map(predictions / "gap" / "00002.png", np.full((HEIGHT, WIDTH), 77, np.uint8))
    with pytest.raises(VosflowError) as error:
        evaluate_folders(annotations, predictions, workers=2)
    assert error.value.path.endswith("gap/00002.png")
    assert "77" in error.value.problem
    assert "ids up to 3" in error.value.expected
    assert error.value.remedy


class Exploding(Davis2017):
    """A protocol with a fault of its own."""

    def scorer(self, video, root):
        if video.name == "gap":
            raise Unpicklable("boom", 1)
        if video.name == "void":
            os._exit(3)
        if video.name == "returns":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory is short
        return super().scorer(video, root)


class Unpicklable(Exception):
    def __init__(self, first: str, second: int) -> None:
        super().__init__(first)
        self.second = second


@pytest.mark.parametrize(
    "video, message",
    [
        ("gap", "scoring video gap failed:.*Unpicklable: boom"),
        ("void", "a worker process ended with exit code 3 while it scored video void"),
        ("returns", "a worker process was killed by SIGKILL while it scored video returns"),
    ],
)
def test_faults_and_deaths_of_workers_are_told(tmp_path: Path, many_processes: None, video: str, message: str) -> None:
    clips = davis2017_clips()
    annotations, predictions = write_clips(tmp_path, {name: clips[name] for name in ("short", "late", video)})
    with pytest.raises(VosflowError, match=re.compile(message, re.DOTALL)) as error:
        evaluate(annotated_folder(annotations, protocol="davis2017"), Predictions(predictions), Exploding(), workers=2)
    assert error.value.path == str(predictions / video)
    assert multiprocessing.active_children() == []
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Unpicklable("boom", 1)))


def test_small_jobs_start_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "in_processes", None)
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    assert evaluate_folders(annotations, predictions, workers=8).scores


@pytest.mark.parametrize("length", [3, 300])
def test_short_and_long_videos(tmp_path: Path, length: int) -> None:
    """Each value equals the slow reference; each mean is over all frames but two."""
    truth = [paint((1, disc(60, 30 + t % 240, 20)), (2, disc(30, 200 - t % 170, 9))) for t in range(length)]
    guess = [
        paint((1, disc(61, 32 + t % 240, 20)), *[(2, disc(30, 200 - t % 160, 9))] * (t % 3)) for t in range(length)
    ]
    scores, summary = score(tmp_path, {"v": (truth, guess)})
    assert [(s.object, s.frame) for s in scores] == [(o, f"{t:05d}") for o in (1, 2) for t in range(1, length - 1)]
    for row in scores[:: max(1, length // 20)]:
        t = int(row.frame)
        assert slow_measures.score(truth[t] == row.object, guess[t] == row.object) == (row.J, row.F)
    assert summary.objects[0].J.mean == np.mean([s.J for s in scores if s.object == 1])


def test_files_are_looked_for_before_any_is_read(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    (predictions / "extreme" / "00001.png").write_bytes(b"not a PNG")
    (predictions / "void" / "00003.png").unlink()
    with pytest.raises(VosflowError, match="void lacks 1 of 3 masks"):
        evaluate_folders(annotations, predictions)


def test_missing_ground_truth_is_named(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    manifest = annotated_folder(annotations, protocol="davis2017")
    (annotations / "void" / "00004.png").unlink()
    with pytest.raises(VosflowError, match="ground truth of video void lacks 1 of 5") as error:
        evaluate(manifest, Predictions(predictions), load_protocol("davis2017"))
    assert error.value.path.endswith("void/00004.png")


def test_ground_truth_of_another_size_is_named(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    Image.fromarray(np.ones((60, 150), np.uint8)).save(annotations / "void" / "00002.png")
    with pytest.raises(VosflowError, match="ground truth is 150x60") as error:
        evaluate_folders(annotations, predictions)
    assert error.value.path.endswith("Annotations/480p/void/00002.png")


def test_a_split_without_public_ground_truth(tmp_path: Path) -> None:
    annotations, predictions = write_clips(tmp_path, davis2017_clips())
    manifest = annotated_folder(annotations, protocol="davis2017")
    with pytest.raises(VosflowError, match="has no protocol: its ground truth is not public"):
        evaluate_run(dataclasses.replace(manifest, protocol=None), predictions, tmp_path / "out")
    blind = tuple(dataclasses.replace(video, ground_truth=None) for video in manifest.videos)
    with pytest.raises(VosflowError, match="video extreme has no public ground truth"):
        evaluate_run(dataclasses.replace(manifest, videos=blind), predictions, tmp_path / "out")


def test_numeric_names_are_sorted_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for name in ("10", "9", "8", "11"):
        save_label_map(tmp_path / "v" / f"{name}.png", paint((1, disc(9, 9, 9))))
    (tmp_path / "v" / ".DS_Store").write_text("")
    (tmp_path / "v" / "notes.txt").write_text("")
    manifest: Manifest = annotated_folder(tmp_path, protocol="davis2017")
    assert manifest.videos[0].ground_truth.names == ("8", "9", "10", "11")
    assert (manifest.videos[0].height, manifest.videos[0].width) == (HEIGHT, WIDTH)


def test_statistics_are_plain_floats() -> None:
    assert all(type(value) is float for value in statistics([0.5, 0.7]))
    assert Statistics._fields == ("mean", "recall", "decay")
