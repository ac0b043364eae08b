"""The masks of a video's objects, frame by frame: points are followed once, or anew window by window."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower, Trajectories
from vosflow.trackers.sam_pt.prompting import Prediction, Prompter
from vosflow.trackers.sam_pt.reinit import choose_frames
from vosflow.trackers.sam_pt.settings import Settings

LOST = Prediction(None, None)

Sampler = Callable[[Clip, np.ndarray, Sequence[int], Sequence[int]], np.ndarray]
"""Draws query points, as `queries.PointSampler`."""


@dataclass(frozen=True)
class Objects:
    """Objects of a video: ids, the frame of each one's query, and its mask, bool [O, H, W]."""

    ids: Sequence[int]
    starts: Sequence[int]
    masks: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, cut: slice) -> Objects:
        """Some of them."""
        return Objects(self.ids[cut], self.starts[cut], self.masks[cut])


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
        cuts = self._settings.batches(len(objects))
        if self._settings.use_point_reinit:
            tracks = [self._predict_anew(objects.part(cut)) for cut in cuts]
        else:
            points = self._follow_all(objects)
            tracks = [self._predict_once(objects.part(cut), points.part(cut), at_start, frames) for cut in cuts]
        for parts in zip(*tracks, strict=True):
            yield {cut.start + k: one for cut, part in zip(cuts, parts, strict=True) for k, one in part.items()}

    def _follow_all(self, objects: Objects) -> Trajectories:
        """Each object's points, followed through the whole clip.

        Together also those of objects that do not know of each other, for point trackers that need no more time then.
        """
        queries = self._sample(self._clip, objects.masks, objects.starts, objects.ids)
        return self._follow(self._clip, queries, objects.masks, objects.ids)

    def _predict_once(
        self, objects: Objects, points: Trajectories, at_start: bool, frames: Collection[int]
    ) -> Iterator[dict[int, Prediction]]:
        """What SAM makes of points that were followed through the whole clip."""
        for index in range(len(self._clip)):
            wanted = [k for k, start in enumerate(objects.starts) if start < index or (at_start and start == index)]
            wanted = wanted if index in frames else []
            places = points.positions[index], points.visibility[index]
            yield self._prompter.predict(self._clip, index, *places, objects.ids, wanted)

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
        active_ids = [ids[k] for k in active]
        end = min(start + s.reinit_horizon, len(clip))
        part = clip.part(start, start + s.reinit_point_tracker_horizon)
        queries = windows.queries[active] - np.array([start, 0, 0], np.float32)
        given = windows.masks[active]
        if s.compat == "published" and self._follow.matches_masks:
            given = self._ask_for_masks(start, queries, active_ids)
        points = self._follow(part, queries, given, active_ids, start)
        masks = np.zeros((len(active), end - start, clip.height, clip.width), bool)
        for i in range(end - start):
            places = points.positions[i], points.visibility[i]
            found = self._prompter.predict(clip, start + i, *places, active_ids, range(len(active)))
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

    def _ask_for_masks(self, index: int, queries: np.ndarray, ids: Sequence[int]) -> np.ndarray:
        """The masks that SAM makes of objects' query points on frame `index`, each by itself: bool [O, H, W]."""
        masks = np.zeros((len(queries), self._clip.height, self._clip.width), bool)
        for mask, points, k in zip(masks, queries[:, None, :, 1:], ids, strict=True):
            visible = np.ones(points.shape[:2], np.int8)
            found = self._prompter.predict(self._clip, index, points, visible, [k], [0])[0]
            if found.logits is not None:
                mask[:] = (found.logits > 0).cpu().numpy()
        return masks
