"""The shell of a page: one HTML file that needs no network, no other file and no framework, filled in by Jinja2."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from tokenmix.tasks.section import Section

TEMPLATES = Path(__file__).with_name("templates")
STYLES = ("palette.css", "charts.css", "page.css", "parts.css")
SCRIPTS = ("page.js", "curves.js", "matrix.js", "comparison.js", "run.js")
COLOURS = 7  # palette.css holds as many; the next lines and points repeat them, lines with other dashes
SMALL_PX = 84  # the width of a picture on a card: smaller ones are shown pixel by pixel
_KINDS = {b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpeg"}


class Head(NamedTuple):
    """The head of a column that can be sorted: ``first`` is the direction of its first click, ``sort`` the present one;
    ``start`` draws a line before the column.
    """

    title: str
    first: str = "ascending"
    sort: str = "none"
    start: bool = False


class Cell(NamedTuple):
    """A cell of such a column: its text, the value that it is sorted by, a second line in small print, a mark."""

    text: str
    value: float | str | None = None
    note: str = ""
    best: bool = False


def page(title: str, intro: str, sections: Sequence[Section], data: Mapping[str, Any] | None = None) -> str:
    """A whole page.

    Args:
        title: Plain text.
        intro: What `render` made, between the title and the menu.
        sections: The parts, in order.
        data: What the scripts read, beside the sections' own; NaN and infinity become null.
    """
    shown = [section for section in sections if section.html]
    files = list(dict.fromkeys(file for section in shown for file in section.files))
    for section in shown:
        data = {**(data or {}), **section.data}
    texts = {
        kind: Markup("\n".join(file.read_text(encoding="utf-8") for file in chosen))
        for kind, chosen in (
            ("style", [*(TEMPLATES / name for name in STYLES), *(file for file in files if file.suffix == ".css")]),
            ("script", [*(TEMPLATES / name for name in SCRIPTS), *(file for file in files if file.suffix == ".js")]),
        )
    }
    return str(render("page.html", title=title, intro=intro, sections=shown, data=_finite(data or {}), **texts)) + "\n"


def render(template: str | os.PathLike[str], **values: Any) -> Markup:
    """A template filled in; every value that is no `Markup` is escaped.

    Args:
        template: The name of one here, or the path of one elsewhere, which may import ``parts.html`` and what else is
            here.
        values: What the template reads; one that it lacks is an error.
    """
    return Markup(_environment().get_template(os.fspath(template)).render(values))


@cache
def _environment() -> Environment:
    """Templates by their name here or by their path."""

    def source(name: str) -> tuple[str, str, None]:
        path = TEMPLATES / name  # a path that is absolute stays as it is
        return path.read_text(encoding="utf-8"), str(path), None

    made = Environment(
        loader=FunctionLoader(source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    made.globals["colours"] = COLOURS
    made.filters |= {"address": picture_address, "small": is_small}
    return made


def picture_address(file: bytes | None) -> str:
    """A PNG or JPEG file as an address that holds it; empty for anything else."""
    kind = next((kind for start, kind in _KINDS.items() if file and file.startswith(start)), None)
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}" if file and kind else ""


def is_small(file: bytes) -> bool:
    """Whether a PNG file's picture is narrower than its place on a card."""
    return file.startswith(b"\x89PNG") and int.from_bytes(file[16:20], "big") < SMALL_PX


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as term and text, those without a value left out."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        elif value is not None and value != "" and value != [] and value != ():
            pairs.append((f"{prefix}{key}".replace("_", " "), in_words(value)))
    return pairs


def in_words(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
