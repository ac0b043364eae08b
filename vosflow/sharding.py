"""Balanced shards: which videos of a run one job handles."""

from __future__ import annotations

from collections.abc import Mapping

TOLERANCE = 0.02  # stop improving once the largest shard is this close to the mean


def plan_shards(costs: Mapping[str, float], shards: int) -> list[list[str]]:
    """Divide videos over `shards` shards so that the most expensive shard is as cheap as can be found quickly.

    Longest processing time first (Graham 1969), then moves and swaps between shards as long as they help, until the
    largest shard is within 2 % of the mean or as large as the largest video. The same costs give the same plan,
    in whatever order they come.

    Args:
        costs: estimated cost of each video, above 0 (arbitrary units).
        shards: number of shards, at least 1; some stay empty if there are fewer videos.

    Returns:
        Names of the videos of each shard, most expensive first.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1, not {shards}")
    plan: list[list[str]] = [[] for _ in range(shards)]
    loads = [0.0] * shards
    for name in sorted(costs, key=lambda video: (-costs[video], video)):
        lightest = min(range(shards), key=lambda index: loads[index])
        plan[lightest].append(name)
        loads[lightest] += costs[name]
    if costs:
        target = max(max(costs.values()), (1 + TOLERANCE) * sum(loads) / shards)
        while max(loads) > target and _improve(plan, loads, costs):
            pass
    return [sorted(videos, key=lambda video: (-costs[video], video)) for videos in plan]


def _improve(plan: list[list[str]], loads: list[float], costs: Mapping[str, float]) -> bool:
    """Relieve the heaviest shard by the best move or swap of a few videos with another shard; False if none helps."""
    heavy = max(range(len(plan)), key=lambda index: (loads[index], -index))
    best: tuple[float, int, tuple[str, ...], tuple[str, ...]] | None = None
    for other in range(len(plan)):
        if other == heavy:
            continue
        gap = loads[heavy] - loads[other]
        for give in _handfuls(plan[heavy]):
            given = sum(costs[video] for video in give)
            for take in [(), *_handfuls(plan[other])]:
                moved = given - sum(costs[video] for video in take)
                if 0 < moved < gap:  # the larger of the two shards becomes smaller
                    height = loads[heavy] - min(moved, gap - moved)
                    if best is None or height < best[0]:
                        best = (height, other, give, take)
        if best is not None and best[0] <= sum(loads) / len(loads) * (1 + TOLERANCE):
            break
    if best is None:
        return False
    _, other, give, take = best
    for video in give:
        plan[heavy].remove(video)
        plan[other].append(video)
    for video in take:
        plan[other].remove(video)
        plan[heavy].append(video)
    moved = sum(costs[video] for video in give) - sum(costs[video] for video in take)
    loads[heavy] -= moved
    loads[other] += moved
    return True


def _handfuls(videos: list[str]) -> list[tuple[str, ...]]:
    """Each video alone, and each pair where there are few enough to try them all."""
    ones = [(video,) for video in videos]
    if len(videos) > 12:
        return ones
    return ones + [(a, b) for index, a in enumerate(videos) for b in videos[index + 1 :]]
