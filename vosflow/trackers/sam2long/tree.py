"""The memory tree of SAM2Long: which pathways live on, what each of them remembers, which masks are decided.

Ding et al., "SAM2Long: Enhancing SAM 2 for Long Video Segmentation with a Training-Free Memory Tree" (arXiv
2410.16268), in the details the authors' code (https://github.com/Mark12Ding/SAM2Long, 7193b77). No network is in
here: a `Decoder` proposes masks, the tree decides. One tree follows one object from its prompt on:

1. The frame after the prompt is greedy: its mask is the one with the highest predicted IoU.
2. From then on each pathway proposes masks, three with SAM 2. The score of a mask is the sum of ln(IoU + 1e-5) over the
   frames of its pathway from the third on.
3. A frame is certain if some pathway's object score is further from 0 than `uncertainty`. Then the masks with the best
   scores live on. Else those with the best scores whose IoUs differ after rounding, where a mask of an absent object
   counts with minus its IoU; places that remain go to the best mask of each pathway that has none yet.
4. The result is the pathway with the best score after the last frame.

In the published code all pathways are one at first, and a certain frame keeps as many copies of the best mask as there
are pathways: they part at the first uncertain frame. Here copies share one `Pathway`, which is evaluated once.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

SMALLEST_IOU = 1e-5  # added before the logarithm
PROMPT_SCORE = 10.0  # the object score that the prompt's frame counts with among the memories

Content = TypeVar("Content")  # what the network remembers of a frame
Output = TypeVar("Output")  # a mask on its way to the user


@dataclass(frozen=True)
class Rules:
    """The settings of a memory tree; see `vosflow.trackers.sam2long.Settings`.

    Attributes:
        num_maskmem: frames whose memory is attended to, the prompt's among them.
        longest_pointer: frames whose object pointers are attended to, at most; of a short video its number of frames.
        corrected: without the two slips of the published code that the settings list.
    """

    num_pathway: int
    iou_thre: float
    uncertainty: float
    num_maskmem: int
    longest_pointer: int
    corrected: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class Candidate(Generic[Content]):
    """A mask that the decoder proposes: predicted IoU, object score (logit; above 0 the object is there), the mask."""

    iou: float
    object_score: float
    mask: Content


@dataclass(frozen=True, eq=False, slots=True)
class Memory(Generic[Content]):
    """What a pathway remembers of one frame."""

    frame: int
    object_score: float
    content: Content


@dataclass(frozen=True, slots=True)
class Recall(Generic[Content]):
    """What a pathway attends to on one frame: memories, each with its place in time; the prompt's comes first.

    Attributes:
        memories: (memory, row of the temporal positions), then oldest first. Row 0 is that of the last frame, the last
            row that of the prompt.
        pointers: (memory whose pointer it is, distance in frames), then newest first. The distance is a rank among the
            selected frames, except for the prompt's, which is the true one.
    """

    memories: tuple[tuple[Memory[Content], int], ...]
    pointers: tuple[tuple[Memory[Content], int], ...]


class Decoder(Protocol[Content, Output]):
    """The network on one video."""

    def propose(self, frame: int, recalls: Sequence[Recall]) -> list[list[Candidate]]:
        """The masks on `frame` that each of these memories leads to."""
        ...

    def keep(self, frame: int, candidates: Sequence[Candidate], *, remember: bool) -> list[tuple[Output, Content]]:
        """For masks that live on: what to show of each, and what to remember of it (None unless `remember`)."""
        ...


@dataclass(eq=False, slots=True)
class Node(Generic[Output]):
    """One mask of the tree. `parent` is the mask on the frame before, or None once that one is decided."""

    frame: int
    output: Output
    parent: Node | None


@dataclass(frozen=True, eq=False, slots=True)
class Pathway:
    """A line of masks from the prompt to the present frame.

    Attributes:
        node: its newest mask.
        score: sum of the logarithms of its IoUs.
        last: memory of the newest mask; None after the prompt.
        selected: memories of the newest masks that are good enough, oldest first.
    """

    node: Node
    score: float = 0.0
    last: Memory | None = None
    selected: tuple[Memory, ...] = ()

    def extended(self, node: Node, survivor: Survivor, content: object, rules: Rules) -> Pathway:
        """The pathway one frame on, with the survivor's mask as its newest."""
        candidate = survivor.candidate
        last = Memory(node.frame, candidate.object_score, content)
        good = candidate.iou > rules.iou_thre and candidate.object_score > 0
        selected = (*self.selected, last) if good else self.selected
        most = rules.longest_pointer - 1
        return Pathway(node, survivor.score, last, selected[max(len(selected) - most, 0) :])

    def recall(self, frame: int, prompt: Memory, rules: Rules) -> Recall:
        """What the pathway attends to on `frame`: its selected memories, and the last frame's in any case."""
        chosen = self.selected
        if self.last is not None and self.last not in chosen[-1:]:
            chosen = (*chosen, self.last)
        newest = chosen[::-1]
        # The published loop over pointers ends one too early: the oldest selected frame has no pointer.
        reach = min(rules.longest_pointer - 1, len(newest) if rules.corrected else len(newest) - 1)
        memories = [(memory, row) for row, memory in enumerate(newest[: rules.num_maskmem - 1])]
        pointers = [(memory, rank) for rank, memory in enumerate(newest[: max(reach, 0)], start=1)]
        return Recall(
            memories=((prompt, rules.num_maskmem - 1), *reversed(memories)),
            pointers=((prompt, frame - prompt.frame), *pointers),
        )


