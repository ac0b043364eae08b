"""From points to masks: SAM on one frame, for any number of objects (SAM-PT, section 3 of the paper).

Objects share decoder calls where they have equally many points: SAM's prompts cannot be padded without changing masks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.parts import part_module
from vosflow.trackers.sam_pt.queries import generator
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.visibility import Visibility

if TYPE_CHECKING:
    from vosflow.artefacts import Artefacts
    from vosflow.trackers.sam_pt.sams.base import Sam

OBJECTS_PER_CALL = 16  # of the decoder: a matter of memory
KEPT_BYTES = 512 * 2**20  # of image embeddings, for windows that are gone through again
SMALLEST_MASK = 2  # pixels that a mask needs to be refined


@dataclass(frozen=True)
class Prediction:
    """An object's mask on a frame.

    Attributes:
        logits: float32 [H, W] at the clip's size; None: the object has no mask.
        iou: that SAM expects of it; None: SAM was not asked, as no point was visible.
    """

    logits: Tensor | None
    iou: float | None


@dataclass(frozen=True)
class Prompt:
    """The points for one object: float32 [P, 2], of which the first `positives` are on it."""

    points: np.ndarray
    positives: int


class FrameEmbeddings:
    """What SAM knows of the frames of a video: from this process, from `artefacts`, or encoded."""

    def __init__(self, sam: Sam, name: str, weights: str, artefacts: Artefacts, device: str) -> None:
        self._sam = sam
        self._name = name
        self._weights = weights
        self._artefacts = artefacts
        self._device = device
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    def of(self, clip: Clip, index: int) -> Mapping[str, Tensor]:
        """The features of frame `index`, as `Sam.encode` gives them."""
        frame = clip.digest(index)
        if frame not in self._kept:
            arrays = self._artefacts.get(
                "image_embedding",
                {"frame": frame, "sam": self._name, "weights": self._weights},
                lambda: {name: value.cpu().numpy() for name, value in self._sam.encode(clip[index]).items()},
                modules=(part_module("sam", self._name),),
            )
            self._keep(frame, {name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()})
        self._kept.move_to_end(frame)
        return self._kept[frame]

    def _keep(self, frame: str, features: dict[str, Tensor]) -> None:
        self._kept[frame] = features
        self._bytes += _bytes(features)
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= _bytes(self._kept.popitem(last=False)[1])


class Prompter:
    """Prompts SAM with points, and again with its own answer."""

    def __init__(self, sam: Sam, settings: Settings, embeddings: FrameEmbeddings, video: str) -> None:
        self._sam = sam
        self._settings = settings
        self._embeddings = embeddings
        self._video = video

    @torch.inference_mode()
    def predict(
        self,
        clip: Clip,
        index: int,
        positions: np.ndarray,
        visibility: np.ndarray,
        ids: Sequence[int],
        wanted: Sequence[int],
    ) -> dict[int, Prediction]:
        """Masks of objects on frame `index` of `clip`.

        Args:
            positions: float32 [O, P, 2] on this frame, of all objects that know of each other.
            visibility: int8 [O, P].
            ids: of the O objects.
            wanted: which of them, from 0.

        Returns:
            {object: prediction} of those wanted.
        """
        predictions = dict.fromkeys(wanted, Prediction(None, None))
        by_counts: dict[tuple[int, int], dict[int, np.ndarray]] = {}
        for k in wanted:
            prompt = self._prompt(index, positions, visibility, ids, k)
            if len(prompt.points):
                by_counts.setdefault((prompt.positives, len(prompt.points)), {})[k] = prompt.points
        for (positives, _), points in by_counts.items():
            objects = list(points)
            for start in range(0, len(objects), OBJECTS_PER_CALL):
                some = objects[start : start + OBJECTS_PER_CALL]
                logits, iou = self._decode(clip, index, np.stack([points[k] for k in some]), positives)
                for k, mask, value in zip(some, logits, iou.tolist(), strict=True):
                    predictions[k] = Prediction(None if value < self._settings.sam_iou_threshold else mask, value)
        return predictions

    def _prompt(self, index: int, positions: np.ndarray, visibility: np.ndarray, ids: Sequence[int], k: int) -> Prompt:
        """The visible points of object `k`, and those of the others that are on them."""
        s = self._settings
        visible = visibility == Visibility.VISIBLE
        own = positions[k][visible[k]]
        first = s.positive_points_per_mask
        positives = int(visible[k][:first].sum())
        if not s.add_other_objects_positive_points_as_negative_points:
            return Prompt(own, positives)
        others = [positions[o, :first][visible[o, :first]] for o in range(len(positions)) if o != k]
        off = np.concatenate([own[:0], *others])
        most = s.max_other_objects_positive_points
        if most is not None and len(off) > most:
            off = off[generator(s.seed, self._video, ids[k], index, "others").permutation(len(off))[:most]]
        return Prompt(np.concatenate([own, off]), positives)

    def _decode(self, clip: Clip, index: int, points: np.ndarray, positives: int) -> tuple[Tensor, Tensor]:
        """Logits [B, H, W] and expected IoU [B] of B objects with P points each, the first `positives` on them."""
        features, size = self._embeddings.of(clip, index), (clip.height, clip.width)
        labels = np.zeros(points.shape[:2], np.int64)
        labels[:, :positives] = 1
        low_res = None
        if self._settings.negative_points_per_mask:
            first = self._sam.decode(features, size, points[:, :positives], labels[:, :positives], full_size=False)
            low_res = first.low_res
        decoded = self._sam.decode(features, size, points, labels, masks=low_res)
        return self._refine(features, size, points, labels, decoded.logits, decoded.low_res, decoded.iou)

    def _refine(
        self,
        features: Mapping[str, Tensor],
        size: tuple[int, int],
        points: np.ndarray,
        labels: np.ndarray,
        logits: Tensor,
        low_res: Tensor,
        iou: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Prompt again with each mask and its box; objects whose prompt is that of the last round are done."""
        logits, low_res, iou = logits.clone(), low_res.clone(), iou.clone()
        scale = 1.0 if self._settings.compat == "published" else self._sam.image_size / max(size)
        active = torch.arange(len(points), device=logits.device)
        last_boxes = last_masks = None
        for _ in range(self._settings.iterative_refinement_iterations):
            boxes, pixels = tight_boxes(logits[active] > 0)
            masks = low_res[active]
            go_on = pixels >= SMALLEST_MASK
            if last_boxes is not None:
                same = (boxes == last_boxes).all(1) & (masks == last_masks).flatten(1).all(1)
                go_on &= ~same  # what this prompt gives is known
            active, last_boxes, last_masks = active[go_on], boxes[go_on], masks[go_on]
            if not len(active):
                break
            some = active.cpu().numpy()
            decoded = self._sam.decode(features, size, points[some], labels[some], last_boxes * scale, last_masks)
            logits[active], low_res[active], iou[active] = decoded.logits, decoded.low_res, decoded.iou
        return logits, iou


def tight_boxes(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (x0, y0, x1, y1) around masks bool [B, H, W], float32 [B, 4], and numbers of pixels [B].

    The ends are the first and last pixel with something on it. Boxes of empty masks mean nothing.
    """
    height, width = masks.shape[1:]
    rows, columns = masks.any(2).byte(), masks.any(1).byte()  # [B, H], [B, W]
    ends = (
        columns.argmax(1),
        rows.argmax(1),
        width - 1 - columns.flip(1).argmax(1),
        height - 1 - rows.flip(1).argmax(1),
    )
    return torch.stack(ends, 1).float(), masks.sum((1, 2))


def _bytes(features: Mapping[str, Tensor]) -> int:
    return sum(value.nbytes for value in features.values())
