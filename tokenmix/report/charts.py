"""Charts as SVG: accuracy against latency with the Pareto front, and curves over epochs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tokenmix.report.findings import findings, pareto
from tokenmix.report.page import asset
from tokenmix.report.reading import Comparison, Row, read
from tokenmix.report.scales import Scale, cost_scale, percent_scale
from tokenmix.runtime_names import runtime_name

COLOURS = 7  # palette.css holds as many; the next mixers repeat them with other dashes
_CHAR = 6.7  # average pixels of a character at 12 px, to keep labels apart
_RADII = (10, 18, 28, 40, 54, 70)  # of the places tried for a label, nearest first, in pixels
_ANGLES = (0, 180, -90, 90, -35, 35, -145, 145)
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Spot:
    """A point of the scatter, in pixels, with its label and the text of its tooltip."""

    x: float
    y: float
    label: str
    tip: str
    index: int
    front: bool


def scatter(
    comparison: Comparison,
    runtime: str,
    batch: str,
    *,
    accuracy: str = "test top-1",
    colours: Mapping[str, int] | None = None,
    width: int = 880,
    height: int = 460,
) -> str:
    """The accuracy of each mixer against its latency in one runtime and batch, with the Pareto front, as ``<svg>``.

    ``colours`` are numbers by name; without them every mixer has its own.
    """
    rows = sorted(comparison.measured(runtime, batch), key=lambda row: (row.latency(runtime, batch), -(row.top1 or 0)))
    data = [(row.latency(runtime, batch) or 0.0, row.top1 or 0.0) for row in rows]
    marks = pareto(data)
    best = max(rows, key=lambda row: row.top1 or 0.0)
    spans = [row.latency_range(runtime, batch) for row in rows]
    weight = 100 / comparison.tested if comparison.tested else 0.05
    left, right, top, bottom = 52, width - 16, 26, height - 46
    x = cost_scale([time for time, _ in data] + [end for span in spans if span for end in span], left, right)
    doubt = list(best.interval) if best.interval else []
    y = percent_scale([value for _, value in data], bottom, top, weight=weight, doubt=doubt)
    title = f"{runtime_name(runtime)}, batch {batch}: {accuracy} against latency"
    parts = [_frame(x, y, left, right, top, bottom, f"latency at batch {batch}, ms", f"{accuracy}, %")]
    parts.append(f'<text class="note" x="{right}" y="14" text-anchor="end">↖ better</text>')
    spots = [
        Spot(
            x(time),
            y(value),
            _short(row.name, 24),
            _tip(row, comparison, runtime, batch, mark),
            row.index if colours is None else colours[row.name],
            mark,
        )
        for row, (time, value), mark in zip(rows, data, marks, strict=True)
    ]
    obstacles: list[_Box] = []
    if best.interval:
        upper, lower = y(min(best.interval[1], y.high)), y(best.interval[0])
        band = f'x="{left}" y="{upper:.1f}" width="{right - left}" height="{lower - upper:.1f}"'
        text, obstacle = _band_note(f"95 % interval of {_short(best.name, 18)}", (left, upper, right, lower), spots)
        parts += [f'<rect class="band" {band}/>', text]
        obstacles.append(obstacle)
    front = [spot for spot in spots if spot.front]
    parts.append(_front_line(front, right))
    for spot, after in zip(front, [*front[1:], Spot(right, front[-1].y, "", "", 0, True)], strict=True):
        obstacles += [(spot.x, spot.y - 2, after.x, spot.y + 2), (after.x - 2, after.y, after.x + 2, spot.y)]
    for spot, span, row in zip(spots, spans, rows, strict=True):
        parts.append(_whiskers(spot, span, row, x, y))
        if span:
            obstacles.append((x(span[0]), spot.y - 2, x(span[1]), spot.y + 2))
    parts += _labelled(spots, (left, top - 20, right, bottom), obstacles)
    said = f"{title}. Pareto front: " + ", ".join(spot.label for spot in spots if spot.front) + "."
    return _svg(width, height, said, "scatter", "".join(parts))


def _tip(row: Row, comparison: Comparison, runtime: str, batch: str, front: bool) -> str:
    lines = [row.name, f"top-1 {row.top1:.2f} %"]
    if row.interval:
        lines[-1] += f" (95 % interval {row.interval[0]:.1f} to {row.interval[1]:.1f})"
    if row.spread is not None:
        lines.append(f"± {row.spread:.2f} over seeds")
    time, span = row.latency(runtime, batch) or 0.0, row.latency_range(runtime, batch)
    lines.append(f"{time:.3g} ms" + (f" ({span[0]:.3g} to {span[1]:.3g})" if span else ""))
    if front:
        lines.append("on the Pareto front")
    return "\n".join(lines)


def _band_note(note: str, band: _Box, spots: Sequence[Spot]) -> tuple[str, _Box]:
    """The text that explains the band, in whichever of its corners is emptiest, and the text's place."""
    left, upper, right, lower = band
    long = len(note) * _CHAR
    corners: list[_Box] = []
    for top in (upper + 3, lower - 19):
        corners += [(right - 6 - long, top, right - 6, top + 16), (left + 6, top, left + 6 + long, top + 16)]
    dots = [(spot.x - 9, spot.y - 9, spot.x + 9, spot.y + 9) for spot in spots]
    corner = min(corners, key=lambda box: sum(_overlap(box, dot) for dot in dots))
    x, anchor = (corner[0], "start") if corner[0] == left + 6 else (corner[2], "end")
    text = f'<text class="note" x="{x:.1f}" y="{corner[1] + 12:.1f}" text-anchor="{anchor}">{escape(note)}</text>'
    return text, corner