@dataclass(frozen=True, eq=False, slots=True)
class Survivor:
    """A mask that lives on: the pathway that it extends, and the score of the two together."""

    parent: Pathway
    candidate: Candidate
    score: float


class MemoryTree(Generic[Content, Output]):
    """The pathways of one object; see `advance`.

    Args:
        start: index of the prompt's frame.
        end: index of the last frame.
        output, content: what to show and what to remember of the prompt.
    """

    def __init__(self, rules: Rules, *, start: int, end: int, output: Output, content: Content) -> None:
        self.end = end
        self._rules = rules
        self._prompt = Memory(start, PROMPT_SCORE, content)
        self._pathways = [Pathway(Node(start, output, None))]
        self._undecided = Undecided()
        self._undecided.add([self._pathways[0].node])

    def recalls(self, frame: int) -> list[Recall]:
        """What each pathway attends to on `frame`; copies count once."""
        return [pathway.recall(frame, self._prompt, self._rules) for pathway in dict.fromkeys(self._pathways)]

    def choose(self, frame: int, proposed: Sequence[Sequence[Candidate]]) -> list[Survivor]:
        """Those of the masks on `frame` that live on, best first; for copies of a mask, the same survivor repeatedly.

        Args:
            proposed: the masks that each of `recalls` leads to.
        """
        by_pathway = dict(zip(dict.fromkeys(self._pathways), proposed, strict=True))
        candidates = [by_pathway[pathway] for pathway in self._pathways]
        if frame == self._prompt.frame + 1:
            best = max(candidates[0], key=lambda candidate: candidate.iou)  # of equal ones the first
            return [Survivor(self._pathways[0], best, 0.0)] * (1 if self._rules.corrected else self._rules.num_pathway)
        scores = [
            [pathway.score + log_iou(candidate.iou) for candidate in masks]
            for pathway, masks in zip(self._pathways, candidates, strict=True)
        ]
        places = select(candidates, scores, self._rules)
        # Copies of a pathway share its candidates: those chosen twice are one survivor.
        survivors = {candidates[p][j]: Survivor(self._pathways[p], candidates[p][j], scores[p][j]) for p, j in places}
        return [survivors[candidates[p][j]] for p, j in places]

    def extend(
        self, frame: int, survivors: Sequence[Survivor], kept: Mapping[Survivor, tuple[Output, Content]]
    ) -> None:
        """Let the survivors be the pathways.

        Args:
            kept: what to show and what to remember of each.
        """
        grown: dict[Survivor, Pathway] = {}
        for survivor in dict.fromkeys(survivors):
            output, content = kept[survivor]
            node = Node(frame, output, survivor.parent.node)
            grown[survivor] = survivor.parent.extended(node, survivor, content, self._rules)
        self._pathways = [grown[survivor] for survivor in survivors]
        self._undecided.add([pathway.node for pathway in grown.values()])

    def decided(self) -> list[tuple[int, Output]]:
        """(frame, output) of frames on which all pathways agree, in order, each once; after the last frame, the rest.

        They agree if they descend from one mask there: later frames cannot change it.
        """
        if self._pathways[0].node.frame == self.end:
            self._undecided.settle(self._pathways[0].node)
        return [(node.frame, node.output) for node in self._undecided.pop()]


