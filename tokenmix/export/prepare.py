"""The form of a model that is exported: a re-parameterised copy with its transforms as matrix products."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FORMS = ("auto", "fft", "matmul")


@dataclass(frozen=True)
class Prepared:
    """A model as every format's writer gets it.

    Attributes:
        model: In evaluation mode, on the CPU, in float32, re-parameterised, its transforms as matrix products, its pre-
            and post-processing already wrapped around it; one batch -> one tensor or a tuple of tensors.
        sample: An example input, (1 or 2, ...); 2 where the batch is open.
        input_name: The input's name in the file.
        output_names: One name per output.
        open_axes: The axes of the input whose length the file leaves open, with their names; 0 is the batch.
        name: The model's name, for messages.

    Examples:
        >>> one = Prepared(nn.Identity(), torch.zeros(2, 3, 8, 8), "image", ("logits",), {0: "batch"}, "mine")
        >>> one.open_batch, one.open_size
        (True, False)
    """

    model: nn.Module
    sample: Tensor
    input_name: str
    output_names: tuple[str, ...]
    open_axes: Mapping[int, str]
    name: str

    @property
    def open_batch(self) -> bool:
        """Whether the file takes any batch size."""
        return 0 in self.open_axes

    @property
    def open_size(self) -> bool:
        """Whether the file takes samples of any size."""
        return any(axis > 0 for axis in self.open_axes)


def prepare(model: nn.Module, *, form: str = "matmul") -> nn.Module:
    """A new, equivalent model ready for export; the given one is not changed.

    The copy is in evaluation mode and re-parameterised (batch norms and parallel branches merged). Every submodule with
    an attribute ``form`` computes its transforms in the given form; ``"matmul"`` means exact real matrix products with
    no FFT operator, which every runtime has and which ONNX Runtime runs 4 to 46 times faster than its DFT operator.

    Args:
        model: Any model; our own merge their branches, others only change mode.
        form: ``"matmul"``, ``"fft"`` (only for runtimes with an FFT) or ``"auto"``.

    Raises:
        ValueError: ``form`` is none of the three.

    Examples:
        >>> from tokenmix import make_mixer
        >>> mixer = make_mixer("aff", 16)
        >>> prepare(mixer).form, mixer.form
        ('matmul', 'auto')
    """
    from tokenmix.backbones.reparameterize import reparameterize

    # In the plain layout: ExecuTorch takes a graph's tensors in one order only.
    prepared = reparameterize(copy.deepcopy(model).eval()).to(memory_format=torch.contiguous_format)
    set_form(prepared, form)
    return prepared


def set_form(model: nn.Module, form: str) -> None:
    """Set the form of every spectral submodule in place: those with a plain string attribute ``form``.

    Raises:
        ValueError: ``form`` is unknown.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r}; choose one of {', '.join(FORMS)}")
    for module in model.modules():
        if getattr(module, "form", None) in FORMS:
            module.form = form  # type: ignore[assignment]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model in evaluation mode for a ``with`` block; each submodule gets its own mode back afterwards.

    Args:
        model: Any module; the same one is what ``as`` gives.

    Examples:
        >>> layer = nn.Dropout()
        >>> with evaluation_mode(layer):
        ...     print(layer.training)
        False
        >>> layer.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
