"""Naive definitions of the yardsticks that have a file of their own, in the way of `tokenmix.ops.reference`.

Convolutions are sums of shifted maps, attention and scans go token by token, and nothing is shared with the mixers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from tokenmix.ops.reference import (
    Branch,
    Norm,
    batch_norm,
    depthwise,
    gelu,
    irfft2,
    pointwise,
    relu,
    resize_bilinear,
    rfft2,
    silu,
    softmax,
    softshrink,
)

__all__ = [
    "afno",
    "convolution",
    "dynamic_filter",
    "focal",
    "gated_conv",
    "inception",
    "large_kernel",
    "partial",
    "random_matrix",
    "random_mixing",
    "relu_linear",
    "selective_scan",
    "shift",
    "shifted",
    "star",
    "window",
]


def shifted(x: Tensor, below: int, right: int) -> Tensor:
    """(..., H, W) -> (..., H, W): the value that lies so many rows below and columns to the right, zero outside."""
    height, width = x.shape[-2:]
    far = max(abs(below), abs(right))
    padded = torch.nn.functional.pad(x, (far, far, far, far))
    return padded[..., far + below : far + below + height, far + right : far + right + width]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, C, H, W), weight (D, C, kh, kw) with odd sides, bias (D,) -> (B, D, H, W); zeros outside the image."""
    rows, columns = weight.shape[-2:]
    out: Tensor | float = 0.0
    for i in range(rows):
        for j in range(columns):
            place = shifted(x, i - rows // 2, j - columns // 2)
            out = out + torch.einsum("dc,bchw->bdhw", weight[:, :, i, j], place)
    assert isinstance(out, Tensor)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


def _from_pixels(found: Mapping[tuple[int, int], Tensor], height: int, width: int) -> Tensor:
    """(B, C) for each row and column -> (B, C, H, W)."""
    rows = [torch.stack([found[row, column] for column in range(width)], -1) for row in range(height)]
    return torch.stack(rows, -2)


def star_relu(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The number scale max(x, 0)^2 + bias, any shape (arXiv:2210.13452)."""
    return scale * relu(x) * relu(x) + bias


def afno(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, *, threshold: float) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): irfft2(softshrink(map2(relu(map1(rfft2(x)))))), without AFNO's residual.

    Source: arXiv:2111.13587. w1, w2 (2, G, C/G, C/G) are complex maps of G groups of channels, real part first and
    input channel before output channel, b1, b2 (2, G, C/G); ReLU and soft-shrink act on both parts of a number.
    """
    spectrum = rfft2(x)
    groups, width = w1.shape[1:3]
    parts = []
    for group in range(groups):
        z = spectrum[:, group * width : (group + 1) * width]
        matrices = [torch.complex(w[0, group], w[1, group]) for w in (w1, w2)]
        offsets = [torch.complex(b[0, group], b[1, group]).reshape(1, -1, 1, 1) for b in (b1, b2)]
        z = torch.einsum("io,bihw->bohw", matrices[0], z) + offsets[0]
        z = torch.complex(relu(z.real), relu(z.imag))
        z = torch.einsum("io,bihw->bohw", matrices[1], z) + offsets[1]
        parts.append(torch.complex(softshrink(z.real, threshold), softshrink(z.imag, threshold)))
    height, width = x.shape[-2:]
    return irfft2(torch.cat(parts, 1), (height, width))


def dynamic_filter(
    x: Tensor,
    expand: Tensor,
    act: tuple[Tensor, Tensor],
    weigh: tuple[Tensor, tuple[Tensor, Tensor], Tensor],
    grids: Tensor,
    projection: Tensor,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(irfft2(K rfft2(starrelu(expand(x))))), K = sum_f r_f K_f.

    Source: arXiv:2303.03932 (DFFormer). `expand` (M, C) and `projection` (C, M) are pointwise, `act` is the scale and
    bias of a StarReLU, `weigh` are two linear maps of the image's mean (h, C), (F M, h) with a StarReLU between, whose
    output is a softmax over the F `grids` (2, F, h, w) for each of the M channels; the resizing is ours.
    """
    size = (x.shape[2], x.shape[3] // 2 + 1)
    hidden = star_relu(torch.einsum("hc,bc->bh", weigh[0].flatten(1), x.mean((2, 3))), *weigh[1])
    channels = expand.shape[0]
    filters = grids.shape[1]
    scores = torch.einsum("oh,bh->bo", weigh[2].flatten(1), hidden).reshape(-1, filters, channels)
    weights = softmax(scores, 1)
    spectrum = rfft2(star_relu(pointwise(x, expand), *act))
    out = torch.zeros_like(spectrum)
    for index in range(filters):
        real, imaginary = (resize_bilinear(grids[part, index], size, align_corners=True) for part in (0, 1))
        out = out + weights[:, index, :, None, None] * torch.complex(real, imaginary) * spectrum
    return pointwise(irfft2(out, (x.shape[2], x.shape[3])), projection)


def large_kernel(
    x: Tensor, query: Branch, local: Branch, dilated: Branch, attend: Branch, projection: Branch
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(u attend(dilated(local(u)))), u = gelu(query(x)).

    Source: arXiv:2202.09741 (VAN). `local` is depthwise 5x5, `dilated` depthwise 7x7 whose places are 3 pixels apart,
    the others are pointwise; all have a bias.
    """
    u = gelu(pointwise(x, query.weight, query.bias))
    near = depthwise(u, local.weight, local.bias)
    far: Tensor | float = 0.0
    for i in range(7):
        for j in range(7):
            far = far + dilated.weight[:, 0, i, j].reshape(1, -1, 1, 1) * shifted(near, 3 * i - 9, 3 * j - 9)
    assert dilated.bias is not None
    weights = pointwise(far + dilated.bias.reshape(1, -1, 1, 1), attend.weight, attend.bias)
    return pointwise(u * weights, projection.weight, projection.bias)


def focal(
    x: Tensor,
    query: Branch,
    context: Branch,
    gates: Branch,
    levels: Sequence[Tensor],
    modulator: Branch,
    projection: Branch,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(query(x) modulator(sum_l gates_l(x) z_l)).

    Source: arXiv:2203.11926 (FocalNet). z_0 = context(x), z_l = gelu(depthwise_l(z_{l-1})) by the weights `levels`, the
    last z is gelu of the mean of the one before; `gates` makes one number per pixel for each.
    """
    g = pointwise(x, gates.weight, gates.bias)
    z = pointwise(x, context.weight, context.bias)
    total = torch.zeros_like(z)
    for index, weight in enumerate(levels):
        z = gelu(depthwise(z, weight))
        total = total + g[:, index, None] * z
    total = total + g[:, len(levels), None] * gelu(z.mean((2, 3), keepdim=True))
    modulated = pointwise(x, query.weight, query.bias) * pointwise(total, modulator.weight, modulator.bias)
    return pointwise(modulated, projection.weight, projection.bias)


def inception(x: Tensor, kernels: Sequence[Branch]) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): the last channels by depthwise kernels of their own, the first as they are.

    Source: arXiv:2303.16900 (InceptionNeXt). Each kernel is for as many channels as its weight has.
    """
    first = x.shape[1] - sum(kernel.weight.shape[0] for kernel in kernels)
    parts = [x[:, :first]]
    for kernel in kernels:
        channels = kernel.weight.shape[0]
        parts.append(depthwise(x[:, first : first + channels], kernel.weight, kernel.bias))
        first += channels
    return torch.cat(parts, 1)


def star(
    x: Tensor, local: Branch, first: Branch, second: Branch, gather: Branch, spread: Branch, *, training: bool = False
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): spread(gather(min(relu(first(y)), 6) second(y))), y = local(x).

    Source: arXiv:2403.19967 (StarNet). `local` (with a batch norm) and `spread` are depthwise, the others pointwise,
    `gather` with a batch norm.
    """
    assert local.norm is not None
    assert gather.norm is not None
    y = batch_norm(depthwise(x, local.weight, local.bias), local.norm, training=training)
    one, two = (pointwise(y, part.weight, part.bias) for part in (first, second))
    product = (relu(one) - relu(one - 6)) * two
    y = batch_norm(pointwise(product, gather.weight, gather.bias), gather.norm, training=training)
    return depthwise(y, spread.weight, spread.bias)


def random_matrix(tokens: int, *, dim: int, seed: int = 0) -> list[list[float]]:
    """(tokens, tokens) numbers from 0 to 1 that depend on row, column, channels and seed only; ours."""
    prime, key = 16_777_213, (7919 * seed + dim) % 16_777_213
    rows = []
    for m in range(tokens):
        row = []
        for n in range(tokens):
            number = (7_368_787 * m + 2_654_435 * n + 40_503 * key) % prime
            for _ in range(3):
                number = (number**2 + key + 1) % prime
            row.append(number / 2**24)
        rows.append(row)
    return rows


def random_mixing(x: Tensor, *, seed: int = 0) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): every token is a weighted mean of all, by the softmax of random numbers.

    Source: arXiv:2210.13452 (RandFormer); the numbers are ours, see `random_matrix`.
    """
    tokens = x.flatten(2)
    numbers = torch.tensor(random_matrix(tokens.shape[2], dim=x.shape[1], seed=seed), dtype=x.dtype, device=x.device)
    out = [(softmax(row, 0) * tokens).sum(-1) for row in numbers]
    return torch.stack(out, -1).reshape(x.shape)


def window(
    x: Tensor, query: Branch, key: Branch, value: Branch, offsets: Tensor, output: Branch, *, size: int, shift: int = 0
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): softmax attention among the pixels of each window of size x size pixels.

    Source: arXiv:2103.14030 (Swin). Windows begin at rows and columns shift - size, shift, shift + size and so on;
    a window has the pixels of the image in it. `offsets` (heads, 2 size - 1, 2 size - 1) is what the score of a query
    gets for how far above and to the left of it the key is.
    """
    heads, sides = offsets.shape[:2]
    batch, channels, height, width = x.shape
    maps = [pointwise(x, part.weight, part.bias) for part in (query, key, value)]
    q, k, v = (each.reshape(batch, heads, channels // heads, height, width) for each in maps)
    out: dict[tuple[int, int], Tensor] = {}
    for top in range(shift - size, height, size):
        for left in range(shift - size, width, size):
            pixels = [
                (row, column)
                for row in range(max(top, 0), min(top + size, height))
                for column in range(max(left, 0), min(left + size, width))
            ]
            if not pixels:
                continue
            rows, columns = [row for row, _ in pixels], [column for _, column in pixels]
            above = torch.tensor([[row - other for other in rows] for row in rows]) + sides // 2
            before = torch.tensor([[column - other for other in columns] for column in columns]) + sides // 2
            scores = torch.einsum("bhdn,bhdm->bhnm", q[..., rows, columns], k[..., rows, columns])
            weights = softmax(scores / math.sqrt(channels // heads) + offsets[:, above, before], -1)
            found = torch.einsum("bhnm,bhdm->bhdn", weights, v[..., rows, columns]).flatten(1, 2)
            out |= {pixel: found[..., place] for place, pixel in enumerate(pixels)}
    return pointwise(_from_pixels(out, height, width), output.weight, output.bias)


def relu_linear(
    x: Tensor, qkv: Tensor, nearby: Tensor, blend: Tensor, projection: Branch, *, head_dim: int, eps: float = 1e-5
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): attention with relu(q) . relu(k) / sum relu(q) . relu(k) for the softmax.

    Source: arXiv:2205.14756 (EfficientViT). `qkv` (3C, C) is pointwise; its d = `head_dim` channels of query, key and
    value stand side by side for each head. A second set of heads is the first after `nearby`, depthwise (3C, 1, k, k),
    and `blend` (3C, d, 1, 1), a map inside each group of d channels. `projection` (C, 2C) reads both.
    """
    first = pointwise(x, qkv)
    near = depthwise(first, nearby)
    groups = range(0, near.shape[1], head_dim)
    second = torch.cat([pointwise(near[:, c : c + head_dim], blend[c : c + head_dim]) for c in groups], 1)
    tokens = x.shape[2] * x.shape[3]
    out = []
    for scale in (first, second):
        for c in range(0, scale.shape[1], 3 * head_dim):
            q, k, v = (scale[:, start : start + head_dim].flatten(2) for start in range(c, c + 3 * head_dim, head_dim))
            weights = torch.einsum("bdn,bdm->bnm", relu(q), relu(k)) / tokens
            weights = weights / (weights.sum(-1, keepdim=True) + eps)
            out.append(torch.einsum("bnm,bdm->bdn", weights, v))
    both = torch.cat(out, 1).reshape(x.shape[0], -1, *x.shape[2:])
    return pointwise(both, projection.weight, projection.bias)


def selective_scan(
    x: Tensor,
    expand: Tensor,
    local: Branch,
    select: Tensor,
    step_bias: Tensor,
    log_decay: Tensor,
    skip: Tensor,
    norm: Norm,
    projection: Tensor,
) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(layer norm of four scans of u), u = silu(local(expand(x))).

    Source: arXiv:2401.10166 (VMamba), with the steps and decays of arXiv:2405.21060 (Mamba-2), as the recurrence that
    they define. Each direction has its own `select` (heads + 2 S, C), which makes a step for each head and the numbers
    b and c (S) of a pixel, its own `step_bias` and `log_decay` (heads,) and `skip` (C,).
    """
    u = silu(depthwise(pointwise(x, expand), local.weight, local.bias))
    batch, channels, height, width = u.shape
    by_rows = [(row, column) for row in range(height) for column in range(width)]
    by_columns = [(row, column) for column in range(width) for row in range(height)]
    heads = step_bias.shape[1]
    states = (select.shape[1] - heads) // 2
    total = torch.zeros_like(u)
    for direction, pixels in enumerate((by_rows, by_columns, by_rows[::-1], by_columns[::-1])):
        state = torch.zeros(batch, heads, channels // heads, states, dtype=x.dtype, device=x.device)
        found: dict[tuple[int, int], Tensor] = {}
        for row, column in pixels:
            now = u[:, :, row, column]
            made = torch.einsum("rc,bc->br", select[direction], now)
            step = torch.log1p(torch.exp(made[:, :heads] + step_bias[direction]))
            b, c = made[:, heads : heads + states], made[:, heads + states :]
            kept = torch.exp(-step * torch.exp(log_decay[direction]))
            given = step[:, :, None] * now.reshape(batch, heads, -1)
            state = kept[:, :, None, None] * state + given[..., None] * b[:, None, None]
            found[row, column] = (state * c[:, None, None]).sum(-1).flatten(1) + skip[direction] * now
        total = total + _from_pixels(found, height, width)
    centred = total - total.mean(1, keepdim=True)
    length = torch.sqrt((centred**2).mean(1, keepdim=True) + norm.eps)
    normed = centred / length * norm.weight.reshape(1, -1, 1, 1) + norm.bias.reshape(1, -1, 1, 1)
    return pointwise(normed, projection)


def shift(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): channels moved left, right, up and down by one pixel, the others as they are.

    Source: arXiv:2201.10801 (ShiftViT): a twelfth of the channels each way, at least one, while there are some.
    """
    channels = x.shape[1]
    group = max(channels // 12, 1)
    ways: dict[int, Callable[[Tensor], Tensor]] = {
        0: lambda map: shifted(map, 0, 1),
        1: lambda map: shifted(map, 0, -1),
        2: lambda map: shifted(map, 1, 0),
        3: lambda map: shifted(map, -1, 0),
    }
    return torch.stack([ways.get(c // group, lambda map: map)(x[:, c]) for c in range(channels)], 1)


def gated_conv(x: Tensor, gate: Branch, kept: Branch, convolved: Branch, local: Branch, projection: Branch) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): projection(gelu(gate(x)) [kept(x), local(convolved(x))]).

    Source: arXiv:2405.07992 (MambaOut). `local` is depthwise, the others are pointwise; all have a bias.
    """
    g, i, c = (pointwise(x, part.weight, part.bias) for part in (gate, kept, convolved))
    both = torch.cat([i, depthwise(c, local.weight, local.bias)], 1)
    return pointwise(gelu(g) * both, projection.weight, projection.bias)


def partial(x: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W), weight (D, D, kh, kw) -> (B, C, H, W): a convolution of the first D channels, the others stay.

    Source: arXiv:2303.03667 (FasterNet).
    """
    some = weight.shape[0]
    return torch.cat([convolution(x[:, :some], weight), x[:, some:]], 1)
