"""Tracking one video with SAM 2: prompts into memory, then frame by frame, objects independent of each other.

The masks are those of `tools/vos_inference.py` of https://github.com/facebookresearch/sam2, in both of its modes: all
objects together, or one pass per object where objects appear late. Since its predictor never lets objects influence
each other before the last step, one pass over the frames with a separate memory per object gives the same pixels,
encodes a frame once for all objects, and yields masks as it goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vosflow.manifest import Prompt
from vosflow.trackers.base import Masks
from vosflow.trackers.sam2.memory import Bank, ObjectMemory
from vosflow.trackers.sam2.output import to_masks
from vosflow.trackers.sam2.session import Session


def track_video(session: Session, score_thresh: float) -> Iterator[tuple[str, Masks]]:
    """Yield (frame name, masks) of each frame, see `vosflow.trackers.base.Tracker.track`.

    Args:
        score_thresh: a pixel belongs to an object if its logit is above this.
    """
    video = session.video
    memories = {k: ObjectMemory(session.steps, len(video)) for k in session.object_ids}
    first, later = _first_and_later(session)
    with session.steps.computing():
        for index, prompts in later.items():
            _add_prompts(session, memories, index, prompts)
    started: set[int] = set()
    for index in session.indices():
        with session.steps.computing():
            if index in first:
                _add_prompts(session, memories, index, first[index])
                started |= {prompt.object for prompt in first[index]}
            logits = _track_frame(session, {k: memories[k] for k in memories if k in started}, index)
            masks = to_masks(logits, video, session.object_ids, score_thresh)
        yield video.frame_names[index], masks


def _first_and_later(session: Session) -> tuple[dict[int, list[Prompt]], dict[int, list[Prompt]]]:
    """The objects' first prompts and their later ones, each by frame index in temporal order.

    A frame attends to later prompts of its object: they must be known beforehand. First prompts need not, and wait for
    their frame, so that it is encoded once.
    """
    first, later = defaultdict(list), defaultdict(list)
    for prompts in session.prompts.values():
        for index, prompt in prompts.items():
            (first if index == min(prompts) else later)[index].append(prompt)
    return first, dict(sorted(later.items()))


def _add_prompts(session: Session, memories: dict[int, ObjectMemory], index: int, prompts: list[Prompt]) -> None:
    features = session.features(index)

    def encode(part: Sequence[Prompt]) -> list:
        return session.steps.encode_prompt(features, torch.cat([session.prompt_mask(p) for p in part])).split()

    for prompt, prompted in zip(prompts, session.objects.run(encode, prompts), strict=True):
        memories[prompt.object].add_prompt(index, prompted)


def _track_frame(session: Session, memories: dict[int, ObjectMemory], index: int) -> dict[int, Tensor]:
    """{object id: logits float32 [1, 1, s, s]} of the objects that have started; the memories learn of the frame."""
    logits = {k: memory.prompted[index].masks for k, memory in memories.items() if index in memory.prompted}
    groups: dict[tuple[int, int], list[tuple[int, Bank]]] = defaultdict(list)  # of banks of one size
    for k, memory in memories.items():
        if k not in logits:
            bank = memory.bank(index)
            groups[bank.size].append((k, bank))
    for group in groups.values():
        tracked = session.objects.run(lambda part: _track_alike(session, index, [bank for _, bank in part]), group)
        for (k, _), (masks, memory, pointer) in zip(group, tracked, strict=True):
            logits[k] = masks
            memories[k].remember(index, memory, pointer)
    return dict(sorted(logits.items()))


def _track_alike(session: Session, index: int, banks: list[Bank]) -> list[tuple[Tensor, Tensor | None, Tensor]]:
    """(logits [1, 1, s, s], memory [h w, 1, Cm] or None, pointer [1, C]) of each of B objects."""
    steps, features = session.steps, session.features(index)
    attended = [steps.attended(bank.memories, bank.pointers, bank.longest) for bank in banks]
    memory, positions = (torch.cat(part, dim=1) for part in zip(*attended, strict=True))  # [L, B, Cm] each
    pointer_tokens = len(banks[0].pointers) * steps.tokens_per_pointer
    decoded = steps.decode(features, steps.attend(features, memory, positions, pointer_tokens))
    masks, tokens = decoded.best()
    pointers = steps.pointers(tokens, decoded.object_scores).split(1)
    memories: Sequence[Tensor | None] = [None] * len(banks)
    if index < len(session.video) - 1 and steps.predictor.num_maskmem > 1:  # else nobody reads it
        memories = steps.encode_memory(features, masks, decoded.object_scores).split(1, dim=1)
    return list(zip(masks.split(1), memories, pointers, strict=True))