def advance(trees: Sequence[MemoryTree], decoder: Decoder, frame: int) -> None:
    """Extend the trees of several objects by `frame`; call for each frame after an object's prompt, in order.

    The decoder is asked twice, for all objects together: for the masks of each different pathway, and for the memories
    of the masks that live on. Nothing is remembered of the last frame.
    """
    recalls = [tree.recalls(frame) for tree in trees]
    proposed = iter(decoder.propose(frame, [recall for own in recalls for recall in own]))
    chosen = [
        tree.choose(frame, list(itertools.islice(proposed, len(own)))) for tree, own in zip(trees, recalls, strict=True)
    ]
    survivors = list(dict.fromkeys(survivor for own in chosen for survivor in own))
    remember = any(frame < tree.end for tree in trees)
    kept = decoder.keep(frame, [survivor.candidate for survivor in survivors], remember=remember)
    by_survivor = dict(zip(survivors, kept, strict=True))
    for tree, own in zip(trees, chosen, strict=True):
        tree.extend(frame, own, by_survivor)


def log_iou(iou: float) -> float:
    """ln(IoU + 1e-5), or minus infinity where there is none: an IoU that is negative or not a number."""
    return math.log(iou + SMALLEST_IOU) if iou > -SMALLEST_IOU else -math.inf


def select(
    candidates: Sequence[Sequence[Candidate]], scores: Sequence[Sequence[float]], rules: Rules
) -> list[tuple[int, int]]:
    """(pathway, mask) of those that live on, best score first; of equal scores the first pathway's first mask.

    Args:
        candidates: the masks of each pathway.
        scores: the score of each mask.
    """
    order = [(p, j) for p, masks in enumerate(candidates) for j in range(len(masks))]
    order.sort(key=lambda place: -scores[place[0]][place[1]])  # a stable sort
    if max(abs(masks[0].object_score) for masks in candidates) > rules.uncertainty:
        return order[: rules.num_pathway]
    first_of_kind: dict[float, tuple[int, int]] = {}
    for p, j in order:
        candidate = candidates[p][j]
        signed = candidate.iou if candidate.object_score > 0 else -candidate.iou
        first_of_kind.setdefault(round(signed, 2), (p, j))
    chosen = list(first_of_kind.values())[: rules.num_pathway]
    present = {p for p, _ in chosen}
    best = {p: (p, j) for p, j in reversed(order)}
    missing = [best[p] for p in range(len(candidates)) if p not in present]
    return (chosen + missing)[: rules.num_pathway]


@dataclass(slots=True)
class Undecided:
    """The masks, frame by frame, that the result may still come to pass through. All others are forgotten."""

    _alive: deque[list[Node]] = field(default_factory=deque)

    def add(self, newest: list[Node]) -> None:
        """Take the masks of one more frame; of the frames before, only their ancestors stay."""
        self._alive.append(newest)
        self._prune()

    def settle(self, winner: Node) -> None:
        """Let `winner` be the only mask of the newest frame."""
        if self._alive:
            self._alive[-1] = [winner]
            self._prune()

    def pop(self) -> list[Node]:
        """Take out the masks of the oldest frames, as far as each frame has one."""
        decided = []
        while self._alive and len(self._alive[0]) == 1:
            decided += self._alive.popleft()
            decided[-1].parent = None  # else every mask of the video would stay in memory
        return decided

    def _prune(self) -> None:
        for later in range(len(self._alive) - 1, 0, -1):
            parents = list(dict.fromkeys(node.parent for node in self._alive[later]))
            if len(parents) == len(self._alive[later - 1]):
                break  # all of them have descendants, and so have all before them
            self._alive[later - 1] = parents
