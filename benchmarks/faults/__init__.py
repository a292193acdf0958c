"""Accidents that happen to training runs, each a function; ``benchmarks/reliability.py`` lets them happen."""

from faults import damage, disks, inputs, kills, ranks, signals  # noqa: F401  they register themselves
from faults.registry import FAULTS, Fault

__all__ = ["FAULTS", "Fault"]
