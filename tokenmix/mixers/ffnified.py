"""FFNified attention (arXiv:2406.02021): depthwise convolutions instead of attention's two dynamic interactions."""

from __future__ import annotations

from torch import nn

from tokenmix.layers import GELU, ConvNorm, Pointwise, RepDepthwise
from tokenmix.mixers.metamixer import MetaMixer, Static
from tokenmix_runtime.names import unknown

QUERIES = ("norm", "bias", "bias_norm")


def ffnified_attention(
    dim: int,
    *,
    key_size: int = 7,
    value_size: int = 7,
    conv: str = "auto",
    query: str = "norm",
    device=None,
    dtype=None,
) -> MetaMixer:
    """``(B, C, H, W) -> (B, C, H, W)``: 1x1 convolution with batch norm, depthwise key, exact GELU, depthwise value.

    Source: arXiv:2406.02021 (MetaMixer, FFNet) and its official classification, segmentation and super-resolution code.

    Args:
        dim: Channels.
        key_size: Kernel of the key in pixels, odd.
        value_size: Kernel of the value in pixels, odd.
        conv: Kind of both. ``"plain"``: one convolution with a bias and no norm. ``"rep"``: k x k plus 3x3, each with a
            norm, one kernel once fused. ``"strip"`` (FFNet-Seg): the same of k x k, (k-4) x (k-4), 1 x k and k x 1, the
            second only above k = 3. ``"auto"``: plain up to 3, rep above.
        query: The 1x1 convolution. ``"norm"``: with a batch norm and no bias. ``"bias"`` (super-resolution): with a
            bias and no norm. ``"bias_norm"``: with both.
        device: Where the parameters are created.
        dtype: Their type.

    Returns:
        The mixer, with static interactions in the frame's slots.

    Raises:
        ValueError: If a size is even or below 1, or a kind is unknown.

    Examples:
        >>> import torch
        >>> ffnified_attention(16, key_size=3)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 16, 7, 7])
    """
    if query not in QUERIES:
        raise ValueError(unknown("query of ffnified", query, QUERIES))
    dd = {"device": device, "dtype": dtype}
    return MetaMixer(
        query=Pointwise(dim, dim, **dd) if query == "bias" else ConvNorm(dim, dim, 1, bias=query != "norm", **dd),
        key=Static(_depthwise(dim, key_size, conv, **dd)),
        act=GELU(),
        value=Static(_depthwise(dim, value_size, conv, **dd)),
    )


def _depthwise(dim: int, size: int, conv: str, *, device=None, dtype=None) -> nn.Module:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel size of ffnified must be odd and at least 1, not {size}")
    if conv == "auto":
        conv = "plain" if size <= 3 else "rep"
    if conv == "plain":
        return nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim, device=device, dtype=dtype)
    sizes: list[int | tuple[int, int]] = [size]
    if conv == "rep":
        sizes += [3] if size > 3 else []
    elif conv == "strip":
        sizes += [size - 4] if size > 3 else []
        sizes += [(1, size), (size, 1)] if size > 1 else []
    else:
        raise ValueError(f"unknown kind of convolution {conv!r} for ffnified; known: auto, plain, rep, strip")
    return RepDepthwise(dim, sizes, device=device, dtype=dtype)
