"""Tracking one video with SAM2Long: a memory tree for each object, all of them over one pass of the frames.

The masks are those of the authors' script (https://github.com/Mark12Ding/SAM2Long, 7193b77), which tracks one object
after another, each from its own prompt. Here a frame is encoded once for all objects and pathways, pathways that are
equal are evaluated once, a frame is given as soon as no pathway disputes it, and nothing is kept that none can reach.
So memory grows with the number of frames that pathways dispute, not with that of the video: each pathway's logits for
such a frame are kept, 0.25 MB at 1024 pixels.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vosflow.errors import VosflowError
from vosflow.manifest import Prompt
from vosflow.trackers.base import Masks
from vosflow.trackers.sam2.output import to_masks
from vosflow.trackers.sam2.session import Session
from vosflow.trackers.sam2.steps import Features, Steps
from vosflow.trackers.sam2long.tree import Candidate, Memory, MemoryTree, Recall, Rules, advance

if TYPE_CHECKING:
    from vosflow.trackers.sam2long import Settings

LEAST_WEIGHT, MOST_WEIGHT = 0.95, 1.05  # of a memory's keys in attention


def track_video(session: Session, settings: Settings) -> Iterator[tuple[str, Masks]]:
    """Yield (frame name, masks) of each frame, see `vosflow.trackers.base.Tracker.track`.

    Args:
        session: the video with its prompts.

    Raises:
        VosflowError: an object has several prompts, or the video is bad.
    """
    video, steps = session.video, session.steps
    rules = _rules(settings, steps, len(video))
    decoder = PathwayDecoder(session, rules.longest_pointer, exact=settings.mode == "exact")
    prompts = {object_id: _only_prompt(session, object_id) for object_id in session.object_ids}
    objects: dict[int, ObjectTree] = {}
    given = session.first  # index of the next frame to give
    for index in session.indices():
        with steps.computing():
            if objects:
                advance([tree.pathways for tree in objects.values()], decoder, index)
            for object_id, (start, prompt) in prompts.items():
                if start == index:
                    output, content = decoder.encode_prompt(start, prompt)
                    tree = MemoryTree(rules, start=start, end=len(video) - 1, output=output, content=content)
                    objects[object_id] = ObjectTree(tree, start)
        while given <= index and all(tree.has(given) for tree in objects.values()):
            logits = {object_id: tree.take() for object_id, tree in sorted(objects.items()) if tree.start <= given}
            with steps.computing():
                masks = to_masks(logits, video, session.object_ids, settings.score_thresh)
            yield video.frame_names[given], masks
            given += 1


def _rules(settings: Settings, steps: Steps, frames: int) -> Rules:
    return Rules(
        num_pathway=settings.num_pathway,
        iou_thre=settings.iou_thre,
        uncertainty=settings.uncertainty,
        num_maskmem=steps.predictor.num_maskmem,
        longest_pointer=min(steps.predictor.max_obj_ptrs_in_encoder, frames),
        corrected=settings.compat == "corrected",
    )


def _only_prompt(session: Session, object_id: int) -> tuple[int, Prompt]:
    (start, prompt), *others = session.prompts[object_id].items()
    if others:
        raise VosflowError(
            f"object {object_id} of video {session.video.name} has {1 + len(others)} prompts",
            path=others[0][1].mask,
            expected="one for each object: the memory tree of SAM2Long grows from a single prompted frame",
            remedy="leave out use_all_masks, or track this dataset with sam2",
        )
    return start, prompt


class ObjectTree:
    """The memory tree of one object, and its decided masks, which wait to be taken in order.

    Attributes:
        pathways: the tree.
        start: index of the prompt's frame.
    """

    def __init__(self, tree: MemoryTree, start: int) -> None:
        self.pathways = tree
        self.start = start
        self._decided: deque[Tensor] = deque()

    def has(self, index: int) -> bool:
        """Whether the mask of frame `index` is decided, or none is wanted; those before it must have been taken."""
        self._decided.extend(logits for _, logits in self.pathways.decided())
        return index < self.start or bool(self._decided)

    def take(self) -> Tensor:
        """The logits of the next frame, float32 [1, 1, S/4, S/4]."""
        return self._decided.popleft()


class PathwayDecoder:
    """The network behind the memory trees of a video: as many pathways at once as the session allows objects.

    Outputs are logits [1, 1, s, s], contents are (memory [h w, 1, Cm] or None, object pointer [1, C]).
    """

    def __init__(self, session: Session, longest_pointer: int, *, exact: bool) -> None:
        self._session = session
        self._steps = session.steps
        self._longest_pointer = longest_pointer
        # On a CPU the authors' code computes this attention by plain products, which differ in the last bits.
        self._plain = exact and session.steps.device.type == "cpu"

    def encode_prompt(self, frame: int, prompt: Prompt) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What to show and what to remember of an object's prompt on `frame`."""
        features, mask = self._session.features(frame), self._session.prompt_mask(prompt)
        with self._attention():
            prompted = self._steps.encode_prompt(features, mask)
        return prompted.masks, (prompted.memory, prompted.pointers)

    def propose(self, frame: int, recalls: Sequence[Recall]) -> list[list[Candidate]]:
        """The three masks that each pathway's memories lead to; a mask is (all masks of a call, row, column)."""
        features = self._session.features(frame)
        alike = defaultdict(list)  # {sizes of a memory: places in `recalls`}: those can share a call
        for place, recall in enumerate(recalls):
            alike[len(recall.memories), len(recall.pointers)].append(place)
        proposed: dict[int, list[Candidate]] = {}
        for places in alike.values():
            group = [recalls[place] for place in places]
            masks = self._session.objects.run(lambda part: self._propose(features, part), group)
            proposed |= zip(places, masks, strict=True)
        return [proposed[place] for place in range(len(recalls))]

    def keep(self, frame: int, candidates: Sequence[Candidate], *, remember: bool) -> list[tuple[Tensor, object]]:
        """Logits of each mask, and its memory and object pointer; the latter two are computed only here."""
        features = self._session.features(frame)
        return self._session.objects.run(lambda part: self._keep(features, part, remember=remember), candidates)

    def _propose(self, features: Features, recalls: Sequence[Recall]) -> list[list[Candidate]]:
        """For B pathways that attend to equally many frames and pointers."""
        steps = self._steps
        attended = [self._attended(recall) for recall in recalls]
        memory, positions = (torch.cat(part, dim=1) for part in zip(*attended, strict=True))  # [L, B, Cm] each
        weights = torch.stack([self._token_weights(recall) for recall in recalls]).to(steps.device)  # [B, L]
        pointer_tokens = len(recalls[0].pointers) * steps.tokens_per_pointer
        with self._attention(), _scaled_keys(steps.predictor.memory_attention, weights):
            decoded = steps.decode(features, steps.attend(features, memory, positions, pointer_tokens))
        ious, scores = decoded.ious.tolist(), decoded.object_scores[:, 0].tolist()
        return [
            [Candidate(iou, score, (decoded, b, j)) for j, iou in enumerate(row)]
            for b, (row, score) in enumerate(zip(ious, scores, strict=True))
        ]

    def _attended(self, recall: Recall) -> tuple[Tensor, Tensor]:
        """What a pathway attends to, see `Steps.attended`."""
        memories = [(memory.content[0], row) for memory, row in recall.memories]
        pointers = [(memory.content[1], distance) for memory, distance in recall.pointers]
        return self._steps.attended(memories, pointers, self._longest_pointer)

    def _attention(self) -> contextlib.AbstractContextManager:
        """How to compute attention to memory and in the decoder; never around the image encoder."""
        return sdpa_kernel(SDPBackend.MATH) if self._plain else contextlib.nullcontext()

    def _token_weights(self, recall: Recall) -> Tensor:
        """By what to multiply the key of each token, float32 [L]; keys of the prompt alone stay as they are."""
        per_frame = len(recall.memories[0][0].content[0])
        weights = []
        for attended, tokens in ((recall.memories, per_frame), (recall.pointers, self._steps.tokens_per_pointer)):
            memories = [memory for memory, _ in attended]
            of_each = key_weights(memories) if len(recall.memories) > 1 else torch.ones(len(memories))
            weights.append(of_each.repeat_interleave(tokens))
        return torch.cat(weights)

    def _keep(self, features: Features, candidates: Sequence[Candidate], *, remember: bool) -> list:
        places = [candidate.mask for candidate in candidates]
        masks = torch.cat([decoded.masks[b : b + 1, j : j + 1] for decoded, b, j in places])  # [B, 1, s, s]
        logits = _apart(masks, dim=0)
        if not remember:
            return [(own, None) for own in logits]
        scores = torch.cat([decoded.object_scores[b : b + 1] for decoded, b, _ in places])
        memories: Sequence[Tensor | None] = [None] * len(places)
        if self._steps.predictor.num_maskmem > 1:  # else only the prompt's is read
            memories = _apart(self._steps.encode_memory(features, masks, scores), dim=1)
        pointers = self._steps.pointers(torch.stack([decoded.tokens[b, j] for decoded, b, j in places]), scores)
        return [
            (own, (memory, pointer))
            for own, memory, pointer in zip(logits, memories, _apart(pointers, dim=0), strict=True)
        ]


