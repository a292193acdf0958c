"""Series as pictures: SVG with what was known, what came, what was forecast and how sure it was."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokenmix.pages.charts import Scale
from tokenmix.pages.page import render

TEMPLATES = Path(__file__).with_name("templates")
WIDTH, HEIGHT = 760, 230  # pixels of a panel
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 26, 24  # of them outside of the axes
NAMES = {"past": "known", "truth": "what came", "found": "forecast", "season": "the season before"}


@dataclass(frozen=True)
class Panel:
    """One variable.

    Attributes:
        title: Its name.
        lines: Values by the names of `NAMES`.
        starts: The place of each line's first value on the time axis, in steps.
        band: Lower and upper values around the forecast.
        marks: Places on the time axis with their texts.
    """

    title: str
    lines: dict[str, Sequence[float]]
    starts: dict[str, int]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    marks: Sequence[tuple[int, str]] = field(default_factory=list)


def chart(panels: Sequence[Panel], label: str, note: str = "") -> Markup:
    """The panels one below the other, as an SVG picture that stands alone or in a page.

    Args:
        panels: At least one.
        label: What it is, for who cannot see it.
        note: A line of text below.
    """
    drawn = [_drawn(panel, HEIGHT * place) for place, panel in enumerate(panels)]
    names = [name for name in NAMES if any(name in panel.lines for panel in panels)]
    height = HEIGHT * len(panels) + 28 + (18 if note else 0)
    words = {"label": label, "note": note, "legend": [(name, NAMES[name]) for name in names]}
    size = {"width": WIDTH, "height": height, "foot": HEIGHT * len(panels)}
    return render(TEMPLATES / "series.svg", panels=drawn, **size, **words)


def window_chart(past: Sequence[float], found: Sequence[float], truth: Sequence[float], label: str) -> Markup:
    """One window: its past, its future, and the forecast."""
    starts = {"past": 0, "truth": len(past), "found": len(past)}
    lines = {"past": past, "truth": truth, "found": found}
    marks = [(0, f"-{len(past)}"), (len(past), "0"), (len(past) + len(found) - 1, f"+{len(found)}")]
    return chart([Panel(label, lines, starts, marks=marks)], label)


def _drawn(panel: Panel, top: float) -> dict[str, Any]:
    band = panel.band or ((), ())
    values = [*itertools.chain(*panel.lines.values()), *band[0], *band[1]]
    last = max(panel.starts[name] + len(line) - 1 for name, line in panel.lines.items())
    x = Scale(0, max(last, 1), LEFT, WIDTH - RIGHT)
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    y = Scale(low - air, high + air, top + HEIGHT - BOTTOM, top + TOP)
    paths = []
    for name, line in panel.lines.items():
        start = panel.starts[name]
        joined = panel.lines.get("past") if name in ("truth", "found") else None
        points = [(start + step, value) for step, value in enumerate(line)]
        if joined:  # from the last known value on, so that the lines meet
            points.insert(0, (start - 1, joined[-1]))
        paths.append((name, " ".join(f"{x(at)},{y(value)}" for at, value in points)))
    area = ""
    if panel.band is not None:
        start = panel.starts["found"]
        upper = [(start + step, value) for step, value in enumerate(band[1])]
        lower = [(start + step, value) for step, value in enumerate(band[0])]
        area = " ".join(f"{x(at)},{y(value)}" for at, value in [*upper, *reversed(lower)])
    return {
        "title": panel.title,
        "top": top + 15,
        "box": (LEFT, top + TOP, WIDTH - RIGHT, top + HEIGHT - BOTTOM),
        "rows": [(y(value), text) for value, text in y.ticks(4)],
        "marks": [(x(at), text) for at, text in panel.marks],
        "paths": paths,
        "area": area,
    }
