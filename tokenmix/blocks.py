"""Blocks: what a backbone's stages are made of. All map ``(B, C, H, W) -> (B, C', H', W')``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.layers import (
    GELU,
    ConvNorm,
    DropPath,
    Pointwise,
    fold_input_norm,
    fold_norm_before,
    fused,
    last_conv,
    make_divisible,
    with_act,
)
from tokenmix.ops.dispatch import Form, operator
from tokenmix.ops.recompute import in_turn


class Residual(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``x + drop_path(scale * op(norm(x)))``.

    Args:
        dim: Channels.
        op: The branch, ``(B, C, H, W) -> (B, C, H, W)``.
        norm: What stands in front of the branch, or None.
        drop_path: Probability that a sample skips the branch in training.
        layer_scale: Initial value of a learnt factor per channel, or None for no factor.
    """

    def __init__(
        self,
        dim: int,
        op: nn.Module,
        *,
        norm: nn.Module | None = None,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.norm = nn.Identity() if norm is None else norm
        self.op = op
        # One axis, not (C, 1, 1): timm's weight decay skips only what has at most one.
        self.scale = (
            None
            if layer_scale is None
            else nn.Parameter(torch.full((dim,), float(layer_scale), device=device, dtype=dtype))
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.op(self.norm(x))
        if self.scale is not None:
            y = y * self.scale[:, None, None]
        return x + self.drop_path(y)

    def fuse(self) -> Residual:
        """The branch fused, and the norm folded into it where the branch begins with a 1x1 convolution."""
        new = copy.deepcopy(self)
        new.op = fused(new.op)
        if isinstance(new.norm, nn.BatchNorm2d) and fold_input_norm(new.op, new.norm):
            new.norm = nn.Identity()
        return new

    @torch.no_grad()
    def fold_layer_scale(self) -> None:
        """Multiply the layer scale into the branch's last convolution, in place, if the branch ends with one."""
        conv = last_conv(self.op)
        if self.scale is None or conv is None:
            return
        conv.weight *= self.scale[:, None, None, None]
        if conv.bias is not None:
            conv.bias *= self.scale
        self.scale = None


class Mlp(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: [depthwise convolution], 1x1 to ``hidden``, activation, 1x1 back.

    Args:
        dim: Channels in and out.
        hidden: Channels between.
        act: Factory of the activation.
        conv: What stands in front (FFNet's channel mixer has a depthwise convolution there), or None.
    """

    output_layer = "fc2"

    def __init__(
        self,
        dim: int,
        hidden: int,
        *,
        act: Callable[[], nn.Module] = GELU,
        conv: nn.Module | None = None,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        self.conv = nn.Identity() if conv is None else conv
        if hidden < 1:
            raise ValueError(f"an MLP needs 1 channel or more between, not {hidden}: take a larger mlp_ratio")
        self.fc1: Any = Pointwise(dim, hidden, device=device, dtype=dtype)
        self.act = act()
        self.fc2 = Pointwise(hidden, dim, device=device, dtype=dtype)

    def _kept_less(self, x: Tensor) -> Tensor:
        return in_turn(x, self.conv, self.fc1, self.act, self.fc2)

    @operator(Form("keeps less", _kept_less))
    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.conv(x))))

    def fuse(self) -> Mlp:
        """A copy whose first 1x1 convolution and activation are one module."""
        new = copy.deepcopy(self)
        new.conv = fused(new.conv)
        new.fc1, new.act = with_act(new.fc1, new.act)
        return new

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Take the norm in front into the first convolution, in place; False where a front stands between."""
        if not isinstance(self.conv, nn.Identity):
            return False
        self.fc1 = fold_norm_before(self.fc1, norm)
        return True


class InvertedResidual(nn.Module):
    """``(B, in_chans, H, W) -> (B, out_chans, H / stride, W / stride)``: 1x1 expand, 3x3 depthwise, 1x1 reduce.

    MobileNetV2's block (arXiv:1801.04381); the input is added iff ``stride`` is 1 and the widths agree.

    Args:
        in_chans: Channels in.
        out_chans: Channels out.
        stride: Of the depthwise convolution.
        expand_ratio: Channels between over channels in; the result is rounded to a multiple of 8.
        dilation: Of the depthwise convolution.
        act: Makes the activation for a given number of channels, so that PReLU can have one slope for each.
        device: Where parameters and buffers are made.
        dtype: Their type.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        stride: int = 1,
        expand_ratio: float = 4.0,
        dilation: int = 1,
        act: Callable[[int], nn.Module] = lambda dim: nn.SiLU(),
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        hidden = make_divisible(round(in_chans * expand_ratio))
        dd = {"device": device, "dtype": dtype}
        inner = partial(act, hidden)
        self.expand = ConvNorm(in_chans, hidden, act=inner, **dd)
        self.depthwise = ConvNorm(hidden, hidden, 3, stride, dilation=dilation, groups=hidden, act=inner, **dd)
        self.reduce = ConvNorm(hidden, out_chans, **dd)
        self.skip = stride == 1 and in_chans == out_chans

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(self.depthwise(self.expand(x)))
        return x + y if self.skip else y
