"""The dynamic spectrum mixer: our reconstruction of DSM (arXiv:2309.06721), whose abstract alone is known to us."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import Pointwise, fold_norm_before
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.constants import constant
from tokenmix.ops.cosine import dct2, dct2_macs, idct2
from tokenmix.ops.dispatch import operator
from tokenmix.ops.fourier import widen
from tokenmix_runtime.names import unknown

GATES = ("softmax", "sigmoid")


def band_matrix(
    n: int, nodes: int, mean: bool = False, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """``(n, nodes)``: how much each of n frequencies belongs to each soft band of an axis; reconstruction, step 3.

    Bands are hat functions on the scale ``(nodes - 1) sqrt(u / n)``. Frequencies are in cycles per token, so that
    a band keeps its meaning at any resolution.

    Args:
        n: Frequencies.
        nodes: Bands.
        mean: Divide each band by its sum, so that the product with it is a weighted mean.
        dtype: Of the matrix.
        device: Of the matrix.
    """
    place = (torch.arange(n, device=device).to(dtype) / n).sqrt() * (nodes - 1)
    bands = (1 - (place[:, None] - torch.arange(nodes, device=device).to(dtype)).abs()).clamp(min=0)
    return bands / bands.sum(0).clamp(min=1e-6) if mean else bands


def pool_bands(magnitude: Tensor, nodes: int) -> Tensor:
    """``(B, C, H, W) -> (B, C, nodes * nodes)``: the weighted mean of each band."""
    rows, columns = (
        axis_bands(magnitude, magnitude.size(-2), nodes, True),
        axis_bands(magnitude, magnitude.size(-1), nodes, True),
    )
    return ((rows.t() @ magnitude) @ columns).flatten(2)


def spread_bands(gates: Tensor, height: int, width: int, nodes: int) -> Tensor:
    """``(B, C, nodes * nodes) -> (B, C, H, W)``: the gate of every frequency; reconstruction, step 5."""
    rows, columns = axis_bands(gates, height, nodes, False), axis_bands(gates, width, nodes, False)
    return rows @ (gates.unflatten(2, (nodes, nodes)) @ columns.t())


@constant
def axis_bands(like: Tensor, size: int, nodes: int, mean: bool) -> Tensor:
    """``(size, nodes)``: `band_matrix` in the dtype and on the device of ``like``."""
    return band_matrix(size, nodes, mean, like.dtype, like.device)


@torch.fx.wrap
@operator(precise=True)
def modulate(v: Tensor, embedding: Tensor, generator: list[Tensor], nodes: int, gate: str, form: str) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)`` in at least float32, outside of autocast; reconstruction, steps 2 to 6.

    Args:
        v: The value.
        embedding: Learnt logits of the bands ``(nodes * nodes, C)``.
        generator: Empty for static gates, or weight and bias of the bands' norm, of the mean's norm, weight and bias of
            the first layer, weight of the mean's layer, weight and bias of the last layer.
        nodes: Bands per axis.
        gate: ``"softmax"`` or ``"sigmoid"``.
        form: Of the transforms.
    """
    v = widen(v)
    height, width = v.size(-2), v.size(-1)
    spectrum = dct2(v, form)
    gates = gates_of(band_logits(v, spectrum, embedding, generator, nodes), nodes, gate)
    mask = spread_bands(gates.transpose(1, 2), height, width, nodes)
    return idct2(spectrum * mask, form)


def band_logits(v: Tensor, spectrum: Tensor, embedding: Tensor, generator: list[Tensor], nodes: int) -> Tensor:
    """``(B, C, H, W)`` twice to ``(B, K, C)``: the logit of each band; reconstruction, step 4. See `modulate`."""
    logits = embedding.to(v.dtype).unsqueeze(0)  # (1, K, C)
    if len(generator) > 0:
        weights = [weight.to(v.dtype) for weight in generator]
        z = pool_bands(spectrum.abs(), nodes).transpose(1, 2)  # (B, K, C)
        z = F.layer_norm(z, [z.size(-1)], weights[0], weights[1], 1e-6)
        mean = F.layer_norm(v.mean([2, 3]), [z.size(-1)], weights[2], weights[3], 1e-6)
        hidden = F.gelu(F.linear(z, weights[4], weights[5]) + F.linear(mean, weights[6]).unsqueeze(1))
        logits = logits + F.linear(hidden, weights[7], weights[8])  # (B, K, C)
    return logits


def gates_of(logits: Tensor, nodes: int, gate: str) -> Tensor:
    """``(B, K, C) -> (B, K, C)``: the gates whose logits these are."""
    return torch.softmax(logits, 1) * (nodes * nodes) if gate == "softmax" else torch.sigmoid(logits) * 2


