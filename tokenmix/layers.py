"""Small layers that mixers and blocks are made of, each with its equivalent inference form where it has one.

A layer with such a form has ``fuse() -> nn.Module``, which returns a new module and leaves the layer as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.ops.activations import gelu
from tokenmix.ops.convolution import conv_act, pointwise
from tokenmix.ops.dispatch import Form, operator
from tokenmix.ops.recompute import in_turn
from tokenmix_runtime.names import unknown


def make_divisible(value: float, divisor: int = 8) -> int:
    """Nearest multiple of ``divisor`` (half up), at least ``divisor``, one more if over 10 % was lost (MobileNetV2)."""
    result = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return result + divisor if result < 0.9 * value else result


# Leaves for torch.fx: what looks at memory, and one convolution and its activation, which stay together.
torch.fx.wrap("gelu")
torch.fx.wrap("pointwise")
torch.fx.wrap("conv_act")


class GELU(nn.GELU):
    """Any shape to itself: PyTorch's own, as fast on maps in channels_last memory as on others."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x, self.approximate)


class StarReLU(nn.Module):
    """Any shape to itself: ``scale * relu(x)^2 + bias``, two learnt numbers (arXiv:2210.13452)."""

    def __init__(self, *, device=None, dtype=None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.relu(x).square() + self.bias


class ScalarPReLU(nn.Module):
    """Any shape to itself: ``max(x, 0) + slope * min(x, 0)``, one learnt slope, computed in the precision of ``x``."""

    def __init__(self, init: float = 0.25, *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), init, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, min=0) + self.weight.to(x.dtype) * torch.clamp(x, max=0)


