"""The page that `compare` writes: which mixer to choose, shown and explained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tokenmix.files import write_text
from tokenmix.pages.charts import NARROW, WIDE, Curves, Point, both_sizes, curves_data, scatter, short
from tokenmix.pages.comparison_table import front_note, html_table, ranked
from tokenmix.pages.conclusions import Conclusions, caveats, conclusions, front_of, headline, settling, speed
from tokenmix.pages.method import definitions, method
from tokenmix.pages.page import page, render
from tokenmix.pages.result_schema import Comparison, Row, dig, mapping, number, read, sequence
from tokenmix.pages.robustness import comparison_charts, comparison_section
from tokenmix.pages.strips import Strip, letter, memberships, strips
from tokenmix.runtime_names import runtime_name
from tokenmix.tasks.section import Section


def comparison_page(results: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> str:
    """The results as one HTML file that needs neither network nor other files.

    Args:
        results: What ``compare`` wrote to ``results.json``; whatever is missing is left out of the page.
        pictures: PNG files by the name of the sample that they show.

    Raises:
        ValueError: The results have another schema, or no mixer.
    """
    comparison = read(results)
    answer = conclusions(comparison)
    label = comparison.label[:1].upper() + comparison.label[1:]
    charts, corrupted = _curves(comparison), comparison_charts(results)
    sections = [
        Section("results", "All results", _table(comparison, answer), "Results"),
        Section("telling", "Which mixers can be told apart", _telling(comparison), "Told apart"),
        Section("tradeoff", f"{label} against latency", _tradeoff(comparison, answer), f"{label} against latency"),
        Section("curves", "Learning curves", _learning(comparison, charts), "Learning curves"),
        *comparison.task.compare_sections(results, pictures or {}),
        Section("corruptions", "Corrupted pictures", comparison_section(results, corrupted), "Corrupted pictures"),
        Section("protocol", "How this was measured", method(comparison), "How it was measured"),
        Section("definitions", "What the numbers mean", definitions(comparison), "Definitions"),
    ]
    name = str(dig(results, "data", "name") or comparison.noun)
    return page(f"Token mixers on {name}", _intro(comparison, answer), sections, curves_data([*charts, *corrupted]))


def write_comparison(
    results: Mapping[str, Any], path: str | os.PathLike[str], pictures: Mapping[str, bytes] | None = None
) -> None:
    """Write `comparison_page` to a file, atomically."""
    write_text(path, comparison_page(results, pictures))


def pareto_svg(
    results: Mapping[str, Any],
    *,
    runtime: str | None = None,
    batch: int | str | None = None,
    size: tuple[int, int] = (880, 460),
) -> str:
    """The headline against latency as a standalone SVG file with its own light background, for a README.

    Args:
        results: What ``compare`` wrote to ``results.json``.
        runtime: One of the results' runtimes; None takes the fastest.
        batch: One of the results' batch sizes; None takes the smallest.
        size: Width and height in pixels.

    Raises:
        ValueError: No mixer has both a score and a latency there.
    """
    comparison = read(results)
    view = conclusions(comparison).view
    if view is None:
        raise ValueError("no mixer has both a score and a latency: there is nothing to draw")
    view = (runtime or view[0], view[1] if batch is None else str(batch))
    if view not in comparison.views():
        known = "; ".join(f"{name} at batch {size}" for name, size in comparison.views())
        raise ValueError(f"nothing was measured with {view[0]} at batch {view[1]}. Measured: {known}")
    label = f"Test {comparison.label} against latency in {runtime_name(view[0])}, batch {view[1]}"
    points, options = _points(comparison, view)
    return str(scatter(points, size=size, caption=f"{label}. Line and filled dots: Pareto front", **options)) + "\n"


# -------------------------------------------------------------------------------------------------------------- the top


def _intro(comparison: Comparison, answer: Conclusions) -> Markup:
    cells: list[tuple[str, Sequence[Row], str]] = []
    if answer.best:
        top = answer.best[0]
        ends = "–".join(map(comparison.written, top.interval)) if top.interval else ""
        doubt = f", 95 % interval {ends}" if ends else ""
        samples = f" on test {comparison.noun}"
        cells.append((f"Best {comparison.label}", answer.best, comparison.said(top) + samples + doubt))
    if answer.view and answer.fastest:
        view = answer.view
        cells.append(("Fastest", [answer.fastest], _pace(answer.fastest, comparison, view)))
        if answer.pick and answer.pick is not answer.fastest and answer.pick not in answer.best:
            text = _pace(answer.pick, comparison, view)
            cells.append(("Fastest that this test cannot tell from the best", [answer.pick], text))
        if len(comparison.rows) > 1:
            where = f"{runtime_name(view[0])}, batch {view[1]}; fastest first"
            cells.append(("Pareto front", answer.front, where))
    return render(
        "comparison_intro.html",
        headline=headline(comparison.raw),
        setting=_setting(comparison),
        cells=[(term, ", ".join(row.name for row in rows), text) for term, rows, text in cells],
        caveats=caveats(comparison.raw),
    )


def _pace(row: Row, comparison: Comparison, view: tuple[str, str]) -> str:
    return f"{speed(row, view)}; {comparison.said(row)}"


def _setting(comparison: Comparison) -> str:
    raw = comparison.raw
    count = len(comparison.rows)
    text = f"{count} token mixer{'s' if count > 1 else ''}"
    if raw.get("skeleton"):
        text += f" in the skeleton {raw['skeleton']}"
    trained = number(dig(raw, "data", "train"))
    epochs = number(dig(raw, "recipe", "schedule.epochs") or dig(raw, "recipe", "epochs"))
    text += ", trained alike" if count > 1 else ", trained"
    steps = number(dig(raw, "recipe", "schedule.steps"))
    if steps:
        text += f" for {steps:,.0f} steps"
    elif epochs:
        text += f" for {epochs:g} epoch{'s' * (epochs != 1)}"
    text += f" on {trained:,.0f} {comparison.noun}" if trained else ""
    text += f", tested on {comparison.tested:,} others" if comparison.tested else ""
    seeds = len(sequence(raw.get("seeds")))
    text += f", {seeds} seeds each" if seeds > 1 else ""
    created = str(raw.get("created") or "")[:10]
    return text + "." + (f" {created}." if created else "")


# -------------------------------------------------------------------------------------------- the table and the scatter


def _table(comparison: Comparison, answer: Conclusions) -> Markup:
    marks = f"{front_note(comparison, '◆')} " if answer.front else ""
    small = "Bold: best of the column. Small print: 95 % intervals."
    return html_table(comparison) + Markup('<p class="muted">{}</p>').format(marks + small)


_METHODS = {
    "mcnemar": "McNemar's exact test on the answers to the same {items:,} test {noun}, with one seed",
    "signs": "flipped signs of the differences on the same {items:,} {noun}, with one seed",
    "series": "Student's test on the differences on the same {items:,} {noun}, which share data with their neighbours, "
    "with one seed",
    "seeds": "a model in which {seeds} seeds and {items:,} test {noun} are chosen at random",
}


def _telling(comparison: Comparison) -> Markup:
    """The seeds of each mixer as dots, and the groups of those that the test cannot tell apart."""
    rows = [row for row in ranked(comparison) if row.score is not None]
    if len(rows) < 2:
        return Markup("")
    found = comparison.statistics
    groups = [[str(name) for name in sequence(group)] for group in sequence(found.get("groups"))]
    places = memberships(groups)
    drawn = []
    for row in rows:
        score = row.score or 0.0
        lines = [row.name, f"{comparison.label} {comparison.said(row)}"]
        if row.interval:
            lines.append(f"95 % interval {' to '.join(map(comparison.written, row.interval))}")
        lines += [f"seed: {comparison.written(value)}" for value in row.runs if len(row.runs) > 1]
        drawn.append(
            Strip(row.name, row.index, row.runs or [score], score, row.interval, places.get(row.name, []), lines)
        )
    title = f"{comparison.titled}: a strip for each mixer, the best first"
    options: dict[str, Any] = {"values": comparison.titled, "title": title, "weight": comparison.weight}
    charts = Markup("").join(
        strips(drawn, width=width, kind=kind, **options) for kind, width in (("wide", WIDE[0]), ("narrow", NARROW[0]))
    )
    method = _METHODS.get(str(found.get("method")), "")
    verdict = "Told apart by their intervals: these results are of an older version."
    if "statistics" in comparison.raw:
        verdict = f"These test {comparison.noun} are too few to tell any two apart."
    if method:
        counted = {key: int(number(found.get(key)) or 0) for key in ("items", "seeds")}
        how = method.format(noun=found.get("noun") or comparison.noun, **counted)
        verdict = (
            f"{how[:1].upper()}{how[1:]}; with Holm's correction for all {len(comparison.corrected)} pairs, the chance "
            f"of a single false difference is {100 * comparison.level:g} % at most. {settling(comparison)}"
        )
    if left_out := sequence(found.get("left_out")):
        verdict += f" Compared with none, since their scores are not all finite: {', '.join(map(str, left_out))}."
    return render(
        "telling.html",
        verdict=verdict.strip(),
        charts=charts,
        groups=[(letter(place), group) for place, group in enumerate(groups)],
        level=f"{100 * comparison.level:g}",
    )


def _points(comparison: Comparison, view: tuple[str, str]) -> tuple[list[Point], dict[str, Any]]:
    """The points of a view's scatter, and the further arguments that draw them."""
    front = front_of(comparison, view)
    points = []
    for row in comparison.measured(*view):
        score, spread = row.score or 0.0, row.spread
        points.append(
            Point(
                cost=row.latency(*view) or 0.0,
                value=score,
                label=short(row.name),
                told=_told(row, comparison, view, row in front),
                number=row.index,
                front=row in front,
                cost_range=row.latency_range(*view),
                value_range=(score - spread, score + spread) if spread else None,
            )
        )
    best = min(comparison.measured(*view), key=comparison.ranking)
    return points, {
        "costs": f"latency at batch {view[1]}, ms",
        "values": comparison.titled,
        "title": f"{runtime_name(view[0])}, batch {view[1]}: {comparison.label} against latency",
        "weight": comparison.weight,
        "lower_is_better": comparison.lower_is_better,
        "band": (f"95 % interval of {short(best.name, 18)}", best.interval) if best.interval else None,
    }


