"""What ``tokenmix eval`` prints: numbers in a line, classes or other parts of the data in a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tokenmix.tasks import Task
from tokenmix.text_tables import table

SHOWN = 25  # rows of the printed table


def numbers_line(task: Task, numbers: Mapping[str, float], facts: Mapping[str, Any] | None = None) -> str:
    """Names and values with their units; a dash for what does not exist.

    Args:
        task: Whose numbers they are.
        numbers: By their names.
        facts: Of the data; what is known by them beforehand is left out.
    """
    if facts is not None:
        numbers = {name: numbers[name] for name in task.told_names(list(numbers), facts)}
    return "  ".join(
        f"{name} {'–' if math.isnan(value) else task.shown(name, value)}" for name, value in numbers.items()
    )


def rows_table(task: Task, rows: Sequence[Mapping[str, Any]]) -> str:
    """The classes or other parts, or the hardest ones of many; empty where there are none."""
    headers = task.row_columns()
    columns = [name for name in headers if rows and name in rows[0]]
    if not columns:
        return ""
    ranked = next((name for name in columns if isinstance(rows[0][name], float)), columns[0])
    hardest = sorted(rows, key=lambda row: _rank(row[ranked]), reverse=task.lower_is_better)
    shown = rows if len(rows) <= SHOWN else hardest[:SHOWN]
    text = table([headers[name] for name in columns], [[task.cell(row, name) for name in columns] for row in shown])
    more = f"\nthe hardest {SHOWN} of {len(rows):,}; --json has all" if len(rows) > SHOWN else ""
    return text + more


def _rank(value: Any) -> Any:
    return math.inf if isinstance(value, float) and math.isnan(value) else value
