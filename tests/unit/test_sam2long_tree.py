"""The memory tree of SAM2Long with a scripted decoder: no network, every decision visible."""

from __future__ import annotations

import math
import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vosflow.trackers.sam2long.tree import (
    Candidate,
    MemoryTree,
    Node,
    Recall,
    Rules,
    Undecided,
    advance,
    log_iou,
    select,
)

RULES = Rules(num_pathway=3, iou_thre=0.1, uncertainty=2.0, num_maskmem=7, longest_pointer=16)
Script = Callable[[int, Recall], tuple[float, list[float]]]
"""(frame, what is attended to) -> (object score, IoU of each mask)."""


class Scripted:
    """A decoder that does as its script says. A mask is the word for its history: "P" is the prompt, then a letter
    for each frame, a for the first mask. What is remembered of a mask is its word."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[tuple[int, Recall]] = []
        self.kept: list[tuple[int, str, bool]] = []

    def propose(self, frame: int, recalls: Sequence[Recall]) -> list[list[Candidate]]:
        self.asked += [(frame, recall) for recall in recalls]
        return [self.candidates(frame, recall) for recall in recalls]

    def candidates(self, frame: int, recall: Recall) -> list[Candidate]:
        score, ious = self.script(frame, recall)
        word = newest(recall)
        return [Candidate(iou, score, word + "abc"[j]) for j, iou in enumerate(ious)]

    def keep(self, frame: int, candidates: Sequence[Candidate], *, remember: bool) -> list[tuple[str, str | None]]:
        self.kept += [(frame, candidate.mask, remember) for candidate in candidates]
        return [(candidate.mask, candidate.mask if remember else None) for candidate in candidates]


def newest(recall: Recall) -> str:
    """The word of the last frame: it is always attended to."""
    return max((memory for memory, _ in (*recall.memories, *recall.pointers)), key=lambda m: m.frame).content


def by_frame(*steps: tuple[float, list[float]]) -> Script:
    """The same for all pathways; the first step is the frame after the prompt."""
    return lambda frame, recall: steps[frame - 1]


def by_word(score: float, **ious: list[float]) -> Script:
    """IoUs by the word of the last frame."""
    return lambda frame, recall: (score, ious[newest(recall)])


def track(script: Script, end: int, rules: Rules = RULES, start: int = 0) -> tuple[MemoryTree, Scripted, list]:
    decoder = Scripted(script)
    tree = MemoryTree(rules, start=start, end=end, output="P", content="P")
    given = tree.decided()
    for frame in range(start + 1, end + 1):
        advance([tree], decoder, frame)
        given += tree.decided()
    return tree, decoder, given


def result(script: Script, end: int, rules: Rules = RULES) -> str:
    """The word of the winning pathway's last mask."""
    given = track(script, end, rules)[2]
    assert [frame for frame, _ in given] == list(range(end + 1))
    assert all(word == given[-1][1][: len(word)] for _, word in given)  # one line of descent
    return given[-1][1]


def heads(tree: MemoryTree) -> list[str]:
    return [pathway.node.output for pathway in tree._pathways]


def select_from(ious: list[list[float]], scores: list[float], rules: Rules, so_far: Sequence[float] = ()) -> list:
    candidates = [[Candidate(iou, score, None) for iou in row] for row, score in zip(ious, scores, strict=True)]
    sums = [[(so_far or [0.0] * len(ious))[p] + log_iou(iou) for iou in row] for p, row in enumerate(ious)]
    return select(candidates, sums, rules)


def test_one_frame() -> None:
    tree = MemoryTree(RULES, start=3, end=3, output="P", content="P")
    assert tree.decided() == [(3, "P")]
    assert tree.decided() == []


def test_two_frames_are_greedy() -> None:
    tree, decoder, given = track(by_frame((5.0, [0.2, 0.9, 0.9])), end=1)
    assert given == [(0, "P"), (1, "Pb")]  # of equal IoUs the first
    assert len(decoder.asked) == 1
    assert decoder.kept == [(1, "Pb", False)]  # nobody will remember the last frame
    assert [pathway.score for pathway in tree._pathways] == [0.0, 0.0, 0.0]  # the greedy frame does not count


