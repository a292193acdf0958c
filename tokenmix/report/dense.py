"""What a run's page shows of dense tasks: the worst images beside the truth, and each class in numbers and curves."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tokenmix.pictures.colours import css_colour
from tokenmix.pictures.drawing import BACKGROUND
from tokenmix.report.page import Section, scroll_box
from tokenmix.report.table import head

Pictures = Mapping[int, tuple[bytes, bytes] | None]
_CURVES = 30  # before the rest is folded away
_TITLES = {"box": "boxes", "mask": "masks"}
_COLUMNS = {
    **{"mask_AP": "mask AP, %", "mask_AP50": "mask AP50, %", "mask_AP75": "mask AP75, %"},
    **{"box_AP": "box AP, %", "box_AP50": "box AP50, %", "box_AP75": "box AP75, %"},
    **{"IoU": "IoU, %", "Acc": "accuracy, %"},
}


def dense_sections(run: Mapping[str, Any], pictures: Pictures, matrix: bool) -> list[Section]:
    """The parts of the page for a run whose evidence is of objects or labels.

    Args:
        run: See `tokenmix.report.run.run_page`; its ``evidence`` is what the task's `Evidence` gathered.
        pictures: JPEG files by the image's ``index``: with the truth, with the prediction.
        matrix: Whether the page draws a confusion matrix.
    """
    evidence = run["evidence"]
    classes = f"{_class_table(evidence['classes'])}{_curves(evidence['classes'])}"
    confusion = ""
    if matrix and evidence["kind"] == "labels":
        confusion = (
            '<div class="panel"><div id="matrix"></div></div><p class="muted">Rows are the truth, columns the '
            "prediction, cells the share of the row's pixels in percent. Blue: right; orange: wrong.</p>"
        )
    return [
        Section("mistakes", "Worst images", _worst(run, pictures), "Worst images"),
        Section("classes", "Classes", classes, "Classes"),
        Section("confusion", "Which classes are confused", confusion, "Confusion"),
    ]


# ---------------------------------------------------------------------------------------------------------- the images


def _worst(run: Mapping[str, Any], pictures: Pictures) -> str:
    evidence = run["evidence"]
    objects = evidence["kind"] == "objects"
    intro = _about_objects(run) if objects else _about_labels(run)
    if not evidence["mistakes"]:
        return f"{intro}<p>None: every validation image is right.</p>"
    cards = []
    for mistake in evidence["mistakes"]:
        if objects:
            score = f"F1 {mistake['F1']:.0f} %"
            note = f"{mistake['hits']} found, {mistake['missed']} missed, {mistake['false']} false"
        else:
            score = f"mean IoU {mistake['mIoU']:.1f} %"
            note = f"{mistake['aAcc']:.1f} % of the pixels right"
        cards.append(
            f'<div class="card dense"><p><b>{score}</b>, {note}</p><p class="muted">{escape(mistake["name"])}</p>'
            f"{_pair(pictures.get(mistake['index']), mistake['name'])}</div>"
        )
    key = "" if objects else _key(run["facts"]["classes"])
    return f'{intro}{key}<div class="cards dense">{"".join(cards)}</div>'


def _about_objects(run: Mapping[str, Any]) -> str:
    evidence = run["evidence"]
    there = evidence["hits"] + evidence["missed"]
    return (
        f"<p>{evidence['hits']:,} of {there:,} objects in {evidence['images']:,} validation images are found, with "
        f"{evidence['false']:,} false detections, by the weights of epoch {run['best_epoch']}, which are the ones "
        f'kept.</p><p class="muted">The images with the lowest F1 come first. Detections count and are drawn from a '
        f"score of {evidence['threshold']:.2f} on, where F1 over all images is highest; they match at an IoU of 0.5."
        "</p>"
    )


def _about_labels(run: Mapping[str, Any]) -> str:
    return (
        f"<p>Of {run['evidence']['images']:,} validation images those with the lowest mean IoU over the classes that "
        f"are there or were seen, with the weights of epoch {run['best_epoch']}, which are the ones kept.</p>"
    )


def _pair(pair: tuple[bytes, bytes] | None, name: str) -> str:
    """Truth and prediction beside each other, or an empty box."""
    if pair is None:
        return '<div class="blank"></div>'
    figures = []
    for word, file in zip(("Truth", "Prediction"), pair, strict=True):
        source = base64.b64encode(file).decode("ascii")
        image = f'<img alt="{word} of {escape(name)}" src="data:image/jpeg;base64,{source}">'
        figures.append(f"<figure>{image}<figcaption>{word}</figcaption></figure>")
    return f'<div class="pair">{"".join(figures)}</div>'


def _key(classes: Sequence[str]) -> str:
    """What the colours mean; many classes are folded away."""
    spans = []
    for number, name in enumerate(classes):
        colour = "transparent" if name == BACKGROUND else css_colour(number)
        spans.append(f'<span><i class="swatch" style="background:{colour}"></i>{escape(name)}</span>')
    key = f'<div class="key swatches">{"".join(spans)}</div>'
    return key if len(spans) <= 20 else f"<details><summary>Colours of {len(spans)} classes</summary>{key}</details>"


# --------------------------------------------------------------------------------------------------------- the classes


def _class_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row per class, the worst first, sortable."""
    columns = [name for name in _COLUMNS if rows and name in rows[0]]
    if not columns:
        return ""
    ranked = sorted(rows, key=lambda row: (row[columns[0]] is None, row[columns[0]] or 0.0))
    tops = [head("class", "ascending", None)]
    tops += [head(_COLUMNS[name], "ascending", None if place else "ascending") for place, name in enumerate(columns)]
    lines = []
    for row in ranked:
        name = escape(row["class"])
        cells = [f'<th scope="row" data-value="{name}">{name}</th>']
        for column in columns:
            value = row[column]
            cells.append("<td>–</td>" if value is None else f'<td data-value="{value!r}">{value:.1f}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    table = f'<table class="sortable"><thead><tr>{"".join(tops)}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return scroll_box(table, "Classes")


def _curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Precision against recall of each class at an IoU of 0.5."""
    kinds = [kind for kind in ("mask", "box") if rows and f"{kind}_precision" in rows[0]]
    drawn = [row for row in rows if any(row[f"{kind}_precision"] for kind in kinds)]
    if not drawn:
        return ""
    figures = [_curve(row, kinds) for row in sorted(drawn, key=lambda row: row[f"{kinds[0]}_AP50"] or 0.0)]
    lines = [
        f'<span><svg width="22" height="8" aria-hidden="true"><path class="curve c{place}" d="M0 4H22"/></svg>'
        f"{_TITLES[kind]}</span>"
        for place, kind in enumerate(kinds)
    ]
    key = f'<div class="key">{"".join(lines)}</div>' if len(kinds) > 1 else ""
    text = (
        '<h3>Precision against recall</h3><p class="muted">At an IoU of 0.5, the class with the lowest AP50 first. A '
        "curve goes down the later the better; where it ends, no detection finds more.</p>" + key
    )
    text += f'<div class="panel recalls">{"".join(figures[:_CURVES])}</div>'
    if len(figures) > _CURVES:
        rest = f'<div class="panel recalls">{"".join(figures[_CURVES:])}</div>'
        text += f"<details><summary>{len(figures) - _CURVES} more classes</summary>{rest}</details>"
    return text


def _curve(row: Mapping[str, Any], kinds: Sequence[str]) -> str:
    """A small chart: recall from 0 to 100 % to the right, precision upwards."""
    left, right, top, bottom = 34, 206, 10, 130
    parts = []
    for share in (0, 50, 100):
        x, y = left + (right - left) * share / 100, bottom - (bottom - top) * share / 100
        parts.append(f'<path class="grid" d="M{left} {y:g}H{right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 4:g}" text-anchor="end">{share}</text>')
        parts.append(f'<text class="tick" x="{x:g}" y="{bottom + 16}" text-anchor="middle">{share}</text>')
    for place, kind in enumerate(kinds):
        points = row[f"{kind}_precision"]
        reached = max((level for level, value in enumerate(points) if value), default=None)
        if reached is None:
            continue
        step, high = (right - left) / 100, (bottom - top) / 100
        line = "L".join(
            f"{left + level * step:.1f} {bottom - points[level] * high:.1f}" for level in range(reached + 1)
        )
        end = f"V{bottom}" if reached < 100 else ""
        parts.append(f'<path class="curve c{place}" d="M{line}{end}"/>')
    values = ", ".join(
        f"{_TITLES[kind]} AP50 {row[f'{kind}_AP50']:.1f} %" for kind in kinds if row[f"{kind}_AP50"] is not None
    )
    name = escape(row["class"])
    return (
        f'<figure><figcaption><b title="{name}">{name}</b> {values}</figcaption><svg class="chart" role="img" '
        f'viewBox="0 0 222 152" aria-label="{name}: precision against recall, {values}">{"".join(parts)}</svg></figure>'
    )
