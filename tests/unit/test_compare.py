"""Comparing two sets of predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vosflow.errors import VosflowError
from vosflow.evaluation.compare import compare, object_values
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import ObjectSummary, Statistics, Summary, summarize


def made(J: dict[tuple[str, int], float], shift: float = 0.0) -> Summary:
    """A summary of objects with constant J; F is half of it."""
    rows = [
        Score(video, number, f"{frame:05d}", value + shift, (value + shift) / 2)
        for (video, number), value in J.items()
        for frame in range(4)
    ]
    return summarize(rows)


def random_objects(videos: int = 12) -> dict[tuple[str, int], float]:
    random = np.random.default_rng(3)
    return {(f"v{v}", n): float(random.uniform(0.2, 0.7)) for v in range(videos) for n in range(1, 2 + v % 3)}


def columns(first: Summary, second: Summary, headline: str = "J&F-Mean", **more) -> dict:
    return {entry.column: entry for entry in compare(first, second, headline, **more).columns}


def test_a_known_shift_is_found_exactly():
    objects = random_objects()
    found = columns(made(objects, 0.1), made(objects))
    assert found["J-Mean"].difference == pytest.approx(0.1)
    assert found["J-Mean"].interval == pytest.approx((0.1, 0.1))  # the same in every video: no spread
    assert found["J&F-Mean"].interval == pytest.approx((0.075, 0.075))


def test_identical_sets_differ_by_nothing():
    summary = made(random_objects())
    comparison = compare(summary, summary, "J&F-Mean")
    assert all(entry.difference == 0.0 and entry.interval == (0.0, 0.0) for entry in comparison.columns)
    assert set(comparison.video_differences.values()) == {0.0}


def test_the_order_of_arguments_turns_the_sign():
    objects = random_objects()
    other = {key: value * (0.7 + 0.05 * key[1]) for key, value in objects.items()}
    forward, backward = columns(made(objects), made(other)), columns(made(other), made(objects))
    for column, entry in forward.items():
        low, high = backward[column].interval
        assert entry.interval == pytest.approx((-high, -low))
        assert entry.difference == -backward[column].difference


def test_the_interval_is_that_of_resampled_videos():
    """Against the obvious way: draw videos, gather their objects, take the mean; objects weigh as in the total."""
    objects = random_objects(8)
    other = {key: value * (0.5 + 0.1 * (int(key[0][1:]) % 3 == 0)) for key, value in objects.items()}
    difference = {key: objects[key] - other[key] for key in objects}
    by_video = {video: [d for key, d in difference.items() if key[0] == video] for video in {key[0] for key in objects}}
    random = np.random.default_rng(5)
    drawn = [
        np.mean([d for video in random.choice(sorted(by_video), len(by_video)) for d in by_video[video]])
        for _ in range(20_000)
    ]
    found = columns(made(objects), made(other))["J-Mean"]
    assert found.difference == pytest.approx(np.mean(list(difference.values())))
    assert found.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.004)


def test_as_many_videos_are_drawn_as_there_are():
    """Of four videos one has a difference: it is drawn three times or more with a probability of 13 / 256."""
    other = {(video, 1): 0.5 for video in "abcd"}
    assert columns(made({**other, ("a", 1): 0.9}), made(other))["J-Mean"].interval == pytest.approx((0.0, 0.3))


def test_it_is_seeded():
    objects = random_objects()
    pair = made(objects), made({key: value**2 for key, value in objects.items()})
    assert columns(*pair) == columns(*pair)
    assert columns(*pair)["J-Mean"].interval != columns(*pair, seed=1)["J-Mean"].interval


def test_one_video_has_no_interval():
    objects = {("a", 1): 0.5, ("a", 2): 0.7}
    comparison = compare(made(objects, 0.1), made(objects), "J&F-Mean")
    assert all(entry.interval is None for entry in comparison.columns)
    assert comparison.columns[0].difference == pytest.approx(0.075)


def test_other_videos_are_refused():
    objects = random_objects()
    with pytest.raises(
        VosflowError, match="not of the same videos: 1 are only in the first, 0 only in the second"
    ) as e:
        compare(made({**objects, ("extra", 1): 0.5}), made(objects), "J&F-Mean")
    assert "extra" in str(e.value) and e.value.remedy


def test_other_columns_are_refused():
    summary = made(random_objects())
    with pytest.raises(VosflowError, match="different columns"):
        compare(summary, Summary(summary.objects, {"J-Mean": 0.5}), "J-Mean")


def test_videos_are_ranked_by_what_they_gain():
    objects = {("a", 1): 0.5, ("b", 1): 0.5, ("b", 2): 0.5, ("c", 1): 0.5}
    other = {("a", 1): 0.6, ("b", 1): 0.3, ("b", 2): 0.5, ("c", 1): 0.1}
    comparison = compare(made(objects), made(other), "J-Mean")
    assert list(comparison.video_differences) == ["c", "b", "a"]
    assert list(comparison.video_differences.values()) == pytest.approx([0.4, 0.1, -0.1])
    assert comparison.ranked_by == "J-Mean" and comparison.videos == 3


def with_groups(scale: float) -> Summary:
    """Totals as LVOS and YouTube-VOS have them: means over groups; and a column of few objects."""

    def constant(value: float) -> Statistics:
        return Statistics(value, 1.0, 0.0)

    objects = tuple(
        ObjectSummary(
            f"v{v}",
            1,
            constant(scale * (0.4 + 0.02 * v)),
            constant(scale * 0.5),
            extra=(scale * v / 10 if v % 2 else math.nan,),
            group="seen" if v < 7 else "unseen",
        )
        for v in range(10)
    )
    seen, unseen = objects[:7], objects[7:]
    J = [np.mean([o.J.mean for o in group]) for group in (seen, unseen)]
    totals = {
        "J-Mean": float(np.mean(J)),
        "J-seen-Mean": float(J[0]),
        "odd-Mean": float(np.mean([o.extra[0] for o in objects if not math.isnan(o.extra[0])])),
        "largest": max(o.J.mean for o in objects),
    }
    return Summary(objects, totals, ("odd-Mean",))


def test_groups_own_columns_and_what_is_no_mean():
    found = columns(with_groups(1.0), with_groups(0.8), "J-Mean")
    assert found["J-Mean"].difference == pytest.approx(0.2 * with_groups(1.0).totals["J-Mean"])
    for column in ("J-Mean", "J-seen-Mean", "odd-Mean"):
        low, high = found[column].interval
        assert low < found[column].difference < high
    assert found["largest"].interval is None  # no mean over objects: cannot be taken again from resampled videos


def test_values_of_objects():
    summary = with_groups(1.0)
    assert np.isnan(object_values(summary, "J-seen-Mean")).tolist() == [False] * 7 + [True] * 3
    assert object_values(summary, "J&F-Mean")[0] == pytest.approx(0.45)
    assert object_values(summary, "largest") is None
