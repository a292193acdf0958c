"""What a task tells of a user's file for `tokenmix inspect`: what the network sees of it, and figures of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor


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