def test_certain_frames_keep_copies_of_the_best_mask_and_evaluate_them_once() -> None:
    tree, decoder, given = track(by_frame(*[(5.0, [0.5, 0.9, 0.8])] * 6), end=6)
    assert given[-1] == (6, "Pbbbbbb") and heads(tree) == ["Pbbbbbb"] * 3
    assert len(decoder.asked) == 6 and len(decoder.kept) == 6
    assert len(set(tree._pathways)) == 1
    assert tree._pathways[0].score == pytest.approx(5 * math.log(0.9 + 1e-5))


def test_pathways_part_on_an_uncertain_frame() -> None:
    tree, decoder, _ = track(by_frame((5.0, [0.9, 0.1, 0.1]), (1.5, [0.5, 0.9, 0.8]), (1.5, [0.5, 0.5, 0.5])), end=2)
    assert heads(tree) == ["Pab", "Pac", "Paa"]
    assert len(decoder.asked) == 2
    assert decoder.kept == [(1, "Pa", True), (2, "Pab", False), (2, "Pac", False), (2, "Paa", False)]


@pytest.mark.parametrize(("score", "parts"), [(2.0, True), (-2.0, True), (2.1, False), (-2.1, False)])
def test_a_score_at_the_limit_is_uncertain(score: float, parts: bool) -> None:
    tree, _, _ = track(by_frame((5.0, [0.9, 0.1, 0.1]), (score, [0.5, 0.9, 0.8])), end=2)
    assert heads(tree) == (["Pab", "Pac", "Paa"] if parts else ["Pab"] * 3)


def test_one_certain_pathway_makes_the_frame_certain() -> None:
    rules = replace(RULES, num_pathway=2)
    assert select_from([[0.9, 0.5], [0.8, 0.7]], [0.1, 3.0], rules) == [(0, 0), (1, 0)]
    assert select_from([[0.9, 0.9], [0.8, 0.7]], [0.1, -3.0], rules) == [(0, 0), (0, 1)]  # certainly absent counts
    assert select_from([[0.9, 0.9], [0.8, 0.7]], [0.1, -1.0], rules) == [(0, 0), (1, 0)]  # uncertain: of two kinds


def test_ties_go_to_the_first_pathway_and_its_first_mask() -> None:
    assert select_from([[0.5, 0.7, 0.7], [0.7, 0.7, 0.6]], [9.0, 9.0], RULES) == [(0, 1), (0, 2), (1, 0)]


def test_uncertain_masks_differ_after_rounding() -> None:
    assert select_from([[0.904, 0.896, 0.85]], [0.0], replace(RULES, num_pathway=2)) == [(0, 0), (0, 2)]
    assert select_from([[0.906, 0.896, 0.85]], [1.0], replace(RULES, num_pathway=2)) == [(0, 0), (0, 1)]


def test_a_mask_of_an_absent_object_is_of_another_kind() -> None:
    rules = replace(RULES, num_pathway=2)
    assert select_from([[0.9, 0.7], [0.9, 0.6]], [1.0, 1.0], rules) == [(0, 0), (0, 1)]
    assert select_from([[0.9, 0.7], [0.9, 0.6]], [1.0, -1.0], rules) == [(0, 0), (1, 0)]
    assert select_from([[0.9, 0.7], [0.9, 0.6]], [1.0, 0.0], rules) == [(0, 0), (1, 0)]  # 0 is not above 0


def test_places_that_remain_go_to_pathways_without_a_mask() -> None:
    same = [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]
    assert select_from(same, [1.0] * 3, RULES) == [(0, 0), (1, 0), (2, 0)]
    ahead = [-1.0, 0.0, -0.5]  # pathway 1 leads; the others follow in their order, not by score
    assert select_from(same, [1.0] * 3, RULES, ahead) == [(1, 0), (0, 0), (2, 0)]
    assert select_from([[0.7, 0.9], [0.9, 0.7], [0.9, 0.7]], [1.0] * 3, RULES) == [(0, 1), (0, 0), (1, 0)]


def test_a_lone_pathway_without_another_kind_stays_alone_in_copies() -> None:
    tree, decoder, _ = track(by_frame((1.0, [0.9, 0.9, 0.9]), (1.0, [0.5, 0.5, 0.5]), (1.0, [0.5, 0.5, 0.5])), end=3)
    assert heads(tree) == ["Paaa"] * 3
    assert len(decoder.asked) == 3


OVERTAKEN = {  # Paa leads by a little, what follows it is bad
    "P": [0.9, 0.1, 0.1],
    "Pa": [0.9, 0.8, 0.7],
    "Paa": [0.3, 0.2, 0.1],
    "Pab": [0.9, 0.3, 0.2],
    "Pac": [0.1, 0.1, 0.1],
}


