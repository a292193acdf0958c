"""The tables of ``docs/security.md``, from the results of ``benchmarks/security.py``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from hostile.conditions import CONDITIONS
from hostile.files import FILES
from tokenmix.files import write_text

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "security.json"
PAGE = ROOT / "docs" / "security.md"
BEGIN, END = "<!-- written by benchmarks/security.py -->\n", "<!-- end of what benchmarks/security.py writes -->\n"


def _table(cases: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """A table per kind, and how many cases ended as they must."""
    right = {row["name"]: row["right"] for row in rows}
    lines = [f"{sum(right.values())} of {len(right)} ended as they must.", ""]
    for kind, group in groupby(cases.values(), key=lambda case: case.kind):
        lines += [f"### {kind}", "", "| what | outcome |", "|---|---|"]
        for case in group:
            told = case.outcome if right.get(case.name) else "**not as it must**"
            lines.append(f"| {case.sentence} | {told} |".replace("\x1b", ""))
        lines.append("")
    return "\n".join(lines)


def _inputs(rows: list[dict[str, Any]], seed: int) -> str:
    """How many generated inputs of each kind ended how."""
    kinds = Counter(row["name"].rpartition(" ")[0] for row in rows)
    ended = Counter((row["name"].rpartition(" ")[0], row["code"]) for row in rows)
    wrong = sum(not row["right"] for row in rows)
    lines = [
        f"{len(rows)} inputs generated from seed {seed}: no traceback, none over 10 s or 4 GB, no code run, no address "
        "opened" + (f", but for {wrong}." if wrong else "."),
        "",
        "| kind | inputs | accepted | refused in one line |",
        "|---|--:|--:|--:|",
    ]
    lines += [f"| {kind} | {count} | {ended[kind, 0]} | {count - ended[kind, 0]} |" for kind, count in kinds.items()]
    return "\n".join(lines) + "\n"


def write_tables() -> None:
    """Write the tables into the page, between its marks."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = found["machine"]
    on = f"On {machine['cpu']}, {machine['cores']} cores, torch {machine['versions']['torch']}"
    parts = [
        f"{on}: hostile files, {_table(FILES, found['files'])}",
        f"### Generated inputs\n\n{_inputs(found['fuzz'], found['seed'])}",
        f"## Unkind machines\n\n{_table(CONDITIONS, found['conditions'])}",
    ]
    whole = PAGE.read_text(encoding="utf-8")
    before, _, rest = whole.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_text(PAGE, f"{before}{BEGIN}\n" + "\n".join(parts) + f"\n{END}{after}")