def _front_line(front: list[Spot], right: float) -> str:
    """The best accuracy that each latency buys: level up to the next better mixer, then up to it."""
    if not front:
        return ""
    steps = f"M{front[0].x:.1f} {front[0].y:.1f}"
    for spot in front[1:]:
        steps += f"H{spot.x:.1f}V{spot.y:.1f}"
    return f'<path class="front" d="{steps}H{right}"/>'


def _whiskers(spot: Spot, span: tuple[float, float] | None, row: Row, x: Scale, y: Scale) -> str:
    lines = f"M{x(span[0]):.1f} {spot.y:.1f}H{x(span[1]):.1f}" if span else ""
    if row.spread:
        low, high = (row.top1 or 0.0) - row.spread, min((row.top1 or 0.0) + row.spread, y.high)
        lines += f"M{spot.x:.1f} {y(max(low, y.low)):.1f}V{y(high):.1f}"
    return f'<path class="whisker c{spot.index % COLOURS}" d="{lines}"/>' if lines else ""


def _labelled(spots: list[Spot], box: _Box, obstacles: list[_Box]) -> list[str]:
    parts = []
    places = place_labels([(spot.x, spot.y, spot.label) for spot in spots], box, obstacles)
    for spot, (x, y, anchor, far) in zip(spots, places, strict=True):
        leader = f'<path class="leader" d="M{spot.x:.1f} {spot.y:.1f}L{x:.1f} {y - 4:.1f}"/>' if far else ""
        kind = "point front" if spot.front else "point"
        parts.append(
            f'<g class="{kind} c{spot.index % COLOURS}" tabindex="0" role="img" data-mixer="{spot.index}" '
            f'data-tip="{escape(spot.tip)}" aria-label="{escape(spot.tip.replace(chr(10), ", "))}">{leader}'
            f'<circle class="target" cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="12"/>'
            f'<circle class="dot" cx="{spot.x:.1f}" cy="{spot.y:.1f}" r="5"/>'
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(spot.label)}</text></g>'
        )
    return parts


