"""A part of a page: what a task gives, and what `tokenmix.pages` puts together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Section:
    """A part of a page; one without HTML is left out.

    Attributes:
        anchor: The id that links to it use.
        heading: Plain text.
        html: What `tokenmix.pages.page.render` made; any other text is escaped.
        menu: Its name in the menu.
        data: What its scripts find in the page's ``data`` under names of its own: anything that JSON can hold.
        files: Style sheets and scripts of its own, ``.css`` and ``.js``, beside those that every page has.
    """

    anchor: str
    heading: str
    html: str
    menu: str
    data: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Path] = ()
