"""The shell of a report: one HTML file that needs no network, no other file and no framework."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

# Nothing may be loaded: the page works offline, and an escaping mistake could not call home.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Section:
    """A part of a page: the id that its links use, its heading, its HTML and its name in the menu."""

    anchor: str
    heading: str
    html: str
    menu: str


def asset(name: str) -> str:
    """The text of one of this package's style sheets or scripts."""
    return importlib.resources.files("tokenmix.pages").joinpath("templates", name).read_text(encoding="utf-8")


def page(
    title: str,
    intro: str,
    sections: Sequence[Section],
    *,
    styles: Sequence[str] = (),
    scripts: Sequence[str] = (),
    data: Any = None,
) -> str:
    """A whole page.

    Args:
        title: Plain text.
        intro: HTML between the title and the menu.
        sections: The parts, in order; those without HTML are left out.
        styles: Names of style sheets of this package, after the shell's own.
        scripts: Names of scripts of this package, after the shell's own.
        data: What the scripts read from ``#data``: anything JSON can hold (NaN and infinity become null).
    """
    shown = [section for section in sections if section.html]
    menu = "".join(f'<a href="#{section.anchor}">{escape(section.menu)}</a>' for section in shown)
    body = "".join(
        f'<section id="{section.anchor}"><h2>{escape(section.heading)}</h2>{section.html}</section>'
        for section in shown
    )
    style = "\n".join(asset(name) for name in ("palette.css", "page.css", *styles))
    script = "\n".join(asset(name) for name in ("page.js", *scripts))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body>"
        f'<header><h1>{escape(title)}</h1>{intro}</header><nav aria-label="Sections">{menu}</nav>\n'
        f'<main>{body}</main><div id="tip" role="status" hidden></div>\n'
        f'<script type="application/json" id="data">{script_json(data)}</script>\n'
        f"<script>\n{script}</script></body></html>\n"
    )


def script_json(value: Any) -> str:
    """``value`` as JSON that is safe inside a script element, whatever its strings say."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def scroll_box(inner: str, label: str) -> str:
    """A box that scrolls sideways by itself, also by keyboard, so that the page never does."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">{inner}</div>'


def choices(name: str, legend: str, options: Sequence[tuple[str, str]], chosen: str) -> str:
    """Radio buttons in a row: (value, label) options of which one is chosen."""
    buttons = "".join(
        f'<label><input type="radio" name="{escape(name)}" value="{escape(value)}"'
        f"{' checked' if value == chosen else ''}><span>{escape(label)}</span></label>"
        for value, label in options
    )
    return f'<fieldset class="choices"><legend>{escape(legend)}</legend>{buttons}</fieldset>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of terms and their HTML."""
    rows = "".join(f"<div><dt>{escape(term)}</dt><dd>{html}</dd></div>" for term, html in pairs)
    return f'<dl class="facts">{rows}</dl>' if rows else ""
