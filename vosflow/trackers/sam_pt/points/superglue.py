"""SuperGlue as a point tracker: keypoints of a mask's frame are matched with those of every other frame.

It follows no point: each frame is matched with the frame of the mask by itself, and points differ from frame to frame.
SuperPoint (DeTone et al., arXiv 1712.07629) finds the keypoints, SuperGlue (Sarlin et al., arXiv 1911.11763) matches
them. Both weights are licensed for non-commercial research only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks

if TYPE_CHECKING:
    import torch

    from vosflow.trackers.sam_pt.points.superglue_network import Keypoints

MISSING = -1.0  # both coordinates of a point that has no match
SMALLEST_SIDE = 16
KEPT_FRAMES = 16  # whose keypoints are kept


class SuperGlueSettings(PointTrackerSettings):
    """SuperGlue's settings, with the defaults of SAM-PT.

    Attributes:
        nms_radius: of two keypoints this many pixels apart or less (in a square), the weaker one goes.
        keypoint_threshold: keypoints have a higher probability.
        remove_borders: and are at least this many pixels away from the border.
        sinkhorn_iterations: of the assignment.
        match_threshold: matches have a higher probability.
        compat: "published" does as the authors of SAM-PT: all masks count as masks of the clip's first frame, which has
            no points; of the matches those are taken whose keypoint in the other frame is where the mask was, and they
            are drawn with replacement (each object's from random numbers of its own). "fixed" matches each mask's own
            frame, takes matches of keypoints in the mask, each at most once, and keypoints on the mask's own frame.
    """

    nms_radius: int = Field(3, ge=0)
    keypoint_threshold: float = Field(0.005, ge=0, le=1)
    remove_borders: int = Field(4, ge=0)
    sinkhorn_iterations: int = Field(20, ge=1)
    match_threshold: float = Field(0.2, ge=0, le=1)
    compat: Literal["published", "fixed"] = "published"


class SuperGlue:
    """SuperGlue. Frames are matched at the size they have."""

    Settings: ClassVar[type[SuperGlueSettings]] = SuperGlueSettings
    weights: ClassVar[Mapping[str, Part]] = {
        "point_tracker": Part(network="superglue", checkpoint="superglue_outdoor"),
        "keypoints": Part(network="superpoint", checkpoint="superpoint_v1"),
    }
    matches_masks: ClassVar[bool] = True

    def __init__(self, settings: SuperGlueSettings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoints = checkpoints
        self.device = device
        self._detector = self._matcher = None
        self._keypoints: OrderedDict[str, Keypoints] = OrderedDict()  # by digest of the frame
        self._matches: dict[tuple[str, str], np.ndarray] = {}  # of the last clip, by digests of both frames

    def load(self) -> None:
        """Read both files as their publisher has them. Raises VosflowError for weights of another network."""
        from vosflow.trackers.sam_pt.points import superglue_network
        from vosflow.trackers.sam_pt.points.networks import load_network

        self._detector = load_network(superglue_network.SuperPoint, self.checkpoints["keypoints"], "SuperPoint")
        self._matcher = load_network(
            superglue_network.SuperGlue, self.checkpoints["point_tracker"], "SuperGlue", rename=_add_counters
        )
        self._detector.to(self.device)
        self._matcher.to(self.device)

    def track_masks(
        self,
        clip: Clip,
        masks: np.ndarray,
        frames: Sequence[int],
        count: int,
        generators: Sequence[np.random.Generator],
    ) -> Tracks:
        """See `PointTracker`. A point without a match is invisible and at (-1, -1).

        Negative points of masks are what this gives for the masks' complements.

        Raises:
            VosflowError: frames of less than 16 pixels a side.
        """
        from vosflow.trackers.sam_pt.points.networks import float32, refuse_small

        refuse_small(clip, SMALLEST_SIDE, "SuperGlue", "SuperPoint looks at cells of 8 x 8 pixels")
        if self.settings.compat == "published":
            frames = [0] * len(frames)
        digests = {clip.digest(index) for index in range(len(clip))}
        self._matches = {pair: found for pair, found in self._matches.items() if digests.issuperset(pair)}
        positions = np.full((len(clip), len(masks), count, 2), MISSING, np.float32)
        visible = np.zeros((len(clip), len(masks), count), bool)
        with float32(self.device):
            for frame in range(len(clip)):
                matches = {start: self._match(clip, start, frame) for start in dict.fromkeys(frames)}
                for number, start in enumerate(frames):
                    points = self._draw(matches[start], masks[number], count, generators[number])
                    positions[frame, number, : len(points)] = points
                    visible[frame, number, : len(points)] = True
        return Tracks(positions.reshape(len(clip), -1, 2), visible.reshape(len(clip), -1))

    def _draw(self, matches: np.ndarray, mask: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        """At most `count` points for a mask: [n, 2]."""
        published = self.settings.compat == "published"
        x, y = (matches[:, 2:] if published else matches[:, :2]).astype(int).T
        points = matches[mask[y, x], 2:]
        most = min(count, len(points))
        return points[generator.choice(len(points), most, replace=published)] if most else points[:0]

    def _match(self, clip: Clip, start: int, frame: int) -> np.ndarray:
        """Pairs of keypoints on two frames: float32 [M, 4], (x, y) on frame `start` and (x, y) on `frame`."""
        if frame == start:
            if self.settings.compat == "published":
                return np.empty((0, 4), np.float32)
            return np.tile(self._detect(clip, frame).positions.cpu().numpy(), 2)
        pair = (clip.digest(start), clip.digest(frame))
        if pair not in self._matches:
            first, second = self._detect(clip, start), self._detect(clip, frame)
            s = self.settings
            numbers, _ = self._matcher.match(first, second, s.sinkhorn_iterations, s.match_threshold)
            ends = [points.positions[column] for points, column in zip((first, second), numbers.T, strict=True)]
            self._matches[pair] = np.concatenate([end.cpu().numpy() for end in ends], 1)
        return self._matches[pair]

    def _detect(self, clip: Clip, index: int) -> Keypoints:
        digest = clip.digest(index)
        if digest not in self._keypoints:
            s = self.settings
            image = to_gray(clip[index], self.device)
            self._keypoints[digest] = self._detector.detect(image, s.nms_radius, s.keypoint_threshold, s.remove_borders)
            if len(self._keypoints) > KEPT_FRAMES:
                self._keypoints.popitem(last=False)
        self._keypoints.move_to_end(digest)
        return self._keypoints[digest]


def to_gray(frame: np.ndarray, device: str) -> torch.Tensor:
    """Brightness of a frame uint8 RGB [H, W, 3] as float32 [H, W] in [0, 1].

    In whole steps of 1/255, rounded down, by weights whose sum is 0.9999: as torchvision does it, which SAM-PT uses.
    """
    import torch

    red, green, blue = torch.tensor(frame, device=device).float().unbind(-1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor() / 255


def _add_counters(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Files of older versions of PyTorch have no counters beside the averages of batch norms; nothing reads them."""
    import torch

    norms = [name.removesuffix("running_mean") for name in weights if name.endswith(".running_mean")]
    return {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms} | weights
