"""What corruptions do to the answers of one model, as a page, and to those of several, as a section of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tokenmix.data.corruptions import BANDS, STRENGTHS
from tokenmix.pages.charts import Curves, curves_data
from tokenmix.pages.page import Cell, Head, page, render
from tokenmix.pages.result_schema import mapping, number
from tokenmix.tasks import DEFAULT_TASK, find_task
from tokenmix.tasks.section import Section
from tokenmix.text_tables import table

_Table = tuple[str, list[Head], list[tuple[str, bool, list[Cell]]]]  # title, heads, rows


def called(name: str) -> str:
    """A corruption in words."""
    return name.replace("_", " ")


def corruption_text(found: Mapping[str, Any]) -> str:
    """A table for a terminal: a row for each corruption, the score at each strength, the mean error."""
    heads = ["corruption", *(str(strength) for strength in STRENGTHS), "error, %"]
    rows = [
        [called(name), *(f"{score:.2f}" for score in scores), f"{found['errors'][name]:.2f}"]
        for name, scores in found["scores"].items()
    ]
    return f"{table(heads, rows)}\n{summary(found)}"


def summary(found: Mapping[str, Any]) -> str:
    """The mean corruption error in a sentence."""
    return (
        f"mean corruption error {found['mce']:.2f} %, {found['drop']:.2f} points above the error of "
        f"{100 - found['plain']:.2f} % on plain pictures (strengths of tokenmix, not of ImageNet-C)"
    )


def robustness_page(found: Mapping[str, Any], *, model: str, task_name: str, data: str) -> str:
    """What `tokenmix.robustness.corruption_errors` returns as one HTML file without dependencies.

    Args:
        found: It.
        model: The model's name.
        task_name: The name of its task.
        data: The data's name.
    """
    title = _headline(found["headline"], task_name)
    lines = [(called(name), _line(found["plain"], scores)) for name, scores in found["scores"].items()]
    chart = Curves("strength", title, "%", lines, 0.05, along="strength")
    rows: list[tuple[str, bool, list[Cell]]] = []
    for name, scores in found["scores"].items():
        error = found["errors"][name]
        cells = [Cell(f"{error:.2f}", error), *(Cell(f"{score:.2f}", score) for score in scores)]
        rows.append((called(name), False, cells))
    heads = [Head("corruption"), Head("error, %"), *(Head(f"strength {strength}") for strength in STRENGTHS)]
    shown = ("All numbers", heads, rows)
    html = render("robustness.html", part="one", charts=[(chart, chart.drawn((560, 360)))], table=shown)
    intro = render("robustness.html", part="intro", lead=summary(found), about=f"{model} on {data}")
    section = Section("corruptions", f"{title} by strength", html, "Corruptions")
    return page(f"Corrupted pictures: {model}", intro, [section], curves_data([chart]))


def comparison_charts(results: Mapping[str, Any]) -> list[Curves]:
    """Of a comparison with corruptions: the mean score by strength, and the error under noise of each band."""
    entries = _entries(results)
    if not any(entries.values()):
        return []
    headline = str(next(entry["headline"] for entry in entries.values() if entry))
    title = _headline(headline, str(results.get("task") or DEFAULT_TASK))
    by_strength, by_band = [], []
    for name, entry in entries.items():
        columns = list(zip(*entry["scores"].values(), strict=True)) if entry else []
        means = [sum(column) / len(column) for column in columns]
        by_strength.append((name, _line(entry["plain"], means) if entry else []))
        errors = [entry["errors"].get(band) for band in BANDS] if entry else []
        by_band.append((name, [(place, error) for place, error in enumerate(errors, 1) if error is not None]))
    return [
        Curves("strength", f"{title}, mean over the corruptions", "%", by_strength, 0.05, along="strength"),
        Curves("band", "error under noise, %", "%", by_band, along="band of noise, from low to high"),
    ]


def comparison_section(results: Mapping[str, Any], charts: Sequence[Curves]) -> Markup:
    """The charts and a table: the error of each mixer by corruption; nothing where none was measured."""
    entries = {name: entry for name, entry in _entries(results).items() if entry}
    if not entries:
        return Markup("")
    kinds = list(next(iter(entries.values()))["errors"])
    heads = [Head("mixer"), Head("mean error, %", sort="ascending"), Head("above plain"), Head("plain error, %")]
    heads += [Head(called(kind)) for kind in kinds]
    rows: list[tuple[str, bool, list[Cell]]] = []
    best = {kind: min(entry["errors"][kind] for entry in entries.values()) for kind in kinds}
    for name, entry in sorted(entries.items(), key=lambda pair: pair[1]["mce"]):
        plain = 100 - entry["plain"]
        cells = [Cell(f"{value:.2f}", value) for value in (entry["mce"], entry["drop"], plain)]
        errors = [(entry["errors"][kind], len(entries) > 1 and entry["errors"][kind] == best[kind]) for kind in kinds]
        cells += [Cell(f"{error:.2f}", error, best=top) for error, top in errors]
        rows.append((name, False, cells))
    drawn = [(chart, chart.drawn((440, 320))) for chart in charts]
    return render("robustness.html", part="several", charts=drawn, table=("Errors by corruption", heads, rows))


def _entries(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By mixer what its corruptions came to; empty where they were not measured."""
    found = {}
    for name, entry in mapping(results.get("mixers")).items():
        one = mapping(mapping(entry).get("corruptions"))
        found[name] = one if number(one.get("mce")) is not None else {}
    return found


def _headline(headline: str, task_name: str) -> str:
    return f"{find_task(task_name).label(headline)}, %"


def _line(plain: float, scores: Sequence[float]) -> list[tuple[float, float]]:
    """Strength and score, that of plain pictures at 0."""
    return [(float(strength), score) for strength, score in enumerate([plain, *scores])]