def _told(row: Row, comparison: Comparison, view: tuple[str, str], front: bool) -> list[str]:
    """What a point tells when it is pointed at."""
    score = f"{row.score or 0.0:.{comparison.digits + 1}f} {comparison.unit}".rstrip()
    lines = [row.name, f"{comparison.label} {score}"]
    if row.interval:
        lines[-1] += f" (95 % interval {' to '.join(map(comparison.written, row.interval))})"
    if row.spread is not None:
        lines.append(f"± {comparison.written(row.spread)} over seeds")
    time, span = row.latency(*view) or 0.0, row.latency_range(*view)
    lines.append(f"{time:.3g} ms" + (f" ({span[0]:.3g} to {span[1]:.3g})" if span else ""))
    return [*lines, "on the Pareto front"] if front else lines


def _tradeoff(comparison: Comparison, answer: Conclusions) -> Markup:
    drawn = []
    for view in comparison.views():
        points, options = _points(comparison, view)
        drawn.append((*view, both_sizes(points, **options)))
    return render(
        "tradeoff.html",
        chosen=answer.view,
        drawn=drawn,
        label=comparison.label,
        runtimes=[(name, runtime_name(name)) for name in comparison.runtimes if name in {view[0] for view in drawn}],
        batches=[(size, size) for size in comparison.batches if size in {view[1] for view in drawn}],
    )


