"""AP and AR of instances: by hand on small examples, and live against pycocotools' COCOeval."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vosflow.errors import VosflowError
from vosflow.evaluation.compare import compare
from vosflow.evaluation.instances import annotated_file
from vosflow.evaluation.protocols.ytvis import AREAS, MOST_FOUND
from vosflow.evaluation.run import Evaluation, evaluate_run
from vosflow.evaluation.scores import read_global_results, read_per_object_results, read_scores

HEIGHT, WIDTH = 300, 310


def square(left: int, side: int = 100, top: int = 0) -> dict:
    """A square, run-length encoded."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + side, left : left + side] = 1
    encoded = rle.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def truth(number: int, video: int, masks: list, category: int = 1, crowd: int = 0) -> dict:
    areas = [None if mask is None else float(rle.area(mask)) for mask in masks]
    facts = {"id": number, "video_id": video, "category_id": category, "iscrowd": crowd}
    return {**facts, "areas": areas, "segmentations": masks}


def found(video: int, score: float, masks: list, category: int = 1) -> dict:
    return {"video_id": video, "category_id": category, "score": score, "segmentations": masks}


def write(
    folder: Path, videos: dict[int, int], truths: list, results: object, categories: int = 2
) -> tuple[Path, Path]:
    """Write annotations of {video id: number of frames} and results."""
    content = {
        "videos": [
            {"id": v, "height": HEIGHT, "width": WIDTH, "file_names": [f"v{v}/{t}.png" for t in range(frames)]}
            for v, frames in videos.items()
        ],
        "categories": [{"id": c, "name": f"kind {c}"} for c in range(1, categories + 1)],
        "annotations": truths,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "instances.json", folder / "results.json"


def score(folder: Path, *content: object, protocol: str = "ytvis", strict: bool = True, **more) -> Evaluation:
    annotations, results = write(folder, *content, **more)
    return evaluate_run(annotated_file(annotations, protocol=protocol), results, strict=strict)


def test_a_frame_with_one_of_the_two_adds_to_the_union_only(tmp_path):
    A = square(0)
    totals = score(tmp_path, {1: 3}, [truth(7, 1, [A, A, None])], [found(1, 0.9, [A, None, None])]).summary.totals
    assert totals["AP50"] == pytest.approx(1.0, abs=1e-15)  # IoU 1/2: matched at 0.5 and at no higher threshold
    assert totals["AR@1"] == pytest.approx(0.1, abs=1e-15)
    assert totals["AP"] == pytest.approx(0.1, abs=1e-15)
    assert totals["AP75"] == 0.0
    late = score(tmp_path, {1: 3}, [truth(7, 1, [None, A, A])], [found(1, 0.9, [None, A, A])])
    assert late.summary.totals["AR@1"] == 1.0 and late.scores[0].J == 1.0


def test_overlap_is_summed_before_it_is_divided(tmp_path):
    # 50 of 150 columns are common on frame 0, nothing else on frame 1: (50 * 100) / (150 * 100 + 2 * 100 * 100)
    truths, results = [truth(3, 1, [square(0), square(0)])], [found(1, 1.0, [square(50), square(200)])]
    assert score(tmp_path, {1: 2}, truths, results).scores[0].J == 5_000 / 35_000


def test_ties_of_scores_fall_in_the_order_of_video_ids(tmp_path):
    right, wrong, other = square(0), square(150), square(0, 90)
    truths = [truth(1, 2, [right]), truth(2, 1, [other])]
    results = [found(2, 0.5, [right]), found(1, 0.5, [wrong])]  # the right one first in the file, second by id
    totals = score(tmp_path, {2: 1, 1: 1}, truths, results).summary.totals
    assert totals["AP50"] == pytest.approx(51 / 101 * 0.5, abs=1e-12)
    assert totals["AR@100"] == 0.5


def test_equal_scores_in_one_video_keep_the_order_of_the_file(tmp_path):
    right, wrong = found(1, 0.5, [square(0)]), found(1, 0.5, [square(150)])
    first = score(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], [right, wrong]).summary.totals
    second = score(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], [wrong, right]).summary.totals
    assert first["AP"] == pytest.approx(1.0, abs=1e-12) and first["AR@1"] == 1.0
    assert second["AP"] == pytest.approx(0.5, abs=1e-12) and second["AR@1"] == 0.0