def test_the_greedy_line_does_not_win_if_another_does_better_later() -> None:
    script = by_word(1.0, **OVERTAKEN)
    assert result(script, 3) == "Paba"
    assert result(script, 3, replace(RULES, num_pathway=1)) == "Paaa"


def test_earlier_masks_change_when_another_pathway_wins_and_are_given_only_then() -> None:
    decoder = Scripted(by_word(1.0, **OVERTAKEN))
    tree = MemoryTree(RULES, start=0, end=3, output="P", content="P")
    assert tree.decided() == [(0, "P")]
    advance([tree], decoder, 1)
    assert tree.decided() == [(1, "Pa")]
    advance([tree], decoder, 2)
    assert heads(tree) == ["Paa", "Pab", "Pac"] and tree.decided() == []  # each may win yet
    advance([tree], decoder, 3)
    assert tree.decided() == [(2, "Pab"), (3, "Paba")]


def test_frames_are_given_when_all_pathways_descend_from_one_mask() -> None:
    ious = {"P": [0.9, 0.1, 0.1], "Pa": [0.9, 0.8, 0.7], "Paa": [0.1] * 3, "Pab": [0.9, 0.8, 0.7], "Pac": [0.1] * 3}
    decoder = Scripted(lambda frame, recall: (1.0, ious.get(newest(recall), [0.6, 0.5, 0.4])))
    tree = MemoryTree(RULES, start=0, end=9, output="P", content="P")
    for frame in (1, 2, 3):
        advance([tree], decoder, frame)
    assert heads(tree) == ["Paba", "Pabb", "Pabc"]
    assert tree.decided() == [(0, "P"), (1, "Pa"), (2, "Pab")]


def test_the_frame_after_the_prompt_attends_to_the_prompt_alone() -> None:
    recall = track(lambda frame, recall: (5.0, [0.9]), end=6, start=5)[1].asked[0][1]
    assert [(m.content, row) for m, row in recall.memories] == [("P", 6)]
    assert [(m.content, distance) for m, distance in recall.pointers] == [("P", 1)]


def test_the_prompt_counts_with_a_score_of_ten() -> None:
    recall = track(by_frame(*[(25.0, [0.9])] * 2), end=2)[1].asked[-1][1]
    assert [m.object_score for m, _ in recall.memories] == [10.0, 25.0]


def test_the_oldest_selected_frame_has_no_pointer() -> None:
    script = by_frame(*[(5.0, [0.9])] * 4)
    recall = track(script, end=4)[1].asked[-1][1]
    assert [(m.frame, row) for m, row in recall.memories] == [(0, 6), (1, 2), (2, 1), (3, 0)]
    assert [(m.frame, distance) for m, distance in recall.pointers] == [(0, 4), (3, 1), (2, 2)]
    recall = track(script, end=4, rules=replace(RULES, corrected=True))[1].asked[-1][1]
    assert [(m.frame, distance) for m, distance in recall.pointers] == [(0, 4), (3, 1), (2, 2), (1, 3)]


def test_good_frames_are_selected_and_the_last_one_in_any_case() -> None:
    """Frames 2 (no object) and 4, 5 (IoU not above the threshold) are bad; frame 5 is the last one."""
    steps = [(5.0, [0.9]), (0.0, [0.9]), (5.0, [0.9]), (5.0, [0.1]), (5.0, [0.05]), (5.0, [0.9]), (5.0, [0.9])]
    asked = track(by_frame(*steps), end=7)[1].asked
    assert [(m.frame, row) for m, row in asked[5][1].memories] == [(0, 6), (1, 2), (3, 1), (5, 0)]
    assert [(m.frame, distance) for m, distance in asked[5][1].pointers] == [(0, 6), (5, 1), (3, 2)]
    assert [(m.frame, row) for m, row in asked[6][1].memories] == [(0, 6), (1, 2), (3, 1), (6, 0)]  # 5 is gone


@pytest.mark.parametrize("bad_last", [False, True])
def test_how_far_back_a_pathway_reaches(bad_last: bool) -> None:
    """15 selected frames at most; 16 with a last frame that is not among them."""
    steps = [(5.0, [0.9])] * 40
    if bad_last:
        steps[38] = (5.0, [0.0])
    recall = track(by_frame(*steps), end=40)[1].asked[-1][1]
    assert [(m.frame, row) for m, row in recall.memories] == [(0, 6)] + [(40 - d, d - 1) for d in range(6, 0, -1)]
    pointers = [(40 - d, d) for d in range(1, 16 if bad_last else 15)]
    assert [(m.frame, distance) for m, distance in recall.pointers] == [(0, 40), *pointers]


