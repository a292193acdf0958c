"""The mask network of the adaptive frequency filter (arXiv:2307.14008), between its two transforms.

No norm stands in it, so that it is fused in training as in inference. Fused are complex map, SiLU, complex map,
soft-shrink and the product with the spectrum; the transforms stay with cuFFT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tokenmix.ops.dispatch import Form, Situation, definition, operator
from tokenmix.ops.kernels.rule import can_run, proved

# Of a group: 8 multiply-adds per channel for each 16 bytes that are moved. Beyond this many the arithmetic takes longer
# than the memory, and the two maps no longer fit into a program's registers.
MOST_CHANNELS = 32


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx, spectrum, w1, b1, w2, b2, threshold: float) -> Tensor:
        from tokenmix.ops.kernels import frequency_triton

        ctx.save_for_backward(spectrum, w1, b1, w2, b2)
        ctx.threshold = threshold
        return frequency_triton.forward(_plain(spectrum), w1, b1, w2, b2, threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        from tokenmix.ops.kernels import frequency_triton

        spectrum, w1, b1, w2, b2 = ctx.saved_tensors
        given = _plain(upstream), _plain(spectrum), w1, b1, w2, b2, ctx.threshold
        return *frequency_triton.backward(*given), None


def _plain(x: Tensor) -> Tensor:
    """The same in consecutive memory, conjugated where torch has only noted that it should be."""
    return x.resolve_conj().contiguous()


def _sample() -> list[Tensor]:
    """Two spectra as real planes, two groups of five channels: neither channels nor positions fill their blocks."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 10, 5, 7, 2), (2, 2, 5, 5), (2, 2, 5), (2, 2, 5, 5), (2, 2, 5)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _on_planes(chain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The chain as a function of real tensors alone."""
    return lambda planes, *weights: torch.view_as_real(chain(torch.view_as_complex(planes), *weights, 0.01))


def _fits(now: Situation, spectrum: Tensor, *weights: Any) -> bool:
    if not can_run(now, spectrum, *weights[:4], dtypes=(torch.complex64,)) or weights[0].size(-1) > MOST_CHANNELS:
        return False
    chains = _on_planes(_Chain.apply), _on_planes(definition(filter_spectrum))
    real = weights[0].ndim != 4
    return not (real and now.mode == "training") and proved("filter_spectrum", *chains, _sample, spectrum.device)


@operator(Form("kernel", _Chain.apply, _fits))
def filter_spectrum(spectrum: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, threshold: float) -> Tensor:
    """``(B, C, H, V)`` complex to the same: ``X * softshrink(map2(silu(map1(X))))``.

    A map is linear in the channels of each group; SiLU and soft-shrink act on real and imaginary part alone. The
    kernels compute in float32 and keep of the forward pass only what was given: the backward pass makes the mask anew.
    They cannot be differentiated twice.

    Args:
        spectrum: complex64 for the kernels; any other takes the PyTorch form.
        w1: ``(2, G, b, b)``: part (real, imaginary), group, input channel, output channel; C = G b. Or, without
            gradients, any real map of the parts: ``(2, 2, G, b, b)``, part of the output, part of the input, and so on.
        b1: ``(2, G, b)``.
        w2: As ``w1``.
        b2: As ``b1``.
        threshold: Of the soft-shrink.
    """
    x = torch.stack([spectrum.real, spectrum.imag], 1).unflatten(2, (w1.size(-3), -1))  # (B, 2, G, b, H, V)
    mask = _real_map(F.silu(_real_map(x, w1, b1)), w2, b2)
    mask = F.softshrink(mask, threshold).flatten(2, 3)
    return torch.complex(mask[:, 0], mask[:, 1]) * spectrum


def _real_map(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(B, 2, G, b, H, V)`` to the same: a complex map, or a real map of the parts."""
    if weight.ndim == 4:
        real, imag = weight
        weight = torch.stack([torch.stack([real, -imag]), torch.stack([imag, real])])
    return torch.einsum("npgihv,qpgio->nqgohv", x, weight.to(x.dtype)) + bias.to(x.dtype)[..., None, None]