# ----------------------------------------------------------------------------------------------------------- the curves


def _curves(comparison: Comparison) -> list[Curves]:
    """What is drawn over the epochs, a line for each mixer."""
    share, validated = comparison.task.headline_is_share, number(dig(comparison.raw, "data", "val"))
    weight = comparison.weight and (100 / validated if share and validated else 0.05)
    metric = f"validation {comparison.titled.removeprefix('test ')}"
    wanted = [
        (f"val_{comparison.headline}", metric, comparison.unit, weight),
        ("val_loss", "validation loss", "", None),
        ("loss", "training loss", "", None),
    ]
    charts = [
        Curves(key, title, unit, [(row.name, _history(row, key)) for row in comparison.rows], weight)
        for key, title, unit, weight in wanted
    ]
    return [chart for chart in charts if chart.shown()]


def _history(row: Row, key: str) -> list[tuple[float, float]]:
    points = []
    for step in map(mapping, sequence(row.entry.get("history"))):
        epoch, value = number(step.get("epoch")), number(step.get(key))
        if epoch is not None and value is not None:
            points.append((epoch, value))
    return points


def _learning(comparison: Comparison, charts: Sequence[Curves]) -> Markup:
    shown = {number for chart in charts for number, _ in chart.shown()}
    rows = [row for row in comparison.rows if row.index in shown]
    return render("learning.html", charts=[chart.drawn() for chart in charts], rows=rows) if charts else Markup("")
