"""Widths that give models with different mixers the same budget, so that a comparison is fair."""

from __future__ import annotations

import functools
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


@dataclass(frozen=True)
class Match:
    """What was chosen.

    Attributes:
        dims: Channels per stage.
        value: Parameters or MACs with them.
        target: What they should have been.
    """

    dims: tuple[int, ...]
    value: int
    target: int

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
