"""What pages show of forecasters: the worst windows, and the errors by step and by variable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import Cell, Head, render
from tokenmix.pages.result_schema import mapping, number, read, sequence
from tokenmix.tasks.forecasting.drawing import TEMPLATES, Panel, chart
from tokenmix.tasks.section import Section

COLUMNS = {"mse": "squared error", "mae": "absolute error"}


def run_sections(run: Mapping[str, Any], pictures: Mapping[int, str | None]) -> list[Section]:
    """The worst windows, the error of each future step, and that of each variable.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `ForecastEvidence` gathered.
        pictures: SVG by an entry's ``index``.
    """
    evidence, epoch = run["evidence"], run["best_epoch"]
    drawn = {index: Markup(picture) if picture else "" for index, picture in pictures.items()}
    values = {"cards": evidence["mistakes"], "windows": evidence["windows"], "epoch": epoch, "pictures": drawn}
    html = render(TEMPLATES / "windows.html", **values)
    steps = evidence["by_step"]
    marks = [(0, "1"), (len(steps) - 1, f"{len(steps)}")]
    panel = Panel("mean squared error of each step ahead", {"found": steps}, {"found": 0}, marks=marks)
    heads = [Head("variable"), *(Head(title, "descending") for title in COLUMNS.values())]
    heads[1] = heads[1]._replace(sort="descending")
    rows = [(one["variable"], False, [_cell(one[name]) for name in COLUMNS]) for one in evidence["variables"]]
    intro = "Errors on the normalised series: a squared error of 1 is that of forecasting a variable's mean."
    errors = render(TEMPLATES / "errors.html", intro=intro, drawn=chart([panel], panel.title), heads=heads, rows=rows)
    return [
        Section("mistakes", "Worst windows", html, "Worst windows", files=(TEMPLATES / "windows.css",)),
        Section("errors", "Errors by step and variable", errors, "Errors"),
    ]


def compare_sections(results: Mapping[str, Any]) -> list[Section]:
    """The squared error of each variable in the test part, a column for the last season and one per mixer."""
    tables: dict[str, dict[str, float | None]] = {}
    naive: dict[str, float | None] = {}
    for row in read(results).rows:
        variables = [mapping(one) for one in sequence(row.entry.get("per_variable"))]
        if variables:
            tables[row.name] = {str(one.get("variable")): number(one.get("mse")) for one in variables}
            naive |= {str(one.get("variable")): number(one.get("naive_mse")) for one in variables}
    if not tables:
        return []
    rows = []
    for name, before in naive.items():
        values = [table.get(name) for table in tables.values()]
        there = [value for value in values if value is not None]
        best = min(there) if len(set(there)) > 1 else None
        cells = [_cell(value, value is not None and value == best) for value in values]
        rows.append((name, False, [_cell(before), *cells]))
    heads = [Head("variable"), Head("last season"), *(Head(name) for name in tables)]
    html = render(
        TEMPLATES / "errors.html",
        intro="Mean squared error of each variable on the test windows, with the weights of each mixer's best seed.",
        drawn="",
        heads=heads,
        rows=rows,
    )
    return [Section("variables", "Variables", html, "Variables")]


def _cell(value: float | None, best: bool = False) -> Cell:
    return Cell("–" if value is None else f"{value:.4f}", value, best=best)
