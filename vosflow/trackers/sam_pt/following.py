"""From query points to where they are on every frame: the point tracker, group by group, and the rules of SAM-PT."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.parts import part_module
from vosflow.trackers.sam_pt.points.base import Tracks
from vosflow.trackers.sam_pt.queries import generator
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.trackers.sam_pt.visibility import mark_differing_patches, mark_outside

if TYPE_CHECKING:
    from vosflow.artefacts import Artefacts
    from vosflow.trackers.sam_pt.points.base import PointTracker


@dataclass(frozen=True)
class Trajectories:
    """Where the points of objects are in each frame of a clip.

    Attributes:
        positions: float32 [T, O, P, 2], (x, y) in pixels; an object's positive points come first.
        visibility: int8 [T, O, P], see `Visibility`.
    """

    positions: np.ndarray
    visibility: np.ndarray

    def part(self, cut: slice) -> Trajectories:
        """Those of some of the objects."""
        return Trajectories(self.positions[:, cut], self.visibility[:, cut])


class PointFollower:
    """Tracks the points of objects; what was tracked before, in this run or another one, it takes from `artefacts`.

    Attributes:
        matches_masks: the point tracker matches masks instead of following points, see `PointTracker`.
    """

    def __init__(
        self,
        settings: Settings,
        point_tracker: PointTracker,
        checkpoints: Mapping[str, Checkpoint],
        artefacts: Artefacts,
        video: str,
    ) -> None:
        self._settings = settings
        self._point_tracker = point_tracker
        self.matches_masks = getattr(point_tracker, "matches_masks", False)
        self._takes_all = self.matches_masks or getattr(point_tracker, "costs_by_frames", False)
        self._modules = (part_module("point_tracker", settings.point_tracker), *[__name__] * self.matches_masks)
        self._weights = {role: checkpoints[role].sha256 for role in sorted(point_tracker.weights)}
        self._artefacts = artefacts
        self._video = video

    def __call__(
        self, clip: Clip, queries: np.ndarray, masks: np.ndarray, objects: Sequence[int], first: int = 0
    ) -> Trajectories:
        """Follow points through `clip`.

        Args:
            queries: float32 [O, P, 3], (frame of the clip, x, y).
            masks: bool [O, H, W], for point trackers that match masks. objects: their ids.
            first: where in the video the clip begins, a frame: what is random differs from one window to the next.
        """
        groups = [
            self._follow(clip, queries[cut], masks[cut], objects[cut], first) for cut in self._groups(len(queries))
        ]
        return Trajectories(
            np.concatenate([group.positions for group in groups], 1),
            np.concatenate([group.visibility for group in groups], 1),
        )

    def _groups(self, objects: int) -> list[slice]:
        """Which of so many objects are tracked in one call."""
        if self._takes_all:
            return [slice(0, objects)]
        most = self._settings.point_tracker_mask_batch_size
        return [
            slice(k, min(k + most, batch.stop))
            for batch in self._settings.batches(objects)
            for k in range(batch.start, batch.stop, most)
        ]

    def _follow(
        self, clip: Clip, queries: np.ndarray, masks: np.ndarray, objects: Sequence[int], first: int
    ) -> Trajectories:
        flat = np.ascontiguousarray(queries.reshape(-1, 3))
        frames = queries[:, 0, 0].astype(int).tolist()  # on which objects have their masks
        tracks = self._artefacts.get(
            "point_tracks",
            {
                "frames": _digest(*(clip.digest(i).encode() for i in range(len(clip)))),
                "point_tracker": self._settings.point_tracker,
                "settings": self._settings.point_tracker_settings,
                "weights": self._weights,
                "queries": _digest(flat),
                **self._facts_of_masks(masks, objects, first),
            },
            lambda: vars(self._track(clip, flat, masks, frames, objects, first)),
            modules=self._modules,
        )
        visibility = tracks["visible"].astype(np.int8)
        if self._settings.use_patch_matching_filtering:
            mark_differing_patches(
                visibility,
                tracks["positions"],
                clip,
                flat,
                size=self._settings.patch_size,
                threshold=self._settings.patch_similarity_threshold,
                as_bgr=self._settings.compat == "published",
            )
        mark_outside(visibility, tracks["positions"], clip.height, clip.width)
        shape = len(clip), *queries.shape[:2]
        return Trajectories(tracks["positions"].reshape(*shape, 2), visibility.reshape(shape))

    def _facts_of_masks(self, masks: np.ndarray, objects: Sequence[int], first: int) -> dict[str, object]:
        """What decides the points of a method that matches masks, besides its queries."""
        s = self._settings
        if not self.matches_masks:
            return {}
        return {
            "masks": _digest(np.packbits(masks)),
            "objects": list(objects),
            "positives": s.positive_points_per_mask,
            "video": self._video,
            "first": first,
            "seed": s.seed,
        }

    def _track(
        self, clip: Clip, flat: np.ndarray, masks: np.ndarray, frames: list[int], objects: Sequence[int], first: int
    ) -> Tracks:
        import torch

        with torch.inference_mode():
            if not self.matches_masks:
                return self._point_tracker.track(clip, flat, self._artefacts)
            return self._match(clip, masks, frames, objects, first)

    def _match(self, clip: Clip, masks: np.ndarray, frames: list[int], objects: Sequence[int], first: int) -> Tracks:
        """Points of a method that matches masks: positive ones are inside, negative ones outside."""
        s = self._settings
        chance = [
            generator(s.seed, self._video, k, first + frame, "matches")
            for k, frame in zip(objects, frames, strict=True)
        ]
        found = [self._point_tracker.track_masks(clip, masks, frames, s.positive_points_per_mask, chance)]
        if s.negative_points_per_mask:
            found.append(self._point_tracker.track_masks(clip, ~masks, frames, s.negative_points_per_mask, chance))
        by_object = (len(clip), len(masks), -1)
        positions = [tracks.positions.reshape(*by_object, 2) for tracks in found]
        visible = [tracks.visible.reshape(by_object) for tracks in found]
        return Tracks(
            np.concatenate(positions, 2).reshape(len(clip), -1, 2), np.concatenate(visible, 2).reshape(len(clip), -1)
        )


def _digest(*contents: bytes | np.ndarray) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
