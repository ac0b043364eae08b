"""What SAM 2 remembers of one object, and how a frame's view of it is put together.

The rules are those of `SAM2Base._prepare_memory_conditioned_features` of the sam2 package (tracking forwards).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sam2.modeling.sam2_utils import select_closest_cond_frames
from torch import Tensor

from vosflow.trackers.sam2.steps import Prompted, Steps


@dataclass(frozen=True)
class Bank:
    """The memory that one frame attends to: what `Steps.attend` takes. memory, positions: [L, 1, Cm]."""

    memory: Tensor
    positions: Tensor
    pointer_tokens: int


class ObjectMemory:
    """Memory of one object: every prompted frame, and of the others only those that later frames still read.

    It is therefore as large after 200 frames as after 5,000.
    """

    def __init__(self, steps: Steps, num_frames: int) -> None:
        self._steps = steps
        self._longest = min(num_frames, steps.predictor.max_obj_ptrs_in_encoder)  # pointers of tracked frames, plus 1
        self.prompted: dict[int, Prompted] = {}
        self._memories: dict[int, Tensor] = {}  # {frame index: [h w, 1, Cm]}
        self._pointers: dict[int, Tensor] = {}  # {frame index: [1, C]}

    def add_prompt(self, index: int, prompted: Prompted) -> None:
        """Remember the given mask of frame `index`. Frames attend to prompts of later frames, too: add them first."""
        self.prompted = dict(sorted({**self.prompted, index: prompted}.items()))

    def remember(self, index: int, memory: Tensor | None, pointer: Tensor) -> None:
        """Remember tracked frame `index`, the last one so far, and forget what no later frame reads.

        Args:
            memory: [h w, 1, Cm]; may be None if num_maskmem is 1.
            pointer: [1, C].
        """
        self._pointers[index] = pointer
        self._pointers.pop(index - self._longest + 1, None)
        if memory is None:
            return
        self._memories[index] = memory
        oldest = min(frame for frame, _ in self._recent(index + 1))
        stride = self._steps.predictor.memory_temporal_stride_for_eval
        for frame in [frame for frame in self._memories if frame < index and (frame % stride or frame < oldest)]:
            del self._memories[frame]

    def bank(self, index: int) -> Bank:
        """What frame `index` attends to, given all frames before it and the prompts of all frames."""
        steps, predictor = self._steps, self._steps.predictor
        near, far = select_closest_cond_frames(index, self.prompted, predictor.max_cond_frames_in_attn)
        seen = [(predictor.num_maskmem - 1, given.memory) for given in near.values()]  # (row, memory)
        for frame, row in self._recent(index):
            memory = far[frame].memory if frame in far else self._memories.get(frame)
            if memory is not None:
                seen.append((row, memory))
        memories = [memory for _, memory in seen]
        positions = [steps.spatial_positions(row) for row, _ in seen]
        distances, pointers = self._seen_pointers(index, near, far)
        tokens = 0
        if pointers:
            memories.append(steps.pointer_tokens(torch.stack(pointers)))
            positions.append(steps.pointer_positions(distances, self._longest))
            tokens = len(memories[-1])
        return Bank(torch.cat(memories), torch.cat(positions), tokens)

    def _recent(self, index: int) -> Iterator[tuple[int, int]]:
        """(frame, row of temporal positions) of the frames whose memories frame `index` reads, oldest first.

        They are the frame before, and num_maskmem-2 more at multiples of the stride.
        """
        stride = self._steps.predictor.memory_temporal_stride_for_eval
        for back in range(self._steps.predictor.num_maskmem - 1, 0, -1):
            frame = index - 1 if back == 1 else ((index - 2) // stride - (back - 2)) * stride
            yield frame, back - 1

    def _seen_pointers(
        self, index: int, near: dict[int, Prompted], far: dict[int, Prompted]
    ) -> tuple[list[int], list[Tensor]]:
        """Distances in frames and object pointers [1, C] that a frame reads: prompted ones, then nearest first."""
        predictor = self._steps.predictor
        if not predictor.use_obj_ptrs_in_encoder:
            return [], []
        if predictor.only_obj_ptrs_in_the_past_for_eval:
            near = {frame: given for frame, given in near.items() if frame <= index}
        signed = predictor.use_signed_tpos_enc_to_obj_ptrs
        distances = [index - frame if signed else abs(index - frame) for frame in near]
        pointers = [given.pointers for given in near.values()]
        for distance in range(1, min(self._longest, index + 1)):
            frame = index - distance
            pointer = far[frame].pointers if frame in far else self._pointers.get(frame)
            if pointer is not None:
                distances.append(distance)
                pointers.append(pointer)
        return distances, pointers
