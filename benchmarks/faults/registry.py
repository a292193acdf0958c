"""What a fault is: a function that disturbs a trial and judges what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.jobs import DIGITS, Job
from faults.trial import Trial

SAME = "the same command ends bit-identical"


@dataclass(frozen=True)
class Fault:
    """An accident.

    Args:
        name: For ``--faults``.
        kind: Its group in the table.
        sentence: What happens, for the table.
        outcome: What is then seen, for the table; the function checks it.
        run: Disturbs a trial; raises ``Lost`` if that was not survived as ``outcome`` says.
        job: The command it happens to.
        times: How often it is tried, each time with other random moments.
    """

    name: str
    kind: str
    sentence: str
    outcome: str
    run: Callable[[Trial], None]
    job: Job
    times: int


FAULTS: dict[str, Fault] = {}


def fault(
    kind: str, sentence: str, *, outcome: str = SAME, job: Job = DIGITS, times: int = 1, name: str = ""
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Register a function as a fault, by default under its own name."""

    def register(run: Callable[[Trial], None]) -> Callable[[Trial], None]:
        key = name or run.__name__.replace("_", "-")
        assert key not in FAULTS, key
        FAULTS[key] = Fault(key, kind, sentence, outcome, run, job, times)
        return run

    return register
