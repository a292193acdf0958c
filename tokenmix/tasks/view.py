"""What a task tells of a user's file for `tokenmix inspect`: what the network sees of it, and how that is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor, nn

from tokenmix.mixers import MixerInfo, Slot


@dataclass(frozen=True)
class View:
    """A file as a network sees it.

    Attributes:
        name: Of the file.
        inputs: (1, ...), what the network's first layer gets.
        run: The network on inputs of that kind; what it returns is the task's.
        picture: What people see of it: as large as the network's input.
        answer: What the model says of it, in words; empty where nothing was asked.
        score: Inputs (B, ...) -> (B,), with gradients: how much the model is for its answer; None where there is none.
    """

    name: str
    inputs: Tensor
    run: Callable[[Tensor], Any]
    picture: Image.Image | None = None
    answer: str = ""
    score: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows.

    Attributes:
        name: Of its file, without the ending.
        title: In few words.
        picture: It.
        note: What is to be seen, in a sentence or two; may be empty.
        numbers: What it comes to, by name, as JSON has it.
    """

    name: str
    title: str
    picture: Image.Image
    note: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MixerDrawing:
    """How the pieces of mixers are drawn.

    Attributes:
        known: The mixers by name, with what fills their slots in words.
        slot: A piece, and all that the mixer was given -> a picture.
        kernels: A mixer -> figures of its own kernels.
        text: How the pictures are read, in a sentence or two.
    """

    known: Mapping[str, MixerInfo]
    slot: Callable[[Slot, Sequence[Any]], Image.Image]
    kernels: Callable[[nn.Module], Iterable[Figure]]
    text: str
