"""Charts as SVG: values against a cost with the Pareto front, and curves over epochs.

Written here because no library draws them: those with keyboard and tooltips bring megabytes of script into each page or
load it from the network, those without are pictures, and none keeps labels apart.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import TEMPLATES, render

WIDE, NARROW = (880, 460), (360, 400)  # pixels of a scatter, on a screen and on a phone
_CHAR, _BOLD = 6.7, 7.6  # average pixels of a character at 12 px, to keep labels apart
_RADII = (10, 18, 28, 40, 54, 70)  # of the places tried for a label, nearest first, in pixels
_ANGLES = (0, 180, -90, 90, -35, 35, -145, 145)
_NOTES = {"log": " (log axis)", "error": " (axis logarithmic in the error)"}
Box = tuple[float, float, float, float]
Span = tuple[float, float]


# ------------------------------------------------------------------------------------------------------------- the axes


@dataclass(frozen=True)
class Scale:
    """A map from ``low..high`` to the pixels ``start..stop``.

    ``kind`` is "linear", "whole" (linear, ticks only at whole numbers), "log", or "error": percentages right,
    logarithmic in what is missing to 100 + ``floor``.
    """

    low: float
    high: float
    start: float
    stop: float
    kind: str = "linear"
    floor: float = 0.0

    def __call__(self, value: float) -> float:
        """The pixel of ``value``; what lies outside is put at the end."""
        low, high, at = (self._bend(v) for v in (self.low, self.high, min(max(value, self.low), self.high)))
        return round(self.start + (at - low) / (high - low) * (self.stop - self.start), 1)

    def _bend(self, value: float) -> float:
        if self.kind == "log":
            return math.log(value)
        if self.kind == "error":
            return -math.log(100 + self.floor - value)
        return value

    def ticks(self, wanted: int = 6) -> list[tuple[float, str]]:
        """Round values within the axis, and how they are written."""
        if self.kind in ("linear", "whole"):
            return _linear_ticks(self.low, self.high, wanted, whole=self.kind == "whole")
        if self.kind == "error":
            coarse, fine = [0.0, 50, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 100], [20.0, 70, 85, 92, 94, 96, 97, 98.5]
        else:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            coarse = [10.0**decade for decade in decades]
            fine = [step * value for step in (2, 5, 3, 7) for value in coarse]
        kept: list[float] = []
        for value, apart in [(value, 18) for value in coarse] + [(value, 26) for value in fine]:
            if self.low <= value <= self.high and all(abs(self(value) - self(other)) >= apart for other in kept):
                kept.append(value)
        if len(kept) < 3:
            return _linear_ticks(self.low, self.high, wanted)
        return [(value, f"{value:,.6g}") for value in sorted(kept)]


def _linear_ticks(low: float, high: float, wanted: int, *, whole: bool = False) -> list[tuple[float, str]]:
    rough = (high - low) / max(wanted, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * size for size in (1, 2, 2.5, 5, 10) if unit * size >= rough * 0.999)
    if whole:
        step = max(math.ceil(step), 1)
    digits = max(0, -math.floor(math.log10(step)) + (1 if f"{step / unit:.1f}" == "2.5" else 0))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [((first + place) * step, f"{(first + place) * step:,.{digits}f}") for place in range(count)]


def amount_scale(values: Sequence[float], start: float, stop: float) -> Scale:
    """An axis with some air at both ends; logarithmic for positive values that differ by more than five times."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 5:
        air = (high / low) ** 0.07
        return Scale(low / air, high * air, start, stop, "log")
    air = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return Scale(max(low - air, 0.0) if low >= 0 else low - air, high + air, start, stop)