def test_a_crowd_takes_any_number_of_results_and_counts_for_nothing(tmp_path):
    crowd, right = square(0), square(150)
    truths = [truth(1, 1, [crowd], crowd=1), truth(2, 1, [right])]
    results = [found(1, 0.9, [crowd]), found(1, 0.8, [crowd]), found(1, 0.7, [right])]
    result = score(tmp_path, {1: 1}, truths, results)
    assert result.summary.totals["AP"] == pytest.approx(1.0, abs=1e-12)
    assert [entry.object for entry in result.summary.objects] == [2]
    only_once = score(tmp_path, {1: 1}, [truth(1, 1, [crowd]), truth(2, 1, [right])], results)
    assert only_once.summary.totals["AP"] < 1.0  # the second on an ordinary object is wrong


def test_categories_count_in_ytvis_and_not_in_uvo(tmp_path):
    content = {1: 1}, [truth(1, 1, [square(0)], category=1)], [found(1, 0.9, [square(0)], category=2)]
    assert score(tmp_path, *content).summary.totals["AR@100"] == 0.0
    assert score(tmp_path, *content, protocol="uvo").summary.totals["AR@100"] == 1.0


def test_a_category_without_ground_truth_is_not_averaged_in(tmp_path):
    truths = [truth(1, 1, [square(0)], category=1)]
    results = [found(1, 0.9, [square(0)], category=1), found(1, 0.9, [square(99)], category=2)]
    assert score(tmp_path, {1: 1}, truths, results).summary.totals["AP"] == pytest.approx(1.0, abs=1e-12)


def test_areas_are_means_over_the_frames_with_the_object(tmp_path):
    small, large = square(0, 100), square(0, 280)
    truths = [truth(1, 1, [small, None, large])]  # mean area (10000 + 78400) / 2: medium
    totals = score(tmp_path, {1: 3}, truths, [found(1, 0.9, [small, None, large])]).summary.totals
    assert totals["AR-medium"] == 1.0
    assert math.isnan(totals["AR-small"]) and math.isnan(totals["AP-large"])


def test_best_results_per_video(tmp_path):
    truths = [truth(n, 1, [square(110 * (n - 1), 90)]) for n in (1, 2)]
    results = [found(1, 1 - n / 10, [square(110 * n, 90)]) for n in (0, 1)]
    totals = score(tmp_path, {1: 1}, truths, results).summary.totals
    assert totals["AR@1"] == 0.5 and totals["AR@10"] == totals["AR@100"] == 1.0


def test_a_hundred_results_of_each_video_and_category_count(tmp_path):
    wrong, right = found(1, 0.9, [square(150)]), found(1, 0.1, [square(0)])
    for count, recall in ((99, 1.0), (100, 0.0)):
        totals = score(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], [wrong] * count + [right]).summary.totals
        assert totals["AR@100"] == recall and (totals["AP"] > 0) == (recall > 0)


def test_a_video_without_results(tmp_path):
    content = {1: 1, 2: 1}, [truth(1, 1, [square(0)]), truth(2, 2, [square(0)])], [found(1, 0.9, [square(0)])]
    with pytest.raises(VosflowError, match="1 of 2 videos have no results: v2") as caught:
        score(tmp_path, *content)
    assert "--no-strict" in str(caught.value)
    result = score(tmp_path, *content, strict=False)
    assert result.missing == {"v2": 1} and result.summary.totals["AR@100"] == 0.5


def test_other_encodings_of_the_same_mask(tmp_path):
    square_counts = [0, *[100, HEIGHT - 100] * 100, HEIGHT * (WIDTH - 100)]
    square_counts[-2:] = [HEIGHT - 100 + HEIGHT * (WIDTH - 100)]
    plain = {"size": [HEIGHT, WIDTH], "counts": square_counts}
    polygon = [[0, 0, 100, 0, 100, 100, 0, 100]]
    for mask in (plain, polygon):
        entry = {**truth(1, 1, [square(0)]), "segmentations": [mask]}
        assert score(tmp_path, {1: 1}, [entry], [found(1, 0.9, [square(0)])]).scores[0].J == 1.0
    assert score(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], [found(1, 0.9, [plain])]).scores[0].J == 1.0