class Pointwise(nn.Conv2d):
    """``(B, in_chans, H, W) -> (B, out_chans, H, W)``: a 1x1 convolution, trained as a product of the pixels' rows."""

    def __init__(self, in_chans: int, out_chans: int, *, bias: bool = True, device=None, dtype=None) -> None:
        super().__init__(in_chans, out_chans, 1, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class ConvAct(nn.Conv2d):
    """``(B, C, H, W) -> (B, out_chans, H', W')``: a convolution and its activation at once, for inference.

    Args:
        conv: Whose parameters are taken over.
        act: ``"gelu"``, ``"silu"``, ``"relu"`` or ``""`` (none).
    """

    def __init__(self, conv: nn.Conv2d, act: str) -> None:
        super().__init__(1, 1, 1, device="meta")
        self.__dict__.update(copy.copy(conv).__dict__)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        shape = self.stride, self.padding, self.dilation
        return conv_act(x, self.weight, self.bias, *shape, self.groups, self.act)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, act={self.act!r}"


_KINDS: dict[type[nn.Module], str] = {nn.SiLU: "silu", nn.ReLU: "relu", nn.GELU: "gelu", GELU: "gelu"}


def with_act(conv: nn.Module, act: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Two modules equal to both one after the other: the convolution with the activation in it where that is known."""
    kind = _KINDS.get(type(act)) if getattr(act, "approximate", "none") == "none" else None
    return (ConvAct(conv, kind), nn.Identity()) if kind and is_plain_conv(conv) else (conv, act)


def is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the module is a convolution that `ConvAct` can take over."""
    if type(module) is Pointwise:
        return True
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


class Chain(nn.Sequential):
    """Modules one after the other, that keep less for the backward pass: see `tokenmix.ops.recompute.in_turn`."""

    def _kept_less(self, x: Tensor) -> Tensor:
        return in_turn(x, *self)

    @operator(Form("keeps less", _kept_less))
    def forward(self, x: Tensor) -> Tensor:
        for module in self:
            x = module(x)
        return x


class DropPath(nn.Module):
    """Drop the branch for whole samples with probability ``rate`` in training (arXiv:1603.09382). Keeps the shape."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"a drop path rate must be from 0 to below 1, not {rate}")
        self.rate = float(rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        return x * x.new_empty([x.size(0)] + [1] * (x.ndim - 1)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class LayerNorm2d(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: layer norm over the channels of each pixel, eps under the root."""

    def __init__(self, dim: int, eps: float = 1e-6, *, device=None, dtype=None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, [x.size(-1)], self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class ConvNorm(nn.Module):
    """``(B, in_chans, H, W) -> (B, out_chans, H', W')``: convolution, batch norm, activation.

    Padding keeps the size at stride 1. ``act`` is a factory without arguments (`GELU`) or None.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int | tuple[int, int] = 1,
        stride: int = 1,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: Callable[[], nn.Module] | None = None,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding = ((kernel[0] - 1) // 2 * dilation, (kernel[1] - 1) // 2 * dilation)
        dd = {"device": device, "dtype": dtype}
        if kernel == (1, 1) and stride == groups == 1:
            self.conv: nn.Conv2d = Pointwise(in_chans, out_chans, bias=bias, **dd)
        else:
            self.conv = nn.Conv2d(
                in_chans, out_chans, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias, **dd
            )
        self.norm = nn.BatchNorm2d(out_chans, **dd)
        self.act = nn.Identity() if act is None else act()

    def _kept_less(self, x: Tensor) -> Tensor:
        return in_turn(x, self.conv, self.norm, self.act)

    @operator(Form("keeps less", _kept_less))
    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    def fuse(self) -> nn.Module:
        """The convolution with the norm folded in, followed by the activation if there is one; itself without one."""
        if not hasattr(self.norm, "running_mean"):  # another norm was put in its place
            return copy.deepcopy(self)
        conv = fold_norm_after(self.conv, self.norm)
        return conv if isinstance(self.act, nn.Identity) else nn.Sequential(*with_act(conv, copy.deepcopy(self.act)))


class NormConv(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``x + PW(BN(x))`` without bias, as in FFNet's merger."""

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim, device=device, dtype=dtype)
        self.conv = Pointwise(dim, dim, bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.norm(x))

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """One 1x1 convolution with bias: the norm folded into its input side, the skip as the identity matrix."""
        conv = fold_norm_before(self.conv, self.norm)
        conv.weight += torch.eye(conv.out_channels, dtype=conv.weight.dtype, device=conv.weight.device)[
            :, :, None, None
        ]
        return conv


class RepDepthwise(nn.Module):
    """``(B, C, H, W) -> (B, out_chans, H', W')``: a sum of depthwise ConvNorm branches, one kernel once fused.

    Args:
        dim: Input channels; the groups of every branch.
        kernel_sizes: Odd kernel sizes, one branch each; none may exceed the first in either direction.
        out_chans: Output channels, a multiple of ``dim``.

    Raises:
        ValueError: A kernel exceeds the first.
    """

    def __init__(
        self,
        dim: int,
        kernel_sizes: Sequence[int | tuple[int, int]],
        stride: int = 1,
        *,
        out_chans: int | None = None,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        branches = [ConvNorm(dim, out_chans or dim, k, stride, groups=dim, **dd) for k in kernel_sizes]
        self.branches = nn.ModuleList(branches)
        first, *others = (branch.conv.kernel_size for branch in branches)
        if any(other[0] > first[0] or other[1] > first[1] for other in others):
            raise ValueError(f"the first of the kernels must be the largest, not {list(kernel_sizes)}")

    def forward(self, x: Tensor) -> Tensor:
        outputs = [branch(x) for branch in self.branches]
        out = outputs[0]
        for other in outputs[1:]:
            out = out + other
        return out

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """One depthwise convolution with bias: smaller kernels padded with zeros and added."""
        convs = [fold_norm_after(branch.conv, branch.norm) for branch in self.branches]  # type: ignore[arg-type]
        merged = convs[0]
        height, width = merged.kernel_size
        assert merged.bias is not None
        for conv in convs[1:]:
            assert conv.bias is not None
            dh, dw = (height - conv.kernel_size[0]) // 2, (width - conv.kernel_size[1]) // 2
            merged.weight += F.pad(conv.weight, (dw, dw, dh, dh))
            merged.bias += conv.bias
        return merged


class SqueezeExcite(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: every channel times a gate made from the mean of all (arXiv:1709.01507).

    Args:
        dim: Channels.
        ratio: Channels between over ``dim``; the result is rounded to a multiple of 8.
    """

    def __init__(self, dim: int, ratio: float = 0.25, *, device=None, dtype=None) -> None:
        super().__init__()
        hidden = max(8, int(dim * ratio + 4) // 8 * 8)  # unlike `make_divisible`, however much that loses
        self.fc1 = nn.Conv2d(dim, hidden, 1, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, dim, 1, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


def fused(module: nn.Module) -> nn.Module:
    """The inference form of ``module``: what its ``fuse`` returns, else itself with every child replaced by its form.

    Changes ``module``, so give it a copy.
    """
    fuse = getattr(type(module), "fuse", None)  # a module inside may have that name
    if fuse is not None and isinstance(form := fuse(module), nn.Module):
        return form
    for name, child in module.named_children():
        setattr(module, name, fused(child))
    if type(module).forward in (nn.Sequential.forward, Chain.forward):
        assert isinstance(module, nn.Sequential)
        for i in range(len(module) - 1):
            module[i], module[i + 1] = with_act(module[i], module[i + 1])
    return module


def norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as ``scale * x + shift``, both ``(C,)``.

    Raises:
        ValueError: If the norm keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded: it has no fixed affine form")
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def _with_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """A copy of ``conv`` that has a bias."""
    new = copy.deepcopy(conv)
    if new.bias is None:
        new.bias = nn.Parameter(new.weight.new_zeros(new.out_channels))
    return new


def takes_norm_before(module: nn.Module) -> bool:
    """Whether `fold_norm_before` can fold a norm into ``module``: an ungrouped, unpadded 1x1 convolution."""
    if not isinstance(module, nn.Conv2d):
        return False
    return module.kernel_size == (1, 1) and not any(module.padding) and module.groups == 1


def fold_input_norm(module: nn.Module, norm: nn.BatchNorm2d) -> bool:
    """Fold a norm in front of ``module`` into the layers that read its input, in place; returns whether that went.

    A module whose input is read by 1x1 convolutions alone, or by means before them, names them by an attribute
    ``input_layers``. One that has to look whether it can has a method ``fold_input_norm(norm) -> bool`` instead.
    """
    fold = getattr(module, "fold_input_norm", None)
    if fold is not None:
        return fold(norm)
    names: Sequence[str] = getattr(module, "input_layers", ())
    if not names or not all(takes_norm_before(getattr(module, name)) for name in names):
        return False
    for name in names:
        setattr(module, name, fold_norm_before(getattr(module, name), norm))
    return True


def depthwise_weights(module: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of a square, odd depthwise convolution that keeps channels and size; None if it is another thing.

    An activation that it computes too is left to the caller.
    """
    if type(module) not in (nn.Conv2d, ConvAct) or module.bias is None:
        return None
    conv: Any = module
    size = conv.kernel_size[0]
    fits = (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (size, size)
        and conv.padding == (size // 2, size // 2)
        and (size % 2, conv.stride, conv.dilation, conv.padding_mode) == (1, (1, 1), (1, 1), "zeros")
    )
    return (conv.weight, conv.bias) if fits else None


def last_conv(module: nn.Module) -> nn.Conv2d | None:
    """The convolution whose output is that of ``module``, or None if something else makes it.

    A module that ends with a layer says so by an attribute ``output_layer``, the layer's name.
    """
    if isinstance(module, nn.Conv2d):
        return None if getattr(module, "act", "") else module
    if isinstance(module, nn.Sequential):
        return last_conv(module[-1]) if len(module) else None
    name = getattr(module, "output_layer", None)
    return None if name is None else last_conv(getattr(module, name))


@torch.no_grad()
def fold_norm_after(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A new convolution equal to ``norm(conv(x))`` in eval mode."""
    scale, shift = norm_affine(norm)
    new = _with_bias(conv)
    assert new.bias is not None
    new.weight *= scale[:, None, None, None]
    new.bias.copy_(new.bias * scale + shift)
    return new


@torch.no_grad()
def fold_norm_before(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A new convolution equal to ``conv(norm(x))`` in eval mode; exact only without padding, so ``conv`` must be 1x1.

    Raises:
        ValueError: If the convolution pads or is grouped.
    """
    if not takes_norm_before(conv):
        raise ValueError("a norm can be folded into the input side of an ungrouped, unpadded 1x1 convolution only")
    scale, shift = norm_affine(norm)
    new = _with_bias(conv)
    assert new.bias is not None
    new.bias += (conv.weight[:, :, 0, 0] * shift).sum(1)
    new.weight *= scale[None, :, None, None]
    return new


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": GELU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": partial(nn.LeakyReLU, 0.1),
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "identity": nn.Identity,
}


def activation(act: str | Callable[[], nn.Module], *, device=None, dtype=None) -> nn.Module:
    """A new layer: a name among `ACTIVATIONS`, ``"prelu"`` (`ScalarPReLU`), or a factory without arguments.

    Raises:
        ValueError: If there is no such name.
    """
    if act == "prelu":
        return ScalarPReLU(device=device, dtype=dtype)
    if isinstance(act, str) and act not in ACTIVATIONS:
        raise ValueError(unknown("activation", act, [*ACTIVATIONS, "prelu"]))
    return (ACTIVATIONS[act] if isinstance(act, str) else act)().to(device=device, dtype=dtype)
