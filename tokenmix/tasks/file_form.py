"""A loaded model as a file: what export asks a task that can be exported, see `tokenmix.tasks.base.Task.file_form`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tokenmix.tasks.base import Task

Outputs = Sequence[Tensor]


class VerificationError(ValueError):
    """An exported file does not compute what its model computes.

    Examples:
        >>> issubclass(VerificationError, ValueError)
        True
    """


class Inputs(NamedTuple):
    """What a file is run on to verify it, or to choose the ranges of its numbers.

    Attributes:
        tensors: Inputs of one sample each.
        source: What they are: ``"files"``, ``"tensor"``, ``"photographs"`` or ``"noise"``.
        truth: Of each what the model should say, if that is known.
    """

    tensors: list[Tensor]
    source: str
    truth: list[Any] | None = None


class FileForm(ABC):
    """A loaded model as a file shall compute it: one tensor in, one or several out.

    The least that a task gives are `outputs` and `description`; a task whose files do part of the preparation or of
    the reading themselves has `Task.file_parts`, and makes `module` and `example` of them.

    Args:
        task: The model's.
        loaded: It, in evaluation mode.
        image_size: Height and width for which the file is, where its samples have such; None: the model's own.
        inside: Those of `Task.file_parts` that the file does itself, in their order.

    Attributes:
        input_name: The input's.
        layout: What the input's axes are, a letter each.
        size_axes: Those axes of the input, beside the batch, that may stay open, with their names.
    """

    input_name = "image"
    layout = "NCHW"
    size_axes: ClassVar[Mapping[int, str]] = {}

    def __init__(
        self, task: Task, loaded: Any, image_size: tuple[int, int] | None = None, inside: Sequence[str] = ()
    ) -> None:
        self.task, self.loaded, self.inside = task, loaded, tuple(inside)
        self.image_size = image_size or loaded.image_size

    @property
    def title(self) -> str:
        """The model for people."""
        return self.loaded.name

    @property
    def samples(self) -> str:
        """What it takes, for the message that it cannot."""
        return self.task.noun

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs."""

    @property
    def single(self) -> str:
        """Why it takes one sample of one size at a time, as in "a file ... takes one size"; empty if it need not."""
        return ""

    @property
    def any_size(self) -> bool:
        """Whether the file must take samples of any size."""
        return False

    @property
    def open_size(self) -> bool:
        """Whether the file takes samples of any size where nobody said so, in formats that can hold it."""
        return False

    def module(self, *, fixed_shapes: bool = False) -> nn.Module:
        """What the file computes, sharing the model's weights.

        Args:
            fixed_shapes: For a runtime that lays out its memory beforehand: no shape may depend on the values.
        """
        return self.task.raw_form(self.loaded.model)

    def example(self, count: int) -> Tensor:
        """``(count, ...)``: noise as the file takes it."""
        return self.task.example_inputs(self.loaded, count, self.image_size)

    def inputs(self, source: Any) -> Inputs:
        """What a user gave to verify with, as the file takes it; None: what there is else.

        Raises:
            ValueError: It is not such inputs.
        """
        if source is None:
            return Inputs(list(self.example(4).split(1)), "noise")
        shape = self.example(1).shape
        if not isinstance(source, Tensor) or source.ndim != len(shape) or not len(source):
            got = tuple(source.shape) if isinstance(source, Tensor) else type(source).__name__
            raise ValueError(
                f"{self.task.title}: inputs must be a tensor (N, {', '.join(map(str, shape[1:]))}), not {got}"
            )
        return Inputs(list(source.detach().cpu().float().split(1)), "tensor")

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """The manifest's entries ``labels``, ``preprocess`` and ``postprocess``; more may stand beside them.

        ``postprocess`` has a ``kind``, which tells a run-time how the outputs are read, and ``inside``: whether the
        graph has read them already.
        """

    def open_axes(self, output: str, open_size: bool) -> Mapping[int, str]:
        """The axes of an output, beside the batch, whose lengths the file leaves open, with their names.

        Args:
            output: Its name.
            open_size: Whether the file takes samples of any size.
        """
        return {}

    def compare(self, found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
        """The differences between a file's outputs and its model's, of each batch.

        Returns:
            ``max_error`` and ``relative_error``, see `differences`; and perhaps agreements in percent, whose names end
            in ``_agreement``.

        Raises:
            VerificationError: The outputs have different numbers or shapes.
        """
        return differences(self.outputs, found, expected)

    def disagreement(self, numbers: Mapping[str, float]) -> str:
        """What is wrong with the numbers of `compare`, beside errors that are too large; empty if nothing."""
        return ""

    def scores(self, outputs: Sequence[Outputs], truth: Sequence[Any]) -> dict[str, float]:
        """How good outputs are where the truth of their samples, which stand in the same order, is known."""
        return {}


def differences(names: Sequence[str], found: Sequence[Outputs], expected: Sequence[Outputs]) -> dict[str, float]:
    """The largest differences between outputs.

    Args:
        names: Of the outputs.
        found: Per batch, the file's outputs.
        expected: Per batch, PyTorch's.

    Returns:
        ``max_error``: largest absolute difference. ``relative_error``: the same over the largest absolute value of that
        output, the larger one of several outputs. Both are infinite where either side is not finite.

    Raises:
        VerificationError: The outputs have different numbers or shapes.
    """
    for one, other in zip(found, expected, strict=True):
        if len(one) != len(other):
            raise VerificationError(f"the file has {len(one)} outputs, and the model {len(other)}")
        for name, a, b in zip(names, one, other, strict=True):
            if a.shape != b.shape:
                raise VerificationError(
                    f"{name} has shape {tuple(a.shape)} in the file and {tuple(b.shape)} in PyTorch"
                )
    pairs = list(zip(found, expected, strict=True))
    numbers = [_errors([(one[i], other[i]) for one, other in pairs]) for i in range(len(names))]
    return {key: max(one[key] for one in numbers) for key in ("max_error", "relative_error")}


def _errors(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, float]:
    error = max((_largest(a.double() - b.double()) for a, b in pairs), default=0.0)
    scale = max((_largest(b.double()) for _, b in pairs), default=0.0)
    relative = error / max(scale, torch.finfo(torch.float32).tiny)
    return {
        "max_error": error if math.isfinite(error) else math.inf,
        "relative_error": relative if math.isfinite(relative) else math.inf,
    }


def _largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def agreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """How often two sequences of tensors hold the same value, in percent."""
    equal = torch.cat([(a == b).flatten() for a, b in zip(found, expected, strict=True)])
    return 100.0 * equal.double().mean().item()
