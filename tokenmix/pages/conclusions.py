"""What a comparison says, concluded from its numbers, and how far they can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmix.pages.result_schema import Comparison, Row, dig, read, sequence, told_apart
from tokenmix.runtime_names import runtime_name


@dataclass(frozen=True)
class Conclusions:
    """The answers.

    Attributes:
        view: The runtime and batch that the speeds refer to: the smallest batch in the fastest runtime.
        best: The mixers with the best score (several at a tie).
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


def conclusions(comparison: Comparison) -> Conclusions:
    """Draw the conclusions of a comparison."""
    rated = sorted((row for row in comparison.rows if row.score is not None), key=comparison.ranking)
    best = [row for row in comparison.rows if rated and row.score == rated[0].score]
    equals = [row for row in comparison.rows if row.score is not None and not told_apart(best[0], row)]
    view = _view(comparison)
    if view is None:
        return Conclusions(None, best, equals, None, [], None, [])
    timed = sorted(((row.latency(*view) or 0.0, row) for row in comparison.measured(*view)), key=lambda pair: pair[0])
    fastest = timed[0][1]
    limit = fastest.latency_range(*view)
    as_fast = []
    for _, row in timed[1:]:
        span = row.latency_range(*view)
        if limit and span and span[0] <= limit[1]:
            as_fast.append(row)
    pick = next((row for _, row in timed if row in equals), None)
    return Conclusions(view, best, equals, fastest, as_fast, pick, front_of(comparison, view))


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
    answer = conclusions(comparison)
    if not answer.best:
        return "No mixer has been tested yet."
    best, fastest, view = answer.best, answer.fastest, answer.view
    label, top = comparison.label, comparison.said(best[0])
    if len(best) == len(comparison.rows):
        text = f"{names(best)}: {label} {top}"
    else:
        text = f"{names(best)} {'has' if len(best) == 1 else 'have'} the best {label} ({top})"
    if view is None or fastest is None or answer.pick is None:
        return f"{text}; no latency was measured."
    if len(comparison.rows) == 1:
        return f"{text}, {speed(fastest, view)}."
    if best == [fastest]:
        return f"{text} and is the fastest ({speed(fastest, view)})."
    if fastest in best:
        return f"{text}; {fastest.name} is the fastest ({speed(fastest, view)})."
    text += f"; {fastest.name} is the fastest ({speed(fastest, view)})."
    if answer.pick is fastest:
        return f"{text} This test cannot tell {fastest.name} from the best."
    if answer.pick in best and len(answer.equals) == len(best):
        return text
    samples = f"{comparison.tested:,} test {comparison.noun}" if comparison.tested else "this test"
    close = f"{len(answer.equals)} of the {len(comparison.rows)}"
    return f"{text} {close} are too close to the top for {samples} to tell; {answer.pick.name} is the fastest of them."


def caveats(results: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers."""
    comparison = read(results)
    answer = conclusions(comparison)
    notes = []
    skipped = len(sequence(dig(results, "data", "skipped")))
    if skipped:
        files = "file was" if skipped == 1 else "files were"
        notes.append(f"{skipped:,} {files} skipped, with names and reasons under “How this was measured”, Data.")
    interval = answer.best[0].interval if answer.best else None
    if interval:
        low, high = map(comparison.written, interval)
        text = f"The 95 % interval of the best {comparison.label} is {low} to {high} {comparison.unit}".rstrip() + "."
        if comparison.tested and comparison.task.headline_is_share:
            weight = f"{100 / comparison.tested:.2g} points"
            text = f"One of the {comparison.tested:,} test {comparison.noun} weighs {weight}. {text}"
        notes.append(text)
    elif answer.best and len(comparison.rows) > 1:
        notes.append(f"The {comparison.label} has no interval here: a small difference may be chance.")
    rivals = [row for row in answer.equals if row not in answer.best]
    if rivals:
        notes.append(
            f"{names(rivals)} {'lies' if len(rivals) == 1 else 'lie'} within that doubt of the best: "
            f"their order could change with other {comparison.noun} or another seed."
        )
    if answer.best and len(comparison.rows) > 1 and all(row.spread is None for row in comparison.rows):
        notes.append("Each mixer was trained once; several seeds would show how much training itself varies.")
    if answer.as_fast and answer.fastest:
        notes.append(
            f"The measured times of {names(answer.as_fast)} overlap with those of the fastest, {answer.fastest.name}."
        )
    return notes


def speed(row: Row, view: tuple[str, str]) -> str:
    """The latency in prose, with runtime and batch."""
    return f"{row.latency(*view) or 0.0:.3g} ms in {runtime_name(view[0])} at batch {view[1]}"


def names(rows: Sequence[Row]) -> str:
    """The mixers' names as an English list."""
    words = [row.name for row in rows]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def front_of(comparison: Comparison, view: tuple[str, str]) -> list[Row]:
    """The mixers on the Pareto front of a view, the fastest first."""
    rows = sorted(comparison.measured(*view), key=lambda row: row.latency(*view) or 0.0)
    marks = pareto([(row.latency(*view) or 0.0, -comparison.ranking(row)) for row in rows])
    return [row for row, mark in zip(rows, marks, strict=True) if mark]
