"""What SAM 2 remembers of one object, and what of it a frame attends to.

The rules are those of `SAM2Base._prepare_memory_conditioned_features` of the sam2 package (tracking forwards).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sam2.modeling.sam2_utils import select_closest_cond_frames
from torch import Tensor

from vosflow.trackers.sam2.steps import Prompted, Steps


@dataclass(frozen=True)
class Bank:
    """What one frame attends to: references, which `Steps.attended` puts together.

    Attributes:
        memories: (memory of a frame [h w, 1, Cm], row of its positions).
        pointers: (object pointer [1, C], distance in frames).
        longest: see `Steps.pointer_positions`.
    """

    memories: list[tuple[Tensor, int]]
    pointers: list[tuple[Tensor, int]]
    longest: int

    @property
    def size(self) -> tuple[int, int]:
        """Numbers of memories and of pointers: objects whose banks are of one size can share a call."""
        return len(self.memories), len(self.pointers)


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
        predictor = self._steps.predictor
        near, far = select_closest_cond_frames(index, self.prompted, predictor.max_cond_frames_in_attn)
        memories = [(given.memory, predictor.num_maskmem - 1) for given in near.values()]
        for frame, row in self._recent(index):
            memory = far[frame].memory if frame in far else self._memories.get(frame)
            if memory is not None:
                memories.append((memory, row))
        return Bank(memories, self._seen_pointers(index, near, far), self._longest)

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
    ) -> list[tuple[Tensor, int]]:
        """(object pointer [1, C], distance in frames) of those that are read: prompted ones, then nearest first."""
        predictor = self._steps.predictor
        if not predictor.use_obj_ptrs_in_encoder:
            return []
        if predictor.only_obj_ptrs_in_the_past_for_eval:
            near = {frame: given for frame, given in near.items() if frame <= index}
        signed = predictor.use_signed_tpos_enc_to_obj_ptrs
        pointers = [(given.pointers, index - frame if signed else abs(index - frame)) for frame, given in near.items()]
        for distance in range(1, min(self._longest, index + 1)):
            frame = index - distance
            pointer = far[frame].pointers if frame in far else self._pointers.get(frame)
            if pointer is not None:
                pointers.append((pointer, distance))
        return pointers
