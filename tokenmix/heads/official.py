"""Dense models that official projects publish: a family's backbone under a prefix, and a head with keys of its own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from tokenmix.backbones import affnet, ffnet
from tokenmix.backbones.keymap import KeyMap, Official
from tokenmix.backbones.official import unwrap
from tokenmix.heads import deeplab, ffnet_seg, ssdlite

OURS = "backbone."


class DenseKeys:
    """A `KeyMap` made of two: the backbone's, below a prefix, and the head's."""

    def __init__(self, backbone: KeyMap, head: KeyMap, prefix: str) -> None:
        self.backbone, self.head, self.prefix = backbone, head, prefix

    def names(self, key: str, keys: Container[str] = ()) -> list[str]:
        """See `KeyMap.names`; a key of the backbone needs all ``keys``, so only the head's are answered."""
        return [] if key.startswith(OURS) else self.head.names(key, keys)

    def to_official(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `KeyMap.to_official`."""
        inner, outer = _split(state_dict, OURS)
        return _below(self.backbone.to_official(inner), self.prefix) | self.head.to_official(outer)

    def from_official(self, state_dict: Mapping[str, Tensor], keys: Sequence[str]) -> dict[str, Tensor]:
        """See `KeyMap.from_official`."""
        inner, outer = _split(state_dict, self.prefix)
        inner_keys, outer_keys = _split(dict.fromkeys(keys), OURS)
        backbone = self.backbone.from_official(inner, list(inner_keys))
        return _below(backbone, OURS) | self.head.from_official(outer, list(outer_keys))


class OfficialDense:
    """What a family's file offers for a classifier, for a dense model: its keys, and recognising and translating them.

    Args:
        name: The head's in `tokenmix.heads.HEADS`.
        head: Its module, with ``KEYS``, ``OPEN_ARGS`` and ``recognise``.
        family: The backbone's module.
        prefix: Of the backbone's official keys.
    """

    def __init__(self, name: str, head: ModuleType, family: ModuleType, prefix: str) -> None:
        self.name, self.head, self.family, self.prefix = name, head, family, prefix
        self.KEYS = DenseKeys(family.KEYS, head.KEYS, prefix)

    def recognise(self, shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
        """Which model an official state dict with these keys and shapes is, or None."""
        options = self.head.recognise(shapes)
        found = None if options is None else self.family.recognise(_split(shapes, self.prefix)[0])
        if found is None:
            return None
        return Official(
            found.variant,
            {**found.model_args, **options},
            open_args=(*found.open_args, *self.head.OPEN_ARGS),
            head=self.name,
        )

    def checkpoint_filter_fn(self, state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
        """An official checkpoint under our keys; a state dict of ours keeps its keys."""
        plain = unwrap(state_dict)
        if self.head.recognise({key: tuple(tensor.shape) for key, tensor in plain.items()}) is None:
            return plain
        return self.KEYS.from_official(plain, list(model.state_dict()))


DENSE: dict[str, OfficialDense] = {
    "deeplabv3": OfficialDense("deeplabv3", deeplab, affnet, "encoder."),
    "ssdlite": OfficialDense("ssdlite", ssdlite, affnet, "encoder."),
    "ffnet_seg": OfficialDense("ffnet_seg", ffnet_seg, ffnet, "backbone."),
}


def _split(entries: Mapping[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries below a prefix, without it, and the others."""
    inner = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
    return inner, {key: value for key, value in entries.items() if not key.startswith(prefix)}


def _below(entries: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in entries.items()}
