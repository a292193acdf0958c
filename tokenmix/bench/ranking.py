"""Who is faster, as far as the intervals can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tokenmix.bench.interleaved import Timing

FEWEST = 5
"""Rounds below which the interval of a median says too little to rank by it."""


@dataclass(frozen=True)
class Rank:
    """A place among others.

    Attributes:
        place: 1 is the fastest.
        tied: Those that share the place; their intervals overlap, directly or through others between them.
    """

    place: int
    tied: tuple[str, ...]


def rank(timings: Mapping[str, Timing], scale: Mapping[str, float] | None = None) -> dict[str, Rank]:
    """Places by the median's interval, the fastest first; whoever cannot be told apart shares one.

    Sorted by their lower ends, the intervals fall into groups between which there is a gap. Only the groups are ranked.
    Where fewer than `FEWEST` rounds were measured all are one group.

    Args:
        timings: By name.
        scale: What a time is divided by, for example images per call where those differ.
    """
    spans = {
        name: (timing.low_ms / (scale or {}).get(name, 1.0), timing.high_ms / (scale or {}).get(name, 1.0))
        for name, timing in timings.items()
    }
    enough = all(timing.rounds >= FEWEST for timing in timings.values())
    groups: list[list[str]] = []
    reach = float("-inf")
    for name in sorted(spans, key=spans.__getitem__):
        low, high = spans[name]
        if not groups or (low > reach and enough):
            groups.append([])
        groups[-1].append(name)
        reach = max(reach, high)
    ranks: dict[str, Rank] = {}
    for group in groups:
        place = len(ranks) + 1
        ranks |= {name: Rank(place, tuple(other for other in group if other != name)) for name in group}
    return ranks
