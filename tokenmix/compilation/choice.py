"""What was chosen, and why: a result that can be read and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenmix.bench.interleaved import Timing
from tokenmix.runtime_names import runtime_name
from tokenmix.text_tables import table

NEAR = 0.03
"""A simpler way is taken if it is slower than the fastest by no more than this share."""


@dataclass(frozen=True)
class Candidate:
    """One way to run the model.

    Attributes:
        name: Such as ``"onnxruntime"``.
        ms: The median of a call in milliseconds; None: it was left out.
        low_ms: Lower end of the median's 95 % interval.
        high_ms: Upper end.
        difference: The largest difference from the model as it was given, relative to the largest value of that output,
            over all outputs and inputs that were compared; None: it did not run.
        start_s: Seconds that writing, compiling and loading took.
        reason: Why it was left out; empty if it was not.

    Examples:
        >>> Candidate("openvino", reason="it is not installed").ms is None
        True
    """

    name: str
    ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    difference: float | None = None
    start_s: float | None = None
    reason: str = ""

    def timed(self, timing: Timing) -> Candidate:
        """The same with its times."""
        return Candidate(
            self.name, timing.median_ms, timing.low_ms, timing.high_ms, self.difference, self.start_s, self.reason
        )


@dataclass(frozen=True)
class Choice:
    """What `tokenmix.compile` chose among what it measured; ``print`` shows it as a table.

    Attributes:
        name: Of the chosen candidate.
        why: In words.
        candidates: All, from the simplest on, with what was measured.
        holds_for: The inputs that it runs, in words; others run in eager PyTorch.
        measured: When, as an ISO date and time.
        cached: Whether it was taken from the cache.

    Examples:
        >>> import tokenmix, torch
        >>> fast = tokenmix.compile(torch.nn.GELU(), torch.zeros(1, 8), seconds=1, candidates=["pytorch"], cache=False)
        >>> fast.choice.name, fast.choice.holds_for
        ('pytorch', 'float32 of 1 x 8 on cpu')
    """

    name: str
    why: str
    candidates: tuple[Candidate, ...]
    holds_for: str
    measured: str
    cached: bool = False

    def __str__(self) -> str:
        rows = []
        for one in self.candidates:
            ms = "" if one.ms is None else f"{one.ms:.3g}"
            span = "" if one.low_ms is None or one.high_ms is None else f"{one.low_ms:.3g}-{one.high_ms:.3g}"
            difference = "" if one.difference is None else f"{one.difference:.1e}"
            start = "" if one.start_s is None else f"{one.start_s:.1f}"
            mark = "chosen" if one.name == self.name else one.reason and f"left out: {one.reason}"
            rows.append([runtime_name(one.name), ms, span, difference, start, mark])
        head = ("candidate", "ms", "95 % interval", "difference", "start, s", "")
        source = f"from the cache, measured {self.measured}" if self.cached else f"measured {self.measured}"
        return f"{table(head, rows)}\n\n{self.why}\nfor {self.holds_for}; {source}"


def choose(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """The name of the one to take, and why: the fastest, or the simplest that is as fast within `NEAR`.

    Args:
        candidates: From the simplest on; one at least was measured.
    """
    times: Mapping[str, float] = {one.name: one.ms for one in candidates if one.ms is not None}
    fastest = min(times, key=lambda name: times[name])
    taken = next(name for name in times if times[name] <= (1 + NEAR) * times[fastest])
    simplest, told = next(iter(times)), f"{runtime_name(taken)}, {times[taken]:.3g} ms"
    if taken != simplest:
        told += f", is {times[simplest] / times[taken]:.2f} times as fast as {runtime_name(simplest)}"
    if taken != fastest:
        return taken, f"{told}, is as fast as {runtime_name(fastest)} ({times[fastest]:.3g} ms) and simpler"
    return taken, told if taken != simplest else f"{told}, is the fastest"


def as_dict(choice: Choice) -> dict[str, Any]:
    """Plain values for JSON."""
    return {
        "chosen": choice.name,
        "why": choice.why,
        "holds_for": choice.holds_for,
        "measured": choice.measured,
        "candidates": [vars(one) for one in choice.candidates],
    }


def from_dict(found: Mapping[str, Any]) -> Choice:
    """What `as_dict` made.

    Raises:
        KeyError: Something is missing.
        TypeError: Something has another type.
    """
    rows = tuple(Candidate(**row) for row in found["candidates"])
    texts = [found[key] for key in ("chosen", "why", "holds_for", "measured")]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    name, why, holds_for, measured = texts
    return Choice(name, why, rows, holds_for, measured, cached=True)
