"""The page that `compare` writes: which mixer to choose, shown and explained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from typing import Any

from tokenmix.files import write_text
from tokenmix.report.charts import COLOURS, curves, scatter
from tokenmix.report.findings import Findings, caveats, decimals, findings, headline, percent, speed
from tokenmix.report.page import Section, choices, page, scroll_box
from tokenmix.report.protocol import definitions_html, protocol_html
from tokenmix.report.reading import Comparison, Row, dig, mapping, number, read, runtime_name, sequence
from tokenmix.report.samples import samples_html
from tokenmix.report.table import front_note, html_table

# Key in a history row, what it is, and whether it is a percentage.
_SERIES = (
    ("val_top1", "validation top-1, %", True),
    ("val_loss", "validation loss", False),
    ("loss", "training loss", False),
)


def comparison_page(results: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> str:
    """The report as one HTML file that needs neither network nor other files.

    Args:
        results: What ``compare`` wrote to ``results.json``; whatever is missing is left out of the page.
        pictures: PNG files by the name of the sample that they show.

    Raises:
        ValueError: The results have another schema, or no mixer.
    """
    comparison = read(results)
    found = findings(comparison)
    name = str(dig(results, "data", "name") or "images")
    front = front_note(comparison, "◆")
    table = scroll_box(html_table(comparison), "Table of results")
    marks = f"{front} " if found.front else ""
    under = f'<p class="muted">{escape(marks)}Bold: best of the column. Small print: 95 % intervals.</p>'
    sections = [
        Section("results", "All results", table + under, "Results"),
        Section("tradeoff", "Accuracy against latency", _tradeoff(comparison, found), "Accuracy against latency"),
        Section("curves", "Learning curves", _curves(comparison), "Learning curves"),
        Section("confusion", "Which classes are confused", _confusion(comparison), "Confusion"),
        Section("samples", "Sample predictions", samples_html(comparison, pictures or {}), "Samples"),
        Section("protocol", "How this was measured", protocol_html(comparison), "How it was measured"),
        Section("definitions", "What the numbers mean", definitions_html(comparison), "Definitions"),
    ]
    return page(
        f"Token mixers on {name}",
        _intro(comparison, found),
        sections,
        styles=["charts.css", "comparison.css"],
        scripts=["matrix.js", "comparison.js", "curves.js"],
        data={
            "classes": comparison.classes,
            "mixers": [{"name": row.name, "confusion": _cells(row)} for row in comparison.rows],
            "curves": _lines(comparison),
        },
    )


def write_comparison(
    results: Mapping[str, Any], path: str | os.PathLike[str], pictures: Mapping[str, bytes] | None = None
) -> None:
    """Write `comparison_page` to a file, atomically."""
    write_text(path, comparison_page(results, pictures))


def _intro(comparison: Comparison, found: Findings) -> str:
    cells = []
    if found.best:
        interval = found.best[0].interval
        digits = decimals(comparison)
        doubt = f", 95 % interval {interval[0]:.{digits}f}–{interval[1]:.{digits}f}" if interval else ""
        cells.append(("Most accurate", found.best, percent(found.best[0], comparison) + " of test images" + doubt))
    if found.view and found.fastest:
        cells.append(("Fastest", [found.fastest], _pace(found.fastest, comparison, found.view)))
        if found.pick and found.pick is not found.fastest and found.pick not in found.best:
            text = _pace(found.pick, comparison, found.view)
            cells.append(("Fastest that this test cannot tell from the best", [found.pick], text))
        if len(comparison.rows) > 1:
            where = f"{runtime_name(found.view[0])}, batch {found.view[1]}; fastest first"
            cells.append(("Pareto front", found.front, where))
    answers = "".join(
        f'<div><dt>{escape(term)}</dt><dd class="who">{escape(", ".join(row.name for row in rows))}</dd>'
        f'<dd class="how">{escape(text)}</dd></div>'
        for term, rows, text in cells
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in caveats(comparison.raw))
    return (
        f'<p class="lead">{escape(headline(comparison.raw))}</p><p class="muted">{escape(_setting(comparison))}</p>'
        f'<dl class="answers">{answers}</dl>' + (f'<ul class="caveats">{notes}</ul>' if notes else "")
    )


def _pace(row: Row, comparison: Comparison, view: tuple[str, str]) -> str:
    return f"{speed(row, view)}; {percent(row, comparison)}"


def _setting(comparison: Comparison) -> str:
    raw = comparison.raw
    count = len(comparison.rows)
    text = f"{count} token mixer{'s' if count > 1 else ''}"
    if raw.get("skeleton"):
        text += f" in the skeleton {raw['skeleton']}"
    trained = number(dig(raw, "data", "train"))
    epochs = number(dig(raw, "recipe", "schedule.epochs") or dig(raw, "recipe", "epochs"))
    text += ", trained alike" if count > 1 else ", trained"
    text += f" for {epochs:.0f} epoch{'s' if epochs > 1 else ''}" if epochs else ""
    text += f" on {trained:,.0f} images" if trained else ""
    text += f", tested on {comparison.tested:,} others" if comparison.tested else ""
    seeds = len(sequence(raw.get("seeds")))
    text += f", {seeds} seeds each" if seeds > 1 else ""
    created = str(raw.get("created") or "")[:10]
    return text + "." + (f" {created}." if created else "")


def _tradeoff(comparison: Comparison, found: Findings) -> str:
    if found.view is None:
        return "<p>No mixer has both an accuracy and a latency.</p>"
    views = comparison.views()
    parts = []
    for view in views:
        wide = scatter(comparison, *view).replace('class="chart', 'class="wide chart', 1)
        narrow = scatter(comparison, *view, width=360, height=400).replace('class="chart', 'class="narrow chart', 1)
        data = f'data-runtime="{escape(view[0])}" data-batch="{escape(view[1])}"'
        parts.append(f"<div {data}{'' if view == found.view else ' hidden'}>{wide}{narrow}</div>")
    runtimes = [name for name in comparison.runtimes if any(view[0] == name for view in views)]
    batches = [size for size in comparison.batches if any(view[1] == size for view in views)]
    controls = choices("runtime", "Runtime", [(name, runtime_name(name)) for name in runtimes], found.view[0])
    controls += choices("batch", "Batch", [(size, size) for size in batches], found.view[1])
    caption = (
        "The line and the filled dots are the Pareto front: the best accuracy that each latency buys. Horizontal bars: "
        "95 % interval of the median latency. Point at a dot, or move to it with the Tab key, for its numbers."
    )
    return (
        f'<div class="controls">{controls}</div><figure id="views" class="panel">{"".join(parts)}'
        f'<p class="none" hidden>Not measured for this pair of runtime and batch.</p></figure>'
        f'<p class="muted">{caption}</p>'
    )


def _history(row: Row, key: str) -> list[tuple[float, float]]:
    points = []
    for step in sequence(row.entry.get("history")):
        epoch, value = number(mapping(step).get("epoch")), number(mapping(step).get(key))
        if epoch is not None and value is not None:
            points.append((epoch, value))
    return points


def _curves(comparison: Comparison) -> str:
    images = number(dig(comparison.raw, "data", "val"))
    weight = 100 / images if images else 0.1
    drawn = []
    for key, title, is_percent in _SERIES:
        lines = {row.index: _history(row, key) for row in comparison.rows}
        drawn.append(curves(lines, title, series=key, percent_weight=weight if is_percent else None))
    if not any(drawn):
        return ""
    buttons = []
    for row in comparison.rows:
        kind = f"c{row.index % COLOURS} d{row.index // COLOURS % 3}"
        line = f'<path class="curve {kind}" d="M0 4H22"/>'
        stroke = f'<svg width="22" height="8" aria-hidden="true">{line}</svg>'
        if any(_history(row, key) for key, _, _ in _SERIES):
            button = f'<button type="button" aria-pressed="true" data-mixer="{row.index}">'
            buttons.append(f"{button}{stroke}{escape(row.name)}</button>")
    charts = "".join(f"<figure>{drawing}</figure>" for drawing in drawn if drawing)
    return (
        f'<div id="legend" class="legend controls" role="group" aria-label="Mixers shown">{"".join(buttons)}'
        f'<button type="button" data-all>Hide all</button></div><div class="panel trio">{charts}</div>'
        '<p class="muted">Click a mixer to hide or show it. Point at a chart, or use the arrow keys in it, for the '
        "values of one epoch.</p>"
    )


def _cells(row: Row) -> dict[str, Any] | None:
    """The confusion matrix without its zeros, which are most of it where classes are many."""
    matrix = sequence(row.entry.get("confusion"))
    cells = []
    for truth, counts in enumerate(matrix):
        for predicted, count in enumerate(sequence(counts)[: len(matrix)]):
            if number(count):
                cells.append((truth, predicted, count))
    return {"size": len(matrix), "cells": cells} if cells else None


def _confusion(comparison: Comparison) -> str:
    rows = [row for row in comparison.rows if _cells(row)]
    if not rows:
        return ""
    start = next((row for row in findings(comparison).best if row in rows), rows[0])
    options = "".join(
        f'<option value="{row.index}"{" selected" if row is start else ""}>{escape(row.name)}</option>' for row in rows
    )
    return (
        '<div class="controls"><label>Mixer <select id="confusion-mixer" autocomplete="off">'
        f'{options}</select></label></div><div class="panel confusion"><div id="matrix"></div><div>'
        '<p id="errors" aria-live="polite"></p><table id="pairs" class="pairs"><thead><tr><th scope="col">Truth</th>'
        '<th scope="col">Predicted</th><th scope="col" class="number">Images</th></tr></thead><tbody></tbody></table>'
        "</div></div>"
        '<p class="muted">Rows are the truth, columns the prediction, cells count test images. Blue: right; '
        "orange: wrong, stronger where it is a larger share of its row.</p>"
    )


def _lines(comparison: Comparison) -> dict[str, Any]:
    """What the cursor of the curves reads: the unit of each series, and its lines by the mixer's place."""
    return {
        key: {
            "unit": "%" if is_percent else "",
            "lines": {row.index: (row.name, _history(row, key)) for row in comparison.rows},
        }
        for key, _, is_percent in _SERIES
    }
