"""Depthwise convolutions over time: as ``conv1d``, and as products with band matrices, which are far faster on a CPU.

A convolution of N tokens is the product with an N x N matrix whose diagonals are the kernel's values. PyTorch has no
fast depthwise convolution in one dimension for CPUs; one batched product does the same work eight times as fast for
the published sizes (448 channels, 48 tokens, kernel 51). It grows with N squared, so that long inputs keep ``conv1d``.

Letters: M variables, D channels of a variable, B windows, N tokens. Maps are laid out ``(M, D, B, N)``: every linear
map of the network is then one product, without a copy.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.tasks.forecasting.dropout import product_gelu

# Up to this many tokens the product is faster than `conv1d` on a CPU, and ...
PRODUCT_TOKENS = 192
# ... up to this many elements all band matrices together are worth their memory ...
PRODUCT_ELEMENTS = 1 << 25
# ... and for so many windows the time to make them.
PRODUCT_WINDOWS = 8
FORMS = ("auto", "product", "conv")


def uses_products(channels: int, windows: int, tokens: int, form: str = "auto") -> bool:
    """Whether a depthwise convolution of a map ``(C, B, N)`` is computed as a product.

    Args:
        channels: Of the convolution, C.
        windows: Of the map, B; any number of them in a program that is traced.
        tokens: Length of its input, N.
        form: ``"auto"`` (what is faster), ``"product"`` or ``"conv"``.

    Raises:
        ValueError: If the form is another.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of a convolution; known: {', '.join(FORMS)}")
    if form != "auto":
        return form == "product"
    if tokens > PRODUCT_TOKENS or channels * tokens * tokens > PRODUCT_ELEMENTS:
        return False
    return torch.compiler.is_compiling() or windows >= PRODUCT_WINDOWS


def band_matrices(kernel: Tensor, tokens: int) -> Tensor:
    """``(C, 1, k) -> (C, N, N)``, such that the product of a map ``(C, B, N)`` with it is the padded convolution.

    Args:
        kernel: One odd kernel for each channel.
        tokens: Length of the input, N.
    """
    reach = kernel.size(-1) // 2
    # The values for the distances -(N-1) ... N-1 between input and output token, zero beyond the kernel.
    spread = F.pad(kernel[:, 0], (tokens - 1 - reach, tokens - 1 - reach))
    return spread.unfold(1, tokens, 1).flip(-1)


def depthwise(x: Tensor, kernel: Tensor, bias: Tensor | None, form: str = "auto") -> Tensor:
    """``(M, D, B, N) -> (M, D, B, N)``: every channel of every variable with its own kernel, zeros outside.

    Args:
        x: The map.
        kernel: ``(M D, 1, k)``, k odd; channels ordered (variable, channel).
        bias: ``(M D,)`` or None.
        form: See `uses_products`.
    """
    variables, dim, batch, tokens = x.shape
    if not uses_products(variables * dim, batch, tokens, form):
        y = F.conv1d(x.flatten(0, 1).transpose(0, 1), kernel, bias, padding=kernel.size(-1) // 2, groups=kernel.size(0))
        return y.transpose(0, 1).unflatten(0, (variables, dim))
    rows = x.reshape(variables * dim, batch, tokens)
    bands = band_matrices(kernel, tokens)
    y = torch.bmm(rows, bands) if bias is None else torch.baddbmm(bias[:, None, None], rows, bands)
    return y.view(variables, dim, batch, tokens)


def depthwise_gelu(x: Tensor, kernel: Tensor, bias: Tensor | None, form: str = "auto") -> Tensor:
    """``gelu(depthwise(x, ...))``; arguments as there."""
    variables, dim, batch, tokens = x.shape
    if bias is None or not uses_products(variables * dim, batch, tokens, form):
        return F.gelu(depthwise(x, kernel, bias, form))
    rows = x.reshape(variables * dim, batch, tokens)
    return product_gelu(rows, band_matrices(kernel, tokens), bias[:, None, None], 0.0).view(x.shape)


def output_moments(mean: Tensor, covariance: Tensor, bands: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over windows and tokens of ``x @ bands``, each ``(C,)``, without computing it.

    Args:
        mean: Of the input at each token, ``(C, N)``.
        covariance: Of the input's tokens, biased, ``(C, N, N)``.
        bands: ``(C, N, N)`` as from `band_matrices`.
    """
    means = torch.bmm(mean.unsqueeze(1), bands).squeeze(1)  # (C, N): of the output at each token
    variances = (torch.bmm(covariance, bands) * bands).sum(1)  # (C, N)
    return means.mean(1), variances.mean(1) + means.var(1, correction=0)


def input_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """``(C, B, N)`` -> mean at each token ``(C, N)`` and biased covariance of the tokens ``(C, N, N)``."""
    mean = x.mean(1)
    second = torch.bmm(x.transpose(1, 2), x) / x.size(1)
    return mean, second - mean.unsqueeze(2) * mean.unsqueeze(1)
