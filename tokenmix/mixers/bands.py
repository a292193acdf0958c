"""The soft bands of a cosine spectrum and what makes their gates: the steps of our reconstruction of DSM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.ops.constants import constant
from tokenmix.ops.cosine import dct2, idct2
from tokenmix.ops.dispatch import operator
from tokenmix.ops.fourier import widen
from tokenmix_runtime.names import unknown

GATES = ("softmax", "sigmoid")


def check_bands(nodes: int, gate: str, reduction: int) -> None:
    """Refuse options of DSM that mean nothing.

    Raises:
        ValueError: If the gate is unknown, or nodes or reduction are below 1.
    """
    if gate not in GATES:
        raise ValueError(unknown("gate of dsm", gate, GATES))
    if nodes < 1 or reduction < 1:
        raise ValueError(f"nodes and reduction of dsm must be at least 1, not {nodes} and {reduction}")


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


@torch.fx.wrap
@operator(precise=True)
def modulate(
    v: Tensor, embedding: Tensor, generator: list[Tensor], nodes: int, gate: str, form: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gate the bands of a value's cosine spectrum and transform it back; reconstruction, steps 2 to 6.

    Computed in at least float32, outside of autocast.

    Args:
        v: The value (B, C, H, W).
        embedding: Learnt logits of the bands ``(nodes * nodes, C)``.
        generator: `BandGenerator.weights`, or nothing for static gates.
        nodes: Bands per axis.
        gate: ``"softmax"`` or ``"sigmoid"``.
        form: Of the transforms.

    Returns:
        The spectrum (B, C, H, W), logits and gates of the bands (B, K, C), the gated spectrum transformed back, in the
        type of ``v``, and the mask that gated it.
    """
    wide = widen(v)
    spectrum = dct2(wide, form)
    logits = band_logits(wide, spectrum, embedding, generator, nodes)
    gates = gates_of(logits, nodes, gate)
    mask = spread_bands(gates.transpose(1, 2), v.size(-2), v.size(-1), nodes)
    return spectrum, logits, gates, idct2(spectrum * mask, form).to(v.dtype), mask


def carried_by_band(spectrum: Tensor, gates: Tensor, nodes: int) -> Tensor:
    """``(B, C, H, W), (B, K, C) -> (B, K, C, H, W)``: what each band adds to the modulated value."""
    rows, columns = (axis_bands(spectrum, size, nodes, False).t() for size in spectrum.shape[-2:])
    bands = (rows[:, None, :, None] * columns[None, :, None, :]).flatten(0, 1)  # (K, H, W)
    return idct2(spectrum[:, None] * bands[:, None] * gates[..., None, None])


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
