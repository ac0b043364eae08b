"""The demo dataset: eight videos of moving shapes, drawn from a seed, in the folder layout of DAVIS 2017.

A scene is a textured background seen by a panning camera, and actors drawn from back to front: labelled objects,
unlabelled distractors (some look exactly like an object) and foreground occluders. Every property of an actor over time
(position, radius, angle, colour) is a curve through keyframes. Each kind of scene tests one difficulty of video object
segmentation; the dataset holds one video of each, training draws others of the same kinds from other seeds.

Everything is integer arithmetic, so that the same seed gives the same pixels on every machine. Units: lengths are
1/256 of a world pixel (the world is 240 x 160), angles are 1/1024 of a turn, gains are 1/256.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.errors import VosflowError
from vosflow.masks import DAVIS_PALETTE

WIDTH, HEIGHT, FRAMES = 240, 160, 40  # of the world, and of the videos of the dataset
ONE = 256  # one world pixel, and a gain of 1
TURN = 1024  # units of angle in a full turn
MARGIN = 48  # world pixels of background beyond each side of the picture, for the camera to pan over
TEXTURE = 96  # side of an actor's texture; its centre is the actor's centre
VERTICES = 28  # of a smooth outline
JPEG_QUALITY = 92

_SINE = [round(4096 * math.sin(2 * math.pi * i / TURN)) for i in range(TURN)]  # no value is near a rounding tie
_SINES = np.array(_SINE, dtype=np.int64)

Curve = tuple[tuple[int, int], ...]  # (frame, value), at least one, frames rising


@dataclass(frozen=True)
class Look:
    """Appearance of an actor: outline int64 [V, 2] in 1/256 of its radius, texture int32 [96, 96, 3] (RGB), tiled."""

    outline: np.ndarray
    texture: np.ndarray
    texels_per_radius: int = 32
    shaded: bool = True


@dataclass(frozen=True)
class Actor:
    """One thing that moves through a scene. `label` is the object id, or 0 for distractors and occluders."""

    look: Look
    label: int
    x: Curve
    y: Curve
    radius: Curve
    angle: Curve
    tint: tuple[Curve, Curve, Curve]  # added to red, green, blue
    wobble: int = 0  # deformation of the outline, 1/256 of the radius
    wobble_speed: int = 0
    wobble_waves: int = 2
    in_world: bool = False  # stands still in the world, so that it moves against the camera's pan


@dataclass(frozen=True)
class Scene:
    """Background int32 [160 + 2*48, 240 + 2*48, 3], camera, light, and the actors from back to front."""

    seed: int
    background: np.ndarray
    actors: tuple[Actor, ...]
    pan_x: Curve
    pan_y: Curve
    light: tuple[Curve, Curve, Curve]  # gains of red, green, blue


def value_at(curve: Curve, frame: int) -> int:
    """Value of a curve at a frame: Catmull-Rom spline through its keys, constant outside of them."""
    if frame <= curve[0][0]:
        return curve[0][1]
    if frame >= curve[-1][0]:
        return curve[-1][1]
    i = next(i for i in range(1, len(curve)) if frame < curve[i][0])
    (t0, p0), (t1, p1) = curve[i - 1], curve[i]
    before = curve[i - 2] if i > 1 else curve[i - 1]
    after = curve[i + 1] if i + 1 < len(curve) else curve[i]
    slope0 = (p1 - before[1]) * (t1 - t0) // (t1 - before[0])
    slope1 = (after[1] - p0) * (t1 - t0) // (after[0] - t0)
    s = (frame - t0) * 256 // (t1 - t0)
    s2, s3 = s * s * 256, s * s * s  # both in 1/2**24
    start, end = 2 * s3 - 3 * s2 + (1 << 24), 3 * s2 - 2 * s3
    return (start * p0 + (s3 - 2 * s2 + (s << 16)) * slope0 + end * p1 + (s3 - s2) * slope1) >> 24


# --- drawing -----------------------------------------------------------------------------------------------------


def polygon_coverage(x: np.ndarray, y: np.ndarray, width: int, height: int) -> np.ndarray:
    """How much of each pixel of a width x height window a simple polygon covers.

    Four scan lines per row, exact in x along each: the accumulation buffer of font rasterisers.

    Args:
        x, y: vertices in 1/64 of a pixel from the window's corner, int64 [V].

    Returns:
        int64 [height, width], 0 to 256.
    """
    x1, y1 = np.roll(x, -1)[:, None], np.roll(y, -1)[:, None]
    x0, y0 = x[:, None], y[:, None]
    lines = np.arange(4 * height, dtype=np.int64) * 16 + 8  # [4*height]
    edge, line = np.nonzero((y0 <= lines) != (y1 <= lines))
    x0, y0, x1, y1 = x0[edge, 0], y0[edge, 0], x1[edge, 0], y1[edge, 0]
    cross = np.clip(x0 + (lines[line] - y0) * (x1 - x0) // (y1 - y0), 0, 64 * width)
    sign = np.where(y1 > y0, 1, -1)
    cell = (line >> 2) * (width + 2) + (cross >> 6)
    delta = np.zeros(height * (width + 2), np.int64)
    np.add.at(delta, cell, sign * (64 - (cross & 63)))
    np.add.at(delta, cell + 1, sign * (cross & 63))
    return np.minimum(np.abs(np.cumsum(delta.reshape(height, width + 2), axis=1)[:, :width]), 256)


def _draw(actor: Actor, frame: int, pan: tuple[int, int], image: np.ndarray, label_map: np.ndarray) -> None:
    """Draw one actor over `image` int32 [H, W, 3] and its label over `label_map` uint8 [H, W], in place."""
    height, width = label_map.shape
    centre_x, centre_y = value_at(actor.x, frame), value_at(actor.y, frame)
    if actor.in_world:
        centre_x, centre_y = centre_x - pan[0], centre_y - pan[1]
    radius = max(value_at(actor.radius, frame), ONE)
    angle = value_at(actor.angle, frame) % TURN
    sine, cosine = _SINE[angle], _SINE[(angle + TURN // 4) % TURN]

    stretch = radius  # of each vertex
    if actor.wobble:
        wave = np.arange(len(actor.look.outline)) * (actor.wobble_waves * TURN // len(actor.look.outline))
        wave = _SINES[(wave + frame * actor.wobble_speed) % TURN]
        stretch = radius + (radius * (actor.wobble * wave >> 12) >> 8)
    along, across = actor.look.outline[:, 0] * stretch >> 8, actor.look.outline[:, 1] * stretch >> 8
    x = centre_x + ((along * cosine - across * sine) >> 12)
    y = centre_y + ((along * sine + across * cosine) >> 12)
    x, y = x * width // (WIDTH * ONE // 64), y * height // (HEIGHT * ONE // 64)  # 1/64 of a pixel of the picture
    left, right = max(int(x.min()) >> 6, 0), min((int(x.max()) >> 6) + 1, width)
    top, bottom = max(int(y.min()) >> 6, 0), min((int(y.max()) >> 6) + 1, height)
    if left >= right or top >= bottom:
        return
    coverage = polygon_coverage(x - 64 * left, y - 64 * top, right - left, bottom - top)

    dx = (2 * np.arange(left, right, dtype=np.int64) + 1) * (WIDTH * ONE // 2) // width - centre_x
    dy = (2 * np.arange(top, bottom, dtype=np.int64) + 1) * (HEIGHT * ONE // 2) // height - centre_y
    texels = (actor.look.texels_per_radius << 20) // radius
    u = (((dx * cosine)[None, :] + (dy * sine)[:, None]) >> 12) * texels >> 20
    v = (((dy * cosine)[:, None] - (dx * sine)[None, :]) >> 12) * texels >> 20
    u, v = (u + TEXTURE // 2) % TEXTURE, (v + TEXTURE // 2) % TEXTURE
    colour = actor.look.texture.reshape(-1, 3)[v * TEXTURE + u]  # [h, w, 3]
    colour += np.array([value_at(curve, frame) for curve in actor.tint], np.int32)
    if actor.look.shaded:  # the light comes from above, left
        shade = (dx * 24 // radius)[None, :] + (dy * 32 // radius)[:, None]
        colour -= shade[:, :, None].astype(np.int32)
    colour = np.clip(colour, 8, 247)
    window = image[top:bottom, left:right]
    window += (colour - window) * coverage[:, :, None].astype(np.int32) >> 8
    label_map[top:bottom, left:right][coverage >= 128] = actor.label


def render(scene: Scene, times: Sequence[int], width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene at some of its frames.

    Args:
        times: frame numbers of the scene, 0 to 39.
        width, height: size of the pictures; the whole world is scaled to it.

    Returns:
        RGB frames uint8 [T, H, W, 3] and label maps uint8 [T, H, W] (0 is background).
    """
    background = scene.background
    if width < WIDTH:  # smooth what coarser pixels cannot show
        background = background[:-1] + background[1:]
        background = (background[:, :-1] + background[:, 1:]) >> 2
    rows = (2 * np.arange(height) + 1) * HEIGHT // (2 * height) + MARGIN
    columns = (2 * np.arange(width) + 1) * WIDTH // (2 * width) + MARGIN
    frames = np.empty((len(times), height, width, 3), np.uint8)
    label_maps = np.zeros((len(times), height, width), np.uint8)
    for index, time in enumerate(times):
        pan = value_at(scene.pan_x, time), value_at(scene.pan_y, time)
        row = np.clip(rows + (pan[1] >> 8), 0, len(background) - 1)
        column = np.clip(columns + (pan[0] >> 8), 0, background.shape[1] - 1)
        image = background[row[:, None], column[None, :]]
        for actor in scene.actors:
            _draw(actor, time, pan, image, label_maps[index])
        gain = np.array([value_at(curve, time) for curve in scene.light], np.int32)
        grain = np.random.default_rng((scene.seed, time)).integers(-7, 8, (height, width, 3), dtype=np.int8)
        frames[index] = np.clip((image * gain >> 8) + grain, 0, 255)
    return frames, label_maps


