"""What pages show of classifiers: which classes are confused, the worst mistakes, and answers beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tokenmix.pages.conclusions import conclusions
from tokenmix.pages.page import render
from tokenmix.pages.result_schema import Comparison, Row, dig, mapping, number, read, sequence
from tokenmix.tasks.section import Section

TEMPLATES = Path(__file__).with_name("templates")
MATRIX = 100  # classes; more make cells that cannot be seen
ROWS = 12  # of the tables of confusions and classes
SHOWN = 8  # sample predictions before the rest is folded away


def class_name(classes: Sequence[str], number: Any) -> str:
    """The name of a class; of one without a name its number; -1 stands for logits that are not finite."""
    if isinstance(number, int) and 0 <= number < len(classes):
        return str(classes[number])
    return "not a number" if number == -1 else str(number)


# ----------------------------------------------------------------------------------------------------------- of a run


def run_sections(run: Mapping[str, Any], pictures: Mapping[int, bytes | None]) -> list[Section]:
    """Which classes the kept weights confuse, and the wrong answers that they were surest of.

    Args:
        run: See `tokenmix.pages.run.run_page`; its ``evidence`` is what `ClassEvidence` gathered.
        pictures: PNG files by the ``index`` of a mistake.
    """
    evidence, classes = run["evidence"], run["facts"]["classes"]
    matrix = len(classes) <= MATRIX
    data = {"size": len(classes), "cells": evidence["cells"], "classes": classes, "unit": run["noun"]}
    mistakes = [
        {
            "picture": pictures.get(mistake["index"]),
            "name": mistake["name"],
            "truth": class_name(classes, mistake["truth"]),
            "answer": class_name(classes, mistake["prediction"]),
            "sure": _share(mistake["confidence"]),
            "truth_sure": _share(mistake["truth_confidence"]),
        }
        for mistake in evidence["mistakes"]
    ]
    shown = render(TEMPLATES / "mistakes.html", mistakes=mistakes, noun=run["noun"])
    return [
        Section(
            "confusion",
            "Which classes are confused",
            _run_confusion(run, matrix),
            "Confusion",
            data={"confusion": data} if matrix else {},
        ),
        Section("mistakes", "Worst mistakes", shown, "Mistakes", files=(TEMPLATES / "mistakes.css",)),
    ]


def _share(value: float) -> str:
    return f"{100 * value:.{1 if value < 0.0995 else 0}f} %"


def _run_confusion(run: Mapping[str, Any], matrix: bool) -> Markup:
    evidence, classes = run["evidence"], run["facts"]["classes"]
    totals: dict[int, int] = {}
    right: dict[int, int] = {}
    for truth, answer, count in evidence["cells"]:
        totals[truth] = totals.get(truth, 0) + count
        if truth == answer:
            right[truth] = count
    errors = sorted((cell for cell in evidence["cells"] if cell[0] != cell[1]), key=lambda cell: -cell[2])
    hardest = sorted(totals, key=lambda truth: right.get(truth, 0) / totals[truth])
    recalls = [(truth, right.get(truth, 0), totals[truth]) for truth in hardest if right.get(truth, 0) < totals[truth]]
    return render(
        TEMPLATES / "run_confusion.html",
        wrong=sum(count for *_, count in errors),
        images=evidence["images"],
        noun=run["noun"],
        epoch=run["best_epoch"],
        matrix=matrix,
        errors=[
            (class_name(classes, truth), class_name(classes, answer), f"{count:,} of {totals[truth]:,}")
            for truth, answer, count in errors[:ROWS]
        ],
        recalls=[
            (class_name(classes, truth), f"{count:,}\u00a0of\u00a0{total:,}", f"{100 * count / total:.1f} %")
            for truth, count, total in recalls[:ROWS]
        ],
    )


# ---------------------------------------------------------------------------------------------------- of a comparison


@dataclass
class _Sample:
    """A test image with what each mixer saw in it: the mixer, the class, and how sure it was."""

    name: str
    truth: Any
    seen: list[tuple[Row, Any, float | None]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        return sum(prediction != self.truth for _, prediction, _ in self.seen)


def compare_sections(results: Mapping[str, Any], pictures: Mapping[str, bytes]) -> list[Section]:
    """Which classes each mixer confuses, and sample predictions, the hardest first.

    Args:
        results: See `tokenmix.pages.comparison.comparison_page`.
        pictures: PNG files by the name of a sample.
    """
    comparison = read(results)
    classes = [str(name) for name in sequence(dig(results, "data", "classes"))]
    tables = {row.index: _cells(row) for row in comparison.rows}
    rows = [row for row in comparison.rows if tables[row.index]["cells"]]
    best = next((row for row in conclusions(comparison).best if row in rows), None)
    confusion = render(TEMPLATES / "compare_confusion.html", rows=rows, best=best, noun=comparison.noun)
    data = [
        {"name": row.name, "classes": classes, "unit": comparison.noun, **tables[row.index]} for row in comparison.rows
    ]
    return [
        Section(
            "confusion",
            "Which classes are confused",
            confusion if rows else "",
            "Confusion",
            data={"confusions": data},
            files=(TEMPLATES / "confusion.js",),
        ),
        Section("samples", "Sample predictions", _samples(comparison, classes, pictures), "Samples"),
    ]


def _cells(row: Row) -> dict[str, Any]:
    """The confusion matrix without its zeros, which are most of it where classes are many."""
    matrix = sequence(row.entry.get("confusion"))
    cells = []
    for truth, counts in enumerate(matrix):
        for predicted, count in enumerate(sequence(counts)[: len(matrix)]):
            if number(count):
                cells.append((truth, predicted, count))
    return {"size": len(matrix), "cells": cells}


def _samples(comparison: Comparison, classes: Sequence[str], pictures: Mapping[str, bytes]) -> Markup:
    """Cards with the picture, the truth and what each mixer saw; those that most mixers get wrong come first."""
    samples: dict[str, _Sample] = {}
    for row in comparison.rows:
        for values in map(mapping, sequence(row.entry.get("samples"))):
            name = str(values.get("name"))
            sample = samples.setdefault(name, _Sample(name, values.get("truth")))
            sample.seen.append((row, values.get("prediction"), number(values.get("confidence"))))
    if not samples:
        return Markup("")
    order = sorted(samples.values(), key=lambda sample: -sample.wrong)
    return render(
        TEMPLATES / "samples.html",
        missed=sum(sample.wrong > 0 for sample in order),
        noun=comparison.noun,
        shown=SHOWN,
        cards=[
            render(
                TEMPLATES / "sample.html",
                sample=sample,
                truth=class_name(classes, sample.truth),
                picture=pictures.get(sample.name),
                lines=[
                    (row.name, class_name(classes, answer), "" if sure is None else f"{100 * sure:.0f} %", answer)
                    for row, answer, sure in sorted(sample.seen, key=lambda seen: seen[1] == sample.truth)
                ],
            )
            for sample in order
        ],
    )
