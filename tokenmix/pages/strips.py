"""A strip for each mixer: a dot for each seed, the mean, its interval, and which others it cannot be told from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tokenmix.pages.charts import Span, short, value_scale
from tokenmix.pages.page import render

_ROW_PX = 26
_LETTER_PX = 16
_CHAR = 7.2  # average pixels of a character of a name


@dataclass(frozen=True)
class Strip:
    """One mixer.

    Attributes:
        name: Its name.
        number: Decides its colour.
        dots: Its scores, one for each seed.
        mean: Of them.
        interval: The ends of the mean's interval, or None.
        groups: The places of the groups that it belongs to: two with none in common are told apart.
        told: The lines that are shown when it is pointed at.
    """

    name: str
    number: int
    dots: Sequence[float]
    mean: float
    interval: Span | None
    groups: Sequence[int]
    told: Sequence[str]


def strips(
    rows: Sequence[Strip], *, values: str, title: str, weight: float | None = None, width: int = 880, kind: str = ""
) -> Markup:
    """The strips below each other, as ``<svg>``.

    Args:
        rows: At least one.
        values: The title of the axis, with its unit.
        title: For those who hear the page.
        weight: For shares in percent: what one sample weighs.
        width: Pixels.
        kind: A class of the element.
    """
    columns = 1 + max((place for row in rows for place in row.groups), default=-1)
    limit = 24 if width > 500 else 13
    left = round(20 + _CHAR * max(len(short(row.name, limit)) for row in rows))
    if _LETTER_PX * columns > (width - left) / 3:
        columns = 0  # letters would leave no room for the dots: the list of the groups says the same
    right = width - 14 - (_LETTER_PX * columns + 8 if columns else 0)
    bottom = 8 + _ROW_PX * len(rows)
    ends = [end for row in rows for end in row.interval or ()]
    x = value_scale([dot for row in rows for dot in (*row.dots, row.mean)], left, right, weight, ends)
    return render(
        "strips.svg",
        title=title,
        kind=kind,
        size=(width, bottom + 44),
        box=(left, 8, right, bottom),
        ticks=[(x(value), text) for value, text in x.ticks(max((right - left) // 80, 2))],
        below=values,
        rows=[(place * _ROW_PX + 8 + _ROW_PX // 2, short(row.name, limit), row) for place, row in enumerate(rows)],
        x=x,
        letters=[(right + 16 + _LETTER_PX * place, letter(place)) for place in range(columns)],
    )


def letter(place: int) -> str:
    """What a group is called: a to z, then a2 and so on."""
    round_, rest = divmod(place, 26)
    return chr(ord("a") + rest) + (str(round_ + 1) if round_ else "")


def memberships(groups: Sequence[Sequence[str]]) -> Mapping[str, list[int]]:
    """The places of the groups that each name is in."""
    found: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        for name in group:
            found.setdefault(name, []).append(place)
    return found
