"""Query points: which pixels of an object's mask, and outside of it, are tracked (SAM-PT, `utils/query_points.py`).

Everything random comes from a generator of its own for each object of each video and frame, so that neither the order
of videos nor shards change what is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.settings import Settings

KMEDOIDS_PIXELS = 1800  # at most so many are clustered
KMEDOIDS_PIXELS_BESIDE_CORNERS = 2000
KMEDOIDS_ROUNDS = 300
EROSIONS = (0.06, 0.02, 0.01)  # fractions of the mask's diameter, tried until enough is left
ENOUGH_PIXELS = 10


def generator(seed: int, *what: object) -> np.random.Generator:
    """Random numbers that depend on `seed` and on the text of `what`, and on nothing else."""
    digest = hashlib.sha256(repr(what).encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


class PointSampler:
    """Draws the query points of objects, by the methods that the settings name."""

    def __init__(self, settings: Settings, video: str) -> None:
        self._settings = settings
        self._video = video

    def __call__(self, clip: Clip, masks: np.ndarray, frames: Sequence[int], objects: Sequence[int]) -> np.ndarray:
        """Positive points, then negative ones, of each object.

        Args:
            masks: bool [O, H, W]; frames: of the clip, one for each; objects: their ids.

        Returns:
            float32 [O, P, 3], (frame, x, y), whole pixels or corners between them. Points of an empty mask are (0, 0).
        """
        s = self._settings
        queries = np.zeros((len(masks), s.positive_points_per_mask + s.negative_points_per_mask, 3), np.float32)
        for query, mask, frame, k in zip(queries, masks, frames, objects, strict=True):
            rng = generator(s.seed, self._video, k, int(frame), "queries")
            inside = sample(s.positive_point_selection_method, clip[frame], mask, s.positive_points_per_mask, rng)
            outside = sample(s.negative_point_selection_method, clip[frame], ~mask, s.negative_points_per_mask, rng)
            query[:, 0] = frame
            query[:, 1:] = np.concatenate([inside, outside])
        return queries


def sample(method: str, frame: np.ndarray, mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points of `mask` (bool [H, W]) on `frame` (uint8 [H, W, 3]): (x, y), float32 [count, 2].

    "random" are pixels without repetition, "kmedoids" medoids of clusters of pixels, "shi-tomasi" corners, "mixed" a
    quarter medoids, a third corners, the rest random. Masks with fewer pixels than points repeat theirs.
    """
    if count == 0 or not mask.any():
        return np.zeros((count, 2), np.float32)
    if method == "random":
        return random_points(mask, count, rng)
    if method == "kmedoids":
        return kmedoid_points(mask, count, rng, KMEDOIDS_PIXELS)
    if method == "shi-tomasi":
        return corner_points(frame, mask, count, rng)
    medoids, corners = count // 4, count // 3
    parts = {"kmedoids": medoids, "shi-tomasi": corners, "random": count - medoids - corners}
    return np.concatenate([sample(part, frame, mask, number, rng) for part, number in parts.items()])


def random_points(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels of a mask in random order, float32 [count, 2] as (x, y)."""
    pixels = _pixels(mask)
    if len(pixels) < count:
        return np.resize(pixels, (count, 2))
    return pixels[rng.permutation(len(pixels))[:count]]


def kmedoid_points(mask: np.ndarray, count: int, rng: np.random.Generator, most: int) -> np.ndarray:
    """Medoids of `count` clusters of at most `most` random pixels of a mask, float32 [count, 2] as (x, y)."""
    pixels = _pixels(mask)
    if len(pixels) < count:
        return np.resize(pixels, (count, 2))
    pixels = pixels[rng.permutation(len(pixels))[:most]]
    return pixels[kmedoids(pixels.astype(np.float64), count)]


def kmedoids(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of medoids of `points` [N, 2] by alternation (Park and Jun 2009), the default of scikit-learn-extra.

    It starts from the points whose distances to all others are least; then each point joins its nearest medoid, and
    each cluster's most central point becomes its medoid, until none changes.
    """
    x, y = points.T
    distances = np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2)  # [N, N]
    medoids = np.argpartition(distances.sum(1), count - 1)[:count]
    for _ in range(KMEDOIDS_ROUNDS):
        before = medoids.copy()
        cluster = distances[medoids].argmin(0)
        for k in range(count):
            members = np.flatnonzero(cluster == k)
            if not len(members):  # another medoid lies on the same place
                continue
            costs = distances[np.ix_(members, members)].sum(1)
            best = costs.argmin()
            if costs[best] < costs[np.argmax(members == medoids[k])]:
                medoids[k] = members[best]
        if (medoids == before).all():
            break
    return medoids


def corner_points(frame: np.ndarray, mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Corners (Shi and Tomasi 1994) inside an eroded mask, and medoids for those missing; float32 [count, 2]."""
    import cv2

    eroded = mask
    for fraction in EROSIONS:
        side = int(_diameter(mask) * fraction)
        # OpenCV takes a kernel without elements for its default of 3x3
        eroded = cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8), iterations=1).astype(bool)
        if eroded.sum() >= ENOUGH_PIXELS:
            break
    else:
        eroded = mask
    corners = cv2.goodFeaturesToTrack(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY),
        maxCorners=count,
        qualityLevel=0.001,
        minDistance=_diameter(eroded) / count,
        mask=eroded.astype(np.uint8),
        blockSize=3,
        gradientSize=3,
    )
    found = np.zeros((0, 2), np.float32) if corners is None else corners[:, 0].astype(np.float32)
    if len(found) == count:
        return found
    more = kmedoid_points(mask, count - len(found), rng, KMEDOIDS_PIXELS_BESIDE_CORNERS)
    return np.concatenate([found, more])


def _pixels(mask: np.ndarray) -> np.ndarray:
    """(x, y) of the pixels of a mask in reading order, float32 [N, 2]."""
    return np.argwhere(mask)[:, ::-1].astype(np.float32)


def _diameter(mask: np.ndarray) -> float:
    """Of the box around a mask, between pixel centres."""
    pixels = np.argwhere(mask)
    return float(np.linalg.norm(pixels.max(0) - pixels.min(0)))
