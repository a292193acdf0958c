"""Mixers in the frequency domain: AFFNet's filter, GFNet's filter, and the reconstruction of DSM.

Transforms are products with their matrices: a forecaster has tens to hundreds of tokens, where that is faster than an
FFT, and it runs in every runtime.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import activation
from tokenmix.mixers import Slot, Slots
from tokenmix.mixers.bands import BandGenerator, axis_bands, check_bands
from tokenmix.mixers.complex_maps import check_blocks, grouped_pointwise, real_form, soft_shrink
from tokenmix.ops.cosine import axis_cosines
from tokenmix.ops.fourier import axis_matrix, widen
from tokenmix.tasks.forecasting.mixers.convolutions import DepthwiseConv


def rfft(x: Tensor) -> Tensor:
    """``(B, C, N) -> (B, C, 2, N//2+1)``: the orthonormal transform, real parts before imaginary parts."""
    return (x @ axis_matrix(x, "rfft", x.size(-1))).unflatten(-1, (2, -1))


def irfft(planes: Tensor, tokens: int) -> Tensor:
    """``(B, C, 2, N//2+1) -> (B, C, N)``: the inverse of `rfft`, as ``torch.fft.irfft`` defines it."""
    return planes.flatten(-2) @ axis_matrix(planes, "irfft", tokens)


def complex_product(a: Tensor, b: Tensor) -> Tensor:
    """``(..., 2, V)`` twice to ``(..., 2, V)``: the product of complex numbers given as two planes."""
    (a_real, a_imag), (b_real, b_imag) = a.unbind(-2), b.unbind(-2)
    return torch.stack([a_real * b_real - a_imag * b_imag, a_real * b_imag + a_imag * b_real], -2)


def _complex(planes: Tensor) -> Tensor:
    """``(B, C, 2, V) -> (B, C, V)`` complex."""
    return torch.complex(planes[:, :, 0].contiguous(), planes[:, :, 1].contiguous())


def complex_map(planes: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(B, 2C, V) -> (B, 2C, V)``: the map of `real_form` at each frequency; channels (group, channel, part)."""
    return grouped_pointwise(planes.unsqueeze(2), *real_form(weight, bias), weight.size(1)).squeeze(2)


class FrequencyFilter(nn.Module):
    """``(B, C, N) -> (B, C, N)``: ``irfft(M * X)``, ``X = rfft(x)``, ``M = softshrink(map2(act(map1(X))))``.

    Source: arXiv:2307.14008 in one dimension; parameters as in `tokenmix.mixers.frequency.FrequencyFilter`.

    Args:
        dim: Channels.
        groups: Diagonal blocks of both complex maps; None means gcd(dim, 8).
        threshold: Of the soft-shrink.
        act: A name among `tokenmix.layers.ACTIVATIONS`, or ``"prelu"`` (one slope for each part).
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the groups do not divide the channels, the threshold is negative or the activation is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        groups: int | None = None,
        threshold: float = 0.01,
        act: str = "silu",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        groups = check_blocks("aff", dim, groups, threshold)
        dd = {"device": device, "dtype": dtype}
        width = dim // groups
        self.threshold = float(threshold)
        self.act, self.act2 = activation(act, **dd), activation(act, **dd)
        self.w1, self.w2 = (nn.Parameter(0.02 * torch.randn(2, groups, width, width, **dd)) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(0.02 * torch.randn(2, groups, width, **dd)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.filter(widen(x)).to(x.dtype)

    def filter(self, x: Tensor) -> Tensor:
        """``forward`` in at least float32."""
        planes = rfft(x)  # (B, C, 2, V)
        return irfft(complex_product(soft_shrink(self.mapped(planes), self.threshold), planes), x.size(-1))

    def mapped(self, planes: Tensor) -> Tensor:
        """``(B, C, 2, V) -> (B, C, 2, V)``: both maps of a spectrum; the mask before it is shrunk."""
        hidden = complex_map(planes.flatten(1, 2), self.w1, self.b1).view(planes.shape)
        hidden = torch.stack([self.act(hidden[:, :, 0]), self.act2(hidden[:, :, 1])], 2).flatten(1, 2)
        return complex_map(hidden, self.w2, self.b2).view(planes.shape)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: spectrum, the mask before and after the soft-shrink, output."""
        planes = rfft(widen(x))
        mapped = self.mapped(planes)
        mask = soft_shrink(mapped, self.threshold)
        return {
            "query": Slot(_complex(planes), "fourier"),
            "key": Slot(_complex(mapped), "fourier"),
            "act": Slot(_complex(mask), "filter"),
            "value": Slot(irfft(complex_product(mask, planes), x.size(-1)).to(x.dtype)),
        }


class GlobalFilter(nn.Module):
    """``(B, C, N) -> (B, C, N)``: ``irfft(K * rfft(x))``, K a learnt complex value of each channel and frequency.

    Source: arXiv:2107.00645 (GFNet), eq. 5, in one dimension; resized linearly with aligned ends for other lengths.

    Args:
        dim: Channels.
        size: Tokens for which ``weight (2, C, size // 2 + 1)``, real part first, has one value per frequency.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the size is below 1.
    """

    def __init__(self, dim: int, *, size: int = 48, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the size of global_filter must be at least 1, not {size}")
        self.weight = nn.Parameter(0.02 * torch.randn(2, dim, size // 2 + 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            planes = rfft(widen(x))
            return irfft(complex_product(self.kernel(planes), planes), x.size(-1)).to(x.dtype)

    def kernel(self, planes: Tensor) -> Tensor:
        """``(C, 2, V)``: the learnt values for a spectrum of that length."""
        kernel = F.interpolate(self.weight.to(planes.dtype), planes.size(-1), mode="linear", align_corners=True)
        return kernel.transpose(0, 1)  # (2, C, V): the batch and the parts change places

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, and what it is multiplied with."""
        planes = rfft(widen(x))
        kernel = self.kernel(planes)
        return {
            "query": Slot(_complex(planes), "fourier"),
            "key": Slot(_complex(kernel[None]), "filter"),
            "value": Slot(irfft(complex_product(kernel, planes), x.size(-1)).to(x.dtype)),
        }


class SpectrumMixer(nn.Module):
    """``(B, C, N) -> (B, C, N)``: gates on soft bands of the cosine spectrum; a reconstruction of DSM.

    As `tokenmix.mixers.spectrum.SpectrumMixer` (arXiv:2309.06721, of which we know the abstract), with K = ``nodes``
    bands of one axis and a local convolution of three tokens.

    Args:
        dim: Channels.
        nodes: Bands. More than along each axis of an image, because there are no products of two.
        gate: ``"softmax"`` over the bands, times their number, or ``"sigmoid"``, times two.
        dynamic: Gates depend on the input; otherwise they are learnt constants.
        local: Add a depthwise convolution of three tokens of the value.
        reduction: The generator's hidden width is ``max(dim // reduction, 8)``.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the gate is unknown, or nodes or reduction are below 1.
    """

    def __init__(
        self,
        dim: int,
        *,
        nodes: int = 8,
        gate: str = "softmax",
        dynamic: bool = True,
        local: bool = True,
        reduction: int = 4,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        check_bands(nodes, gate, reduction)
        dd = {"device": device, "dtype": dtype}
        self.nodes = nodes
        self.gate = gate
        self.value = nn.Conv1d(dim, dim, 1, **dd)
        self.embedding = nn.Parameter(0.5 * torch.randn(nodes, dim, **dd))
        self.generator = BandGenerator(dim, max(dim // reduction, 8), **dd) if dynamic else None
        self.local = DepthwiseConv(dim, 3, **dd) if local else None
        self.out = nn.Conv1d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        v = self.value(x)
        with torch.autocast(x.device.type, enabled=False):
            y = self.modulate(widen(v)).to(v.dtype)
        return self.out(y if self.local is None else y + self.local(v))

    def modulate(self, v: Tensor) -> Tensor:
        """The inverse transform of the gated spectrum, in at least float32; reconstruction, steps 2 to 6."""
        transform = axis_cosines(v, v.size(-1))  # (N, N), frequency first
        spectrum = v @ transform.t()
        bands = axis_bands(v, v.size(-1), self.nodes, False)  # (N, K)
        gates = self.gates_of(self.logits(v, spectrum))
        return (spectrum * (gates.transpose(-1, -2) @ bands.t())) @ transform

    def logits(self, v: Tensor, spectrum: Tensor) -> Tensor:
        """``(B, C, N)`` twice to ``(B, K, C)``, or ``(K, C)`` where they are constants: those of the bands' gates."""
        logits = self.embedding.to(v.dtype)
        if self.generator is not None:
            means = axis_bands(v, v.size(-1), self.nodes, True)
            logits = logits + self.generate((spectrum.abs() @ means).transpose(1, 2), v.mean(2))  # (B, K, C)
        return logits

    def gates_of(self, logits: Tensor) -> Tensor:
        """``(..., K, C) -> (..., K, C)``: the gates whose logits these are."""
        return torch.softmax(logits, -2) * self.nodes if self.gate == "softmax" else torch.sigmoid(logits) * 2

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the mask of the spectrum, and how much each band carries of each token."""
        v = self.value(x)
        wide = widen(v)
        transform = axis_cosines(wide, v.size(-1))
        spectrum = wide @ transform.t()
        bands = axis_bands(wide, v.size(-1), self.nodes, False)  # (N, K)
        logits = self.logits(wide, spectrum).expand(len(x), -1, -1)
        gates = self.gates_of(logits)
        mask = gates.transpose(-1, -2) @ bands.t()
        y = ((spectrum * mask) @ transform).to(v.dtype)
        carried = (spectrum[:, None] * bands.t()[:, None] * gates[..., None]) @ transform  # (B, K, C, N)
        return {
            "query": Slot(spectrum, "cosine"),
            "key": Slot(logits, "gates"),
            "act": Slot(gates, "gates"),
            "value": Slot(self.out(y if self.local is None else y + self.local(v))),
            "mask": Slot(mask, "cosine"),
            "carried_by_band": Slot(carried.square().mean(2).sqrt()),
        }

    def generate(self, bands: Tensor, mean: Tensor) -> Tensor:
        """``(B, K, C), (B, C) -> (B, K, C)``: the gates' logits from the bands' magnitudes and the mean; step 4."""
        assert self.generator is not None
        weights = [weight.to(bands.dtype) for weight in self.generator.weights()]
        z = F.layer_norm(bands, [bands.size(-1)], weights[0], weights[1], 1e-6)
        g = F.layer_norm(mean, [mean.size(-1)], weights[2], weights[3], 1e-6)
        hidden = F.gelu(F.linear(z, weights[4], weights[5]) + F.linear(g, weights[6]).unsqueeze(1))
        return F.linear(hidden, weights[7], weights[8])
