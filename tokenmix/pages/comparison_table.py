"""The comparison's table: its columns once, and their HTML, Markdown and plain-text forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tokenmix.pages.conclusions import conclusions
from tokenmix.pages.page import Cell, Head, render
from tokenmix.pages.result_schema import Comparison, Row, dig, number, read, sequence
from tokenmix.runtime_names import runtime_name

_MISSING = "–"


@dataclass(frozen=True)
class Column:
    """One column of numbers, a value and a text per mixer.

    Attributes:
        group: The header above, shared with the neighbours that have the same.
        title: The header.
        full: The header where there is no group above.
        better: 1 where larger is better, -1 where smaller is, 0 where neither.
        values: The numbers.
        texts: How they are written.
        notes: A second, smaller line per cell: an interval or a range; empty where there are none.
    """

    group: str
    title: str
    full: str
    better: int
    values: Sequence[float | None]
    texts: Sequence[str]
    notes: Sequence[str] = ()

    def best(self) -> set[int]:
        """The places of the best value; none where all are equal."""
        known = {value for value in self.values if value is not None}
        if not self.better or len(known) < 2:
            return set()
        top = max(known) if self.better > 0 else min(known)
        return {place for place, value in enumerate(self.values) if value == top}


def columns(comparison: Comparison) -> list[Column]:
    """Every column that has at least one value, in the order of the page."""
    rows = comparison.rows

    def field(key: str, scale: float = 1.0) -> list[float | None]:
        values = [number(row.entry.get(key)) for row in rows]
        return [None if value is None else value * scale for value in values]

    made = [_scores(comparison)]
    if len({tuple(sequence(row.entry.get("dims"))) for row in rows}) > 1:
        made.append(_widths(rows))
    made += [
        _plain("Size", "params, M", "params, M", -1, field("params", 1e-6)),
        _plain("Size", "MACs, M", "MACs, M", -1, field("macs", 1e-6)),
        _plain("Size", "FFT/DCT, M", "FFT/DCT, M", 0, field("transform_macs", 1e-6)),
    ]
    for runtime in comparison.runtimes:
        name = runtime_name(runtime)
        for batch in comparison.batches:
            times = [row.latency(runtime, batch) for row in rows]
            ranges = [row.latency_range(runtime, batch) for row in rows]
            style = _style([end for span in ranges if span for end in span])
            notes = [f"{style(span[0])}–{style(span[1])}" if span else "" for span in ranges]
            made.append(_plain(f"{name}, ms", f"batch {batch}", f"{name} batch {batch}, ms", -1, times, notes))
    for runtime in comparison.runtimes:
        rates, batch = _throughput(comparison, runtime)
        name, rate = runtime_name(runtime), f"{comparison.timed_noun}/s"
        made.append(
            _plain(f"{rate.capitalize()}, batch {batch}", name, f"{name} batch {batch}, {rate}", 1, rates),
        )
    made.append(_plain("Memory", "peak, MB", "peak memory, MB", -1, field("peak_memory_mb")))
    errors = field("onnx_max_error")
    refused = ["" if row.entry.get("not_exported") is None else "not exported" for row in rows]
    texts = [word or _scientific(error) for word, error in zip(refused, errors, strict=True)]
    made.append(Column("ONNX", "max error", "ONNX max error", -1, errors, texts))
    made.append(_plain("Training", "seconds", "training, s", -1, field("seconds")))
    return [column for column in made if any(value is not None for value in column.values)]


def _scores(comparison: Comparison) -> Column:
    rows, written, full = comparison.rows, comparison.written, comparison.titled
    scores = [row.score for row in rows]
    spreads = [f" ± {written(row.spread)}" if row.spread is not None else "" for row in rows]
    texts = [_MISSING if value is None else written(value) + more for value, more in zip(scores, spreads, strict=True)]
    notes = [f"{written(row.interval[0])}–{written(row.interval[1])}" if row.interval else "" for row in rows]
    better = -1 if comparison.lower_is_better else 1
    return Column("Test", full.removeprefix("test "), full, better, scores, texts, notes)


def _widths(rows: Sequence[Row]) -> Column:
    dims = [[size for size in map(number, sequence(row.entry.get("dims"))) if size is not None] for row in rows]
    texts = ["/".join(f"{size:.0f}" for size in sizes) or _MISSING for sizes in dims]
    return Column("Size", "widths", "widths", 0, [sum(sizes) if sizes else None for sizes in dims], texts)


def _throughput(comparison: Comparison, runtime: str) -> tuple[list[float | None], str]:
    for batch in reversed(comparison.batches):
        rates = [number(dig(row.entry, "throughput", runtime, batch)) for row in comparison.rows]
        if any(rate is not None for rate in rates):
            return rates, batch
    return [None] * len(comparison.rows), ""


def _plain(
    group: str, title: str, full: str, better: int, values: Sequence[float | None], notes: Sequence[str] = ()
) -> Column:
    style = _style([value for value in values if value is not None])
    texts = [_MISSING if value is None else style(value) for value in values]
    return Column(group, title, full, better, values, texts, notes)


def _style(values: Sequence[float]) -> Callable[[float], str]:
    """The same number of decimals for a whole column: three significant digits in its middle."""
    sizes = sorted(abs(value) for value in values if value)
    digits = min(max(2 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 4) if sizes else 0
    return lambda value: f"{value:,.{digits}f}" if value else "0"


def _scientific(value: float | None) -> str:
    if not value:
        return _MISSING if value is None else "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def ranked(comparison: Comparison) -> list[Row]:
    """The mixers, the best score first, the faster first among equals, those without a score last."""
    view = conclusions(comparison).view

    def order(row: Row) -> tuple[float, float]:
        latency = row.latency(*view) if view else None
        return comparison.ranking(row), math.inf if latency is None else latency

    return sorted(comparison.rows, key=order)


def front_note(comparison: Comparison, mark: str) -> str:
    """What the mark of the Pareto front means, or nothing where there is no front."""
    view = conclusions(comparison).view
    if view is None:
        return ""
    return (
        f"{mark} Pareto front of {comparison.label} against latency ({runtime_name(view[0])}, batch {view[1]}): "
        "no other mixer is as good and faster, or as fast and better."
    )


def html_table(comparison: Comparison) -> Markup:
    """The table for the page: sortable headers, values for the sorting, best values and front marked."""
    made = columns(comparison)
    front, spans = conclusions(comparison).front, _spans(made)
    starts = {start for start, _ in spans}
    heads = [Head("mixer")]
    for place, column in enumerate(made):
        first = "descending" if column.better > 0 else "ascending"
        heads.append(Head(column.title, first, first if column.group == "Test" else "none", place in starts))
    best = [column.best() for column in made]
    rows = []
    for row in ranked(comparison):
        at = row.index
        cells = [
            Cell(column.texts[at], column.values[at], column.notes[at] if column.notes else "", at in winners)
            for column, winners in zip(made, best, strict=True)
        ]
        rows.append((row.name, row in front, cells))
    groups = [(made[start].group, end - start) for start, end in spans]
    return render("table.html", label="Table of results", heads=heads, rows=rows, groups=groups)


def markdown_table(results: Mapping[str, Any]) -> str:
    """The table as Markdown: best values bold, the Pareto front marked with ◆ and explained below.

    Raises:
        ValueError: The results have another schema, or no mixer.
    """
    comparison = read(results)
    made = columns(comparison)
    front = conclusions(comparison).front
    best = [column.best() for column in made]
    heads = [column.full for column in made]
    lines = ["| mixer | " + " | ".join(heads) + " |", "|---|" + "--:|" * len(made)]
    for row in ranked(comparison):
        cells = [_cell(row.name) + (" ◆" if row in front else "")]
        for column, winners in zip(made, best, strict=True):
            text = column.texts[row.index]
            cells.append(f"**{text}**" if row.index in winners else text)
        lines.append("| " + " | ".join(cells) + " |")
    note = front_note(comparison, "◆")
    return "\n".join(lines) + "\n" + (f"\n{note}\n" if note else "")


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("*", "\\*")


def text_table(results: Mapping[str, Any], *, width: int | None = None) -> str:
    """The table as plain text with a header of two lines, for a terminal; ``*`` marks the Pareto front.

    Args:
        results: What ``compare`` wrote to ``results.json``.
        width: Characters per line; columns that do not fit follow in further tables below. None: one table.

    Raises:
        ValueError: The results have another schema, or no mixer.
    """
    comparison = read(results)
    front = conclusions(comparison).front
    rows = ranked(comparison)
    labels = [("* " if row in front else "  ") + row.name for row in rows]
    first = max(len("  mixer"), *map(len, labels))
    pieces: list[list[Column]] = [[]]
    for column in columns(comparison):
        if width and pieces[-1] and first + sum(_widths_in_text([*pieces[-1], column])) > width:
            pieces.append([])
        pieces[-1].append(column)
    blocks = ["\n".join(_text_block(piece, rows, labels, first)) for piece in pieces]
    note = front_note(comparison, "*")
    return "\n\n".join(blocks) + "\n" + (f"\n{note}\n" if note else "")


def _widths_in_text(made: Sequence[Column]) -> list[int]:
    """The characters of each column with the two before it; the last of a group makes room for the group's name."""
    widths = [2 + max(len(column.title), *(len(text) for text in column.texts)) for column in made]
    for start, end in _spans(made):
        widths[end - 1] += max(2 + len(made[start].group) - sum(widths[start:end]), 0)
    return widths


def _spans(made: Sequence[Column]) -> list[tuple[int, int]]:
    """The first place of each group of columns, and the place after its last."""
    starts = [place for place, column in enumerate(made) if not place or made[place - 1].group != column.group]
    return list(zip(starts, [*starts[1:], len(made)], strict=False))


def _text_block(made: Sequence[Column], rows: Sequence[Row], labels: Sequence[str], first: int) -> list[str]:
    widths = _widths_in_text(made)
    groups = "".join(made[start].group.rjust(sum(widths[start:end])) for start, end in _spans(made))
    titles = "".join(column.title.rjust(width) for column, width in zip(made, widths, strict=True))
    lines = [" " * first + groups, "  mixer".ljust(first) + titles, "-" * (first + len(titles))]
    for row, label in zip(rows, labels, strict=True):
        cells = (column.texts[row.index].rjust(width) for column, width in zip(made, widths, strict=True))
        lines.append(label.ljust(first) + "".join(cells))
    return lines