# --- materials ---------------------------------------------------------------------------------------------------


def _between(rng: np.random.Generator, low: int, high: int) -> int:
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
    kind = _between(rng, 0, 5)
    if kind == 0:  # stripes in some direction
        a, b = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, -2))[_between(rng, 0, 5)]
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


def _colour(rng: np.random.Generator, low: int, high: int, far_from: Sequence[np.ndarray] = ()) -> np.ndarray:
    """A random colour int32 [3]; of eight, the one that is farthest from the given ones."""
    candidates = rng.integers(low, high + 1, (8, 3), dtype=np.int32)
    if not far_from:
        return candidates[0]
    distance = np.min([np.abs(candidates - other).sum(axis=1) for other in far_from], axis=0)
    return candidates[int(distance.argmax())]


def _outline(rng: np.random.Generator) -> np.ndarray:
    """A random outline around the origin, int64 [V, 2], in 1/256 of the radius."""
    kind = _between(rng, 0, 4)
    if kind <= 1:  # a blob: a circle with two waves on it, maybe flattened
        k = np.arange(VERTICES)
        radius = np.full(VERTICES, 214)
        for waves in (2, 3):
            phase = k * waves * TURN // VERTICES + _between(rng, 0, TURN)
            radius += _between(rng, 0, 44) * _SINES[phase % TURN] >> 12
        turn = k * TURN // VERTICES
    else:
        corners = _between(rng, 3, 6)
        if kind == 2:  # a star
            inner = _between(rng, 145, 195)
            k = np.arange(2 * corners)
            radius = np.where(k % 2 == 0, 256, inner)
        elif kind == 3:  # a regular polygon
            k = np.arange(corners)
            radius = np.full(corners, 250)
        else:  # a cross, or a plus with thick arms
            k = np.arange(12)
            turn = np.array([-1, 1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14]) * TURN // 16
            radius = np.where(np.isin(k, (2, 5, 8, 11)), _between(rng, 120, 180), 252)
        if kind != 4:
            turn = k * TURN // len(k)
    flat = _between(rng, 180, 256)
    along = radius * _SINES[(turn + TURN // 4) % TURN] >> 12
    across = (radius * _SINES[turn % TURN] >> 12) * flat >> 8
    return np.stack([along, across], axis=1).astype(np.int64)


def _texture(rng: np.random.Generator, colour0: np.ndarray, colour1: np.ndarray, period: int) -> np.ndarray:
    """A texture of two colours, int32 [96, 96, 3]."""
    amount = _pattern(rng, TEXTURE, TEXTURE, period) * 190 + _smooth_noise(rng, TEXTURE, TEXTURE, 12) * 65
    return _mix(colour0, colour1, amount >> 8)


def _look(rng: np.random.Generator, far_from: list[np.ndarray]) -> Look:
    """A random look whose main colour is far from the given ones; the colour is appended to them."""
    main = _colour(rng, 15, 240, far_from)
    far_from.append(main)
    return Look(_outline(rng), _texture(rng, main, _colour(rng, 15, 240, [main]), _between(rng, 8, 15)))


def _background(rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """A cluttered background, int32 [256, 336, 3], and its two main colours."""
    height, width = HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN
    colours = [_colour(rng, 50, 205), _colour(rng, 50, 205)]
    noise = _smooth_noise(rng, height, width, 53) * 5 + _smooth_noise(rng, height, width, 17) * 2
    noise += _smooth_noise(rng, height, width, 5)
    contrast = _between(rng, 10, 80)
    amount = noise * (256 - contrast) // 8 + _pattern(rng, height, width, _between(rng, 9, 20)) * contrast >> 8
    canvas = _mix(*colours, amount)
    if _between(rng, 0, 1):  # a floor below a wall
        horizon = MARGIN + _between(rng, HEIGHT // 3, HEIGHT * 3 // 4)
        floor = _pattern(rng, height - horizon, width, _between(rng, 9, 20)) * contrast
        amount = noise[horizon:] * (256 - contrast) // 8 + floor >> 8
        canvas[horizon:] = _mix(_colour(rng, 50, 205, colours), colours[0], amount)
    for _ in range(_between(rng, 8, 18)):  # things that lie around
        size = _between(rng, 8, 26)
        left, top = _between(rng, 0, width - 2 * size), _between(rng, 0, height - 2 * size)
        outline = (_outline(rng) * size >> 2) + 64 * size
        coverage = polygon_coverage(outline[:, 0], outline[:, 1], 2 * size, 2 * size)[:, :, None].astype(np.int32)
        window = canvas[top : top + 2 * size, left : left + 2 * size]
        change = (_colour(rng, 20, 235) - window) * coverage >> 8
        window += change * _between(rng, 80, 230) >> 8
    return canvas, colours


# --- scenes ------------------------------------------------------------------------------------------------------


class _Director:
    """Collects the actors of one scene; the methods are the vocabulary in which the kinds of scenes are written."""

    def __init__(self, rng: np.random.Generator, difficulty: int) -> None:
        self.rng = rng
        self.difficulty = difficulty
        self.background, self.colours = _background(rng)
        self.back: list[Actor] = []
        self.objects: list[Actor] = []
        self.front: list[Actor] = []

    def pick(self, low: int, high: int) -> int:
        return _between(self.rng, low, high)

    def wants(self) -> bool:
        """Whether to include a complication: always at difficulty 100, never at 0."""
        return int(self.rng.integers(0, 100)) < self.difficulty

    def look(self) -> Look:
        return _look(self.rng, self.colours)

    def starts(self, count: int) -> list[tuple[int, int]]:
        """Places (world pixels) that are apart from each other, for the first frame; at most 8."""
        columns = 3 if count <= 6 else 4
        step = WIDTH // columns
        cells = [(int(c) % columns, int(c) // columns) for c in self.rng.permutation(2 * columns)[:count]]
        return [(step * c + step // 2 + self.pick(-8, 8), 76 * r + 42 + self.pick(-8, 8)) for c, r in cells]

    def anywhere(self) -> tuple[int, int]:
        return self.pick(22, WIDTH - 22), self.pick(22, HEIGHT - 22)

    def actor(
        self,
        look: Look,
        path: Sequence[tuple[int, int, int]],
        *,
        label: bool,
        radius: int | Sequence[tuple[int, int]] = 0,
        drift: int = 20,
        spin: int = 170,
    ) -> None:
        """Add an object (`label`) or a distractor that follows a path of (frame, x, y) in world pixels.

        `radius` in world pixels, or keys of (frame, radius); 0 picks one. `drift` is the change of its colour over the
        scene, `spin` the largest change of its angle in ten frames.
        """
        if isinstance(radius, int):
            size = radius or self.pick(22, 31)
            sizes = [(t, size * self.pick(220, 297)) for t in (0, 13, 26, 39)]
        else:
            sizes = [(t, r * ONE) for t, r in radius]
        turn = self.pick(0, TURN)
        angle = [(0, turn)]
        for t in (10, 20, 30, 39):
            turn += self.pick(-spin, spin)
            angle.append((t, turn))
        tint = tuple(((0, 0), (20, self.pick(-drift, drift)), (39, self.pick(-drift, drift))) for _ in range(3))
        new = Actor(
            look=look,
            label=len(self.objects) + 1 if label else 0,
            x=tuple((t, x * ONE) for t, x, _ in path),
            y=tuple((t, y * ONE) for t, _, y in path),
            radius=tuple(sizes),
            angle=tuple(angle),
            tint=tint,
            wobble=self.pick(0, 40),
            wobble_speed=self.pick(-70, 70),
            wobble_waves=self.pick(2, 4),
        )
        (self.objects if label else self.back).append(new)

    def stroll(self, start: tuple[int, int], every: int = 13) -> list[tuple[int, int, int]]:
        """A path from `start` to a new place every few frames."""
        times = list(range(every, FRAMES - every * 3 // 4, every)) + [FRAMES - 1]
        return [(0, *start)] + [(t, *self.anywhere()) for t in times]

    def bar(self, x: int, width: int, *, upright: bool = True, moving: bool = False) -> None:
        """A foreground occluder across the whole picture: a pillar (or a rail) at `x` (`y`), standing or moving."""
        colours = _colour(self.rng, 30, 225), _colour(self.rng, 30, 225)
        texture = _texture(self.rng, *colours, self.pick(5, 9))
        length, across = 256, width * 256 // (2 * 190)
        outline = np.array([[-across, -length], [across, -length], [across, length], [-across, length]], np.int64)
        place = ((0, x * ONE),)
        if moving:
            end = x + self.pick(60, 160) * (1 if x < WIDTH // 2 else -1)
            place = ((0, x * ONE), (20, (x + end) // 2 * ONE), (39, end * ONE))
        middle = ((0, (HEIGHT if upright else WIDTH) // 2 * ONE),)
        self.front.append(
            Actor(
                look=Look(outline, texture, texels_per_radius=190, shaded=False),
                label=0,
                x=place if upright else middle,
                y=middle if upright else place,
                radius=((0, 190 * ONE),),
                angle=((0, 0 if upright else TURN // 4),),
                tint=(((0, 0),),) * 3,
                in_world=not moving,
            )
        )


def _crossing(d: _Director) -> None:
    """Three objects that pass in front of each other, twice."""
    starts = [(32, d.pick(35, 125)), (208, d.pick(35, 125)), (d.pick(95, 145), d.pick(24, 34))]
    ends = [(208, d.pick(35, 125)), (32, d.pick(35, 125)), (d.pick(95, 145), d.pick(124, 136))]
    for start, end in zip(starts, ends, strict=True):
        first, second = d.pick(9, 13), d.pick(29, 33)
        path = [(0, *start), (first, d.pick(105, 135), d.pick(65, 95)), (d.pick(20, 23), *end)]
        d.actor(d.look(), path + [(second, d.pick(105, 135), d.pick(65, 95)), (39, *start)], label=True)


def _twins(d: _Director) -> None:
    """Two objects that look alike, a third twin without a label, and one other object."""
    look = d.look()
    places = d.starts(4)
    size = d.pick(22, 29)
    for place in places[:2]:
        d.actor(look, d.stroll(place), label=True, radius=size, drift=12)
    d.actor(d.look(), d.stroll(places[2]), label=True)
    if d.wants():
        d.actor(look, d.stroll(places[3]), label=False, radius=size, drift=12)


def _behind_the_wall(d: _Director) -> None:
    """Objects that walk behind a wall and a pillar while the camera pans."""
    for index, (x, y) in enumerate([(28, 40), (30, 118), (212, 84)]):
        side = 1 if x < 120 else -1
        far, y = 120 + side * d.pick(78, 98), y + d.pick(-8, 8)
        turn, stop = d.pick(18, 24) - 2 * index, d.pick(36, 39)
        d.actor(d.look(), [(0, x, y), (turn, far, y + d.pick(-18, 18)), (stop, x, d.pick(35, 125))], label=True)
    if d.wants():
        d.bar(d.pick(112, 142), d.pick(40, 58))
    if d.wants():
        d.bar(d.pick(72, 84), d.pick(9, 16))
    if d.wants():
        d.bar(d.pick(60, 100), d.pick(6, 12), upright=False)


def _leave_and_return(d: _Director) -> None:
    """Objects that leave the picture and come back, partly elsewhere; a stranger enters meanwhile."""
    exits = [lambda y: (-45, y), lambda y: (285, y), lambda y: (d.pick(40, 200), -42), lambda y: (d.pick(40, 200), 202)]
    for index, (x, y) in enumerate(d.starts(3)):
        if index < 2 and d.wants():
            gone = d.pick(9, 15) + 7 * index
            out = exits[d.pick(0, 3)](d.pick(30, 130))
            back = out if d.pick(0, 1) else exits[d.pick(0, 3)](d.pick(30, 130))
            path = [(0, x, y), (gone, *out), (gone + d.pick(4, 7), *back), (39, *d.anywhere())]
            path.insert(3, (gone + 13, *d.anywhere()))
            d.actor(d.look(), path, label=True)
        else:
            d.actor(d.look(), d.stroll((x, y)), label=True)
    if d.wants():
        d.actor(d.look(), [(0, 300, 80), (14, 290, 60), (25, *d.anywhere()), (39, -40, 90)], label=False)


def _zoom(d: _Director) -> None:
    """Objects that come close and go far away while they turn; the light changes."""
    for x, y in d.starts(2):
        near, far = d.pick(44, 58), d.pick(16, 20)
        sizes = [(0, far), (d.pick(16, 20), near), (39, far)] if d.pick(0, 1) else [(0, 28), (20, far), (39, near)]
        d.actor(d.look(), d.stroll((x, y), every=20), label=True, radius=sizes, spin=330)
    if d.wants():
        d.actor(d.look(), d.stroll(d.anywhere(), every=20), label=False)


def _crowd(d: _Director) -> None:
    """Four objects among strangers."""
    places = d.starts(8)
    for index, place in enumerate(places):
        if index < 4 or d.wants():
            d.actor(d.look(), d.stroll(place), label=index < 4, radius=d.pick(17, 23))


def _chameleon(d: _Director) -> None:
    """Objects whose colours and outlines change for good; a stranger wears what one of them wore at the start."""
    places = d.starts(4)
    looks = [d.look() for _ in range(3)]
    for look, place in zip(looks, places[:3], strict=True):
        d.actor(look, d.stroll(place, every=20), label=True, drift=130 if d.wants() else 40, radius=d.pick(23, 31))
    if d.wants():
        d.actor(looks[0], d.stroll(places[3], every=20), label=False, radius=d.pick(22, 28))


def _fast(d: _Director) -> None:
    """Small objects that dart about, behind a moving pole."""
    for place in d.starts(3):
        d.actor(d.look(), d.stroll(place, every=d.pick(6, 8)), label=True, radius=d.pick(19, 25), spin=330)
    if d.wants():
        d.bar(d.pick(20, 200), d.pick(10, 22), moving=True)


KINDS: dict[str, Callable[[_Director], None]] = {
    "crossing": _crossing,
    "twins": _twins,
    "behind-the-wall": _behind_the_wall,
    "leave-and-return": _leave_and_return,
    "zoom": _zoom,
    "crowd": _crowd,
    "chameleon": _chameleon,
    "fast": _fast,
}


def make_scene(kind: str, seed: int, *, difficulty: int = 100) -> Scene:
    """Invent a scene of a kind (a key of `KINDS`) from a seed >= 0.

    `difficulty`, 0 to 100, is the chance in percent of each complication (occluders, twins, strangers, exits).
    """
    rng = np.random.default_rng((seed, list(KINDS).index(kind)))
    director = _Director(rng, difficulty)
    KINDS[kind](director)
    if director.wants() and director.pick(0, 3) == 0:
        director.bar(director.pick(10, 230), director.pick(14, 50), moving=bool(director.pick(0, 1)))
    pan = 30 if director.wants() else 4
    light = 256 + director.pick(-70, 50)
    return Scene(
        seed=seed,
        background=director.background,
        actors=tuple(director.back + director.objects + director.front),
        pan_x=((0, 0), (20, director.pick(-pan, pan) * ONE), (39, director.pick(-pan, pan) * ONE)),
        pan_y=((0, 0), (20, director.pick(-pan, pan) * ONE // 3), (39, director.pick(-pan, pan) * ONE // 3)),
        light=tuple(((0, 256), (24, light + director.pick(-14, 14)), (39, 256)) for _ in range(3)),
    )


def render_clip(
    seed: int,
    *,
    kind: str | None = None,
    frames: int = FRAMES,
    width: int = WIDTH,
    height: int = HEIGHT,
    start: int = 0,
    stride: int = 1,
    difficulty: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """A clip drawn from a seed >= 0.

    Args:
        kind: a key of `KINDS`; by default the seed chooses one.
        frames: number of frames, at most 40.
        width, height: size in pixels.
        start, stride: the clip shows frames start, start + stride, ... of the scene.
        difficulty: 0 to 100, see `make_scene`.

    Returns:
        RGB frames uint8 [T, H, W, 3] and label maps uint8 [T, H, W]. Objects are numbered from 1.
    """
    if kind is None:
        kind = list(KINDS)[seed % len(KINDS)]
    scene = make_scene(kind, seed, difficulty=difficulty)
    return render(scene, [start + stride * i for i in range(frames)], width, height)


# --- the dataset -------------------------------------------------------------------------------------------------

DEMO_SEEDS = {kind: 3 for kind in KINDS}
"""The videos of the demo dataset: name (also the kind of scene) and seed."""


def write_demo_dataset(folder: str | Path) -> None:
    """Write the demo dataset to `folder`, in the layout of DAVIS 2017; what was there before is replaced.

    The files appear at once or not at all (written aside, then renamed).

    Raises:
        VosflowError: the folder cannot be written.
    """
    folder = Path(folder)
    aside, old = (folder.with_name(f".{folder.name}.{state}") for state in ("writing", "old"))
    try:
        shutil.rmtree(aside, ignore_errors=True)  # left by a killed job
        for video, seed in DEMO_SEEDS.items():
            _write_video(aside, video, *render_clip(seed, kind=video))
        video_list = aside / "ImageSets/2017/val.txt"
        video_list.parent.mkdir(parents=True)
        video_list.write_text("".join(f"{video}\n" for video in DEMO_SEEDS), encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(aside, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise VosflowError(
            f"the demo dataset cannot be written ({error})",
            path=folder,
            expected="a writable place with 10 MB to spare",
            remedy="free space, check permissions, or name another folder",
        ) from error


def _write_video(root: Path, video: str, frames: np.ndarray, label_maps: np.ndarray) -> None:
    images, annotations = root / "JPEGImages/480p" / video, root / "Annotations/480p" / video
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for index, (frame, label_map) in enumerate(zip(frames, label_maps, strict=True)):
        # Without chroma subsampling, decoders have no freedom left: all give the same pixels.
        Image.fromarray(frame).save(images / f"{index:05d}.jpg", quality=JPEG_QUALITY, subsampling=0)
        picture = Image.fromarray(label_map)
        picture.putpalette(DAVIS_PALETTE)
        picture.save(annotations / f"{index:05d}.png")
