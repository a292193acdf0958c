"""Widths that give models with different mixers the same budget, so that a comparison is fair."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import timm

from tokenmix.backbones.widths import base_dims
from tokenmix.bench.cost import cost
from tokenmix.mixers import MixerSpec
from tokenmix_runtime.names import unknown

BUDGETS = ("params", "macs")
STEP = 8
TOLERANCE = 0.03
TIME_TOLERANCE = 0.05  # of milliseconds, which no two measurements find alike
NARROWEST, WIDEST = 1 / 8, 4.0  # times the skeleton's own widths that are tried for a time
TRIES = 6  # networks that are timed for one mixer


@dataclass(frozen=True)
class Match:
    """What was chosen.

    Attributes:
        dims: Channels per stage.
        value: Parameters, MACs or milliseconds with them.
        target: What they should have been.
    """

    dims: tuple[int, ...]
    value: float
    target: float

    @property
    def deviation(self) -> float:
        """How far the value is from the target, as a signed share of it."""
        return self.value / self.target - 1.0


def budget(
    skeleton: str,
    mixers: MixerSpec | Sequence[MixerSpec],
    by: str,
    *,
    image_size: int | tuple[int, int],
    num_classes: int,
    dims: Sequence[int] | None = None,
) -> int:
    """Parameters (``by="params"``) or MACs without transforms (``"macs"``) of a skeleton with one mixer.

    Raises:
        ValueError: For another ``by``, an unknown skeleton or an unknown mixer.
    """
    if by not in BUDGETS:
        raise ValueError(unknown("budget", by, BUDGETS))
    widths: dict[str, Any] = {} if dims is None else {"dims": tuple(dims)}
    model = timm.create_model(
        skeleton, mixers=mixers, num_classes=num_classes, **widths, device="meta" if by == "params" else "cpu"
    )
    if by == "macs":
        return cost(model, image_size).macs
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def match_widths(
    skeleton: str,
    mixers: MixerSpec | Sequence[MixerSpec],
    target: int,
    by: str,
    *,
    image_size: int | tuple[int, int],
    num_classes: int,
) -> Match:
    """Widths, each a multiple of 8, with which the model has the budget ``target`` within 3 %, or the nearest found.

    Starting from the skeleton's own widths, one stage at a time is widened or narrowed by 8: of the steps that come
    nearer to the target the one that keeps the stages' proportions best, until none comes nearer.

    Args:
        skeleton: A model's name whose builder takes ``mixers`` and ``dims``.
        mixers: The mixer, or one per stage.
        target: Parameters or MACs to reach.
        by: ``"params"`` or ``"macs"``.
        image_size: For the MACs, in pixels.
        num_classes: Of the classifier, which counts too.
    """

    @functools.cache
    def value_of(widths: tuple[int, ...]) -> int:
        return budget(skeleton, mixers, by, image_size=image_size, num_classes=num_classes, dims=widths)

    return nearest_widths(value_of, base_dims(skeleton), target)


def nearest_widths(value_of: Callable[[tuple[int, ...]], int], dims: tuple[int, ...], target: int) -> Match:
    """The search of `match_widths` for any budget that grows with every width."""
    current = dims
    while abs(value_of(current) - target) > TOLERANCE * target:
        sign = 1 if value_of(current) < target else -1
        steps = []
        for i, width in enumerate(current):
            if width + sign * STEP < STEP:
                continue
            candidate = (*current[:i], width + sign * STEP, *current[i + 1 :])
            if abs(value_of(candidate) - target) < abs(value_of(current) - target):
                # How far the stages' scales would be apart: the smaller, the better the proportions.
                scales = [new / old for new, old in zip(candidate, dims, strict=True)]
                steps.append((max(scales) - min(scales), -i, candidate))
        if not steps:
            break
        current = min(steps)[-1]
    return Match(current, value_of(current), target)


def timed_widths(
    time_of: Callable[[tuple[int, ...]], float],
    dims: tuple[int, ...],
    target: float,
    *,
    at_most: bool = False,
    limit: float = math.inf,
) -> Match:
    """Widths in the proportions of ``dims``, multiples of 8, with which a network takes ``target`` milliseconds.

    A network must be built, exported and timed to know, so that few are: the widths as they are, and then where a
    power law through the nearest ones on both sides puts the target, until one is within `TIME_TOLERANCE` or `TRIES`
    have been timed.

    Args:
        time_of: Milliseconds with given widths.
        dims: The skeleton's own widths.
        target: Milliseconds.
        at_most: The widths as they are, if they take no longer; else the widest found that do not.
        limit: Milliseconds that it must not take longer than; the target where ``at_most`` is asked.

    Returns:
        The nearest that was found of those within the limit, or of all if there are none: the narrowest have then been
        tried.
    """
    limit = min(limit, target) if at_most else limit
    seen: dict[tuple[int, ...], float] = {}
    below, above = (NARROWEST, 0.0), (WIDEST, math.inf)  # scale, milliseconds
    scale, aim = 1.0, target * (1 - TIME_TOLERANCE / 2) if at_most else target
    while len(seen) < TRIES:
        widths = _scaled(dims, scale)
        if widths in seen:
            scale = math.sqrt(below[0] * above[0])
            widths = _scaled(dims, scale)
        if widths in seen:
            break
        found = seen[widths] = time_of(widths)
        near = abs(found / aim - 1) <= TIME_TOLERANCE / (2 if at_most else 1)
        if near or (at_most and scale == 1.0 and found <= target):
            break
        if found > aim:
            above = (scale, found)
        else:
            below = (scale, found)
        if below[1] >= above[1] or below[0] >= WIDEST or above[0] <= NARROWEST:
            break  # too alike to be told by their times, or at an end
        if len(seen) == TRIES - 1 and min(seen.values()) > limit:
            scale = NARROWEST  # whether anything is as fast
        elif below[1] and math.isfinite(above[1]):
            steep = math.log(above[1] / below[1]) / math.log(above[0] / below[0])
            scale = below[0] * (aim / below[1]) ** (1 / steep)
        else:
            scale = min(max(scale * (aim / found) ** (1 / 1.5), below[0]), above[0])
    narrowest = _scaled(dims, NARROWEST)
    if min(seen.values()) > limit and narrowest not in seen:  # steps of channels may have ended the search before
        seen[narrowest] = time_of(narrowest)
    fitting = {widths: value for widths, value in seen.items() if value <= limit}
    widths = min(fitting or seen, key=lambda one: abs(seen[one] / target - 1))
    return Match(widths, seen[widths], target)


def _scaled(dims: tuple[int, ...], scale: float) -> tuple[int, ...]:
    return tuple(max(STEP, round(scale * width / STEP) * STEP) for width in dims)
