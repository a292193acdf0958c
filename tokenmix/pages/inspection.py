"""The page of an inspection: figures in groups, a row for each layer or picture, and the spectra by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenmix.pages.charts import Curves, curves_data
from tokenmix.pages.page import TEMPLATES, page, render
from tokenmix.tasks.section import Section

_STYLE = (TEMPLATES / "inspection.css",)
OPEN_ROWS = 6  # of a group; the others are folded
MOST_LINES = 7  # of a chart: as many as there are colours


def inspection_page(result: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """What `tokenmix.inspect` returns as one HTML file that needs neither network nor other files.

    Args:
        result: It.
        pictures: Its PNG files by name.
    """
    sections = [
        Section(
            group["anchor"],
            group["heading"],
            render("inspection.html", part="group", group=group, pictures=pictures, open_rows=OPEN_ROWS),
            group["heading"],
            files=_STYLE,
        )
        for group in result["groups"]
    ]
    charts = _spectra(result)
    if charts:
        html = render(
            "inspection.html", part="spectra", charts=[(name, chart, chart.drawn()) for name, chart in charts]
        )
        sections.append(Section("spectra", "Which frequencies are kept", html, "Frequencies", files=_STYLE))
    names = " and ".join(result["models"])
    intro = render("inspection.html", part="intro", result=result, truths=_truths(result))
    return page(f"Inside {names}", intro, sections, curves_data([chart for _, chart in charts]))


def _spectra(result: Mapping[str, Any]) -> list[tuple[str, Curves]]:
    """A chart for each model: a line for each of some of its blocks."""
    charts = []
    for number, (name, entry) in enumerate(result["models"].items()):
        spectra = list((entry.get("spectra") or {}).items())
        if not spectra:
            continue
        kept = sorted({round(place * (len(spectra) - 1) / (MOST_LINES - 1)) for place in range(MOST_LINES)})
        lines = []
        for layer, values in (spectra[place] for place in kept):
            lines.append((layer, [(point / (len(values) - 1), value) for point, value in enumerate(values)]))
        title, along = "log amplitude, relative to the mean", "frequency, of Nyquist's"
        charts.append((name, Curves(f"spectrum{number}", title, "", lines, along=along, whole=False)))
    return charts


def _truths(result: Mapping[str, Any]) -> list[str]:
    """What the page can say of itself: that what it shows is what runs."""
    lines = []
    for name, entry in result["models"].items():
        if differences := entry.get("slots_differ_by"):
            worst = max(differences.values())
            near = f"to {worst:.1e} of the largest value" if worst else "exactly"
            lines.append(
                f"{name}: put together again, the slots of {len(differences)} of its {len(entry['mixers'])} mixers are "
                f"what those returned, {near}."
            )
    return lines
