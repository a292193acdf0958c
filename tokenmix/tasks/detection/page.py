"""What pages show of detectors: the worst images, and AP and precision against recall of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import render
from tokenmix.pictures.fonts import numbered
from tokenmix.tasks.dense.page import Pictures, classes_section, worst_images
from tokenmix.tasks.section import Section

TEMPLATES = Path(__file__).with_name("templates")
CURVES = 30  # before the rest is folded away
PARTS = {"mask": "masks", "box": "boxes"}
COLUMNS = {f"{part}_{name}": f"{part} {name}, %" for part in PARTS for name in ("AP", "AP50", "AP75")}
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 206, 10, 130  # of a small chart's field, in pixels


def run_sections(run: Mapping[str, Any], pictures: Pictures) -> list[Section]:
    """The images with the lowest F1, and each class in numbers and curves.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `ObjectEvidence` gathered.
        pictures: See `worst_images`.
    """
    evidence = run["evidence"]
    there = evidence["hits"] + evidence["missed"]
    intro = (
        f"{evidence['hits']:,} of {there:,} objects in {evidence['images']:,} validation images are found, with "
        f"{evidence['false']:,} false detections, by the weights of epoch {run['best_epoch']}, which are the ones kept."
    )
    note = (
        "The images with the lowest F1 come first. Detections count and are drawn from a score of "
        f"{evidence['threshold']:.2f} on, where F1 over all images is highest; they match at an IoU of 0.5."
    )
    cards = [
        (f"F1 {one['F1']:.0f} %", f"{one['hits']} found, {one['missed']} missed, {one['false']} false", one)
        for one in evidence["mistakes"]
    ]
    key = [(str(number), name) for number, name in numbered(run["facts"]["classes"]).items()]
    rows = evidence["classes"]
    classes = classes_section(rows, COLUMNS, _recalls(rows), (TEMPLATES / "recalls.css",))
    return [worst_images(intro, note, cards, pictures, key), classes]


def _recalls(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """Precision against recall of each class at an IoU of 0.5."""
    parts = [part for part in PARTS if rows and f"{part}_precision" in rows[0]]
    drawn = [row for row in rows if any(row[f"{part}_precision"] for part in parts)]
    charts = []
    for row in sorted(drawn, key=lambda row: row[f"{parts[0]}_AP50"] or 0.0):
        told = [f"{PARTS[part]} AP50 {row[f'{part}_AP50']:.1f} %" for part in parts if row[f"{part}_AP50"] is not None]
        lines = [(number, path) for number, part in enumerate(parts) if (path := _path(row[f"{part}_precision"]))]
        charts.append(
            render(TEMPLATES / "recall.html", name=row["class"], told=", ".join(told), lines=lines, ticks=_ticks())
        )
    names = list(enumerate(PARTS[part] for part in parts))
    return render(TEMPLATES / "recalls.html", charts=charts, names=names, shown=CURVES) if charts else Markup("")


def _ticks() -> list[tuple[str, float, float]]:
    """How 0, 50 and 100 % are written, and where they are on both axes."""
    return [
        (str(share), _LEFT + (_RIGHT - _LEFT) * share / 100, _BOTTOM - (_BOTTOM - _TOP) * share / 100)
        for share in (0, 50, 100)
    ]


def _path(precision: Sequence[float]) -> str:
    """The way of a curve, recall 0 to 100 % to the right, precision upwards, down to 0 where it ends."""
    reached = max((level for level, value in enumerate(precision) if value), default=None)
    if reached is None:
        return ""
    step, high = (_RIGHT - _LEFT) / 100, (_BOTTOM - _TOP) / 100
    points = (f"{_LEFT + level * step:.1f} {_BOTTOM - precision[level] * high:.1f}" for level in range(reached + 1))
    return f"M{'L'.join(points)}" + (f"V{_BOTTOM}" if reached < 100 else "")