def value_scale(
    values: Sequence[float], start: float, stop: float, weight: float | None = None, doubt: Sequence[float] = ()
) -> Scale:
    """An axis for values, of shares in percent logarithmic in what is missing to 100 where that differs by six times.

    Args:
        values: Those to show.
        start: The pixel of the lower end.
        stop: The pixel of the upper end.
        weight: For shares in percent: what one sample weighs; the axis never spans less than four of them.
        doubt: Further values to show, which do not decide the kind of axis.
    """
    if weight is None or min(values) < 0 or max(values) > 100:
        return amount_scale([*values, *doubt], start, stop)
    floor = weight / 2
    bent = (100 + floor - min(values)) / (100 + floor - max(values)) > 6
    low, high = min(*values, *doubt, 100.0), max(*values, *doubt, 0.0)
    if bent:
        low, high = max(low - 0.15 * (100 - low), 0.0), min(high + 0.2 * (100 - high), 100.0)
        return Scale(low, high, start, stop, "error", floor)
    air = max(0.12 * (high - low), 2 * weight, 0.05)
    return Scale(max(low - air, 0.0), min(high + air, 100 + floor), start, stop)


def _frame(x: Scale, y: Scale, box: Box, below: str, above: str, size: tuple[int, int]) -> dict[str, Any]:
    """What the template draws around a chart: ticks with their pixels, and the axes' titles."""
    left, _, right, _ = box
    return {
        "size": size,
        "box": box,
        "rows": [(y(value), text) for value, text in y.ticks(6)],
        "columns": [(x(value), text) for value, text in x.ticks(max(int((right - left) // 90), 3))],
        "below": below + _NOTES.get(x.kind, ""),
        "above": above + _NOTES.get(y.kind, ""),
    }


# ---------------------------------------------------------------------------------------------------------- the scatter


@dataclass(frozen=True)
class Point:
    """A point of a scatter.

    Attributes:
        cost: Its value to the right; less is better.
        value: Its value upwards.
        label: The text beside it, where there is room.
        told: The lines that are shown when it is pointed at.
        number: Decides its colour, and finds it again.
        front: Whether it is on the Pareto front.
        cost_range: The two ends of the cost's interval, or None.
        value_range: So of the value.
    """

    cost: float
    value: float
    label: str
    told: Sequence[str]
    number: int
    front: bool
    cost_range: Span | None = None
    value_range: Span | None = None


def scatter(
    points: Sequence[Point],
    *,
    costs: str,
    values: str,
    title: str,
    weight: float | None = None,
    lower_is_better: bool = False,
    band: tuple[str, Span] | None = None,
    size: tuple[int, int] = WIDE,
    kind: str = "",
    caption: str = "",
) -> Markup:
    """Values against costs with the Pareto front, as ``<svg>``.

    Args:
        points: At least one.
        costs: The title of the axis to the right, with its unit.
        values: So of the axis upwards.
        title: For those who hear the page.
        weight: For shares in percent: what one sample weighs.
        lower_is_better: Of the values.
        band: An interval of values to shade, with what it is.
        size: Width and height in pixels.
        kind: A class of the element.
        caption: Makes it the content of a file of its own, with a light background, under this text.
    """
    points = sorted(points, key=lambda point: (point.cost, point.value if lower_is_better else -point.value))
    width, height = size
    left, top, right, bottom = box = (52, 26, width - 16, height - 46)
    ends = [end for point in points if point.cost_range for end in point.cost_range]
    x = amount_scale([*(point.cost for point in points), *ends], left, right)
    reach = [end for point in points if point.value_range for end in point.value_range]
    reach = [min(max(end, 0.0), 100.0) if weight is not None else end for end in reach]
    y = value_scale([point.value for point in points], bottom, top, weight, [*(band[1] if band else ()), *reach])
    dots = [(x(point.cost), y(point.value)) for point in points]
    front = [dot for dot, point in zip(dots, points, strict=True) if point.front]
    obstacles = _steps(front, right)
    obstacles += [
        (x(point.cost_range[0]), up - 2, x(point.cost_range[1]), up + 2)
        for (_, up), point in zip(dots, points, strict=True)
        if point.cost_range
    ]
    shade: dict[str, Any] = {}
    if band:
        upper, lower = sorted(map(y, band[1]))
        shade = _band_note(band[0], (left, upper, right, lower), dots)
        obstacles.append(shade["box"])
    labels = [(*dot, point.label) for dot, point in zip(dots, points, strict=True)]
    places = place_labels(labels, (left, top - 20, right, bottom), obstacles, [point.front for point in points])
    frame = _frame(x, y, box, costs, values, size)
    shown: dict[str, Any] = {"title": title, "kind": kind, "caption": caption, "lower_is_better": lower_is_better}
    shown |= {"spots": list(zip(dots, points, places, strict=True)), "front": front, "shade": shade}
    return render("scatter.svg", x=x, y=y, frame=frame, **shown, **(_own_style() if caption else {}))


def _steps(front: Sequence[tuple[float, float]], right: float) -> list[Box]:
    """Where the line of the front runs: level from a point to the next one's cost, then to its value."""
    boxes: list[Box] = []
    for here, there in itertools.pairwise([*front, (right, front[-1][1])] if front else []):
        low, high = sorted((here[1], there[1]))
        boxes += [(here[0], here[1] - 2, there[0], here[1] + 2), (there[0] - 2, low, there[0] + 2, high)]
    return boxes


def both_sizes(points: Sequence[Point], **options: Any) -> Markup:
    """A scatter for a screen and one for a phone, of which a page shows the one that fits; see `scatter`."""
    drawn = (scatter(points, size=size, kind=kind, **options) for kind, size in (("wide", WIDE), ("narrow", NARROW)))
    return Markup("").join(drawn)


def _own_style() -> dict[str, Any]:
    """The style of a chart in a file of its own: the light palette, put in where the page's sheets refer to it."""
    sheets = [(TEMPLATES / name).read_text(encoding="utf-8") for name in ("palette.css", "charts.css")]
    palette = dict(re.findall(r"--([\w-]+):\s*([^;]+);", sheets[0].split("}")[0]))
    style = re.sub(r"var\(--([\w-]+)\)", lambda match: palette[match[1]], sheets[1])
    return {"style": Markup(style), "surface": palette["surface"]}


def short(text: str, limit: int = 24) -> str:
    """The text, cut where it is too long for a label."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


# ----------------------------------------------------------------------------------------------------------- the labels


@dataclass(frozen=True)
class Place:
    """Where a label stands: ``y`` is the text's base line, ``far`` asks for a line to the point."""

    x: float
    y: float
    anchor: str
    far: bool


def place_labels(
    points: Sequence[tuple[float, float, str]],
    box: Box,
    obstacles: Sequence[Box] = (),
    firm: Sequence[bool] | None = None,
) -> list[Place | None]:
    """A place beside each (x, y, label) point that keeps the labels off each other, the points and the obstacles.

    Those of ``firm`` points choose first; a label that could only stand on another one or outside gets no place.
    """
    dots = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    taken: dict[int, Box] = {}
    chosen: dict[int, Place] = {}
    bold = firm or [False] * len(points)
    order = sorted(range(len(points)), key=lambda index: not bold[index])
    farthest = (
        0.1 * (box[2] - box[0]) if len(points) > 15 else math.inf
    )  # many long lines would hide more than they tell
    radii = [radius for radius in _RADII if radius <= farthest]
    for _ in range(3):  # the first labels are placed again once the others are known
        for index in order:
            x, y, label = points[index]
            others = [*(other for number, other in taken.items() if number != index), *dots, *obstacles]
            cost = math.inf
            for rank, (radius, angle) in enumerate(itertools.product(radii, _ANGLES)):
                place, rectangle = _candidate(x, y, len(label) * (_BOLD if bold[index] else _CHAR), radius, angle)
                crowd = 8 * sum(_overlap(rectangle, other) for other in others) + 1e3 * _outside(rectangle, box)
                if rank + crowd < cost:
                    cost, chosen[index], taken[index] = rank + crowd, place, rectangle
                if not crowd:
                    break  # the places that follow are only further away
    for index in reversed(order):
        others = [other for number, other in taken.items() if number != index]
        if _outside(taken[index], box) or any(_overlap(taken[index], other) for other in others):
            del taken[index], chosen[index]
    return [chosen.get(index) for index in range(len(points))]


def _candidate(x: float, y: float, width: float, radius: float, angle: float) -> tuple[Place, Box]:
    dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
    middle = y + dy
    if dx > 1:
        anchor, left = "start", x + dx
    elif dx < -1:
        anchor, left = "end", x + dx - width
    else:
        anchor, left = "middle", x - width / 2
        middle += math.copysign(6, dy)  # a line's height more, to clear the dot
    at = left + {"start": 0.0, "end": width, "middle": width / 2}[anchor]
    place = Place(round(at, 1), round(middle + 4, 1), anchor, radius > 18)
    return place, (left, middle - 8, left + width, middle + 7)


def _band_note(text: str, band: Box, dots: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A band with the text that explains it, which stands in whichever of its corners is emptiest, in ``box``."""
    left, upper, right, lower = band
    long = len(text) * _CHAR
    corners: list[Box] = []
    for top in (upper + 3, lower - 19):
        corners += [(right - 6 - long, top, right - 6, top + 16), (left + 6, top, left + 6 + long, top + 16)]
    around = [(x - 9, y - 9, x + 9, y + 9) for x, y in dots]
    corner = min(corners, key=lambda box: sum(_overlap(box, dot) for dot in around))
    anchor, x = ("start", corner[0]) if corner[0] == left + 6 else ("end", corner[2])
    height = round(lower - upper, 1)
    return {"top": upper, "height": height, "text": text, "x": x, "y": corner[1] + 12, "anchor": anchor, "box": corner}


def _overlap(a: Box, b: Box) -> float:
    """The shared area in square pixels."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _outside(a: Box, box: Box) -> float:
    """By how many pixels a box leaves another."""
    return max(box[0] - a[0], 0) + max(a[2] - box[2], 0) + max(box[1] - a[1], 0) + max(a[3] - box[3], 0)


# ----------------------------------------------------------------------------------------------------------- the curves


@dataclass(frozen=True)
class Curves:
    """Values over epochs, or whatever else there is in order, to be drawn together.

    Attributes:
        name: What they are called in the page's data, where the tooltip finds them.
        title: What they are, with their unit.
        unit: Theirs, or nothing.
        lines: Each line's name with its points: (epoch, value); its place decides its colour.
        weight: For shares in percent: what one sample weighs.
        zero: For amounts: let the axis begin at 0.
        along: What the axis to the right counts.
        whole: Whether that has whole numbers only.
    """

    name: str
    title: str
    unit: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    weight: float | None = None
    zero: bool = False
    along: str = "epoch"
    whole: bool = True

    def shown(self) -> list[tuple[int, str]]:
        """The lines that have a value: place and name."""
        return [(number, name) for number, (name, points) in enumerate(self.lines) if points]

    def drawn(self, size: tuple[int, int] = (360, 300)) -> Markup:
        """Them as ``<svg>`` of that width and height in pixels; at least one line must have a value."""
        points = [point for _, line in self.lines for point in line]
        epochs, values = [epoch for epoch, _ in points], [value for _, value in points]
        right, top, bottom = size[0] - 12, 26, size[1] - 40
        y = value_scale([*values, 0.0] if self.zero else values, bottom, top, self.weight)
        left = max(46, round(14 + _CHAR * max(len(text) for _, text in y.ticks(6))))
        first, last = min(epochs), max(epochs)
        x = Scale(first, last if last > first else first + 1, left, right, "whole" if self.whole else "linear")
        frame = _frame(x, y, (left, top, right, bottom), self.along, self.title, size)
        paths = {n: [(x(epoch), y(value)) for epoch, value in self.lines[n][1]] for n, _ in self.shown()}
        return render("curves.svg", x=x, frame=frame, curves=self, paths=paths)


def curves_data(charts: Sequence[Curves]) -> dict[str, Any]:
    """What the tooltips of charts find in a page's data."""
    return {"curves": {one.name: {"unit": one.unit, "lines": dict(enumerate(one.lines))} for one in charts}}
