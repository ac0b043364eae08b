"""Drawing the demo's scenes: a textured background seen by a panning camera, and actors from back to front.

Every property of an actor over time (position, radius, angle, colour) is a curve through keyframes. Everything is
integer arithmetic, so that the same scene gives the same pixels on every machine. Units: lengths are 1/256 of a world
pixel (the world is 240 x 160), angles are 1/1024 of a turn, gains are 1/256.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT, FRAMES = 240, 160, 40  # of the world, and of the videos of the dataset
ONE = 256  # one world pixel, and a gain of 1
TURN = 1024  # units of angle in a full turn
MARGIN = 48  # world pixels of background beyond each side of the picture, for the camera to pan over
TEXTURE = 96  # side of an actor's texture; its centre is the actor's centre

_SINE = [round(4096 * math.sin(2 * math.pi * i / TURN)) for i in range(TURN)]  # no value is near a rounding tie
SINES = np.array(_SINE, dtype=np.int64)

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
        wave = SINES[(wave + frame * actor.wobble_speed) % TURN]
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