def _apart(batch: Tensor, dim: int) -> list[Tensor]:
    """One tensor for each item; copies if there are several, for a long-lived one would keep the others in memory."""
    return [batch] if batch.shape[dim] == 1 else [item.clone() for item in batch.split(1, dim=dim)]


def key_weights(memories: Sequence[Memory]) -> Tensor:
    """By what to multiply the keys of each memory, float32 [n]: the more certain the object, the more.

    Equal steps from 0.95 (smallest object score) to 1.05 (largest); of one memory, as in the authors' code, 0.95.
    """
    order = sorted(range(len(memories)), key=lambda place: memories[place].object_score)
    weights = torch.empty(len(memories))
    weights[order] = torch.linspace(LEAST_WEIGHT, MOST_WEIGHT, len(memories))
    return weights


@contextlib.contextmanager
def _scaled_keys(memory_attention: nn.Module, weights: Tensor) -> Iterator[None]:
    """Within, multiply the keys of every cross-attention to memory, [B, L, C], by `weights` [B, L]; values stay."""

    def scale(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return args, kwargs | {"k": weights[..., None] * kwargs["k"]}

    with contextlib.ExitStack() as stack:
        for layer in memory_attention.layers:
            handle = layer.cross_attn_image.register_forward_pre_hook(scale, with_kwargs=True)
            stack.callback(handle.remove)
        yield
