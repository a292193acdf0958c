"""Clouds on a page that can be turned, in one file without network: HTML for each, and one script for all."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokenmix.data.random_numbers import permutation
from tokenmix.tasks.points.cloud import Cloud
from tokenmix.tasks.points.picture import class_colors, own_colors

MOST_POINTS = 20_000  # of one cloud on a page: about 220 kB, and turned smoothly by any browser


def shown_rows(count: int) -> NDArray[np.int64]:
    """The points of a cloud of ``count`` that a page shows, in order; always the same ones."""
    return np.arange(count) if count <= MOST_POINTS else np.sort(permutation(count, 0)[:MOST_POINTS])


def cloud_view(
    cloud: Cloud, classes: Sequence[str], layers: Mapping[str, NDArray[np.int64]], *, label: str, colors: bool = True
) -> str:
    """The HTML of one cloud: a canvas, a button for each way to colour it, and what the colours mean.

    Args:
        cloud: At most `MOST_POINTS` of its points are shown, always the same ones.
        classes: Names of the classes.
        layers: Classes (P,) by what the reader calls them, such as ``"truth"`` and ``"prediction"``; where both are
            there, a further layer shows where they differ.
        label: What the picture shows, for those who do not see it.
        colors: Whether the cloud's own colours are one of the layers, the last.
    """
    rows = shown_rows(len(cloud))
    shown = cloud.take(rows)
    low = shown.coord.min(0)
    size = np.maximum(shown.coord.max(0) - low, 1e-6)
    drawn = [_indexed(name, values[rows], len(classes)) for name, values in layers.items()]
    if {"truth", "prediction"} <= set(layers):
        truth, prediction = layers["truth"][rows], layers["prediction"][rows]
        wrong = np.where(truth < 0, 2, truth != prediction).astype(np.uint8)
        palette = np.array([(190, 190, 190), (214, 39, 40), (60, 60, 60)], np.uint8)
        drawn.append({"name": "errors", "data": _text(wrong), "palette": _text(palette)})
    if colors:
        drawn.append({"name": "colours" if cloud.color is not None else "height", "data": _text(own_colors(shown))})
    content: dict[str, Any] = {
        "coord": _text(np.rint((shown.coord - low) / size * 65535).astype("<u2")),
        "size": [round(float(side), 4) for side in size],
        "layers": drawn,
    }
    if shown.normal is not None:
        content["normal"] = _text(np.rint(shown.normal * 100).astype(np.int8))
    buttons = [_button(f'data-layer="{i}"', layer["name"], i == 0) for i, layer in enumerate(drawn)]
    if shown.normal is not None:
        buttons.append(_button("data-inside", "look inside", True))
    told = sorted({int(value) for values in layers.values() for value in np.unique(values)})
    hues = class_colors(len(classes))
    legend = [
        f'<li><i style="background: rgb({", ".join(map(str, hues[k].tolist()))})"></i>{html.escape(classes[k])}</li>'
        for k in told
        if 0 <= k < len(classes)
    ]
    hint = f"{label}. Drag or use the arrow keys to turn it, + and - to come nearer."
    return (
        '<div class="cloud-view">'
        f'<canvas tabindex="0" role="img" aria-label="{html.escape(hint, quote=True)}" title="drag to turn"></canvas>'
        f'<div class="layers">{"".join(buttons)}</div><ul class="legend">{"".join(legend)}</ul>'
        f'<script type="application/json">{json.dumps(content)}</script></div>'
    )


def viewer_file(ending: str) -> str:
    """The script that draws every `cloud_view` of a page, ``"js"``, or their style, ``"css"``; each once on a page."""
    return Path(__file__).with_name(f"viewer.{ending}").read_text(encoding="utf-8")


def viewer_page(title: str, views: Sequence[str]) -> str:
    """A whole page of clouds.

    Args:
        title: Of the page.
        views: From `cloud_view`.
    """
    name = html.escape(title)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>:root {{ color-scheme: light dark; font-family: system-ui, sans-serif }} "
        f"body {{ margin: 1rem auto; padding: 0 1rem; max-width: 42rem }}{viewer_file('css')}</style></head>"
        f"<body><h1>{name}</h1>{''.join(views)}<script>{viewer_file('js')}</script></body></html>\n"
    )


def _button(attribute: str, name: str, pressed: bool) -> str:
    return f'<button type="button" {attribute} aria-pressed="{str(pressed).lower()}">{html.escape(name)}</button>'


def _indexed(name: str, values: NDArray[np.int64], count: int) -> dict[str, str]:
    """A layer of classes as one byte per point and a palette; of more than 255 classes the colours themselves."""
    palette = class_colors(count)
    place = np.where((values >= 0) & (values < count), values, count)
    if count > 255:
        return {"name": name, "data": _text(palette[place])}
    return {"name": name, "data": _text(place.astype(np.uint8)), "palette": _text(palette)}


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
