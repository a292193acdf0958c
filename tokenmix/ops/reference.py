"""Naive definitions of every mixer, straight from the equations: the truth that the tests compare with.

Everything is a plain function of tensors, made of sums, products and elementary functions, differentiable, in the
dtype of its input (the tests use float64). Nothing here is fast: a transform is a sum over its cosines and sines, a
convolution a sum of shifted products. Pointwise (1x1) weights are given as (out, in) or (out, in, 1, 1), depthwise
weights as (C, 1, kh, kw); an optional bias is None where a mixer has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Branch",
    "Norm",
    "additive",
    "additive_gate",
    "aff",
    "aff_mask",
    "attention",
    "batch_norm",
    "circular_convolution",
    "dct2",
    "dct_matrix",
    "depthwise",
    "dsm",
    "dsm_bands",
    "ffnified",
    "gelu",
    "global_filter",
    "idct2",
    "identity",
    "irfft2",
    "pointwise",
    "pool",
    "relu",
    "resize_bilinear",
    "rfft2",
    "separable",
    "sigmoid",
    "silu",
    "softmax",
    "softshrink",
    "swift",
]


class Norm(NamedTuple):
    """A norm's numbers: affine `weight` and `bias` (C,); for a batch norm also its running statistics (C,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None
    eps: float = 1e-5


class Branch(NamedTuple):
    """A convolution (depthwise or pointwise, as it is used) and what follows it: a bias, a batch norm, or both."""

    weight: Tensor
    bias: Tensor | None = None
    norm: Norm | None = None


# ------------------------------------------------------------------------------------------------------------ functions


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), any shape."""
    return 1 / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    """The product x sigmoid(x), any shape."""
    return x * sigmoid(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0), any shape."""
    return torch.where(x > 0, x, torch.zeros_like(x))


def gelu(x: Tensor) -> Tensor:
    """The product of x and the normal distribution function of x (the exact form), any shape."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def softshrink(x: Tensor, threshold: float) -> Tensor:
    """sign(x) max(|x| - threshold, 0), any shape."""
    zero = torch.zeros_like(x)
    return torch.where(x > threshold, x - threshold, torch.where(x < -threshold, x + threshold, zero))


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) / sum exp(x) over one dimension; the maximum is subtracted first so that nothing overflows."""
    exponential = torch.exp(x - x.detach().amax(dim, keepdim=True))
    return exponential / exponential.sum(dim, keepdim=True)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": silu, "relu": relu, "gelu": gelu}


# ----------------------------------------------------------------------------------------------------------- transforms


