"""What of a recipe belongs to its task: the bases of every task's own options and of its augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokenmix.checked_values import Checked


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Checked):
    """A task's own part of a recipe, by whose type the recipe's task is known; here it has no options at all.

    A field is a recipe's key, ``task.label_smoothing``, and what a value must be stands in the field's metadata, see
    `tokenmix.checked_values`.

    Attributes:
        name: The task's.

    Examples:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class AngleOptions(TaskOptions):
        ...     most: float = 60.0  # degrees; a recipe's ``task.most``
        >>> AngleOptions(most=45)
        AngleOptions(most=45.0)
    """

    part: ClassVar[str] = "task"
    name: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class TaskAugment(Checked):
    """What training does to a task's samples at random, as a part of a recipe; here nothing.

    A field is a recipe's key, ``augment.crop_scale``; one that is called ``name`` is set by ``augment=NAME`` too.

    Examples:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class AngleAugment(TaskAugment):
        ...     turn: float = 0.0  # degrees; a recipe's ``augment.turn``
        >>> AngleAugment.key("turn")
        'augment.turn'
    """

    part: ClassVar[str] = "augment"