@pytest.mark.parametrize("num_maskmem", [1, 2, 9])
def test_other_memory_sizes(num_maskmem: int) -> None:
    recall = track(by_frame(*[(5.0, [0.9])] * 12), end=12, rules=replace(RULES, num_maskmem=num_maskmem))[1].asked[-1][
        1
    ]
    rows = [(12 - d, d - 1) for d in range(num_maskmem - 1, 0, -1)]
    assert [(m.frame, row) for m, row in recall.memories] == [(0, num_maskmem - 1), *rows]
    assert len(recall.pointers) == 1 + 10  # the pointers' reach is its own


def test_one_pathway() -> None:
    rules = replace(RULES, num_pathway=1)
    tree, decoder, given = track(by_frame(*[(1.0, [0.5, 0.9, 0.8])] * 5), end=5, rules=rules)
    assert given[-1] == (5, "Pbbbbb") and len(decoder.asked) == 5


def test_pathways_are_different_from_the_start_if_corrected() -> None:
    tree, decoder, _ = track(by_frame(*[(5.0, [0.5, 0.9, 0.8])] * 3), end=3, rules=replace(RULES, corrected=True))
    assert heads(tree) == ["Pbbb", "Pbbc", "Pbcb"]
    assert len(decoder.asked) == 1 + 1 + 3


def test_ious_without_a_logarithm_come_last() -> None:
    assert log_iou(-0.5) == log_iou(math.nan) == log_iou(-1e-5) == -math.inf
    assert math.isfinite(log_iou(0.0))
    assert select_from([[math.nan, -0.5, 0.2]], [9.0], RULES) == [(0, 2), (0, 0), (0, 1)]


def test_nothing_decided_or_unreachable_is_kept() -> None:
    class Mask(str):
        __slots__ = ("__weakref__",)

    masks: list[weakref.ref] = []

    class Watched(Scripted):
        def keep(self, frame: int, candidates: Sequence[Candidate], *, remember: bool) -> list:
            kept = [(Mask(candidate.mask), Mask(candidate.mask)) for candidate in candidates]
            masks.extend(weakref.ref(part) for pair in kept for part in pair)
            return kept

        def propose(self, frame: int, recalls: Sequence[Recall]) -> list:
            return [self.candidates(frame, recall) for recall in recalls]

    script = lambda frame, recall: (5.0 if frame % 10 else 0.5, [0.9, 0.8, 0.7])  # noqa: E731
    decoder = Watched(script)
    tree = MemoryTree(RULES, start=0, end=999, output="P", content="P")
    alive = []
    for frame in range(1, 400):
        advance([tree], decoder, frame)
        tree.decided()
        alive.append(sum(ref() is not None for ref in masks))
    assert max(alive[200:]) <= max(alive[:200]) < 120
    assert len(masks) > 800


def test_undecided_masks_without_descendants_are_forgotten() -> None:
    root = Node(0, "r", None)
    left, right = Node(1, "l", root), Node(1, "r", root)
    undecided = Undecided()
    undecided.add([root])
    undecided.add([left, right])
    assert undecided.pop() == [root]
    undecided.add([Node(2, "x", right), Node(2, "y", right)])
    assert undecided.pop() == [right] and right.parent is None
    undecided.settle(Node(2, "x", right))
    assert [node.output for node in undecided.pop()] == ["x"]


