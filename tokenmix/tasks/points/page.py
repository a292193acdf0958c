"""What pages show of networks on points: clouds that can be turned, IoU of each class, and which are confused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokenmix.pages.page import Cell, Head, Section, render

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"
MATRIX = 100  # classes; more make cells that cannot be seen


def run_sections(run: Mapping[str, Any], pictures: Mapping[int, str | None]) -> list[Section]:
    """The clouds with the lowest mean IoU, each class in numbers, and which are confused.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `CloudEvidence` gathered.
        pictures: HTML of clouds by an entry's ``index``.
    """
    evidence, classes = run["evidence"], run["facts"]["classes"]
    cards = [
        {**entry, "view": Markup(view) if (view := pictures.get(entry["index"])) else ""}
        for entry in evidence["mistakes"]
    ]
    html = render(TEMPLATES / "clouds.html", cards=cards, clouds=evidence["clouds"], epoch=run["best_epoch"])
    files = (FOLDER / "viewer.css", FOLDER / "viewer.js")
    sections = [Section("mistakes", "Worst clouds", html, "Worst clouds", files=files), _classes(evidence["classes"])]
    if len(classes) <= MATRIX:
        data = {"size": len(classes), "cells": evidence["cells"], "classes": classes, "unit": "points"}
        html = render(TEMPLATES / "confusion.html")
        sections.append(Section("confusion", "Which classes are confused", html, "Confusion", data={"confusion": data}))
    return sections


def _classes(rows: list[Mapping[str, Any]]) -> Section:
    """IoU and accuracy of each class, the lowest IoU first."""
    ranked = sorted(rows, key=lambda row: (row["IoU"] is None, row["IoU"] or 0.0))
    heads = [Head("class"), Head("IoU, %", sort="ascending"), Head("accuracy, %")]
    lines = [(row["class"], False, [_cell(row["IoU"]), _cell(row["Acc"])]) for row in ranked]
    html = render("table.html", label="Classes", heads=heads, rows=lines, groups=())
    return Section("classes", "Classes", html, "Classes")


def _cell(value: float | None) -> Cell:
    return Cell("–" if value is None else f"{value:.1f}", value)
