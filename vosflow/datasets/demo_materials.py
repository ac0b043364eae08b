"""What the demo's scenes are made of, from random numbers: patterns, textures, outlines, looks and backgrounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vosflow.datasets.demo_drawing import HEIGHT, MARGIN, SINES, TEXTURE, TURN, WIDTH, Look, polygon_coverage

VERTICES = 28  # of a smooth outline


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A random integer, both ends included."""
    return int(rng.integers(low, high + 1))


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Value noise, int32 [height, width], 0 to 255: random values on a lattice, bilinear between them."""
    lattice = rng.integers(0, 256, (height // cell + 2, width // cell + 2), dtype=np.int32)
    row, column = np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32)
    part = (row % cell)[:, None]
    lattice = (lattice[row // cell] * (cell - part) + lattice[row // cell + 1] * part) // cell
    part = column % cell
    return (lattice[:, column // cell] * (cell - part) + lattice[:, column // cell + 1] * part) // cell


def _pattern(rng: np.random.Generator, height: int, width: int, period: int) -> np.ndarray:
    """One of six patterns, int32 [height, width], 0 to 255."""
    y, x = np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None, :]
    kind = between(rng, 0, 5)
    if kind == 0:  # stripes in some direction
        a, b = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, -2))[between(rng, 0, 5)]
        return ((x * a + y * b) // period & 1) * 255
    if kind == 1:  # rings
        return ((x - width // 2) ** 2 + (y - height // 2) ** 2) // (period * period * 2) % 2 * 255
    if kind == 2:  # checks
        return (x // period + y // period & 1) * 255 + 0 * y
    if kind == 3:  # dots
        big = 2 * period
        return ((x % big - period) ** 2 + (y % big - period) ** 2 < period * period * 2 // 5) * np.int32(255)
    if kind == 4:  # bricks
        shift = y // period % 2 * period
        return 255 - ((y % period < 2) | ((x + shift) % (2 * period) < 2)) * np.int32(255)
    return np.clip((_smooth_noise(rng, height, width, period) - 128) * 6 + 128, 0, 255)  # patches


def _mix(colour0: np.ndarray, colour1: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Colours int32 [H, W, 3] between two: `amount` int32 [H, W] is 0 to 255."""
    return colour0 + ((colour1 - colour0) * amount[:, :, None] >> 8)


def pick_colour(rng: np.random.Generator, low: int, high: int, far_from: Sequence[np.ndarray] = ()) -> np.ndarray:
    """A random colour int32 [3]; of eight, the one that is farthest from the given ones."""
    candidates = rng.integers(low, high + 1, (8, 3), dtype=np.int32)
    if not far_from:
        return candidates[0]
    distance = np.min([np.abs(candidates - other).sum(axis=1) for other in far_from], axis=0)
    return candidates[int(distance.argmax())]


def _outline(rng: np.random.Generator) -> np.ndarray:
    """A random outline around the origin, int64 [V, 2], in 1/256 of the radius."""
    kind = between(rng, 0, 4)
    if kind <= 1:  # a blob: a circle with two waves on it, maybe flattened
        k = np.arange(VERTICES)
        radius = np.full(VERTICES, 214)
        for waves in (2, 3):
            phase = k * waves * TURN // VERTICES + between(rng, 0, TURN)
            radius += between(rng, 0, 44) * SINES[phase % TURN] >> 12
        turn = k * TURN // VERTICES
    else:
        corners = between(rng, 3, 6)
        if kind == 2:  # a star
            inner = between(rng, 145, 195)
            k = np.arange(2 * corners)
            radius = np.where(k % 2 == 0, 256, inner)
        elif kind == 3:  # a regular polygon
            k = np.arange(corners)
            radius = np.full(corners, 250)
        else:  # a cross, or a plus with thick arms
            k = np.arange(12)
            turn = np.array([-1, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14]) * TURN // 16
            radius = np.where(np.isin(k, (2, 5, 8, 11)), between(rng, 120, 180), 252)
        if kind != 4:
            turn = k * TURN // len(k)
    flat = between(rng, 180, 256)
    along = radius * SINES[(turn + TURN // 4) % TURN] >> 12
    across = (radius * SINES[turn % TURN] >> 12) * flat >> 8
    return np.stack([along, across], axis=1).astype(np.int64)


def make_texture(rng: np.random.Generator, colour0: np.ndarray, colour1: np.ndarray, period: int) -> np.ndarray:
    """A texture of two colours, int32 [96, 96, 3]."""
    amount = _pattern(rng, TEXTURE, TEXTURE, period) * 190 + _smooth_noise(rng, TEXTURE, TEXTURE, 12) * 65
    return _mix(colour0, colour1, amount >> 8)


def make_look(rng: np.random.Generator, far_from: list[np.ndarray]) -> Look:
    """A random look whose main colour is far from the given ones; the colour is appended to them."""
    main = pick_colour(rng, 15, 240, far_from)
    far_from.append(main)
    return Look(_outline(rng), make_texture(rng, main, pick_colour(rng, 15, 240, [main]), between(rng, 8, 15)))


def make_background(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """A cluttered background, int32 [256, 336, 3], and its two main colours."""
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    colours = [pick_colour(rng, 50, 205), pick_colour(rng, 50, 205)]
    noise = _smooth_noise(rng, height, width, 53) * 5 + _smooth_noise(rng, height, width, 17) * 2
    noise += _smooth_noise(rng, height, width, 5)
    contrast = between(rng, 10, 80)
    amount = noise * (256 - contrast) // 8 + _pattern(rng, height, width, between(rng, 9, 20)) * contrast >> 8
    canvas = _mix(*colours, amount)
    if between(rng, 0, 1):  # a floor below a wall
        horizon = MARGIN + between(rng, HEIGHT // 3, HEIGHT * 3 // 4)
        floor = _pattern(rng, height - horizon, width, between(rng, 9, 20)) * contrast
        amount = noise[horizon:] * (256 - contrast) // 8 + floor >> 8
        canvas[horizon:] = _mix(pick_colour(rng, 50, 205, colours), colours[0], amount)
    for _ in range(between(rng, 8, 18)):  # things that lie around
        size = between(rng, 8, 26)
        left, top = between(rng, 0, width - 2 * size), between(rng, 0, height - 2 * size)
        outline = (_outline(rng) * size >> 2) + 64 * size
        coverage = polygon_coverage(outline[:, 0], outline[:, 1], 2 * size, 2 * size)[:, :, None].astype(np.int32)
        window = canvas[top : top + 2 * size, left : left + 2 * size]
        change = (pick_colour(rng, 20, 235) - window) * coverage >> 8
        window += change * between(rng, 80, 230) >> 8
    return canvas, colours
