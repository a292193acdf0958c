"""Naive definitions of the one-dimensional mixers, straight from the equations: what the tests compare with.

Plain differentiable functions ``(B, C, N) -> (B, C, N)`` in the dtype of their input (the tests use float64): a
transform is a sum over its cosines and sines, a convolution a sum of shifted products. Pointwise weights are (out, in)
or (out, in, 1), depthwise ones (C, 1, k). Elementary functions come from `tokenmix.ops.reference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokenmix.ops.reference import Branch, Norm, gelu, relu, sigmoid, silu, softmax, softshrink


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, N), weight (D, C) or (D, C, 1) -> (B, D, N): the same linear map at every token."""
    y = torch.einsum("dc,bcn->bdn", weight.reshape(weight.shape[0], -1), x)
    return y if bias is None else y + bias[:, None]


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[n] = sum_i weight[i] x[n + i - k // 2], zeros outside; one kernel for each channel."""
    tokens, size = x.shape[-1], weight.shape[-1]
    padded = torch.nn.functional.pad(x, (size // 2, size // 2))
    y = torch.zeros_like(x)
    for i in range(size):
        y = y + weight[:, 0, i][:, None] * padded[..., i : i + tokens]
    return y if bias is None else y + bias[:, None]


def batch_norm(x: Tensor, norm: Norm, training: bool) -> Tensor:
    """By the batch's own biased statistics in training, else by the running ones."""
    mean, variance = norm.mean, norm.variance
    if training:
        mean = x.mean((0, 2))
        variance = ((x - mean[:, None]) ** 2).mean((0, 2))
    assert mean is not None
    assert variance is not None
    return (x - mean[:, None]) * (norm.weight / torch.sqrt(variance + norm.eps))[:, None] + norm.bias[:, None]


def normed(x: Tensor, branches: Sequence[Branch], training: bool) -> Tensor:
    """The sum of depthwise convolutions, each with its bias and its batch norm."""
    total = torch.zeros_like(x)
    for branch in branches:
        y = depthwise(x, branch.weight, branch.bias)
        total = total + (y if branch.norm is None else batch_norm(y, branch.norm, training))
    return total


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Over the last axis, biased variance, eps under the root."""
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps) * weight + bias


def rfft(x: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of X[k] = sum_n x[n] e^(-2 pi i k n / N) / sqrt(N), k = 0 ... N // 2."""
    tokens = x.shape[-1]
    angle = _angle(tokens // 2 + 1, tokens)
    cos, sin = torch.cos(angle).to(x.dtype), torch.sin(angle).to(x.dtype)
    return (x @ cos.T) / math.sqrt(tokens), -(x @ sin.T) / math.sqrt(tokens)


def irfft(real: Tensor, imaginary: Tensor, tokens: int) -> Tensor:
    """The inverse: frequencies 0 and, for even N, N / 2 enter once and by their real part, others with their mirror."""
    angle = _angle(tokens // 2 + 1, tokens)
    y = torch.zeros_like(real[..., :1]) * angle[0].to(real.dtype)
    for k in range(tokens // 2 + 1):
        cos, sin = torch.cos(angle[k]).to(real.dtype), torch.sin(angle[k]).to(real.dtype)
        a, b = real[..., k : k + 1], imaginary[..., k : k + 1]
        y = y + (a * cos if 2 * k % tokens == 0 else 2 * (a * cos - b * sin))
    return y / math.sqrt(tokens)


def aff(
    x: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    *,
    act: Callable[[Tensor], Tensor] = silu,
    act2: Callable[[Tensor], Tensor] | None = None,
    threshold: float = 0.01,
) -> Tensor:
    """irfft(mask(X) X), X = rfft(x): the adaptive frequency filter (arXiv:2307.14008).

    w1, w2 are (2, groups, C/groups, C/groups), real part first, input before output channel; b1, b2 (2, groups,
    C/groups). `act2` is the imaginary part's activation.
    """
    real, imaginary = rfft(x)
    groups, width = w1.shape[1:3]
    mask_real, mask_imaginary = [], []
    for group in range(groups):
        re, im = (part[:, group * width : (group + 1) * width] for part in (real, imaginary))
        a1, c1, a2, c2 = (w[part, group].T for w in (w1, w2) for part in (0, 1))
        r1 = act(pointwise(re, a1, b1[0, group]) - pointwise(im, c1))
        i1 = (act2 or act)(pointwise(im, a1, b1[1, group]) + pointwise(re, c1))
        mask_real.append(softshrink(pointwise(r1, a2, b2[0, group]) - pointwise(i1, c2), threshold))
        mask_imaginary.append(softshrink(pointwise(i1, a2, b2[1, group]) + pointwise(r1, c2), threshold))
    m, j = torch.cat(mask_real, 1), torch.cat(mask_imaginary, 1)
    return irfft(m * real - j * imaginary, m * imaginary + j * real, x.shape[-1])


def global_filter(x: Tensor, weight: Tensor) -> Tensor:
    """irfft(K rfft(x)) (arXiv:2107.00645, eq. 5); weight (2, C, v) is interpolated between aligned ends to K."""
    real, imaginary = rfft(x)
    old, new = weight.shape[-1], real.shape[-1]
    columns = []
    for i in range(new):
        place = i * (old - 1) / (new - 1) if new > 1 else 0.0
        low = min(int(place), old - 1)
        high = min(low + 1, old - 1)
        columns.append((1 - (place - low)) * weight[..., low] + (place - low) * weight[..., high])
    m, j = torch.stack(columns, -1)
    return irfft(m * real - j * imaginary, m * imaginary + j * real, x.shape[-1])


def ffnified(
    x: Tensor, query: Branch, key: Sequence[Branch], value: Sequence[Branch], *, training: bool = False
) -> Tensor:
    """value(gelu(key(query(x)))) (arXiv:2406.02021); query pointwise with a norm, key and value depthwise."""
    assert query.norm is not None
    q = batch_norm(pointwise(x, query.weight, query.bias), query.norm, training)
    return normed(gelu(normed(q, key, training)), value, training)


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
    """projection(interaction(gate(q) + gate(k)) v) (arXiv:2408.03703).

    A gate is a depthwise convolution with its norm, the score of a token and that of a channel.
    """
    c = x.shape[1]
    mixed = pointwise(x, qkv.weight, qkv.bias)
    similarity = torch.zeros_like(x)
    for part, (spatial, token, channel) in ((mixed[:, :c], query_gate), (mixed[:, c : 2 * c], key_gate)):
        gated = part * sigmoid(pointwise(relu(normed(part, [spatial], training)), token))
        similarity = similarity + gated * sigmoid(pointwise(gated.mean(2, keepdim=True), channel))
    context = depthwise(similarity, interaction.weight, interaction.bias) * mixed[:, 2 * c :]
    return depthwise(context, projection.weight, projection.bias)


def dsm(
    x: Tensor,
    value: Branch,
    embedding: Tensor,
    output: Branch,
    *,
    generator: dict[str, Tensor] | None = None,
    local: Branch | None = None,
    gate: str = "softmax",
) -> Tensor:
    """The dynamic spectrum mixer with the bands of one axis; a reconstruction, see `tokenmix.ops.reference.dsm`."""
    nodes, tokens = embedding.shape[0], x.shape[-1]
    v = pointwise(x, value.weight, value.bias)
    u, n = torch.arange(tokens, dtype=torch.float64)[:, None], torch.arange(tokens, dtype=torch.float64)
    scale = torch.sqrt((2.0 - (u == 0).to(torch.float64)) / tokens)
    transform = (scale * torch.cos(math.pi * u * (2 * n + 1) / (2 * tokens))).to(x.dtype)
    spectrum = v @ transform.T
    place = (nodes - 1) * torch.sqrt(u / tokens)
    bands = (1 - (place - torch.arange(nodes, dtype=torch.float64)).abs()).clamp(min=0).to(x.dtype)  # (N, K)
    logits = embedding[None]
    if generator is not None:
        z = torch.einsum("uk,bcu->bkc", bands / bands.sum(0).clamp(min=1e-6), spectrum.abs())
        z = layer_norm(z, generator["norm_z_weight"], generator["norm_z_bias"])
        g = layer_norm(v.mean(2), generator["norm_g_weight"], generator["norm_g_bias"])
        hidden = gelu(z @ generator["w1"].T + generator["b1"] + (g @ generator["wg"].T)[:, None])
        logits = logits + hidden @ generator["w2"].T + generator["b2"]
    gates = nodes * softmax(logits, 1) if gate == "softmax" else 2 * sigmoid(logits)
    y = (spectrum * torch.einsum("uk,bkc->bcu", bands, gates)) @ transform
    if local is not None:
        y = y + depthwise(v, local.weight, local.bias)
    return pointwise(y, output.weight, output.bias)


def attention(x: Tensor, query: Branch, key: Branch, value: Branch, output: Branch, *, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(d)) v per head of d = C / heads consecutive channels (arXiv:1706.03762, eq. 1)."""
    batch, channels, tokens = x.shape
    shape = (batch, heads, channels // heads, tokens)
    q, k, v = (pointwise(x, part.weight, part.bias).reshape(shape) for part in (query, key, value))
    weights = softmax(torch.einsum("bhdn,bhdm->bhnm", q, k) / math.sqrt(channels // heads), -1)
    y = torch.einsum("bhnm,bhdm->bhdn", weights, v).reshape(x.shape)
    return pointwise(y, output.weight, output.bias)


def pool(x: Tensor, size: int = 3) -> Tensor:
    """The mean over the tokens of a window inside the series, minus the token (arXiv:2111.11418, eq. 4)."""
    window = torch.ones(x.shape[1], 1, size, dtype=x.dtype)
    return depthwise(x, window) / depthwise(torch.ones_like(x), window) - x


def _angle(frequencies: int, tokens: int) -> Tensor:
    """2 pi k n / N, (frequencies, N), float64; k n is reduced first, to stay exact."""
    k, n = torch.arange(frequencies), torch.arange(tokens)
    return 2 * math.pi * ((k[:, None] * n) % tokens).to(torch.float64) / tokens
