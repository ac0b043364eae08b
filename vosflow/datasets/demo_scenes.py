"""The kinds of scenes of the demo: each tests one difficulty of video object segmentation.

Actors are labelled objects, unlabelled distractors (some look exactly like an object) and foreground occluders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vosflow.datasets.demo_drawing import FRAMES, HEIGHT, ONE, TURN, WIDTH, Actor, Look, Scene
from vosflow.datasets.demo_materials import between, make_background, make_look, make_texture, pick_colour


class _Director:
    """Collects the actors of one scene; the methods are the vocabulary in which the kinds of scenes are written."""

    def __init__(self, rng: np.random.Generator, difficulty: int) -> None:
        self.rng = rng
        self.difficulty = difficulty
        self.background, self.colours = make_background(rng)
        self.back: list[Actor] = []
        self.objects: list[Actor] = []
        self.front: list[Actor] = []

    def pick(self, low: int, high: int) -> int:
        return between(self.rng, low, high)

    def wants(self) -> bool:
        """Whether to include a complication: always at difficulty 100, never at 0."""
        return int(self.rng.integers(0, 100)) < self.difficulty

    def look(self) -> Look:
        return make_look(self.rng, self.colours)

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
        colours = pick_colour(self.rng, 30, 225), pick_colour(self.rng, 30, 225)
        texture = make_texture(self.rng, *colours, self.pick(5, 9))
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
