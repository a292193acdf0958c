"""What a comparison says, computed from its numbers, and how far they can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmix.report.reading import Comparison, Row, dig, read, sequence, told_apart
from tokenmix.runtime_names import runtime_name


@dataclass(frozen=True)
class Findings:
    """The answers.

    Attributes:
        view: The runtime and batch that the speeds refer to: the smallest batch in the fastest runtime.
        best: The most accurate mixers (several at a tie).
        equals: The mixers that this test cannot tell from the best, the best included.
        fastest: The lowest median latency in the view.
        as_fast: Other mixers whose measured range overlaps the fastest one's.
        pick: The fastest of ``equals``.
        front: The Pareto front of the view, fastest first.
    """

    view: tuple[str, str] | None
    best: list[Row]
    equals: list[Row]
    fastest: Row | None
    as_fast: list[Row]
    pick: Row | None
    front: list[Row]


def findings(comparison: Comparison) -> Findings:
    """Draw the conclusions of a comparison."""
    rated = [(row.top1, row) for row in comparison.rows if row.top1 is not None]
    top = max((value for value, _ in rated), default=None)
    best = [row for value, row in rated if value == top]
    equals = [row for _, row in rated if best and not told_apart(best[0], row)]
    view = _view(comparison)
    if view is None:
        return Findings(None, best, equals, None, [], None, [])
    timed = sorted(((row.latency(*view) or 0.0, row) for row in comparison.measured(*view)), key=lambda pair: pair[0])
    fastest = timed[0][1]
    limit = fastest.latency_range(*view)
    as_fast = []
    for _, row in timed[1:]:
        span = row.latency_range(*view)
        if limit and span and span[0] <= limit[1]:
            as_fast.append(row)
    marks = pareto([(time, row.top1 or 0.0) for time, row in timed])
    front = [row for (_, row), mark in zip(timed, marks, strict=True) if mark]
    pick = next((row for _, row in timed if row in equals), None)
    return Findings(view, best, equals, fastest, as_fast, pick, front)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (cost, value) points no other point beats: none has less cost and as much value, or as little and more.

    Equal points share their fate, so a duplicate of a point on the front is on it too.
    """
    return [not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points) for cost, value in points]


def _view(comparison: Comparison) -> tuple[str, str] | None:
    views = comparison.views()
    if not views:
        return None
    batch = views[0][1] if len(comparison.batches) == 1 else min((b for _, b in views), key=comparison.batches.index)
    rows = {view: comparison.measured(*view) for view in views if view[1] == batch}
    most = max(len(measured) for measured in rows.values())
    full = [view for view, measured in rows.items() if len(measured) == most]
    return min(full, key=lambda view: statistics.median(row.latency(*view) or 0.0 for row in rows[view]))


def headline(results: Mapping[str, Any]) -> str:
    """The answer in a sentence or two, for the top of the page and the end of the command."""
    comparison = read(results)
    found = findings(comparison)
    if not found.best:
        return "No mixer has an accuracy yet."
    top = percent(found.best[0], comparison)
    if len(found.best) == 1:
        text = f"{found.best[0].name} is the most accurate mixer ({top})"
    else:
        text = f"{names(found.best)} are equally accurate ({top})"
        text += "" if len(found.best) == len(comparison.rows) else " and ahead of the others"
    if found.view is None or found.fastest is None or found.pick is None:
        return text + "; no latency was measured."
    if len(comparison.rows) == 1:
        return f"{found.fastest.name} reaches {top} and takes {speed(found.fastest, found.view)}."
    if found.best == [found.fastest]:
        return text + f" and the fastest ({speed(found.fastest, found.view)})."
    if found.fastest in found.best:
        return text + f", and {found.fastest.name} is also the fastest ({speed(found.fastest, found.view)})."
    text += f", {found.fastest.name} the fastest ({speed(found.fastest, found.view)})."
    if found.pick is found.fastest:
        return text + f" This test cannot tell {found.fastest.name} from the most accurate."
    if found.pick in found.best and len(found.equals) == len(found.best):
        return text
    images = f"{comparison.tested:,} test images" if comparison.tested else "this test"
    close = f"{len(found.equals)} of the {len(comparison.rows)}"
    return text + f" {close} are too close to the top for {images} to tell; {found.pick.name} is the fastest of them."


def caveats(results: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers."""
    comparison = read(results)
    found = findings(comparison)
    notes = []
    skipped = len(sequence(dig(results, "data", "skipped")))
    if skipped:
        files = "file was" if skipped == 1 else "files were"
        notes.append(f"{skipped:,} {files} skipped, with names and reasons under “How this was measured”, Data.")
    if comparison.tested and found.best and found.best[0].interval:
        low, high = found.best[0].interval
        digits = decimals(comparison)
        notes.append(
            f"One of the {comparison.tested:,} test images weighs {100 / comparison.tested:.2g} points; the 95 % "
            f"interval of the best accuracy is {low:.{digits}f} to {high:.{digits}f} %."
        )
    rivals = [row for row in found.equals if row not in found.best]
    if rivals:
        notes.append(
            f"{names(rivals)} {'lies' if len(rivals) == 1 else 'lie'} within that doubt of the best: "
            "their order could change with other images or another seed."
        )
    if found.best and len(comparison.rows) > 1 and all(row.spread is None for row in comparison.rows):
        notes.append("Each mixer was trained once; several seeds would show how much training itself varies.")
    if found.as_fast and found.fastest:
        notes.append(
            f"The measured times of {names(found.as_fast)} overlap with those of the fastest, {found.fastest.name}."
        )
    return notes


def decimals(comparison: Comparison) -> int:
    """Digits after the point that the number of test images supports."""
    return 2 if (comparison.tested or 0) >= 2000 else 1


def percent(row: Row, comparison: Comparison) -> str:
    """The test accuracy in prose, with its spread over seeds where there is one."""
    digits = decimals(comparison)
    spread = f" ± {row.spread:.{digits}f}" if row.spread is not None else ""
    return f"{row.top1 or 0.0:.{digits}f}{spread} %"


def speed(row: Row, view: tuple[str, str]) -> str:
    """The latency in prose, with runtime and batch."""
    return f"{row.latency(*view) or 0.0:.3g} ms in {runtime_name(view[0])} at batch {view[1]}"


def names(rows: list[Row]) -> str:
    """The mixers' names as an English list."""
    words = [row.name for row in rows]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
