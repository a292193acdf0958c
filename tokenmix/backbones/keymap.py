"""Our readable state-dict keys and the official projects' keys, translated both ways by one table of rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    r"""Keys that match ``ours`` (a regular expression over the whole key) and what the official project calls them.

    Args:
        ours: Pattern of our key.
        official: Templates of the official keys, with ``\1`` for groups, or functions of the match where names are
            counted differently; several share our tensor in equal parts along its first axis, in this order.
        trailing: How many axes of size 1 the official tensor has after ours.
        when: A key of ours that the model must have for the rule to count, where one family has two architectures.
    """

    ours: str
    official: tuple[str | Callable[[re.Match[str]], str], ...]
    trailing: int = 0
    when: str | None = None


@dataclass(frozen=True)
class Official:
    """What a family recognises in an official checkpoint.

    Args:
        variant: Our model's name.
        model_args: Keyword arguments for it, such as ``num_classes`` and ``in_chans``.
        level_norm: ``"layer"`` or ``"batch"`` for a dense task's feature checkpoint with a norm on every stage's
            output, or the kind of each level, ``"none"`` among them; None otherwise.
        levels: The stages whose outputs a feature checkpoint returns, or None for a classifier.
        open_args: Arguments of ``model_args`` that no key or shape tells, and that so keep the default.
        head: A dense task's head on the backbone, one of `tokenmix.heads.HEADS`, whose arguments are in ``model_args``
            too; None for a backbone alone.
    """

    variant: str
    model_args: dict[str, Any]
    level_norm: str | tuple[str, ...] | None = None
    levels: tuple[int, ...] | None = None
    open_args: tuple[str, ...] = ()
    head: str | None = None


class KeyMap:
    """Translates whole state dicts. The first rule that matches a key counts; a key that none matches is an error."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(re.compile(rule.ours), rule) for rule in rules]

    def _lookup(self, key: str, keys: Container[str]) -> tuple[list[str], int]:
        for pattern, rule in self._rules:
            match = pattern.fullmatch(key)
            if match and (rule.when is None or rule.when in keys):
                names = [name(match) if callable(name) else match.expand(name) for name in rule.official]
                return names, rule.trailing
        raise KeyError(f"{key!r} has no official name: the model is not the official architecture")

    def names(self, key: str, keys: Container[str] = ()) -> list[str]:
        """The official keys whose tensors make up ours; ``keys`` are all of the model's."""
        return self._lookup(key, keys)[0]

    def to_official(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our state dict under official names and shapes.

        Raises:
            KeyError: If a key has no official name.
        """
        result: dict[str, Tensor] = {}
        for key, tensor in state_dict.items():
            names, trailing = self._lookup(key, state_dict)
            # A counter of batches (no axes) is the same in every part.
            parts = tensor.chunk(len(names)) if tensor.ndim else (tensor,) * len(names)
            for name, part in zip(names, parts, strict=True):
                result[name] = part.reshape(part.shape + (1,) * trailing).clone()
        return result

    def from_official(self, state_dict: Mapping[str, Tensor], keys: Sequence[str]) -> dict[str, Tensor]:
        """Official tensors under our ``keys``. What is missing there, or left over, stays for the strict load to name.

        A key of ours is left out if it has no official name or one of its official parts is missing; official keys that
        none of ours uses are passed on under their own names.
        """
        result: dict[str, Tensor] = {}
        used: set[str] = set()
        known = set(keys)
        for key in keys:
            try:
                names, trailing = self._lookup(key, known)
            except KeyError:
                continue
            used.update(names)
            if any(name not in state_dict for name in names):
                continue
            parts = [state_dict[name] for name in names]
            if trailing:
                parts = [part.reshape(part.shape[: part.ndim - trailing]) for part in parts]
            result[key] = parts[0] if len(parts) == 1 or parts[0].ndim == 0 else torch.cat(parts)
        result.update({name: tensor for name, tensor in state_dict.items() if name not in used})
        return result
