"""Jobs: training runs that do not depend on one another, and the places that can run them."""

from __future__ import annotations

import dataclasses
from typing import Any

from tokenmix.jobs.job import Job, Outcome, Outcomes, Queued, perform
from tokenmix.jobs.local import Local
from tokenmix.jobs.ray import Ray
from tokenmix.jobs.slurm import Slurm
from tokenmix_runtime.names import unknown

Runner = Local | Ray | Slurm
RUNNERS: dict[str, type[Runner]] = {"local": Local, "ray": Ray, "slurm": Slurm}

__all__ = [
    "RUNNERS",
    "Job",
    "Local",
    "Outcome",
    "Outcomes",
    "Queued",
    "Ray",
    "Runner",
    "Slurm",
    "make_runner",
    "options",
    "perform",
]


def make_runner(on: str | Runner, **given: Any) -> Runner:
    """The runner of that name, ``"local"``, ``"ray"`` or ``"slurm"``; a runner is returned as it is.

    Args:
        on: Where to run.
        **given: The runner's own options.

    Raises:
        ValueError: There is no such runner, or the option is none of it.

    Examples:
        >>> from tokenmix.jobs import make_runner
        >>> make_runner("slurm", cpus=8, at_once=4).at_once
        4
    """
    if not isinstance(on, str):
        return on
    if on not in RUNNERS:
        raise ValueError(unknown("place to run jobs on", on, RUNNERS))
    for name in given:
        if name not in {field.name for field in dataclasses.fields(RUNNERS[on])}:
            raise ValueError(f"the option --{name.replace('_', '-')} means nothing with --on {on}")
    return RUNNERS[on](**given)


def options(runner: Runner) -> dict[str, Any]:
    """What makes this runner, as options of the command line; nothing for the local one.

    Args:
        runner: Such as `make_runner` gives.

    Examples:
        >>> from tokenmix.jobs import Slurm, options
        >>> options(Slurm(cpus=8))
        {'on': 'slurm', 'cpus': 8}
    """
    if isinstance(runner, Local):
        return {}
    name = next(name for name, kind in RUNNERS.items() if isinstance(runner, kind))
    fields = {field.name: (getattr(runner, field.name), field.default) for field in dataclasses.fields(runner)}
    return {"on": name, **{name: value for name, (value, default) in fields.items() if value != default}}
