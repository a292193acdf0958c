"""What pages show of all tasks with more than a class per picture: the worst images, and each class in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import Cell, Head, render
from tokenmix.pages.result_schema import mapping, number, read, sequence
from tokenmix.tasks.section import Section

TEMPLATES = Path(__file__).with_name("templates")
MATRIX = 100  # classes; more make cells that cannot be seen
Pictures = Mapping[int, tuple[bytes, bytes] | None]
Card = tuple[str, str, Mapping[str, Any]]  # what counts, a note, and the entry of the evidence


def worst_images(
    intro: str, note: str, cards: Sequence[Card], pictures: Pictures, key: Sequence[tuple[str, str]] = ()
) -> Section:
    """The worst images, truth and prediction beside each other.

    Args:
        intro: A sentence on all of them.
        note: What else must be known, or nothing.
        cards: The images, the worst first.
        pictures: JPEG files by an entry's ``index``: with the truth, with the prediction.
        key: What stands for what in the pictures: (CSS colour or number, name).
    """
    html = render(TEMPLATES / "worst.html", intro=intro, note=note, cards=cards, pictures=pictures, key=key)
    return Section("mistakes", "Worst images", html, "Worst images", files=(TEMPLATES / "dense.css",))


def classes_section(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], more: str = "", files: Sequence[Path] = ()
) -> Section:
    """A row per class, sortable, those with the lowest number in the first column first.

    Args:
        rows: Of each class its name under ``class``, and numbers or None.
        columns: The title of each number.
        more: HTML below the table.
        files: Style sheets that it needs.
    """
    known = {name: title for name, title in columns.items() if rows and name in rows[0]}
    table = Markup("")
    if known:
        first = next(iter(known))
        ranked = sorted(rows, key=lambda row: (row[first] is None, row[first] or 0.0))
        heads = [Head("class"), *(Head(title) for title in known.values())]
        heads[1] = heads[1]._replace(sort="ascending")
        lines = [(row["class"], False, [_cell(row[name]) for name in known]) for row in ranked]
        table = render("table.html", label="Classes", heads=heads, rows=lines, groups=())
    return Section("classes", "Classes", table + more, "Classes", files=(TEMPLATES / "dense.css", *files))


def _cell(value: float | None, best: bool = False) -> Cell:
    return Cell("–" if value is None else f"{value:.1f}", value, best=best)


def compare_sections(results: Mapping[str, Any], column: str, title: str) -> list[Section]:
    """The number ``column`` of each class, a column per mixer; see `DenseTask.compared`."""
    comparison = read(results)
    tables = {
        row.name: {str(one.get("class")): number(one.get(column)) for one in map(mapping, rows)}
        for row in comparison.rows
        if (rows := sequence(row.entry.get("per_class")))
    }
    if not tables:
        return []
    lines = []
    for name in next(iter(tables.values())):
        values = [table.get(name) for table in tables.values()]
        there = [value for value in values if value is not None]
        top = max(there) if len(set(there)) > 1 else None
        lines.append((name, False, [_cell(value, value is not None and value == top) for value in values]))
    heads = [Head("class"), *(Head(name, "descending") for name in tables)]
    html = render(TEMPLATES / "compare_classes.html", title=title, heads=heads, rows=lines)
    return [Section("classes", "Classes", html, "Classes", files=(TEMPLATES / "dense.css",))]
