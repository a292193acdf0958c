"""How one could train on a data set: what a task proposes to a plan, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Draft:
    """A way to train on a data set.

    A task gives several, the one that it would choose with all the time in the world first; a plan takes the first one
    for which there is time on this machine.

    Attributes:
        recipe: It, with as many epochs as are worth their time.
        least: The share of these epochs with which it is still better than the next draft.
        words: What is told of it, beside what every recipe tells: a line by its title.
        start: What is trained before, whose weights this one starts at; None: nothing.
        shorter: Epochs -> the recipe for fewer of them; None: the same one, ended earlier.
        faster: Other ways to compute the same steps, each as settings, ``["channels_last=true"]``; a plan takes the
            one that is the fastest on this machine.
    """

    recipe: Any
    least: float = 0.5
    words: Mapping[str, str] = field(default_factory=dict)
    start: FirstStage | None = None
    shorter: Callable[[int], Any] | None = None
    faster: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class FirstStage:
    """A training before the one that is asked for, which gives it its weights.

    Attributes:
        recipe: How.
        data: Makes its data set, of the same samples.
        words: What it is for.
    """

    recipe: Any
    data: Callable[[], Any]
    words: str
