"""What the test run counts and prints at its end: goldens reproduced, tests of timm's own that passed on our models."""

from __future__ import annotations

COUNTS: dict[str, set[str]] = {"goldens": set(), "timm tests": set()}


def count(kind: str, name: str) -> None:
    """Note that ``name`` was checked; the same name counts once, however many tests looked at it.

    Args:
        kind: A key of `COUNTS`.
        name: What was checked, for example a golden file's name.
    """
    COUNTS[kind].add(name)