def _phases(frequencies: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi k n / length, each (frequencies, length); k n is reduced first, to stay exact."""
    k = torch.arange(frequencies, device=like.device)
    n = torch.arange(length, device=like.device)
    angle = 2 * math.pi * ((k[:, None] * n[None, :]) % length).to(torch.float64) / length
    return torch.cos(angle).to(like.dtype), torch.sin(angle).to(like.dtype)


def rfft2(x: Tensor) -> Tensor:
    """(B, C, H, W) real -> (B, C, H, W//2+1) complex, orthonormal.

    X[k, l] = sum x[h, w] e^(-2 pi i (k h / H + l w / W)) / sqrt(H W).
    """
    height, width = x.shape[-2:]
    cos_h, sin_h = _phases(height, height, x)
    cos_w, sin_w = _phases(width // 2 + 1, width, x)
    real = torch.einsum("bchw,kh,lw->bckl", x, cos_h, cos_w) - torch.einsum("bchw,kh,lw->bckl", x, sin_h, sin_w)
    imaginary = -torch.einsum("bchw,kh,lw->bckl", x, sin_h, cos_w) - torch.einsum("bchw,kh,lw->bckl", x, cos_h, sin_w)
    return torch.complex(real, imaginary) / math.sqrt(height * width)


def irfft2(spectrum: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W//2+1) complex -> (B, C, H, W) real, the inverse of `rfft2`.

    First a complex inverse transform over H, then the real one over W: the columns l = 0 and, for even W, l = W/2 are
    their own mirror images and enter once, by their real part; every other column stands for itself and its conjugate.
    """
    height, width = size
    real, imaginary = spectrum.real, spectrum.imag
    cos_h, sin_h = _phases(height, height, real)
    rows_real = torch.einsum("bckl,kh->bchl", real, cos_h) - torch.einsum("bckl,kh->bchl", imaginary, sin_h)
    rows_imaginary = torch.einsum("bckl,kh->bchl", imaginary, cos_h) + torch.einsum("bckl,kh->bchl", real, sin_h)
    cos_w, sin_w = _phases(width // 2 + 1, width, real)
    out = torch.zeros_like(rows_real[..., :1]) * cos_w[0]
    for column in range(width // 2 + 1):
        a, b = rows_real[..., column : column + 1], rows_imaginary[..., column : column + 1]
        if 2 * column % width == 0:
            out = out + a * cos_w[column]
        else:
            out = out + 2 * (a * cos_w[column] - b * sin_w[column])
    return out / math.sqrt(height * width)


def dct_matrix(length: int, like: Tensor) -> Tensor:
    """(length, length) orthonormal DCT-II, frequency first.

    D[u, n] = a_u sqrt(2/N) cos(pi u (2n+1) / 2N), a_0 = 1/sqrt 2, every other a_u = 1.
    """
    u = torch.arange(length, device=like.device)
    n = torch.arange(length, device=like.device)
    angle = math.pi * ((u[:, None] * (2 * n[None, :] + 1)) % (4 * length)).to(torch.float64) / (2 * length)
    a = 1 - (u == 0).to(torch.float64) * (1 - math.sqrt(0.5))
    return (math.sqrt(2 / length) * a[:, None] * torch.cos(angle)).to(like.dtype)


def dct2(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): S = D_H x D_W^T, the orthonormal two-dimensional DCT-II."""
    height, width = x.shape[-2:]
    return torch.einsum("bchw,uh,vw->bcuv", x, dct_matrix(height, x), dct_matrix(width, x))


def idct2(spectrum: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): x = D_H^T S D_W, the inverse of `dct2`."""
    height, width = spectrum.shape[-2:]
    return torch.einsum("bcuv,uh,vw->bchw", spectrum, dct_matrix(height, spectrum), dct_matrix(width, spectrum))


def circular_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """(B, C, H, W), kernel (B, C, H, W) -> (B, C, H, W): y[h, w] = sum kernel[p, q] x[(h - p) mod H, (w - q) mod W]."""
    height, width = x.shape[-2:]
    out = torch.zeros_like(x)
    for p in range(height):
        for q in range(width):
            out = out + kernel[..., p : p + 1, q : q + 1] * torch.roll(x, (p, q), (-2, -1))
    return out


# --------------------------------------------------------------------------------------------------------------- layers


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, H, W), weight (D, C) or (D, C, 1, 1), bias (D,) -> (B, D, H, W): the same linear map at every position."""
    out = torch.einsum("dc,bchw->bdhw", weight.reshape(weight.shape[0], -1), x)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, H, W), weight (C, 1, kh, kw) with odd sides, bias (C,) -> (B, C, H, W); zeros outside the image.

    y[h, w] = sum weight[i, j] x[h + i - kh // 2, w + j - kw // 2] (cross-correlation). With 7x7 and a bias it is
    ConvNeXt's mixer (arXiv:2201.03545).
    """
    height, width = x.shape[-2:]
    rows, columns = weight.shape[-2:]
    padded = torch.nn.functional.pad(x, (columns // 2, columns // 2, rows // 2, rows // 2))
    out = torch.zeros_like(x)
    for i in range(rows):
        for j in range(columns):
            out = out + weight[:, 0, i, j].reshape(1, -1, 1, 1) * padded[..., i : i + height, j : j + width]
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


def batch_norm(x: Tensor, norm: Norm, *, training: bool = False) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): by the batch's own biased statistics in training, else by the running ones."""
    if training:
        mean = x.mean((0, 2, 3))
        variance = ((x - mean.reshape(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
    else:
        assert norm.mean is not None
        assert norm.variance is not None
        mean, variance = norm.mean, norm.variance
    scale = norm.weight / torch.sqrt(variance + norm.eps)
    return (x - mean.reshape(1, -1, 1, 1)) * scale.reshape(1, -1, 1, 1) + norm.bias.reshape(1, -1, 1, 1)


def _layer_norm(x: Tensor, norm: Norm) -> Tensor:
    """(..., C) -> (..., C), over the last dimension, biased variance, eps under the root."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def _depthwise_branches(x: Tensor, branches: Sequence[Branch], training: bool) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): the sum of parallel depthwise convolutions, each with its bias and batch norm."""
    out = torch.zeros_like(x)
    for branch in branches:
        y = depthwise(x, branch.weight, branch.bias)
        out = out + (y if branch.norm is None else batch_norm(y, branch.norm, training=training))
    return out


def _unit(x: Tensor, eps: float, dim: int) -> Tensor:
    """The tensor divided by its Euclidean length along a dimension, or by eps where it is shorter."""
    length = torch.sqrt((x * x).sum(dim, keepdim=True))
    return x / torch.where(length > eps, length, torch.full_like(length, eps))


# --------------------------------------------------------------------------------------------------------------- mixers


def aff_mask(
    spectrum: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    groups: int,
    act: str | Callable[[Tensor], Tensor] = "silu",
    act2: str | Callable[[Tensor], Tensor] | None = None,
    threshold: float = 0.01,
) -> Tensor:
    """(B, C, H, W//2+1) complex -> (B, C, H, W//2+1) complex: the learned mask of the adaptive frequency filter.

    Source: arXiv:2307.14008, and the official layout: w1, w2 (2, groups, C/groups, C/groups) with real part first and
    input channel before output channel; b1, b2 (2, groups, C/groups). `act2` is the imaginary part's activation
    (default: `act`).
    """
    first = _ACTIVATIONS[act] if isinstance(act, str) else act
    second = first if act2 is None else _ACTIVATIONS[act2] if isinstance(act2, str) else act2
    width = spectrum.shape[1] // groups
    real_parts, imaginary_parts = [], []
    for group in range(groups):
        channels = slice(group * width, (group + 1) * width)
        re, im = spectrum.real[:, channels], spectrum.imag[:, channels]
        a1, c1, a2, c2 = (w[part, group].T for w in (w1, w2) for part in (0, 1))
        r1 = first(pointwise(re, a1) - pointwise(im, c1) + b1[0, group].reshape(1, -1, 1, 1))
        i1 = second(pointwise(im, a1) + pointwise(re, c1) + b1[1, group].reshape(1, -1, 1, 1))
        r2 = pointwise(r1, a2) - pointwise(i1, c2) + b2[0, group].reshape(1, -1, 1, 1)
        i2 = pointwise(i1, a2) + pointwise(r1, c2) + b2[1, group].reshape(1, -1, 1, 1)
        real_parts.append(softshrink(r2, threshold))
        imaginary_parts.append(softshrink(i2, threshold))
    return torch.complex(torch.cat(real_parts, 1), torch.cat(imaginary_parts, 1))


def aff(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    groups: int,
    act: str | Callable[[Tensor], Tensor] = "silu",
    act2: str | Callable[[Tensor], Tensor] | None = None,
    threshold: float = 0.01,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): irfft2(mask(X) X), X = rfft2(x); adaptive frequency filter without its residual.

    Source: arXiv:2307.14008. The weights are those of `aff_mask`.
    """
    spectrum = rfft2(x)
    mask = aff_mask(spectrum, w1, b1, w2, b2, groups=groups, act=act, act2=act2, threshold=threshold)
    height, width = x.shape[-2:]
    return irfft2(mask * spectrum, (height, width))


def ffnified(
    x: Tensor, query: Branch, key: Sequence[Branch], value: Sequence[Branch], *, training: bool = False
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): value(gelu(key(query(x)))), FFNified attention.

    Source: arXiv:2406.02021 (MetaMixer). `query` is pointwise, `key` and `value` are sums of depthwise branches: one
    3x3 with a bias (plain), 7x7 and 3x3 each with a batch norm (rep), or k x k, (k-4) x (k-4), 1 x k and k x 1 (strip).
    """
    q = pointwise(x, query.weight, query.bias)
    q = q if query.norm is None else batch_norm(q, query.norm, training=training)
    return _depthwise_branches(gelu(_depthwise_branches(q, key, training)), value, training)


def additive_gate(
    x: Tensor, spatial: Branch, spatial_score: Tensor, channel_score: Tensor, *, training: bool = False
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): the spatial, then the channel interaction of the convolutional additive mixer.

    `spatial` is a depthwise 3x3 with a bias and a batch norm; `spatial_score` (1, C) makes one score per position,
    `channel_score` (C, C) one per channel from the mean over the positions.
    """
    y = depthwise(x, spatial.weight, spatial.bias)
    y = y if spatial.norm is None else batch_norm(y, spatial.norm, training=training)
    x = x * sigmoid(pointwise(relu(y), spatial_score))
    return x * sigmoid(pointwise(x.mean((2, 3), keepdim=True), channel_score))


def additive(
    x: Tensor,
    qkv: Branch,
    query_gate: tuple[Branch, Tensor, Tensor],
    key_gate: tuple[Branch, Tensor, Tensor],
    interaction: Branch,
    projection: Branch,
    *,
    training: bool = False,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(interaction(gate(q) + gate(k)) v), additive self-attention.

    Source: arXiv:2408.03703 (CAS-ViT). `qkv` (3C, C) is pointwise, its output split into q, k and v in this order; the
    gates are `additive_gate`'s weights; `interaction` and `projection` are depthwise 3x3 with a bias.
    """
    c = x.shape[1]
    mixed = pointwise(x, qkv.weight, qkv.bias)
    q, k, v = mixed[:, :c], mixed[:, c : 2 * c], mixed[:, 2 * c :]
    similarity = additive_gate(q, *query_gate, training=training) + additive_gate(k, *key_gate, training=training)
    context = depthwise(similarity, interaction.weight, interaction.bias) * v
    return depthwise(context, projection.weight, projection.bias)


def dsm_bands(length: int, nodes: int, like: Tensor) -> Tensor:
    """(length, nodes): how much frequency u belongs to band i, max(0, 1 - |(nodes - 1) sqrt(u / length) - i|)."""
    u = torch.arange(length, device=like.device, dtype=torch.float64)
    i = torch.arange(nodes, device=like.device, dtype=torch.float64)
    distance = ((nodes - 1) * torch.sqrt(u / length)[:, None] - i[None, :]).abs()
    return (1 - distance).clamp(min=0).to(like.dtype)


def dsm(
    x: Tensor,
    value: Branch,
    embedding: Tensor,
    output: Branch,
    *,
    generator: dict[str, Tensor] | None = None,
    local: Branch | None = None,
    nodes: int = 4,
    gate: str = "softmax",
    eps: float = 1e-6,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): dynamic spectrum mixer, our reconstruction of arXiv:2309.06721 from its abstract.

    Args:
        x: The input.
        value: Pointwise (C, C) with a bias.
        embedding: The bands' learned logits (nodes * nodes, C).
        output: Pointwise (C, C) with a bias.
        generator: What makes the gate depend on the image (None: it does not): `norm_z_weight`, `norm_z_bias`,
            `norm_g_weight`, `norm_g_bias` (C,), `w1`, `wg` (hidden, C), `b1` (hidden,), `w2` (C, hidden), `b2` (C,).
        local: Depthwise 3x3 with a bias on the value, or None.
        nodes: Bands per axis.
        gate: "softmax" over the bands, times their number, or "sigmoid", times two.
        eps: Of the two layer norms.
    """
    batch, channels, height, width = x.shape
    v = pointwise(x, value.weight, value.bias)
    spectrum = dct2(v)
    rows, columns = dsm_bands(height, nodes, x), dsm_bands(width, nodes, x)
    if generator is None:
        logits = embedding[None].expand(batch, -1, -1)
    else:
        rows_mean = rows / rows.sum(0, keepdim=True).clamp(min=1e-6)
        columns_mean = columns / columns.sum(0, keepdim=True).clamp(min=1e-6)
        z = torch.einsum("ui,vj,bcuv->bijc", rows_mean, columns_mean, spectrum.abs())
        z = z.reshape(batch, nodes * nodes, channels)
        z = _layer_norm(z, Norm(generator["norm_z_weight"], generator["norm_z_bias"], eps=eps))
        g = _layer_norm(v.mean((2, 3)), Norm(generator["norm_g_weight"], generator["norm_g_bias"], eps=eps))
        from_bands = torch.einsum("hc,bkc->bkh", generator["w1"], z) + generator["b1"]
        hidden = gelu(from_bands + torch.einsum("hc,bc->bh", generator["wg"], g)[:, None])
        logits = torch.einsum("ch,bkh->bkc", generator["w2"], hidden) + generator["b2"] + embedding
    gates = nodes * nodes * softmax(logits, 1) if gate == "softmax" else 2 * sigmoid(logits)
    gates = gates.reshape(batch, nodes, nodes, channels)
    mask = torch.einsum("ui,vj,bijc->bcuv", rows, columns, gates)
    y = idct2(spectrum * mask)
    if local is not None:
        y = y + depthwise(v, local.weight, local.bias)
    return pointwise(y, output.weight, output.bias)


def attention(x: Tensor, query: Branch, key: Branch, value: Branch, output: Branch, *, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): softmax(q k^T / sqrt(d)) v per head of d = C / heads consecutive channels.

    Source: arXiv:1706.03762, eq. 1, over the H W positions. All four maps are pointwise (C, C).
    """
    batch, channels, height, width = x.shape
    shape = (batch, heads, channels // heads, height * width)
    q, k, v = (pointwise(x, part.weight, part.bias).reshape(shape) for part in (query, key, value))
    weights = softmax(torch.einsum("bhdn,bhdm->bhnm", q, k) / math.sqrt(channels // heads), -1)
    y = torch.einsum("bhnm,bhdm->bhdn", weights, v).reshape(x.shape)
    return pointwise(y, output.weight, output.bias)


def separable(x: Tensor, query: Branch, key: Branch, value: Branch, output: Branch) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): output(relu(value(x)) c), separable attention.

    The context is one vector for the whole image, c = sum_n softmax_n(query(x)) key(x)_n.
    Source: arXiv:2206.02680 (MobileViTv2), section 3. `query` is (1, C), the others (C, C), all pointwise.
    """
    scores = pointwise(x, query.weight, query.bias).flatten(2)
    weights = softmax(scores, -1).reshape(x.shape[0], 1, *x.shape[2:])
    context = (weights * pointwise(x, key.weight, key.bias)).sum((2, 3), keepdim=True)
    return pointwise(relu(pointwise(x, value.weight, value.bias)) * context, output.weight, output.bias)


def swift(
    x: Tensor, query: Branch, key: Branch, score: Tensor, projection: Branch, output: Branch, *, eps: float = 1e-12
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): output(projection(g k) + q), efficient additive attention.

    q and k are normalised over the channels, a = q . score / sqrt(C) over the positions, g = sum_n a_n q_n.
    Source: arXiv:2303.15446 (SwiftFormer), section 3. `score` has C elements, the maps are pointwise (C, C).
    """
    q = _unit(pointwise(x, query.weight, query.bias), eps, 1)
    k = _unit(pointwise(x, key.weight, key.bias), eps, 1)
    a = (q * score.reshape(1, -1, 1, 1)).sum(1, keepdim=True) / math.sqrt(x.shape[1])
    a = _unit(a.flatten(2), eps, -1).reshape(a.shape)
    context = (a * q).sum((2, 3), keepdim=True)
    return pointwise(pointwise(context * k, projection.weight, projection.bias) + q, output.weight, output.bias)


def pool(x: Tensor, *, size: int = 3) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): the mean over the pixels of a size x size window inside the image, minus the input.

    Source: arXiv:2111.11418 (PoolFormer), eq. 4.
    """
    window = torch.ones(x.shape[1], 1, size, size, dtype=x.dtype, device=x.device)
    return depthwise(x, window) / depthwise(torch.ones_like(x), window) - x


def resize_bilinear(x: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """(..., h, w) -> (..., H, W): linear interpolation along each axis, edges repeated."""
    for axis, length in zip((-2, -1), size, strict=True):
        old = x.shape[axis]
        lines = []
        for i in range(length):
            if align_corners:
                place = i * (old - 1) / (length - 1) if length > 1 else 0.0
            else:
                place = max((i + 0.5) * old / length - 0.5, 0.0)
            low = min(int(place), old - 1)
            high = min(low + 1, old - 1)
            fraction = place - low if high > low else 0.0
            lines.append((1 - fraction) * x.select(axis, low) + fraction * x.select(axis, high))
        x = torch.stack(lines, axis)
    return x


def global_filter(x: Tensor, real: Tensor, imaginary: Tensor, *, align_corners: bool = False) -> Tensor:
    """(B, C, H, W), grids (C, h, w) -> (B, C, H, W): irfft2(K rfft2(x)), K the grid resized to the spectrum's size.

    Source: arXiv:2107.00645 (GFNet), eq. 5; the resizing is ours and frees it from the image size.
    """
    height, width = x.shape[-2:]
    size = (height, width // 2 + 1)
    kernel = torch.complex(
        resize_bilinear(real, size, align_corners=align_corners),
        resize_bilinear(imaginary, size, align_corners=align_corners),
    )
    return irfft2(kernel[None] * rfft2(x), (height, width))


def identity(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): the input."""
    return x
