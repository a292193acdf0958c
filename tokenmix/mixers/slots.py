"""What fills the slots of a mixer for given inputs: the pieces of `tokenmix inspect`.

A mixer may have a method ``slots(x) -> dict[str, Slot]`` that computes, by the functions that its ``forward`` calls,
what query, key, activation and value are in the frame ``value(act(key(query(x), x)), x)``. ``"value"`` is what the
mixer returns and always there; a slot that does nothing is left out, and whatever else is worth a look (a mask, a gate)
follows under a name of its own. The tests hold each against ``forward``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from tokenmix.ops.fourier import to_complex


class Slot(NamedTuple):
    """A piece of a mixer's computation.

    Attributes:
        value: The tensor.
        kind: How it is to be read: ``"map"`` (B, C, H, W); ``"fourier"`` (B, C, H, W//2+1) complex, orthonormal, and
            ``"filter"``, what such a spectrum is multiplied with; ``"cosine"`` (B, C, H, W), a DCT-II; ``"attention"``
            (B, heads, N, N) over the N = H W pixels, a row for each that asks; ``"gates"`` (B, G, C), a number for each
            of G groups or bands and each channel.

    Examples:
        >>> import tokenmix, torch
        >>> slots = tokenmix.make_mixer("attention", 8).slots(torch.zeros(1, 8, 4, 4))
        >>> {name: slot.kind for name, slot in slots.items()}
        {'query': 'map', 'key': 'attention', 'act': 'attention', 'value': 'map'}
    """

    value: Tensor
    kind: str = "map"


Slots = dict[str, Slot]


def spectrum_slot(planes: Tensor, kind: str = "fourier") -> Slot:
    """A slot of complex numbers, given as planes ``(B, C, 2, H, V)``."""
    return Slot(to_complex(planes), kind)


def named_slots(names: str, pieces: Iterable[Tensor], **kinds: str) -> Slots:
    """Pieces by their names, ``"query key act value"``, and the kinds of those that are no maps."""
    return {name: Slot(piece, kinds.get(name, "map")) for name, piece in zip(names.split(), pieces, strict=True)}
