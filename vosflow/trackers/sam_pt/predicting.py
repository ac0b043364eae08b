"""The masks of a video's objects, frame by frame: points are followed once, or anew window by window."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower
from vosflow.trackers.sam_pt.prompting import Prediction, Prompter
from vosflow.trackers.sam_pt.reinit import choose_frames
from vosflow.trackers.sam_pt.settings import Settings

LOST = Prediction(None, None)

Sampler = Callable[[Clip, np.ndarray, Sequence[int], Sequence[int]], np.ndarray]
"""Draws query points, as `queries.PointSampler`."""


@dataclass(frozen=True)
class Objects:
    """Objects that know of each other: ids, the frame of each one's query, and its mask, bool [O, H, W]."""

    ids: Sequence[int]
    starts: Sequence[int]
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, most: int) -> list[Objects]:
        """At most `most` objects each."""
        cuts = [slice(k, k + most) for k in range(0, len(self), most)]
        return [Objects(self.ids[cut], self.starts[cut], self.masks[cut]) for cut in cuts]


@dataclass
class _Windows:
    """Where objects start next (frames), from which points and masks, and what is predicted already, by frame."""

    starts: np.ndarray
    queries: np.ndarray
    masks: np.ndarray
    waiting: dict[int, dict[int, Prediction]]


class Predictor:
    """Predicts the masks of objects in a clip."""

    def __init__(
        self, clip: Clip, settings: Settings, sampler: Sampler, follow: PointFollower, prompter: Prompter
    ) -> None:
        self._clip = clip
        self._settings = settings
        self._sample = sampler
        self._follow = follow
        self._prompter = prompter

    def predict(self, objects: Objects, *, at_start: bool, frames: Collection[int]) -> Iterator[dict[int, Prediction]]:
        """{number in `objects`: prediction} of each frame of the clip; objects are left out before they start.

        Args:
            at_start: also on the frame of an object's query, where nobody needs it if its mask is given.
            frames: those that are needed. On others there may be none: SAM looks at each frame by itself.
        """
        everyone = max(1, len(objects))
        batches = objects.batches(self._settings.masks_batch_size if self._settings.compat == "published" else everyone)
        if self._settings.use_point_reinit:
            tracks = [self._predict_anew(batch) for batch in batches]
        else:
            tracks = [self._predict_once(batch, at_start, frames) for batch in batches]
        firsts = np.cumsum([0, *map(len, batches[:-1])]).tolist()
        for parts in zip(*tracks, strict=True):
            yield {first + k: one for first, part in zip(firsts, parts, strict=True) for k, one in part.items()}

    def _predict_once(
        self, objects: Objects, at_start: bool, frames: Collection[int]
    ) -> Iterator[dict[int, Prediction]]:
        """Each object's points are followed through the whole clip."""
        queries = self._sample(self._clip, objects.masks, objects.starts, objects.ids)
        points = self._follow(self._clip, queries, objects.masks)
        for index in range(len(self._clip)):
            wanted = [k for k, start in enumerate(objects.starts) if start < index or (at_start and start == index)]
            wanted = wanted if index in frames else []
            yield self._prompter.predict(self._clip, index, points.positions[index], points.visibility[index], wanted)

    def _predict_anew(self, objects: Objects) -> Iterator[dict[int, Prediction]]:
        """Points are followed for a window, then sampled anew from a mask in it, and so on.

        The authors go back in time as well, to frames before an object's prompt, where it is background in the end.
        """
        queries = self._sample(self._clip, objects.masks, objects.starts, objects.ids)
        windows = _Windows(np.array(objects.starts), queries, objects.masks.copy(), {})
        for index in range(len(self._clip)):
            active = np.flatnonzero(windows.starts == index)
            if len(active):
                self._track_window(windows, objects.ids, index, active)
            found = windows.waiting.pop(index, {})
            yield {k: found.get(k, LOST) for k, start in enumerate(objects.starts) if start <= index}

    def _track_window(self, windows: _Windows, ids: Sequence[int], start: int, active: np.ndarray) -> None:
        """Predict the `active` objects in the window that begins with frame `start`, and set where they start again."""
        s, clip = self._settings, self._clip
        end = min(start + s.reinit_horizon, len(clip))
        part = clip.part(start, start + s.reinit_point_tracker_horizon)
        queries = windows.queries[active] - np.array([start, 0, 0], np.float32)
        given = windows.masks[active]
        if s.compat == "published" and self._follow.matches_masks:
            given = self._ask_for_masks(start, queries)
        points = self._follow(part, queries, given, start)
        masks = np.zeros((len(active), end - start, clip.height, clip.width), bool)
        for i in range(end - start):
            everyone = range(len(active))
            found = self._prompter.predict(clip, start + i, points.positions[i], points.visibility[i], everyone)
            windows.waiting.setdefault(start + i, {}).update({int(active[k]): one for k, one in found.items()})
            for k, one in found.items():
                if one.logits is not None:
                    masks[k, i] = (one.logits > 0).cpu().numpy()
        if end == len(clip):
            return
        later = windows.starts[(windows.starts > start) & (windows.starts < len(clip))]
        next_start = int(later.min()) - start - 1 if len(later) else None
        chosen, usable = choose_frames(s.reinit_variant, masks, s.reinit_horizon, next_start)
        if s.compat == "published":
            usable[:] = True  # see `Settings.compat`
        windows.starts[active[~usable]] = len(clip)
        again, chosen = active[usable], chosen[usable]
        if not len(again):
            return
        windows.masks[again] = masks[np.flatnonzero(usable), chosen + 1]
        windows.starts[again] = start + 1 + chosen
        windows.queries[again] = self._sample(
            clip, windows.masks[again], windows.starts[again].tolist(), [ids[k] for k in again]
        )

    def _ask_for_masks(self, index: int, queries: np.ndarray) -> np.ndarray:
        """The masks that SAM makes of objects' query points on frame `index`, each by itself: bool [O, H, W]."""
        masks = np.zeros((len(queries), self._clip.height, self._clip.width), bool)
        for mask, points in zip(masks, queries[:, None, :, 1:], strict=True):
            found = self._prompter.predict(self._clip, index, points, np.ones(points.shape[:2], np.int8), [0])[0]
            if found.logits is not None:
                mask[:] = (found.logits > 0).cpu().numpy()
        return masks
