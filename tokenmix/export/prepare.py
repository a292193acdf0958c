"""The form of a model that is exported: a re-parameterised copy with its transforms as matrix products."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

from torch import nn

FORMS = ("auto", "fft", "matmul")


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
    """
    from tokenmix.backbones.reparameterize import reparameterize

    prepared = reparameterize(copy.deepcopy(model).eval())
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
    """Put a model in evaluation mode for a ``with`` block; each submodule gets its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