def slow_reference(decoder: Scripted, rules: Rules, end: int) -> tuple[list[str], float, int]:
    """The published algorithm as plainly as can be: every copy of a pathway on its own, with its whole history.

    Returns:
        (the winner's masks, its score, evaluations of the decoder).
    """
    prompt = ("P", 0, 10.0, None)  # word, frame, object score, IoU
    pathways, sums, evaluations = [[prompt]], [0.0], 0
    for frame in range(1, end + 1):
        candidates = []
        for history in pathways:
            chosen = []
            for step in reversed(history[1:]):
                if step[3] > rules.iou_thre and step[2] > 0:
                    chosen.insert(0, step)
                if len(chosen) == rules.longest_pointer - 1:
                    break
            if len(history) > 1 and (not chosen or chosen[-1][1] != frame - 1):
                chosen.append(history[-1])
            near = chosen[-(rules.num_maskmem - 1) :] if rules.num_maskmem > 1 else []
            memories = [(prompt, rules.num_maskmem - 1)]
            memories += [(step, len(near) - 1 - place) for place, step in enumerate(near)]
            pointers = [(prompt, frame)]
            for distance in range(1, rules.longest_pointer):
                if distance < len(chosen):
                    pointers.append((chosen[-distance], distance))
            candidates.append(decoder.script_of_words(frame, history[-1][0], memories, pointers))
            evaluations += 1
        if frame == 1:
            score, ious = candidates[0]
            best = ious.index(max(ious))
            pathways = [[prompt, ("P" + "abc"[best], 1, score, ious[best])] for _ in range(rules.num_pathway)]
            sums = [0.0] * rules.num_pathway
            continue
        flat = []
        for p, (score, ious) in enumerate(candidates):
            flat += [(sums[p] + math.log(iou + 1e-5), p, j, score, iou) for j, iou in enumerate(ious)]
        flat.sort(key=lambda item: item[0], reverse=True)  # stable, too
        if max(abs(score) for score, _ in candidates) > rules.uncertainty:
            alive = flat[: rules.num_pathway]
        else:
            alive, seen = [], set()
            for item in flat:
                kind = round(item[4] if item[3] > 0 else -item[4], 2)
                if kind not in seen and len(alive) < rules.num_pathway:
                    alive.append(item)
                    seen.add(kind)
            if len(alive) < rules.num_pathway:
                for p in range(len(pathways)):
                    if p not in {item[1] for item in alive}:
                        alive.append(next(item for item in flat if item[1] == p))
            alive = alive[: rules.num_pathway]
        pathways = [[*pathways[p], (pathways[p][-1][0] + "abc"[j], frame, score, iou)] for _, p, j, score, iou in alive]
        sums = [item[0] for item in alive]
    return [step[0] for step in pathways[0]], sums[0], evaluations


class Hashed(Scripted):
    """Answers by all that is attended to, and in what order: whoever attends to something else gets another answer."""

    def __init__(self, seed: int, spread: float) -> None:
        super().__init__(self._answer)
        self.seed, self.spread = seed, spread

    def _answer(self, frame: int, recall: Recall) -> tuple[float, list[float]]:
        memories = [((m.content, m.frame, m.object_score), row) for m, row in recall.memories]
        pointers = [((m.content, m.frame, m.object_score), distance) for m, distance in recall.pointers]
        return self.script_of_words(frame, newest(recall), memories, pointers)

    def script_of_words(self, frame: int, word: str, memories: list, pointers: list) -> tuple[float, list[float]]:
        parts = [(step[:3], place) for step, place in (*memories, *pointers)]
        rng = random.Random(repr((self.seed, frame, word, parts)))
        # Few values: ties, copies and equal rounding are frequent.
        return rng.choice([-3, -1, 0.5, 1, 4]) * self.spread, [rng.choice([0.0, 0.05, 0.5, 0.503, 0.9]) for _ in "abc"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    end=st.integers(1, 14),
    num_pathway=st.integers(1, 4),
    iou_thre=st.sampled_from([0.0, 0.1, 0.5]),
    spread=st.sampled_from([0.1, 1.0, 1.5]),
    num_maskmem=st.integers(2, 8),  # with 1 the script could not tell some pathways apart
    longest=st.integers(2, 8),
)
def test_the_same_as_without_any_savings(
    seed: int, end: int, num_pathway: int, iou_thre: float, spread: float, num_maskmem: int, longest: int
) -> None:
    rules = Rules(num_pathway, iou_thre, 2.0, num_maskmem, longest)
    words, score, evaluations = slow_reference(Hashed(seed, spread), rules, end)
    decoder = Hashed(seed, spread)
    tree = MemoryTree(rules, start=0, end=end, output="P", content="P")
    given = tree.decided()
    for frame in range(1, end + 1):
        advance([tree], decoder, frame)
        given += tree.decided()
    assert given == list(enumerate(words))
    assert tree._pathways[0].score == score
    assert len(decoder.asked) <= evaluations == 1 + num_pathway * (end - 1)
    assert len({(frame, newest(recall)) for frame, recall in decoder.asked}) == len(decoder.asked)  # each once
