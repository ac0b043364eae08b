"""From query points to where they are on every frame: the point tracker, group by group, and the rules of SAM-PT."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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


class PointFollower:
    """Tracks the points of objects; what was tracked before, in this run or another one, it takes from `artefacts`."""

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
        self._weights = {role: checkpoints[role].sha256 for role in sorted(point_tracker.weights)}
        self._artefacts = artefacts
        self._video = video

    def __call__(self, clip: Clip, queries: np.ndarray, masks: np.ndarray) -> Trajectories:
        """Follow points through `clip`.

        Args:
            queries: float32 [O, P, 3], (frame of the clip, x, y).
            masks: bool [O, H, W], from which they were sampled; for point trackers that match masks.
        """
        at_once = any(getattr(self._point_tracker, name, False) for name in ("matches_masks", "costs_by_frames"))
        most = len(queries) if at_once else self._settings.point_tracker_mask_batch_size
        groups = [self._follow(clip, queries[k : k + most], masks[k : k + most]) for k in range(0, len(queries), most)]
        return Trajectories(
            np.concatenate([group.positions for group in groups], 1),
            np.concatenate([group.visibility for group in groups], 1),
        )

    def _follow(self, clip: Clip, queries: np.ndarray, masks: np.ndarray) -> Trajectories:
        objects, count, _ = queries.shape
        flat = np.ascontiguousarray(queries.reshape(-1, 3))
        tracks = self._artefacts.get(
            "point_tracks",
            {
                "frames": _digest(*(clip.digest(i).encode() for i in range(len(clip)))),
                "point_tracker": self._settings.point_tracker,
                "settings": self._settings.point_tracker_settings,
                "weights": self._weights,
                "queries": _digest(flat),
                **self._facts_of_masks(masks),
            },
            lambda: vars(self._track(clip, flat, masks, count)),
            modules=(part_module("point_tracker", self._settings.point_tracker),),
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
        frames = len(clip)
        return Trajectories(
            tracks["positions"].reshape(frames, objects, count, 2), visibility.reshape(frames, objects, count)
        )

    def _facts_of_masks(self, masks: np.ndarray) -> dict[str, object]:
        """What decides the points of a method that matches masks, besides its queries."""
        if not getattr(self._point_tracker, "matches_masks", False):
            return {}
        return {"masks": _digest(np.packbits(masks)), "video": self._video, "seed": self._settings.seed}

    def _track(self, clip: Clip, flat: np.ndarray, masks: np.ndarray, count: int) -> Tracks:
        import torch

        with torch.inference_mode():
            if not getattr(self._point_tracker, "matches_masks", False):
                return self._point_tracker.track(clip, flat, self._artefacts)
            return self._match(clip, masks, flat[::count, 0].astype(int).tolist())

    def _match(self, clip: Clip, masks: np.ndarray, frames: list[int]) -> Tracks:
        """Points of a method that matches masks: positive ones are inside, negative ones outside."""
        s = self._settings
        rng = generator(s.seed, self._video, *frames, "matches")
        found = [self._point_tracker.track_masks(clip, masks, frames, s.positive_points_per_mask, rng)]
        if s.negative_points_per_mask:
            found.append(self._point_tracker.track_masks(clip, ~masks, frames, s.negative_points_per_mask, rng))
        by_object = (len(clip), len(masks), -1)
        positions = [tracks.positions.reshape(*by_object, 2) for tracks in found]
        visible = [tracks.visible.reshape(by_object) for tracks in found]
        frames_and_points = (len(clip), -1)
        return Tracks(
            np.concatenate(positions, 2).reshape(*frames_and_points, 2),
            np.concatenate(visible, 2).reshape(frames_and_points),
        )


def _digest(*contents: bytes | np.ndarray) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