class SpectrumMixer(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: gates on soft bands of the cosine spectrum; a reconstruction.

    ``V = value(x)``; S = DCT-II of V; each of K = nodes^2 soft bands of S gets a gate per image and channel, generated
    from the bands' mean magnitudes and the image's mean; ``Y = IDCT(S * gates) + local(V)``; ``out(Y)``. Uniform logits
    make the spectral part the identity. Steps in float32 for half inputs and under autocast, but for the convolutions.

    Known of the original (arXiv:2309.06721) is the abstract: mixing in the DCT domain with a dynamic spectrum weight
    generation layer that selects bands. Everything below that is our reconstruction and may differ from the paper.

    Args:
        dim: Channels.
        nodes: Bands per axis.
        gate: ``"softmax"`` over the bands, times their number, or ``"sigmoid"``, times two.
        dynamic: Gates depend on the image; otherwise they are learnt constants.
        local: Add a depthwise 3x3 convolution of the value, because a product in the DCT domain alone makes symmetric
            kernels only.
        reduction: The generator's hidden width is ``max(dim // reduction, 8)``.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the gate is unknown, or nodes or reduction are below 1.

    Examples:
        >>> import torch
        >>> SpectrumMixer(16, nodes=3)(torch.zeros(1, 16, 15, 20)).shape
        torch.Size([1, 16, 15, 20])
    """

    output_layer = "out"

    def __init__(
        self,
        dim: int,
        *,
        nodes: int = 4,
        gate: str = "softmax",
        dynamic: bool = True,
        local: bool = True,
        reduction: int = 4,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(unknown("gate of dsm", gate, GATES))
        if nodes < 1 or reduction < 1:
            raise ValueError(f"nodes and reduction of dsm must be at least 1, not {nodes} and {reduction}")
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.nodes = nodes
        self.gate = gate
        self.form = "auto"
        self.value: nn.Conv2d = Pointwise(dim, dim, **dd)
        self.embedding = nn.Parameter(0.5 * torch.randn(nodes * nodes, dim, **dd))
        self.generator = BandGenerator(dim, max(dim // reduction, 8), **dd) if dynamic else None
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd) if local else None
        self.out = Pointwise(dim, dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        v = self.value(x)
        weights = self.generator.weights() if self.generator is not None else self.static_weights()
        y = modulate(v, self.embedding, weights, self.nodes, self.gate, self.form).to(v.dtype)
        if self.local is not None:
            y = y + self.local(v)
        return self.out(y)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: spectrum of the value, logits and gates of the bands, output; and their mask."""
        v = self.value(x)
        wide, (height, width) = widen(v), v.shape[-2:]
        spectrum = dct2(wide, self.form)
        weights = self.generator.weights() if self.generator is not None else self.static_weights()
        logits = band_logits(wide, spectrum, self.embedding, weights, self.nodes)
        gates = gates_of(logits, self.nodes, self.gate)
        mask = spread_bands(gates.transpose(1, 2), height, width, self.nodes)
        y = idct2(spectrum * mask, self.form).to(v.dtype)
        return {
            "query": Slot(spectrum, "cosine"),
            "key": Slot(logits, "gates"),
            "act": Slot(gates, "gates"),
            "value": Slot(self.out(y if self.local is None else y + self.local(v))),
            "mask": Slot(mask, "cosine"),
        }

    def carried(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, K, C, H, W)``: what each band adds to the spectral part, in the order of the gates."""
        v, slots = widen(self.value(x)), self.slots(x)
        height, width = v.shape[-2:]
        rows, columns = (axis_bands(v, size, self.nodes, False).t() for size in (height, width))
        bands = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)  # (K, H, W)
        spectrum, gates = slots["query"].value, slots["act"].value
        return idct2(spectrum[:, None] * bands[:, None] * gates[..., None, None], self.form)

    def static_weights(self) -> list[Tensor]:
        """What `modulate` takes for gates that do not depend on the image."""
        return []

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``value``, in place. True: it always can."""
        self.value = fold_norm_before(self.value, norm)
        return True

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, in their matrix form."""
        return 2 * self.dim * dct2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, nodes={self.nodes}, gate={self.gate!r}, form={self.form!r}"


class BandGenerator(nn.Module):
    """The parameters that turn the bands of an image into its gates; reconstruction, step 4. `modulate` computes it.

    Held as layers, so that initialisation and quantisation by type find them, but read as tensors, because the whole
    step runs outside of autocast.
    """

    def __init__(self, dim: int, hidden: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.band_norm = nn.LayerNorm(dim, eps=1e-6, **dd)
        self.mean_norm = nn.LayerNorm(dim, eps=1e-6, **dd)
        self.fc1 = nn.Linear(dim, hidden, **dd)
        self.fc_mean = nn.Linear(dim, hidden, bias=False, **dd)
        self.fc2 = nn.Linear(hidden, dim, **dd)

    def weights(self) -> list[Tensor]:
        """In the order that `modulate` takes."""
        return [
            self.band_norm.weight,
            self.band_norm.bias,
            self.mean_norm.weight,
            self.mean_norm.bias,
            self.fc1.weight,
            self.fc1.bias,
            self.fc_mean.weight,
            self.fc2.weight,
            self.fc2.bias,
        ]