def test_score_files(tmp_path):
    annotations, results = write(tmp_path, {1: 1}, [truth(4, 1, [square(0)])], [found(1, 0.9, [square(0)])])
    evaluate_run(annotated_file(annotations, protocol="uvo"), results, tmp_path / "out")
    (row,) = read_scores(tmp_path / "out/scores.csv")
    assert (row.video, row.object, row.frame, row.J) == ("v1", 4, "all", 1.0) and math.isnan(row.F)
    assert read_per_object_results(tmp_path / "out/per_object_results.csv")["v1_4"][0] == 1.0
    assert read_global_results(tmp_path / "out/global_results.csv")["AR@100"] == 1.0


def test_recall_can_be_compared_and_precision_only_subtracted(tmp_path):
    videos = {n: 1 for n in range(1, 9)}
    truths = [truth(n, n, [square(0)], category=1 + n % 2) for n in videos]
    good = [found(n, 0.9, [square(0)], category=1 + n % 2) for n in videos]
    bad = good[:5] + [found(n, 0.9, [square(150)], category=1 + n % 2) for n in (6, 7, 8)]
    first, second = (score(tmp_path, videos, truths, results).summary for results in (good, bad))
    columns = {entry.column: entry for entry in compare(first, second, "AP").columns}
    assert columns["AP"].interval is None and columns["AP"].difference > 0
    low, high = columns["AR@100"].interval
    assert 0 <= low < columns["AR@100"].difference < high <= 1


@pytest.mark.parametrize(
    "results, problem",
    [
        ({"annotations": []}, "the results are a dict, not a list"),
        ([3], "entry 0: it is no object"),
        ([{"video_id": 1}], "entry 0: it lacks category_id, score, segmentations"),
        ([found(9, 0.5, [None])], "entry 0: video_id 9 is not one of the 1 videos"),
        ([found(1, 0.5, [None], category=3)], "entry 0: category_id 3 is not one of the categories"),
        ([found(1, math.nan, [None])], "entry 0: the score nan is no number"),
        ([found(1, 0.5, [None, None])], "entry 0: it has 2 masks for the 1 frames of video 1"),
        ([found(1, 0.5, [{"size": [5, 5], "counts": [25]}])], r"on frame v1/0.png of video 1 has size \[5, 5\]"),
        ([found(1, 0.5, [{"size": [HEIGHT, WIDTH], "counts": [25]}])], "its run lengths do not add up"),
        ([found(1, 0.5, [{"size": [HEIGHT, WIDTH], "counts": "PPYo0"}])], "its run lengths do not add up"),
        ([found(1, 0.5, [{**square(0), "counts": square(0)["counts"][:-2]}])], "its run lengths do not add up"),
        ([found(1, 0.5, [[[0, 0, 9, 0, 9, 9]]])], "is not run-length encoded"),
    ],
)
def test_results_that_break_the_format(tmp_path, results, problem):
    with pytest.raises(VosflowError, match=problem) as caught:
        score(tmp_path, {1: 1}, [truth(1, 1, [square(0)])], results)
    assert caught.value.path == str(tmp_path / "results.json") and caught.value.remedy


@pytest.mark.parametrize(
    "content, problem",
    [
        ("{", "not readable as JSON"),
        ('{"videos": []}', "it names no video"),
        ('{"videos": [{"id": 1}]}', "a video has no"),
        ("[]", "there is no list 'videos'"),
    ],
)
def test_annotations_that_break_the_format(tmp_path, content, problem):
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(VosflowError, match=problem) as caught:
        annotated_file(path, protocol="ytvis")
    assert caught.value.path == str(path) and caught.value.remedy


def test_annotations_with_another_number_of_masks(tmp_path):
    with pytest.raises(VosflowError, match="annotation 5 has 2 masks for the 1 frames of v1"):
        score(tmp_path, {1: 1}, [truth(5, 1, [square(0), None])], [found(1, 0.5, [None])])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), protocol=st.sampled_from(["ytvis", "uvo"]))
