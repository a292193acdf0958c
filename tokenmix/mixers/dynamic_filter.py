"""The dynamic filter of DFFormer (arXiv:2303.03932): learnt grids of the spectrum, combined anew for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.layers import StarReLU
from tokenmix.mixers.slots import Slots, named_slots
from tokenmix.ops.fourier import filter_planes, resize_kernel, rfft2_macs, rfft2_planes, to_complex

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")
torch.fx.wrap("resize_kernel")


class DynamicFilter(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(irfft2(K(x) * rfft2(starrelu(expand(x)))))``, K(x) = sum_f r_f(x) K_f.

    ``expand`` has 2C outputs, its M channels. The F complex grids K_f are shared by all channels; for each image and
    channel the weights ``r = softmax_f(weigh2(starrelu(weigh1(mean(x)))))`` combine them. Transforms are computed in
    float32 for half inputs and under autocast.

    Source: arXiv:2303.03932 and its official code. Ours: the grids, there bound to one image size or
    resized when a network moves to another, are resized for each input as those of
    `tokenmix.mixers.global_filter.GlobalFilter`.

    Args:
        dim: Channels.
        size: Side in pixels of the maps for which a grid has one value per frequency; ``weight`` is
            (2, F, size, size//2+1), real part first.
        filters: F, the number of grids.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the size or the number of grids is below 1.

    Examples:
        >>> DynamicFilter(16, size=7).weight.shape
        torch.Size([2, 4, 7, 4])
    """

    input_layers = ("expand", "weigh1")
    output_layer = "proj"

    def __init__(self, dim: int, *, size: int = 14, filters: int = 4, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1 or filters < 1:
            raise ValueError(f"size and filters of dynamic_filter must be at least 1, not {size} and {filters}")
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.filters = filters
        self.form = "auto"
        self.expand = nn.Conv2d(dim, 2 * dim, 1, bias=False, **dd)
        self.act = StarReLU(**dd)
        self.weigh1 = nn.Conv2d(dim, max(dim // 4, 1), 1, bias=False, **dd)
        self.weigh_act = StarReLU(**dd)
        self.weigh2 = nn.Conv2d(max(dim // 4, 1), filters * 2 * dim, 1, bias=False, **dd)
        self.weight = nn.Parameter(0.02 * torch.randn(2, filters, size, size // 2 + 1, **dd))
        self.proj = nn.Conv2d(2 * dim, dim, 1, bias=False, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.pieces(x)[3]

    def pieces(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Spectrum, grids, their weights (B, F, M), output and mask; all but weights and output as planes."""
        scores = self.weigh2(self.weigh_act(self.weigh1(x.mean([2, 3], keepdim=True))))
        weights = torch.softmax(scores.reshape(-1, self.filters, 2 * self.dim), 1)
        y = self.act(self.expand(x))
        planes = rfft2_planes(y, self.form)  # (B, M, 2, H, W//2+1)
        grids = resize_kernel(self.weight, planes.size(-2), planes.size(-1)).to(planes.dtype)  # (1, F, 2, H, W//2+1)
        mask = weights.transpose(1, 2).to(planes.dtype) @ grids.flatten(2)  # (B, M, 2 H (W//2+1))
        mask = mask.unflatten(-1, (2, planes.size(-2), planes.size(-1))).to(planes.dtype)
        y = filter_planes(planes, mask, x.size(-2), x.size(-1), self.form).to(y.dtype)
        return planes, grids, weights, self.proj(y), mask

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, the grids, their weights; and the mask that they make together."""
        planes, grids, weights, y, mask = self.pieces(x)
        pieces = to_complex(planes), to_complex(grids), weights, y, to_complex(mask)
        kinds = {"query": "fourier", "key": "fourier", "act": "gates", "mask": "filter"}
        return named_slots("query key act value mask", pieces, **kinds)

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 4 * self.dim * rfft2_macs(height, width)
