"""The equivalent inference model: norms folded, parallel branches merged, classifiers averaged."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tokenmix.backbones.base import Backbone, Stage
from tokenmix.blocks import Residual
from tokenmix.layers import ConvAct, fused, is_plain_conv


@torch.no_grad()
def reparameterize(model: nn.Module, *, fold_layer_scale: bool = False) -> nn.Module:
    """A new model that computes the same in eval mode with fewer operations; the given one is left as it was.

    Batch norms are folded wherever that is exact (into a neighbouring convolution, never through zero padding),
    parallel kernels and skips merged, two linear classifiers averaged into one. What precedes the pooling stays, so
    that ``forward_features`` returns the same. A second call changes nothing more. On a CPU the weights are laid out in
    channels_last memory, in which its convolutions are faster; shapes are the same.

    Args:
        model: A backbone, or any module that contains ours, in eval mode.
        fold_layer_scale: Also multiply layer scales into the convolution before them.

    Raises:
        ValueError: If the model is in training mode: batch norms then have no fixed form.

    Examples:
        >>> import tokenmix
        >>> from torch import nn
        >>> model = tokenmix.create_model("casvit_xs", num_classes=10).eval()
        >>> fast = tokenmix.reparameterize(model)
        >>> [sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) for net in (model, fast)]
        [46, 1]
    """
    if any(module.training for module in model.modules()):
        raise ValueError("reparameterize needs a model in eval mode, this one is in training mode: call model.eval()")
    new = fused(copy.deepcopy(model))
    for module in new.modules():
        if fold_layer_scale and isinstance(module, Residual):
            module.fold_layer_scale()
        if isinstance(module, Backbone):
            _average_classifiers(module)
        if isinstance(module, Stage):
            module.in_parts = True
        for name, child in module.named_children():
            if is_plain_conv(child):
                setattr(module, name, ConvAct(child, ""))
    # A kernel in space has five axes, for which there is no such memory.
    if all(parameter.device.type == "cpu" and parameter.ndim < 5 for parameter in new.parameters()):
        new = new.to(memory_format=torch.channels_last)
    return new.eval()


def _average_classifiers(model: Backbone) -> None:
    """One classifier whose output is the mean of both: exact, because both are linear."""
    head = model.head
    pair: Any = (head.fc, head.fc_dist)
    if all(isinstance(one, nn.Linear) for one in pair) and (head.fc.bias is None) == (pair[1].bias is None):
        for own, other in zip(*(one.parameters() for one in pair), strict=True):
            own.copy_((own + other) / 2)
    elif not all(isinstance(one, nn.Identity) for one in pair):
        return  # somebody's own
    head.fc_dist, head.num_classifiers = None, 1