@example(seed=95, protocol="uvo")  # a result as near to one truth as to another, of the other category
def test_equal_to_cocoeval_on_frames_laid_side_by_side(tmp_path, seed, protocol):
    """Spatio-temporal IoU is the IoU of one tall image of all frames; the rest of the rules is COCO's."""
    videos, truths, results = random_instances(np.random.default_rng(seed), categories=2)
    got = score(tmp_path, videos, truths, results, protocol=protocol, strict=False).summary.totals
    expected = cocoeval(videos, truths, results, by_category=protocol == "ytvis")
    assert list(got.values()) == pytest.approx(list(expected.values()), abs=1e-12, nan_ok=True)
    assert list(got) == list(expected)


def random_instances(random: np.random.Generator, categories: int) -> tuple[dict[int, int], list, list]:
    videos = {int(v): int(random.integers(1, 4)) for v in random.permutation(6)[:3]}
    truths, results = [truth(1, next(iter(videos)), [square(0)] * videos[next(iter(videos))])], []
    for video, frames in videos.items():
        for _ in range(random.integers(0, 5)):
            left, side = int(random.integers(0, 60)), int(random.choice([60, 140, 240]))
            category = int(random.integers(1, categories + 1))
            masks = [None if random.random() < 0.2 else square(left + t, side) for t in range(frames)]
            truths.append(truth(len(truths) + 1, video, masks, category))
            for _ in range(random.integers(0, 4)):
                moved, grown = random.integers(-5, 6, 2) * side // 30
                masks = [
                    None if random.random() < 0.1 else square(max(0, left + moved + t), side + grown)
                    for t in range(frames)
                ]
                category = int(random.integers(1, categories + 1))
                results.append(found(video, int(random.integers(0, 6)) / 5, masks, category))
    return videos, truths, [results[index] for index in random.permutation(len(results))]


def cocoeval(videos: dict[int, int], truths: list, results: list, by_category: bool) -> dict[str, float]:
    def as_coco(entries: list, extra: list[dict]) -> COCO:
        coco = COCO()
        images = [{"id": v, "height": HEIGHT * frames, "width": WIDTH} for v, frames in videos.items()]
        coco.dataset = {"images": images, "categories": [{"id": 1}, {"id": 2}], "annotations": []}
        for number, (entry, more) in enumerate(zip(entries, extra, strict=True), start=1):
            masks = [
                np.zeros((HEIGHT, WIDTH), np.uint8) if mask is None else rle.decode(mask)
                for mask in entry["segmentations"]
            ]
            areas = [int(mask.sum()) for mask in masks if mask.any()]
            tall = rle.encode(np.asfortranarray(np.concatenate(masks)))
            common = {"id": number, "image_id": entry["video_id"], "category_id": entry["category_id"], "iscrowd": 0}
            area = float(np.mean(areas)) if areas else 0.0
            coco.dataset["annotations"].append({**common, "segmentation": tall, "area": area, **more})
        coco.createIndex()
        return coco

    with contextlib.redirect_stdout(io.StringIO()):
        if not by_category:  # UVO's script changes results only; COCOeval then takes truths category by category
            results = [{**entry, "category_id": 1} for entry in results]
        found_coco = as_coco(results, [{"score": entry["score"]} for entry in results])
        evaluation = COCOeval(as_coco(truths, [{}] * len(truths)), found_coco, "segm")
        evaluation.params.areaRng = [list(limits) for limits in AREAS.values()]
        evaluation.params.areaRngLbl = list(AREAS)
        evaluation.params.maxDets = list(MOST_FOUND)
        evaluation.params.useCats = int(by_category)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def mean(values: np.ndarray) -> float:
        return float(np.mean(values[values > -1])) if (values > -1).any() else math.nan

    return {
        "AP": mean(precision[..., 0, 2]),
        "AP50": mean(precision[0, ..., 0, 2]),
        "AP75": mean(precision[5, ..., 0, 2]),
        **{f"AP{name}": mean(precision[..., index, 2]) for index, name in enumerate(AREAS) if name},
        **{f"AR@{most}": mean(recall[..., 0, index]) for index, most in enumerate(MOST_FOUND)},
        **{f"AR{name}": mean(recall[..., index, 2]) for index, name in enumerate(AREAS) if name},
    }