def place_labels(
    points: Sequence[tuple[float, float, str]], box: _Box, obstacles: Sequence[_Box] = ()
) -> list[tuple[float, float, str, bool]]:
    """A place beside each (x, y, label) point that keeps the labels off each other, the points and the obstacles.

    Returns:
        One (x, y, text-anchor, far) per point: ``y`` is the text's base line, ``far`` asks for a line to the point.
    """
    dots = [(x - 6, y - 6, x + 6, y + 6) for x, y, _ in points]
    taken: list[_Box | None] = [None] * len(points)
    chosen: list[tuple[float, float, str, bool]] = [(0.0, 0.0, "start", False)] * len(points)
    for _ in range(3):  # the first labels are placed again once the others are known
        for place, (x, y, label) in enumerate(points):
            others = [other for index, other in enumerate(taken) if other and index != place]
            others += [*dots, *obstacles]
            cost = math.inf
            for rank, (radius, angle) in enumerate(itertools.product(_RADII, _ANGLES)):
                spot, rectangle = _candidate(x, y, len(label) * _CHAR, radius, angle)
                crowd = 8 * sum(_overlap(rectangle, other) for other in others) + 50 * _outside(rectangle, box)
                if rank + crowd < cost:
                    cost, chosen[place], taken[place] = rank + crowd, spot, rectangle
                if not crowd:
                    break  # the places that follow are only further away
    return chosen


def _candidate(
    x: float, y: float, width: float, radius: float, angle: float
) -> tuple[tuple[float, float, str, bool], _Box]:
    dx, dy = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
    middle = y + dy
    if dx > 1:
        anchor, left = "start", x + dx
    elif dx < -1:
        anchor, left = "end", x + dx - width
    else:
        anchor, left = "middle", x - width / 2
        middle += math.copysign(6, dy)  # a line's height more, to clear the dot
    at = {"start": left, "end": left + width, "middle": left + width / 2}[anchor]
    return (at, middle + 4, anchor, radius > 18), (left, middle - 8, left + width, middle + 7)


def _overlap(a: _Box, b: _Box) -> float:
    """The shared area in square pixels."""
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0.0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)


def _outside(a: _Box, box: _Box) -> float:
    """By how many pixels a box leaves another."""
    return max(box[0] - a[0], 0) + max(a[2] - box[2], 0) + max(box[1] - a[1], 0) + max(a[3] - box[3], 0)


def curves(
    lines: Mapping[int, Sequence[tuple[float, float]]],
    title: str,
    *,
    series: str,
    percent_weight: float | None = None,
    zero: bool = False,
    width: int = 360,
    height: int = 300,
) -> str:
    """Values over epochs, one line or more, as ``<svg>``; nothing where there is no value.

    Args:
        lines: The (epoch, value) points of each line, by its number, which decides its colour: a mixer's place.
        title: What the values are, with their unit.
        series: The name of the values in the page's data, for the tooltip.
        percent_weight: For accuracies: what one image weighs in percent.
        zero: For amounts: let the axis begin at 0.
        width: Pixels.
        height: Pixels.
    """
    drawn = {index: points for index, points in lines.items() if points}
    if not drawn:
        return ""
    epochs = [epoch for points in drawn.values() for epoch, _ in points]
    values = [value for points in drawn.values() for _, value in points]
    right, top, bottom = width - 12, 26, height - 40
    if percent_weight is None:
        y = cost_scale([*values, 0.0] if zero else values, bottom, top)
    else:
        y = percent_scale(values, bottom, top, weight=percent_weight)
    left = max(46, round(14 + _CHAR * max(len(text) for _, text in y.ticks(6))))
    first, last = min(epochs), max(epochs)
    x = Scale(first, last if last > first else first + 1, left, right, "whole")
    parts = [_frame(x, y, left, right, top, bottom, "epoch", title)]
    parts.append(f'<path class="cursor" d="M0 {top}V{bottom}"/>')
    for index, points in drawn.items():
        kind = f"c{index % COLOURS} d{index // COLOURS % 3}"
        path = "M" + "L".join(f"{x(epoch):.1f} {y(value):.1f}" for epoch, value in points)
        if len(points) > 1:
            parts.append(f'<path class="curve {kind}" data-mixer="{index}" d="{path}"/>')
        else:
            dot = f'cx="{x(points[0][0]):.1f}" cy="{y(points[0][1]):.1f}" r="4"'
            parts.append(f'<circle class="curve {kind}" data-mixer="{index}" {dot}/>')
    extra = (
        f'data-series="{series}" data-first="{x.low:g}" data-last="{x.high:g}" data-left="{left}" data-right="{right}"'
    )
    return _svg(width, height, f"{title} over epochs", "curves", "".join(parts), extra + ' tabindex="0"')


