"""The dynamic spectrum mixer: our reconstruction of DSM (arXiv:2309.06721), whose abstract alone is known to us."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.layers import Pointwise
from tokenmix.mixers.bands import BandGenerator, check_bands, modulate
from tokenmix.mixers.slots import Slots, named_slots
from tokenmix.ops.cosine import dct2_macs

torch.fx.wrap("modulate")  # a leaf for torch.fx


class SpectrumMixer(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: gates on soft bands of the cosine spectrum, rebuilt from an abstract.

    ``V = value(x)``; S = DCT-II of V; each of K = nodes^2 soft bands of S gets a gate per image and channel, generated
    from the bands' mean magnitudes and the image's mean; ``Y = IDCT(S * gates) + local(V)``; ``out(Y)``. Uniform logits
    leave V as it is. Float32 for half inputs and in autocast, but for the convolutions. Source: arXiv:2309.06721.

    Args:
        dim: Channels.
        nodes: Bands per axis.
        gate: ``"softmax"`` over the bands, times their number, or ``"sigmoid"``, times two.
        dynamic: Gates depend on the image; otherwise they are learnt constants.
        local: Add a depthwise 3x3 convolution of the value: a product in the DCT domain makes symmetric kernels only.
        reduction: The generator's hidden width is ``max(dim // reduction, 8)``.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the gate is unknown, or nodes or reduction are below 1.

    Examples:
        >>> SpectrumMixer(16, nodes=3).embedding.shape  # 3 x 3 bands
        torch.Size([9, 16])
    """

    input_layers = ("value",)
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
        check_bands(nodes, gate, reduction)
        dd = {"device": device, "dtype": dtype}
        self.dim, self.nodes, self.gate, self.form = dim, nodes, gate, "auto"
        self.value: nn.Conv2d = Pointwise(dim, dim, **dd)
        self.embedding = nn.Parameter(0.5 * torch.randn(nodes * nodes, dim, **dd))
        self.generator = BandGenerator(dim, max(dim // reduction, 8), **dd) if dynamic else None
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd) if local else None
        self.out = Pointwise(dim, dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        v = self.value(x)
        return self.project(self.modulated(v)[3], v)  # what the slots hold too is freed before

    def modulated(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Spectrum of the value, logits and gates of the bands, modulated value, mask of the spectrum."""
        generator: list[Tensor] = [] if self.generator is None else self.generator.weights()
        return modulate(v, self.embedding, generator, self.nodes, self.gate, self.form)

    def project(self, y: Tensor, v: Tensor) -> Tensor:
        return self.out(y if self.local is None else y + self.local(v))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the mask of the spectrum."""
        v = self.value(x)
        spectrum, logits, gates, y, mask = self.modulated(v)
        parts = spectrum, logits, gates, self.project(y, v), mask
        return named_slots("query key act value mask", parts, query="cosine", key="gates", act="gates", mask="cosine")

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, in their matrix form."""
        return 2 * self.dim * dct2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, nodes={self.nodes}, gate={self.gate!r}, form={self.form!r}"
