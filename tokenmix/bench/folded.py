"""The inference form of any model, so that none is slower only because its norms were left in."""

from __future__ import annotations

import copy

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves  # what torch.export itself takes structures apart with

from tokenmix.backbones.reparameterize import reparameterize


def inference_form(model: nn.Module, *inputs: Tensor) -> nn.Module:
    """A copy in eval mode, its branches merged as the model's own library does it, and its batch norms folded.

    Args:
        model: Ours, timm's or any other; not changed.
        *inputs: What it takes, to follow its layers with.
    """
    merged = reparameterize_model(reparameterize(copy.deepcopy(model).eval()))
    return fold_norms(merged.eval(), *inputs)


@torch.no_grad()
def fold_norms(model: nn.Module, *inputs: Tensor) -> nn.Module:
    """Each batch norm folded into the convolution before it; the model itself where that would change its output.

    One pass finds the norms that take a convolution's output. An activation within the norm, as timm's have, stays.

    Args:
        model: In eval mode; not changed.
        *inputs: What it takes.
    """
    folded = copy.deepcopy(model)
    made: list[tuple[Tensor, nn.Conv2d]] = []  # holding the tensors, whose identities are compared
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after_conv(module: nn.Conv2d, args: tuple[Tensor, ...], output: Tensor) -> None:
        made.append((output, module))

    def before_norm(module: nn.BatchNorm2d, args: tuple[Tensor, ...]) -> None:
        pairs.extend((conv, module) for tensor, conv in made if tensor is args[0] and module.running_mean is not None)

    handles = [
        module.register_forward_hook(after_conv)
        if isinstance(module, nn.Conv2d)
        else module.register_forward_pre_hook(before_norm)
        for module in folded.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    expected = folded(*inputs)
    for handle in handles:
        handle.remove()
    if not pairs:
        return model
    once = [conv for _, conv in made]
    names = {module: name for name, module in folded.named_modules()}
    for conv, norm in pairs:
        if once.count(conv) > 1:
            return model
        folded.set_submodule(names[conv], fuse_conv_bn_eval(conv, norm))
        folded.set_submodule(names[norm], getattr(norm, "act", None) or nn.Identity())
    try:
        found = folded(*inputs)
    except Exception:  # a model that reads an attribute of its norm
        return model
    same = all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())
        for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True)
    )
    return folded if same else model