def _frame(x: Scale, y: Scale, left: float, right: float, top: float, bottom: float, below: str, above: str) -> str:
    parts = []
    for value, text in y.ticks(6):
        parts.append(f'<path class="grid" d="M{left} {y(value):.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{text}</text>')
    for value, text in x.ticks(max(int((right - left) // 90), 3)):
        parts.append(f'<path class="axis" d="M{x(value):.1f} {bottom}v4"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>')
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
    notes = {"log": " (log axis)", "error": " (axis logarithmic in the error)"}
    below, above = below + notes.get(x.kind, ""), above + notes.get(y.kind, "")
    parts.append(f'<text class="title" x="{right}" y="{bottom + 36}" text-anchor="end">{escape(below)}</text>')
    parts.append(f'<text class="title" x="8" y="14">{escape(above)}</text>')
    return "".join(parts)


def _svg(width: int, height: int, said: str, kind: str, inner: str, extra: str = "") -> str:
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="group" aria-label="{escape(said)}" {extra}>{inner}</svg>'
    )


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def pareto_svg(
    results: Mapping[str, Any],
    *,
    runtime: str | None = None,
    batch: int | str | None = None,
    width: int = 880,
    height: int = 460,
) -> str:
    """Accuracy against latency as a standalone SVG file with its own light background, for a README.

    Args:
        results: What ``compare`` wrote to ``results.json``.
        runtime: One of the results' runtimes; None takes the fastest.
        batch: One of the results' batch sizes; None takes the smallest.
        width: Pixels.
        height: Pixels.

    Raises:
        ValueError: No mixer has both an accuracy and a latency there.
    """
    comparison = read(results)
    view = findings(comparison).view
    if view is None:
        raise ValueError("no mixer has both an accuracy and a latency: there is nothing to draw")
    view = (runtime or view[0], view[1] if batch is None else str(batch))
    if view not in comparison.views():
        known = "; ".join(f"{name} at batch {size}" for name, size in comparison.views())
        raise ValueError(f"nothing was measured with {view[0]} at batch {view[1]}. Measured: {known}")
    caption = (
        f"Test top-1 against latency in {runtime_name(view[0])}, batch {view[1]}. Line and filled dots: Pareto front"
    )
    return standalone(scatter(comparison, *view, width=width, height=height), caption, width, height)


def standalone(drawing: str, caption: str, width: int = 880, height: int = 460) -> str:
    """A chart of that size in pixels as an SVG file with its own light background, under a caption."""
    palette = dict(re.findall(r"--([\w-]+):\s*([^;]+);", asset("palette.css").split("}")[0]))
    style = re.sub(r"var\(--([\w-]+)\)", lambda match: palette[match[1]], asset("charts.css"))
    inner = drawing[drawing.index(">") + 1 : -len("</svg>")]
    inner = re.sub(r' tabindex="0"| data-\w+="[^"]*"', "", inner)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -44 {width + 32} {height + 56}" width="{width + 32}" '
        f'height="{height + 56}" class="chart" role="img" aria-label="{escape(caption)}"><style>{style}</style>'
        f'<rect x="-16" y="-44" width="{width + 32}" height="{height + 56}" rx="8" fill="{palette["surface"]}"/>'
        f'<text class="heading" x="8" y="-16">{escape(caption)}</text>{inner}</svg>\n'
    )
