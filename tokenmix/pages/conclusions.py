"""What a comparison says, concluded from its numbers, and how far they can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmix.pages.result_schema import Comparison, Row, dig, mapping, number, read, sequence
from tokenmix.runtime_names import runtime_name

STILL_RISING = 0.05  # of all that it gained: in the last quarter of the epochs a mixer that has not learnt out
STILL_POINTS = 1.0  # the same of percents


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
    equals = [row for row in comparison.rows if row in rated and not all(comparison.apart(top, row) for top in best)]
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
    if len(answer.equals) > len(best) or (comparison.corrected and 1 < len(best) < len(comparison.rows)):
        return " ".join(filter(None, (_undecided(comparison, answer), settling(comparison))))
    if len(best) == len(comparison.rows):
        text = f"{names(best)}: {label} {top}"
    else:
        text = f"{names(best)} {'has' if len(best) == 1 else 'have'} the best {label} ({top})"
        if comparison.corrected and len(best) == 1 and not sequence(comparison.statistics.get("left_out")):
            text += f", which holds at {100 * comparison.level:g} % against every other"
    if view is None or fastest is None or answer.pick is None:
        return f"{text}; no latency was measured."
    if len(comparison.rows) == 1:
        return f"{text}, {speed(fastest, view)}."
    if best == [fastest]:
        return f"{text} and is the fastest ({speed(fastest, view)})."
    return f"{text}; {fastest.name} is the fastest ({speed(fastest, view)})."


def _undecided(comparison: Comparison, answer: Conclusions) -> str:
    """The answer where the test cannot tell the best from others: no winner is named that chance may have made."""
    equals, view, label = answer.equals, answer.view, comparison.label
    samples = f"{comparison.tested:,} test {comparison.noun}" if comparison.tested else "this test"
    ends = sorted((row.score or 0.0 for row in equals), reverse=not comparison.lower_is_better)
    span = " to ".join(dict.fromkeys(comparison.written(value) for value in (ends[-1], ends[0])))
    if len(equals) == len(comparison.rows):
        who = f"all {len(equals)}" if len(equals) > 5 else names(equals)
    else:
        who = names(equals) if len(equals) <= 5 else f"{len(equals)} of the {len(comparison.rows)}"
    text = f"{samples} cannot tell {who} apart: {label} {span} {comparison.unit}".rstrip()
    text = f"{text[0].upper()}{text[1:]}"
    if view is None or answer.pick is None or answer.fastest is None:
        return f"{text}; no latency was measured."
    text += f"; {answer.pick.name} is the fastest of them ({speed(answer.pick, view)})."
    if answer.fastest not in equals:
        told = f"{label} {comparison.said(answer.fastest)}"
        text += f" {answer.fastest.name} is faster still ({speed(answer.fastest, view)}), with {told}."
    return text


def settling(comparison: Comparison) -> str:
    """What would tell the best mixer from those that it is not told from; empty where nobody knows."""
    pairs = [mapping(pair) for pair in sequence(comparison.statistics.get("unsettled"))]
    wanted: dict[str, list[tuple[float, str]]] = {"items": [], "seeds": []}
    shared = [row for row in comparison.rows if pairs and all(row.name in _two(pair) for pair in pairs)]
    if not shared:
        return ""
    best = min(shared, key=comparison.ranking).name
    endless = []
    for pair in pairs:
        rival = next(name for name in _two(pair) if name != best)
        counts = {kind: number(pair.get(kind)) for kind in wanted}
        kind = next((kind for kind, count in counts.items() if count is not None), None)
        if kind is None:
            endless.append(rival)
        else:
            wanted[kind].append((counts[kind] or 0.0, rival))
    nouns = {"items": f"test {comparison.statistics.get('noun') or comparison.noun}", "seeds": "seeds each"}
    parts = []
    for kind, found in wanted.items():
        if found:
            least, name = min(found)
            most = max(found)[0]
            span = f"about {_rounded(least)} {nouns[kind]} to tell {best} from {name}"
            others = listed([other for _, other in sorted(found)[1:]])
            parts.append(span + (f", {_rounded(most)} from {others} too" if others else ""))
    text = f"If the differences are what they seem, it takes {'; '.join(parts)}." if parts else ""
    if endless:
        text += f" A thousand times as many would not tell {best} from {listed(endless)}."
    return text.strip()


def _two(pair: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in sequence(pair.get("mixers"))]


def _rounded(count: float) -> str:
    """A number with two significant digits, upwards, for what is known no better."""
    unit = 10 ** max(0, math.floor(math.log10(max(count, 1.0))) - 1)
    return f"{math.ceil(count / unit) * unit:,.0f}"


def caveats(results: Mapping[str, Any]) -> list[str]:
    """What must not be read into the numbers."""
    comparison = read(results)
    answer = conclusions(comparison)
    notes = []
    skipped = len(sequence(dig(results, "data", "skipped")))
    if skipped:
        files = "file was" if skipped == 1 else "files were"
        notes.append(f"{skipped:,} {files} skipped, with names and reasons under “How this was measured”, Data.")
    if dig(results, "data", "tested_on") == "val":
        notes.append(
            f"These data have no test {comparison.noun}: the validation {comparison.noun} are tested on, by which the "
            "best epoch of each mixer was chosen, so that all scores flatter a little."
        )
    left_out = {str(name): number(value) for name, value in mapping(results.get("left_out")).items()}
    if left_out:
        each = ", ".join(f"{name} ({value:.3g} ms)" for name, value in left_out.items() if value is not None)
        notes.append(f"Left out, since no widths make the budget of time: {each}, at the fastest that was tried.")
    notes += [
        f"{row.name} is not exported, and runs in PyTorch alone: {why}"
        for row in comparison.rows
        if (why := row.entry.get("not_exported")) is not None
    ]
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
    notes += _of_training(comparison)
    rivals = [row for row in answer.equals if row not in answer.best]
    if rivals:
        notes.append(
            f"{names(rivals)} {'lies' if len(rivals) == 1 else 'lie'} within that doubt of the best: "
            f"their order could change with other {comparison.noun} or another seed."
        )
    if answer.best and len(comparison.rows) > 1 and all(row.spread is None for row in comparison.rows):
        notes.append(
            "Each mixer was trained once: what is said holds for these networks, and several seeds (--seeds 5) would "
            "show how much training itself varies."
        )
    if answer.as_fast and answer.fastest:
        notes.append(
            f"The measured times of {names(answer.as_fast)} overlap with those of the fastest, {answer.fastest.name}."
        )
    return notes


def _of_training(comparison: Comparison) -> list[str]:
    """Whether the mixers have learnt out, what needs no model, and whether the machine was busy."""
    notes, headline = [], comparison.headline
    sign = -1 if comparison.lower_is_better else 1
    rising = []
    for row in comparison.rows:
        history = [mapping(step) for step in sequence(row.entry.get("history"))]
        scores = [sign * value for step in history if (value := number(step.get(f"val_{headline}"))) is not None]
        late = max(1, len(scores) // 4)
        if len(scores) > 3:
            enough = STILL_POINTS if comparison.unit == "%" else STILL_RISING * (max(scores) - scores[0])
            if max(scores[-late:]) - max(scores[:-late]) > enough:
                rising.append(row)
    if rising:
        who = names(rising) if len(rising) <= 5 else f"{len(rising)} of the {len(comparison.rows)} mixers"
        amount = f"{STILL_POINTS:g} points" if comparison.unit == "%" else f"{STILL_RISING:.0%} of all their gain"
        notes.append(
            f"Undertrained: {who} still gained more than {amount} of validation {comparison.label} in the last quarter "
            "of the epochs; with more epochs the order may be another one."
        )
    base = number(dig(comparison.raw, "base_line", "value"))
    if base is not None:
        words = dig(comparison.raw, "base_line", "words")
        notes.append(
            f"No model is needed for {comparison.label} {comparison.written(base)} {comparison.unit}: {words}."
        )
    load = sequence(dig(comparison.raw, "machine", "load_average"))
    cores = number(dig(comparison.raw, "machine", "cores"))
    first = number(load[0]) if load else None
    if first is not None and cores and first > 1.5 * cores:
        notes.append(
            f"The machine was busy (load {first:g} on {cores:g} cores): the times are longer than they would be alone."
        )
    return notes


def speed(row: Row, view: tuple[str, str]) -> str:
    """The latency in prose, with runtime and batch."""
    return f"{row.latency(*view) or 0.0:.3g} ms in {runtime_name(view[0])} at batch {view[1]}"


def names(rows: Sequence[Row]) -> str:
    """The mixers' names as an English list."""
    return listed([row.name for row in rows])


def listed(words: Sequence[str]) -> str:
    """An English list."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def front_of(comparison: Comparison, view: tuple[str, str]) -> list[Row]:
    """The mixers on the Pareto front of a view, the fastest first."""
    rows = sorted(comparison.measured(*view), key=lambda row: row.latency(*view) or 0.0)
    marks = pareto([(row.latency(*view) or 0.0, -comparison.ranking(row)) for row in rows])
    return [row for row, mark in zip(rows, marks, strict=True) if mark]
