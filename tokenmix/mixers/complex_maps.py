"""What AFF and AFNO share: two complex linear maps of a spectrum's channels, computed as real maps of its planes.

A map is block-diagonal, ``weight (2, G, b, b)`` (part, group, input channel, output channel) and ``bias (2, G, b)`` for
G groups of b channels, and the same at every frequency. Real channels are ordered (group, channel, part).
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.ops.dispatch import Form, operator
from tokenmix.ops.fourier import rfft2_macs


def check_blocks(mixer: str, dim: int, groups: int | None, threshold: float) -> int:
    """The number of diagonal blocks of both maps; None means ``gcd(dim, 8)``.

    Raises:
        ValueError: If they do not divide the channels, or the soft-shrink's threshold is no number from 0 on.
    """
    usual = math.gcd(dim, 8)
    groups = usual if groups is None else groups
    if groups < 1 or dim % groups:
        raise ValueError(f"groups={groups} does not divide the {dim} channels of {mixer}; leave it out for {usual}")
    if not threshold >= 0:
        raise ValueError(f"the threshold of a soft-shrink must be 0 or more, not {threshold}")
    return groups


def real_form(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A map as the kernel ``(2C, 2b, 1, 1)`` and the bias ``(2C,)`` of one grouped 1x1 convolution of real planes."""
    real, imag = weight[0].transpose(-1, -2), weight[1].transpose(-1, -2)  # (G, out, in)
    block = torch.stack([torch.stack([real, -imag], -1), torch.stack([imag, real], -1)], 2)  # (G, out, 2, in, 2)
    # Stacked, not permuted: torch 2.11's inductor cannot take a permuted view as the bias of a convolution.
    return block.flatten(0, 2).flatten(1)[:, :, None, None], torch.stack([bias[0], bias[1]], -1).flatten()


def by_parts(kernel: Tensor, bias: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """A grouped convolution as `tokenmix.ops.kernels.frequency.filter_spectrum` takes a real map of the parts.

    ``(2C, 2b, 1, 1), (2C,) -> (2, 2, G, b, b), (2, G, b)``.
    """
    width = kernel.size(1) // 2
    parts = kernel.view(groups, width, 2, width, 2)  # (G, out, part, in, part)
    return parts.permute(2, 4, 0, 3, 1), bias.view(groups, width, 2).permute(2, 0, 1)


def _as_products(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    batch, height, width = x.size(0), x.size(2), x.size(3)
    blocks = x.reshape(batch * groups, -1, height * width)
    kernel = weight.to(x.dtype).view(groups, -1, weight.size(1)).expand(batch, -1, -1, -1).flatten(0, 1)
    shift = bias.to(x.dtype).view(groups, -1, 1).expand(batch, -1, -1, -1).flatten(0, 1)
    return torch.baddbmm(shift, kernel, blocks).view(batch, -1, height, width)


@torch.fx.wrap
@operator(Form("batched product", _as_products, lambda now, *args: now.mode != "exporting"), precise=True)
def grouped_pointwise(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)``: grouped 1x1 convolution in the precision of ``x``, outside of autocast."""
    return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), groups=groups)


def soft_shrink(x: Tensor, threshold: float) -> Tensor:
    """Any shape to itself: ``sign(x) * max(|x| - threshold, 0)``, which few runtimes have as one operation."""
    return x - x.clamp(-threshold, threshold)


class ComplexMaps(nn.Module):
    """A mixer with two complex maps ``w1``, ``b1`` and ``w2``, ``b2`` of a spectrum, and a soft-shrink.

    In the inference form the maps are ``conv1`` and ``conv2``, grouped 1x1 convolutions of real planes.

    Args:
        mixer: Its name, for the error.
        dim: Channels.
        groups: Diagonal blocks; None means gcd(dim, 8).
        threshold: Of the soft-shrink.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the groups do not divide the channels or the threshold is negative.
    """

    def __init__(self, mixer: str, dim: int, groups: int | None, threshold: float, *, device=None, dtype=None) -> None:
        super().__init__()
        groups = check_blocks(mixer, dim, groups, threshold)
        self.dim = dim
        self.groups = groups
        self.threshold = float(threshold)
        self.form = "auto"
        shape, dd = (2, groups, dim // groups), {"device": device, "dtype": dtype}
        self.w1 = nn.Parameter(0.02 * torch.randn(*shape, dim // groups, **dd))
        self.b1 = nn.Parameter(0.02 * torch.randn(*shape, **dd))
        self.w2 = nn.Parameter(0.02 * torch.randn(*shape, dim // groups, **dd))
        self.b2 = nn.Parameter(0.02 * torch.randn(*shape, **dd))
        self.conv1: nn.Conv2d | None = None
        self.conv2: nn.Conv2d | None = None

    def real_map1(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first map, see `real_form`."""
        if self.conv1 is not None:
            assert self.conv1.bias is not None
            return self.conv1.weight, self.conv1.bias
        else:
            return real_form(self.w1, self.b1)

    def real_map2(self) -> tuple[Tensor, Tensor]:
        """The same of the second map."""
        if self.conv2 is not None:
            assert self.conv2.bias is not None
            return self.conv2.weight, self.conv2.bias
        else:
            return real_form(self.w2, self.b2)

    def map1(self, planes: Tensor) -> Tensor:
        """``(B, 2C, H, V) -> (B, 2C, H, V)``: the first map of real planes."""
        weight, bias = self.real_map1()
        return grouped_pointwise(planes, weight, bias, self.groups)

    def map2(self, planes: Tensor) -> Tensor:
        """The same by the second map."""
        weight, bias = self.real_map2()
        return grouped_pointwise(planes, weight, bias, self.groups)

    @torch.no_grad()
    def fuse(self) -> ComplexMaps:
        """A copy whose maps are convolutions."""
        new = copy.deepcopy(self)
        if new.conv1 is None:
            new.conv1, new.conv2 = _convolution(self.w1, self.b1), _convolution(self.w2, self.b2)
            for name in ("w1", "b1", "w2", "b2"):
                new.register_parameter(name, None)
        return new

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 2 * self.dim * rfft2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, groups={self.groups}, threshold={self.threshold:g}, form={self.form!r}"


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    kernel, shift = real_form(weight, bias)
    conv = nn.Conv2d(len(kernel), len(kernel), 1, groups=weight.size(1), device="meta")
    conv.weight, conv.bias = nn.Parameter(kernel), nn.Parameter(shift)
    return conv
