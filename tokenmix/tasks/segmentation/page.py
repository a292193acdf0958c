"""What pages show of segmenters: the worst images, IoU of each class, and which classes are confused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenmix.pages.page import render
from tokenmix.pictures.colours import css_colour
from tokenmix.pictures.drawing import BACKGROUND
from tokenmix.tasks.dense.page import MATRIX, Pictures, classes_section, worst_images
from tokenmix.tasks.section import Section

COLUMNS = {"IoU": "IoU, %", "Acc": "accuracy, %"}


def run_sections(run: Mapping[str, Any], pictures: Pictures) -> list[Section]:
    """The images with the lowest mean IoU, each class in numbers, and which are confused.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `LabelEvidence` gathered.
        pictures: See `worst_images`.
    """
    evidence, classes = run["evidence"], run["facts"]["classes"]
    intro = (
        f"Of {evidence['images']:,} validation images those with the lowest mean IoU over the classes that are there "
        f"or were seen, with the weights of epoch {run['best_epoch']}, which are the ones kept."
    )
    cards = [
        (f"mean IoU {one['mIoU']:.1f} %", f"{one['aAcc']:.1f} % of the pixels right", one)
        for one in evidence["mistakes"]
    ]
    key = [("transparent" if name == BACKGROUND else css_colour(number), name) for number, name in enumerate(classes)]
    sections = [worst_images(intro, "", cards, pictures, key), classes_section(evidence["classes"], COLUMNS)]
    if len(classes) <= MATRIX:
        data = {"size": len(classes), "cells": evidence["cells"], "classes": classes, "unit": "pixels"}
        html = render(Path(__file__).parent / "templates" / "confusion.html")
        sections.append(Section("confusion", "Which classes are confused", html, "Confusion", data={"confusion": data}))
    return sections
