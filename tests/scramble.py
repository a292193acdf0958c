"""Weights for equality tests: at initialisation a batch norm is the identity, a small layer scale hides its branch."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def scramble(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and norm statistic a value that matters to the output, in place; returns the model.

    Deep networks then need `settle`, or activations vanish or explode on the way and hide what went before.
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
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    generator.manual_seed(seed)  # anew, so that a model without its head gets the same statistics
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            uniform(buffer, -0.2, 0.2)
        elif name.endswith("running_var"):
            uniform(buffer, 0.5, 1.5)
    return model


@torch.no_grad()
def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Give every batch norm the statistics of its input for these images, as training would; returns the model."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm, norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = None  # the plain mean over batches, here of one
        norm.reset_running_stats()
    model(images)
    for norm, training, momentum in before:
        norm.train(training)
        norm.momentum = momentum
    return model
