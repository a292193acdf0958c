"""Weights for equality tests: at initialisation a batch norm is the identity and a small layer scale hides its branch."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def scramble(model: nn.Module, seed: int = 0, gain: float = 1.0) -> nn.Module:
    """Give every parameter and norm statistic a value that matters to the output, in place; returns the model.

    A ``gain`` below 1 makes the matrices smaller: deep networks whose branches multiply activations need it.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for name, parameter in model.named_parameters():
        leaf = name.rsplit(".", 1)[-1]
        if leaf.endswith("bias") or leaf in ("b1", "b2"):
            uniform(parameter, -0.1, 0.1)
        elif parameter.ndim <= 1:
            uniform(parameter, 0.5, 1.5)
        else:
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * gain * fan_in**-0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            uniform(buffer, -0.2, 0.2)
        elif name.endswith("running_var"):
            uniform(buffer, 0.5, 1.5)
    return model
