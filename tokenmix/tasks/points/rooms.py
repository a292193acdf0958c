"""The embedded data set: rooms that are computed, not scanned, each a function of (seed, index).

Everything in them is made up: floors, walls and furniture of boxes, cylinders and balls, in colours that several kinds
of furniture share. What a scanner would do to them is imitated: it stands at two or three places, sees nothing behind
what it sees, sees far and slanting surfaces thinly, and measures with noise. They show that a network learns shapes;
what it would reach on scanned rooms they do not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tokenmix.data.random_numbers import uniforms
from tokenmix.tasks.points.augment import rotation
from tokenmix.tasks.points.cloud import Cloud, make_cloud

CLASSES = ("floor", "wall", "table", "chair", "sofa", "bookcase", "lamp", "clutter")
VOXEL = 0.06  # metres, of the embedded recipes
DENSITY = 500  # points per square metre, before the scanner's eyes
_WOOD = ((150, 100, 60), (190, 145, 95), (95, 65, 45), (215, 205, 190), (70, 70, 75))
_CLOTH = ((120, 60, 60), (60, 85, 120), (95, 110, 85), (140, 135, 130), (75, 70, 95))
_THINGS = ((200, 60, 50), (60, 140, 190), (225, 190, 70), (90, 160, 90), (235, 235, 230))
_SURFACES = ((225, 222, 215), (200, 205, 210), (215, 205, 190), (170, 150, 130), (140, 140, 145))
_BIN = math.radians(0.8)  # of the scanner's picture
_BEHIND = 0.06  # metres that a point may lie behind the nearest in its direction and still be seen

Array = NDArray[np.float64]


class Dice:
    """Draws one after the other, each a function of the keys and of how many came before."""

    def __init__(self, *keys: int) -> None:
        self.keys, self.thrown = keys, 0

    def many(self, rows: int, columns: int = 1) -> Array:
        """(rows, columns) from 0 to 1."""
        self.thrown += 1
        return uniforms(columns, *self.keys, self.thrown, np.arange(rows))

    def between(self, low: float, high: float) -> float:
        """A number from ``low`` to ``high``."""
        return low + (high - low) * float(self.many(1)[0, 0])

    def choice(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        return int(self.between(0, count))

    def normals(self, rows: int, columns: int) -> Array:
        """(rows, columns), standard normal."""
        return torch.special.ndtri(torch.from_numpy(self.many(rows, columns)).clamp(1e-12, 1 - 1e-12)).numpy()


@dataclass
class Solid:
    """A box, a cylinder that stands, or a ball.

    Attributes:
        kind: ``"box"``, ``"cylinder"`` or ``"ball"``.
        centre: Its middle, in metres.
        size: Of a box its sides, of the others (diameter, diameter, height).
    """

    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]

    def area(self) -> float:
        """Square metres of its surface."""
        a, b, c = self.size
        if self.kind == "box":
            return 2 * (a * b + b * c + c * a)
        return math.pi * a * a if self.kind == "ball" else math.pi * a * (c + a / 2)

    def sample(self, dice: Dice) -> tuple[Array, Array]:
        """Points on its surface (P, 3), and their normals."""
        count = max(int(DENSITY * self.area()), 8)
        u, v, w = dice.many(count, 3).T
        size = np.array(self.size)
        if self.kind == "box":
            areas = np.array([size[1] * size[2], size[2] * size[0], size[0] * size[1]])
            axis = np.searchsorted(np.cumsum(areas) / areas.sum(), u)
            side = np.where(w * 2 % 1 < 0.5, -1.0, 1.0)
            place, normal, rows = np.empty((count, 3)), np.zeros((count, 3)), np.arange(count)
            # Two coordinates lie on the face, the third at its distance from the middle.
            place[rows, (axis + 1) % 3], place[rows, (axis + 2) % 3] = v - 0.5, w * 4 % 1 - 0.5
            place[rows, axis] = side / 2
            normal[rows, axis] = side
            return place * size + self.centre, normal
        angle = 2 * math.pi * u
        if self.kind == "ball":
            height = 2 * v - 1
            ring = np.sqrt(1 - height**2)
            normal = np.stack((ring * np.cos(angle), ring * np.sin(angle), height), 1)
            return normal * size / 2 + self.centre, normal
        cap = w < size[0] / 2 / (size[2] + size[0] / 2)  # the share of top and bottom in the area
        radius, top = np.where(cap, np.sqrt(v), 1.0), np.where(w * 1e4 % 1 < 0.5, -1.0, 1.0)
        around = np.stack((np.cos(angle), np.sin(angle)), 1)
        place = np.concatenate((around * radius[:, None] / 2, np.where(cap, top / 2, v - 0.5)[:, None]), 1)
        normal = np.where(cap[:, None], np.stack((0 * u, 0 * u, top), 1), np.pad(around, ((0, 0), (0, 1))))
        return place * size + self.centre, normal


@dataclass
class Thing:
    """A piece of furniture: its solids about the origin, its label, colour and the sides of its footprint."""

    label: str
    solids: list[Solid]
    color: tuple[int, int, int]
    foot: tuple[float, float]


def _box(x: float, y: float, z: float, a: float, b: float, c: float) -> Solid:
    """A box by the middle of its bottom and its sides."""
    return Solid("box", (x, y, z + c / 2), (a, b, c))


def _post(x: float, y: float, z: float, diameter: float, height: float) -> Solid:
    return Solid("cylinder", (x, y, z + height / 2), (diameter, diameter, height))


def _legs(a: float, b: float, height: float, thick: float) -> list[Solid]:
    corners = [(sx * (a - thick) / 2, sy * (b - thick) / 2) for sx in (-1, 1) for sy in (-1, 1)]
    return [_box(x, y, 0, thick, thick, height) for x, y in corners]


def table(dice: Dice) -> Thing:
    """With four legs or one pillar; a low one in three."""
    a, b = dice.between(0.8, 1.6), dice.between(0.6, 0.9)
    height = dice.between(0.36, 0.46) if dice.choice(3) == 0 else dice.between(0.68, 0.78)
    solids = [_box(0, 0, height, a, b, 0.04)]
    if dice.choice(3) == 0:
        solids += [_post(0, 0, 0, 0.12, height), _post(0, 0, 0, 0.5, 0.03)]
    else:
        solids += _legs(a, b, height, 0.06)
    return Thing("table", solids, _WOOD[dice.choice(5)], (a, b))


def chair(dice: Dice) -> Thing:
    """With four legs or on a pillar, with arms or without."""
    side, seat = dice.between(0.4, 0.5), dice.between(0.42, 0.5)
    back = _box(0, -side / 2 + 0.03, seat + 0.1, side, 0.05, dice.between(0.3, 0.5))
    solids = [_box(0, 0, seat, side, side, 0.06), back]
    if dice.choice(2):
        solids += _legs(side, side, seat, 0.04)
    else:
        solids += [_post(0, 0, 0.05, 0.07, seat - 0.05), _post(0, 0, 0, 0.5, 0.05)]
    if dice.choice(3) == 0:
        solids += [_box(sx * side / 2, 0, seat + 0.2, 0.05, side * 0.8, 0.04) for sx in (-1, 1)]
    return Thing("chair", solids, (*_WOOD, *_CLOTH)[dice.choice(10)], (side, side))


def sofa(dice: Dice) -> Thing:
    """With arms, and cushions that lie on it."""
    a, b, seat = dice.between(1.3, 2.1), dice.between(0.8, 0.95), dice.between(0.38, 0.46)
    solids = [_box(0, 0, 0.06, a, b, seat - 0.06), _box(0, -b / 2 + 0.1, seat, a, 0.2, dice.between(0.3, 0.45))]
    solids += [_box(sx * (a / 2 - 0.09), 0, seat, 0.18, b, 0.2) for sx in (-1, 1)]
    return Thing("sofa", solids, _CLOTH[dice.choice(5)], (a, b))


def bookcase(dice: Dice) -> Thing:
    """Boards, a back, and books."""
    a, b, height = dice.between(0.6, 1.2), dice.between(0.26, 0.36), dice.between(1.3, 2.0)
    boards = 4 + dice.choice(3)
    solids = [_box(0, -b / 2 + 0.01, 0, a, 0.02, height)]
    solids += [_box(sx * (a / 2 - 0.01), 0, 0, 0.03, b, height) for sx in (-1, 1)]
    for board in range(boards):
        z = board * height / (boards - 1)
        solids.append(_box(0, 0, min(z, height - 0.03), a, b, 0.03))
        if board < boards - 1:
            width = dice.between(0.2, 0.9) * a
            solids.append(_box(dice.between(-1, 1) * (a - width) / 2, -0.03, z + 0.03, width, 0.18, 0.22))
    return Thing("bookcase", solids, _WOOD[dice.choice(5)], (a, b))


def lamp(dice: Dice) -> Thing:
    """A foot, a pole and a shade."""
    height, shade = dice.between(1.3, 1.7), dice.between(0.3, 0.45)
    solids = [_post(0, 0, 0, 0.3, 0.03), _post(0, 0, 0, 0.04, height), _post(0, 0, height - 0.1, shade, 0.28)]
    return Thing("lamp", solids, (*_WOOD, *_THINGS)[dice.choice(10)], (shade, shade))


def clutter(dice: Dice, size: float) -> Thing:
    """A box, a can or a ball."""
    a, b, c = (dice.between(0.4, 1.0) * size for _ in range(3))
    kind = ("box", "cylinder", "ball")[dice.choice(3)]
    sides = (a, b, c) if kind == "box" else (a, a, c) if kind == "cylinder" else (a, a, a)
    return Thing("clutter", [Solid(kind, (0.0, 0.0, sides[2] / 2), sides)], _THINGS[dice.choice(5)], (a, b))


MAKERS = {"table": table, "chair": chair, "sofa": sofa, "bookcase": bookcase, "lamp": lamp}


@dataclass
class _Parts:
    """The surfaces of a room, before it is looked at."""

    coord: list[Array]
    normal: list[Array]
    color: list[Array]
    label: list[NDArray[np.int64]]

    def add(self, thing: Thing, dice: Dice, turn: float, at: tuple[float, float, float]) -> None:
        matrix = rotation(2, turn)
        for solid in thing.solids:
            place, normal = solid.sample(dice)
            self.coord.append(place @ matrix.T + at)
            self.normal.append(normal @ matrix.T)
            tint = np.array(thing.color) * dice.between(0.9, 1.1)
            self.color.append(np.tile(tint, (len(place), 1)))
            self.label.append(np.full(len(place), CLASSES.index(thing.label)))


def room(seed: int, index: int) -> Cloud:
    """A room of 3 to 5 m with its furniture, seen from two or three places: some 25,000 points with their classes.

    Args:
        seed: Of the set.
        index: Of the room.

    Examples:
        >>> room(0, 0).coord.shape[1]
        3
    """
    dice = Dice(seed, index)
    a, b, height = dice.between(3.0, 4.8), dice.between(3.0, 4.8), dice.between(2.3, 2.7)
    parts = _Parts([], [], [], [])
    _shell(parts, dice, a, b, height)
    taken: list[tuple[float, float, float]] = []  # x, y, radius
    wanted = ["table", "chair", "chair", "sofa", "bookcase", "lamp"]
    wanted += [("chair", "bookcase", "table", "lamp", "sofa")[dice.choice(5)] for _ in range(dice.choice(3))]
    for label in wanted:
        thing = MAKERS[label](dice)
        spot = _spot(dice, thing, a, b, taken, against_wall=label in ("sofa", "bookcase"))
        if spot is None:
            continue
        x, y, turn = spot
        parts.add(thing, dice, turn, (x, y, 0.0))
        if label == "table":
            top = max(solid.centre[2] + solid.size[2] / 2 for solid in thing.solids)
            for _ in range(dice.choice(4)):
                dx, dy = dice.between(-0.35, 0.35) * thing.foot[0], dice.between(-0.35, 0.35) * thing.foot[1]
                dx, dy = (rotation(2, turn) @ (dx, dy, 0))[:2]
                parts.add(clutter(dice, 0.3), dice, dice.between(0, 6.28), (x + dx, y + dy, top))
    for _ in range(2 + dice.choice(3)):
        thing = clutter(dice, 0.5)
        spot = _spot(dice, thing, a, b, taken, against_wall=False)
        if spot is not None:
            parts.add(thing, dice, spot[2], (spot[0], spot[1], 0.0))
    return _scanned(parts, dice, a, b, taken, f"room {index}")


def _shell(parts: _Parts, dice: Dice, a: float, b: float, height: float) -> None:
    """The floor, and walls of which windows are missing."""
    floor = Thing("floor", [_box(0, 0, -0.02, a, b, 0.02)], _SURFACES[dice.choice(5)], (a, b))
    parts.add(floor, dice, 0.0, (0.0, 0.0, 0.0))
    paint = _SURFACES[dice.choice(5)]
    for side in range(4):
        along, away = (a, b) if side % 2 == 0 else (b, a)
        wall = Thing("wall", [_box(0, 0, 0, along, 0.02, height)], paint, (along, 0.02))
        turn = side * math.pi / 2
        x, y, _ = rotation(2, turn) @ (0, away / 2 + 0.01, 0)
        parts.add(wall, dice, turn, (x, y, 0.0))
        if dice.choice(2):
            middle, half = dice.between(-0.25, 0.25) * along, dice.between(0.3, 0.7)
            low, high = dice.between(0.0, 1.0), dice.between(1.7, 2.1)
            local = (parts.coord[-1] - (x, y, 0)) @ rotation(2, turn)
            hole = (np.abs(local[:, 0] - middle) < half) & (local[:, 2] > low) & (local[:, 2] < high)
            for columns in (parts.coord, parts.normal, parts.color, parts.label):
                columns[-1] = columns[-1][~hole]  # type: ignore[assignment]


def _spot(
    dice: Dice, thing: Thing, a: float, b: float, taken: list[tuple[float, float, float]], *, against_wall: bool
) -> tuple[float, float, float] | None:
    """Where a thing stands free, and how it is turned; None where no room was found."""
    radius = math.hypot(*thing.foot) / 2 * 0.85
    for _ in range(30):
        if against_wall:
            side = dice.choice(4)
            along, away = (a, b) if side % 2 == 0 else (b, a)
            turn = side * math.pi / 2 + math.pi  # its back, at negative y, to the wall
            reach = max(along / 2 - thing.foot[0] / 2 - 0.05, 0.0)
            place = (dice.between(-reach, reach), away / 2 - thing.foot[1] / 2 - dice.between(0.02, 0.08), 0.0)
            x, y, _ = rotation(2, side * math.pi / 2) @ place
        else:
            reach_x, reach_y = a / 2 - radius - 0.1, b / 2 - radius - 0.1
            x, y = dice.between(-reach_x, reach_x), dice.between(-reach_y, reach_y)
            turn = dice.choice(4) * math.pi / 2 + dice.between(-0.3, 0.3)
        if all(math.hypot(x - u, y - v) > radius + other for u, v, other in taken):
            taken.append((x, y, radius))
            return x, y, turn
    return None


def _scanned(
    parts: _Parts, dice: Dice, a: float, b: float, taken: Sequence[tuple[float, float, float]], name: str
) -> Cloud:
    """What two or three scanners see of the surfaces, with noise in place and colour."""
    coord, normal, color = (np.concatenate(part) for part in (parts.coord, parts.normal, parts.color))
    label = np.concatenate(parts.label)
    seen, noisy = np.zeros(len(coord), bool), coord.copy()
    for _ in range(2 + dice.choice(2)):
        for _ in range(20):
            x, y = dice.between(-0.4, 0.4) * a, dice.between(-0.4, 0.4) * b
            if all(math.hypot(x - u, y - v) > radius for u, v, radius in taken):
                break
        eye = np.array([x, y, dice.between(1.3, 1.7)])
        ray = coord - eye
        distance = np.linalg.norm(ray, axis=1)
        ray /= distance[:, None]
        front = -(ray * normal).sum(1)
        azimuth = ((np.arctan2(ray[:, 1], ray[:, 0]) + math.pi) / _BIN).astype(int)
        picture = azimuth * 512 + ((np.arcsin(ray[:, 2].clip(-1, 1)) + math.pi / 2) / _BIN).astype(int)
        nearest = np.full(picture.max() + 1, np.inf)
        facing = front > 0
        np.minimum.at(nearest, picture[facing], distance[facing])
        chance = (2.5 * front / distance).clip(0, 1)  # far and slanting surfaces are seen thinly
        here = facing & (distance < nearest[picture] + _BEHIND) & (dice.many(len(coord))[:, 0] < chance)
        new = here & ~seen
        noisy[new] += ray[new] * dice.normals(int(new.sum()), 1) * (0.004 + 0.001 * distance[new, None])
        seen |= here
    sun = np.array([0.3, 0.5, 0.8]) / np.linalg.norm([0.3, 0.5, 0.8])
    light = dice.between(0.75, 1.1) * (0.7 + 0.3 * (normal @ sun).clip(0))
    color = color * light[:, None] + 8 * dice.normals(len(color), 3)
    bent = normal + 0.1 * dice.normals(len(normal), 3)
    return make_cloud(noisy[seen], color[seen].clip(0, 255), bent[seen], segment=label[seen], name=name)
