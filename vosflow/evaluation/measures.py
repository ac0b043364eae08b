"""Region similarity J and boundary accuracy F of one frame.

Both are those of Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(CVPR 2016), with every convention of davischallenge's davis2017-evaluation: the same integer counts go through the same
float64 operations, so the values are bit-identical to that toolkit's.

    J   area of the intersection over area of the union; 1 where both masks are empty.
    F   harmonic mean of boundary precision and recall: of the shares of either side's boundary pixels that lie within
        a tolerance of the other side's boundary. What is "empty" is decided by boundaries, not by areas: without any
        boundary on both sides F is 1, on one side 0. So an empty prediction of a mask that fills the frame (it has no
        boundary) has J = 0 but F = 1.

The boundary of a mask is the map of D. Martin's seg2bmap: the pixels that differ from the right, the lower or the lower
right neighbour. It is not symmetric: at the upper and left side the boundary lies just outside the mask. The last row
looks right only, the last column down only, the last pixel is never a boundary, and the frame's border makes none.

Counting is done by compiled code, see `vosflow.evaluation.kernel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BOUNDARY_TOLERANCE = 0.008  # of the frame's diagonal
BLOCK = 1024  # words that the kernel compares at once: what it notes of them stays in the nearest cache


@dataclass(frozen=True)
class Element:
    """A set of pixel offsets: how far from a boundary pixel, and in which directions, another may lie and match it.

    The element of a dilation. `rows` holds (dy, first dx, last dx): all offsets between are in the set. Without rows,
    nothing matches. Matching is fastest if the rows nearest to the centre stand first.
    """

    rows: tuple[tuple[int, int, int], ...]

    @property
    def reach(self) -> int:
        """The largest offset in any direction."""
        return max((abs(offset) for row in self.rows for offset in row), default=0)


Tolerance = Element | Sequence[Element]
"""One element for all objects, or one for each."""


@lru_cache
def disk(radius: float) -> Element:
    """All offsets within `radius` pixels, for an integer; 197 of them for 8 (cv2's ellipse has fewer).

    Any other radius gives the set that `skimage.morphology.disk(radius)` gives as the kernel of cv2.dilate: its grid
    runs from -radius in steps of 1 and misses the centre, so it reaches less far down and right than up and left. For
    480x854 pixels MOSE v2 uses the radius 7.837: 191 offsets. Where skimage's set is empty (for some radii below 0.6),
    OpenCV takes its first place alone.
    """
    steps = np.arange(-radius, radius + 1)
    anchor = len(steps) // 2
    rows = []
    for dy, y in enumerate(steps):
        (inside,) = np.nonzero(steps**2 + y**2 <= radius**2)
        if len(inside):
            rows.append((dy - anchor, int(inside[0]) - anchor, int(inside[-1]) - anchor))
    rows = rows or [(-anchor, -anchor, -anchor)]
    return Element(tuple(sorted(rows, key=lambda row: abs(row[0]))))


def boundary_radius(height: int, width: int) -> int:
    """How far apart two boundary pixels may lie and still match, in pixels: 8 at 854x480."""
    return math.ceil(BOUNDARY_TOLERANCE * np.linalg.norm((height, width)))


@dataclass(frozen=True)
class FrameCounts:
    """What J and F are made from: pixels, int64. n objects, k tolerances; for pairs, [m, n] takes the place of [n].

    Attributes:
        truth_area, guess_area, intersection: pixels of each object [n].
        truth_length, guess_length: its boundary pixels [n].
        truth_matched: boundary pixels of the truth within each tolerance of the prediction's boundary [k, n].
        guess_matched: the reverse [k, n].
    """

    truth_area: np.ndarray
    guess_area: np.ndarray
    intersection: np.ndarray
    truth_length: np.ndarray
    guess_length: np.ndarray
    truth_matched: np.ndarray
    guess_matched: np.ndarray

    @property
    def union(self) -> np.ndarray:
        """Pixels in either mask [n]."""
        return self.truth_area + self.guess_area - self.intersection


def count_frame(truth: np.ndarray, guess: np.ndarray, object_ids: Sequence[int], *tolerances: Tolerance) -> FrameCounts:
    """Count one frame for n objects. All tolerances share one tracing of the boundaries.

    Args:
        truth, guess: label maps, uint8 [H, W]. Pixels of other ids are background.
        object_ids: the n ids to count, each in 1..255, each once.
        tolerances: each an element for all objects, or a sequence of n elements.

    Raises:
        ValueError: the arrays are no uint8 label maps of one size, or the ids or tolerances are not as above.
    """
    slots = _slots(tuple(object_ids))
    n = len(object_ids)
    counted = _count(truth, guess, slots, slots, _diagonal(n), n, n, [_each(t, n) for t in tolerances])
    areas, truth_length, guess_length, truth_matched, guess_matched = counted
    return FrameCounts(
        truth_area=areas[1:].sum(axis=1),
        guess_area=areas[:, 1:].sum(axis=0),
        intersection=areas.diagonal()[1:].copy(),
        truth_length=truth_length,
        guess_length=guess_length,
        truth_matched=truth_matched,
        guess_matched=guess_matched,
    )


def count_pairs(
    truth: np.ndarray,
    guess: np.ndarray,
    truth_ids: Sequence[int],
    guess_ids: Sequence[int],
    *tolerances: Element,
) -> FrameCounts:
    """Count every one of m objects of the truth with every one of n predicted ones: all arrays are [m, n], [k, m, n].

    Each boundary is traced once. Arguments and errors are those of `count_frame`; a tolerance is for all pairs.
    """
    m, n = len(truth_ids), len(guess_ids)
    slots = _slots(tuple(truth_ids)), _slots(tuple(guess_ids))
    pairs = np.stack(np.meshgrid(np.arange(1, m + 1), np.arange(1, n + 1), indexing="ij"), axis=-1).reshape(-1, 2)
    counted = _count(truth, guess, *slots, pairs, m, n, [[t] * (m * n) for t in tolerances])
    areas, truth_length, guess_length, truth_matched, guess_matched = counted
    shape = (m, n)
    return FrameCounts(
        truth_area=np.broadcast_to(areas[1:].sum(axis=1)[:, None], shape),
        guess_area=np.broadcast_to(areas[:, 1:].sum(axis=0), shape),
        intersection=areas[1:, 1:],
        truth_length=np.broadcast_to(truth_length[:, None], shape),
        guess_length=np.broadcast_to(guess_length, shape),
        truth_matched=truth_matched.reshape(-1, *shape),
        guess_matched=guess_matched.reshape(-1, *shape),
    )


def count_masks(truth: np.ndarray, guess: np.ndarray, *tolerances: Element) -> FrameCounts:
    """Count one object given as two masks, bool [H, W]: n = 1. Raises ValueError if they are not, or differ in size."""
    if truth.dtype != bool or guess.dtype != bool:
        raise ValueError(f"boolean masks expected, got {truth.dtype} and {guess.dtype}")
    return count_frame(truth.view(np.uint8), guess.view(np.uint8), (1,), *tolerances)


def areas(label_map: np.ndarray, object_ids: Sequence[int]) -> np.ndarray:
    """Pixels of each object of a label map, int64 [n]; for tolerances that depend on them."""
    from vosflow.evaluation.machine_code import load  # here, because planning a study loads protocols, but scores none

    _check(label_map, label_map)
    label_map = np.ascontiguousarray(label_map)
    counted = np.zeros(len(object_ids) + 1, np.int64)
    load("count_areas")(
        *(label_map, label_map, _slots(tuple(object_ids))),
        *(label_map, label_map, np.zeros(256, np.uint8)),  # the other side: all one slot
        *(label_map.size, 1, counted),
    )
    return counted[1:]


def region_scores(counts: FrameCounts) -> np.ndarray:
    """J of each object, float64 [n]; 1 where both masks are empty."""
    union = counts.union
    return np.divide(counts.intersection, union, out=np.ones(union.shape), where=union > 0)


def boundary_scores(counts: FrameCounts) -> np.ndarray:
    """F of each object at each tolerance, float64 [k, n]."""
    shape = counts.truth_matched.shape
    truth_length = np.broadcast_to(counts.truth_length, shape)
    guess_length = np.broadcast_to(counts.guess_length, shape)
    both = (truth_length > 0) & (guess_length > 0)
    precision = np.divide(counts.guess_matched, guess_length, out=np.zeros(shape), where=both)
    recall = np.divide(counts.truth_matched, truth_length, out=np.zeros(shape), where=both)
    F = np.divide(2 * precision * recall, precision + recall, out=np.zeros(shape), where=precision + recall > 0)
    F[(truth_length == 0) & (guess_length == 0)] = 1
    return F


def score_frame(
    ground_truth: np.ndarray, prediction: np.ndarray, object_ids: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """J and F of each object of one frame, with the tolerance of DAVIS.

    Args:
        ground_truth, prediction: label maps, uint8 [H, W]. Pixels of other ids are background.
        object_ids: the n ids to score, each in 1..255. An id that is in neither label map scores J = F = 1.

    Returns:
        J and F, float64 [n] each, as fractions.

    Raises:
        ValueError: the two arrays are not uint8 label maps of one size.
    """
    counts = count_frame(ground_truth, prediction, object_ids, _davis_tolerance(*ground_truth.shape[:2]))
    return region_scores(counts), boundary_scores(counts)[0]


def score_masks(ground_truth: np.ndarray, prediction: np.ndarray) -> tuple[float, float]:
    """J and F of one object, with the tolerance of DAVIS; masks bool [H, W].

    Raises:
        ValueError: the two arrays are not boolean masks of one size.
    """
    counts = count_masks(ground_truth, prediction, _davis_tolerance(*ground_truth.shape))
    return float(region_scores(counts)[0]), float(boundary_scores(counts)[0, 0])


@lru_cache
def _davis_tolerance(height: int, width: int) -> Element:
    return disk(boundary_radius(height, width))


def _count(
    truth: np.ndarray,
    guess: np.ndarray,
    truth_slots: np.ndarray,
    guess_slots: np.ndarray,
    pairs: np.ndarray,
    m: int,
    n: int,
    tolerances: list[Sequence[Element]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Call the kernel for the slots 1..m of the truth and 1..n of the guess.

    Args:
        truth_slots, guess_slots: uint8 [256], see `_slots`.
        pairs: int64 [p, 2], slots of truth and guess whose boundaries are matched.
        tolerances: k of them, for each of the pairs.

    Returns:
        areas [m + 1, n + 1], truth_length [m], guess_length [n], truth_matched [k, p], guess_matched [k, p]; int64.
    """
    from vosflow.evaluation.machine_code import load  # here, because planning a study loads protocols, but scores none

    _check(truth, guess)
    truth, guess = np.ascontiguousarray(truth), np.ascontiguousarray(guess)
    height, width = truth.shape
    elements = tuple(dict.fromkeys(element for each in tolerances for element in each))
    margin, ranges, rows = _ranges(width, elements)
    spans = np.array([[rows[element] for element in each] for each in tolerances], np.int64)
    matched = np.zeros((2, len(tolerances), len(pairs)), np.int64)
    starts = np.zeros(m + 2, np.int64), np.zeros(n + 2, np.int64)
    counted = np.zeros((m + 1, n + 1), np.int64)
    entries = 4 * truth.size  # a pixel is on the boundary of at most four objects; unused memory is never touched
    room = np.empty((3, entries), np.int32)
    bits = (height + 2 * margin) * (width + 2 * margin)
    load("count")(
        *(truth, truth, truth_slots, m, guess, guess, guess_slots, n, height, width),
        *(pairs, len(pairs), ranges, spans, len(tolerances), margin),
        *(counted, *starts, *matched),
        *(*room, np.empty(entries, np.uint8), np.zeros(bits // 64 + 2, np.uint64), np.empty(BLOCK, np.uint64), BLOCK),
    )
    return counted, np.diff(starts[0])[1:], np.diff(starts[1])[1:], *matched


def _check(truth: np.ndarray, guess: np.ndarray) -> None:
    if truth.shape != guess.shape or truth.ndim != 2:
        raise ValueError(f"label maps of one size expected, got {truth.shape} and {guess.shape}")
    if truth.dtype != np.uint8 or guess.dtype != np.uint8:
        raise ValueError(f"uint8 label maps expected, got {truth.dtype} and {guess.dtype}")


@lru_cache
def _slots(object_ids: tuple[int, ...]) -> np.ndarray:
    """The slot of each pixel value: 1 for the first id, 2 for the second, ...; 0 for all others. uint8 [256]."""
    if len(set(object_ids)) != len(object_ids) or not all(1 <= object_id <= 255 for object_id in object_ids):
        raise ValueError(f"distinct object ids from 1 to 255 expected, got {list(object_ids)}")
    slots = np.zeros(256, np.uint8)
    slots[list(object_ids)] = np.arange(1, len(object_ids) + 1)
    slots.setflags(write=False)
    return slots


@lru_cache
def _diagonal(n: int) -> np.ndarray:
    """The pairs of each slot with itself, int64 [n, 2]."""
    return np.repeat(np.arange(1, n + 1), 2).reshape(n, 2)


def _each(tolerance: Tolerance, n: int) -> Sequence[Element]:
    elements = [tolerance] * n if isinstance(tolerance, Element) else list(tolerance)
    if len(elements) != n:
        raise ValueError(f"{len(elements)} elements for {n} objects")
    return elements


@lru_cache
def _ranges(width: int, elements: tuple[Element, ...]) -> tuple[int, np.ndarray, dict[Element, tuple[int, int]]]:
    """The rows of elements as ranges of bits in a bitmap whose rows are `width` and a margin on both sides long.

    Returns:
        The margin in pixels; all ranges, first and last bit relative to a pixel's, int64 [r, 2]; for each element the
        number of its first range and of the one after its last.
    """
    margin = max((element.reach for element in elements), default=0)
    stride = width + 2 * margin
    ranges: list[tuple[int, int]] = []
    rows = {}
    for element in elements:
        begin = len(ranges)
        ranges += [(dy * stride + first, dy * stride + last) for dy, first, last in element.rows]
        rows[element] = begin, len(ranges)
    return margin, np.array(ranges, np.int64).reshape(-1, 2), rows
