"""The dynamic filter of DFFormer (arXiv:2303.03932): learnt grids of the spectrum, combined anew for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.layers import fold_norm_before
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.fourier import filter_planes, resize_kernel, rfft2_macs, rfft2_planes

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")
torch.fx.wrap("resize_kernel")


class StarReLU(nn.Module):
    """Any shape to itself: ``scale * relu(x)^2 + bias``, two learnt numbers (arXiv:2210.13452)."""

    def __init__(self, *, device=None, dtype=None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * torch.relu(x).square() + self.bias


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
        scores = self.weigh2(self.weigh_act(self.weigh1(x.mean([2, 3], keepdim=True))))
        weights = torch.softmax(scores.reshape(-1, self.filters, 2 * self.dim), 1)  # (B, F, M)
        y = self.act(self.expand(x))
        planes = rfft2_planes(y, self.form)  # (B, M, 2, H, W//2+1)
        grids = resize_kernel(self.weight, planes.size(-2), planes.size(-1)).to(planes.dtype)  # (1, F, 2, H, W//2+1)
        mask = weights.transpose(1, 2).to(planes.dtype) @ grids.flatten(2)  # (B, M, 2 H (W//2+1))
        mask = mask.unflatten(-1, (2, planes.size(-2), planes.size(-1)))
        return self.proj(filter_planes(planes, mask.to(planes.dtype), x.size(-2), x.size(-1), self.form).to(y.dtype))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, the grids, their weights; and the mask that they make together."""
        scores = self.weigh2(self.weigh_act(self.weigh1(x.mean([2, 3], keepdim=True))))
        weights = torch.softmax(scores.reshape(-1, self.filters, 2 * self.dim), 1)
        y = self.act(self.expand(x))
        planes = rfft2_planes(y, self.form)
        grids = resize_kernel(self.weight, planes.size(-2), planes.size(-1)).to(planes.dtype)
        mask = (weights.transpose(1, 2).to(planes.dtype) @ grids.flatten(2)).unflatten(-1, planes.shape[2:])
        mask = mask.to(planes.dtype)
        out = filter_planes(planes, mask, x.size(-2), x.size(-1), self.form).to(y.dtype)
        return {
            "query": Slot(torch.complex(planes[:, :, 0], planes[:, :, 1]), "fourier"),
            "key": Slot(torch.complex(grids[:, :, 0], grids[:, :, 1]), "fourier"),
            "act": Slot(weights, "gates"),
            "value": Slot(self.proj(out)),
            "mask": Slot(torch.complex(mask[:, :, 0], mask[:, :, 1]), "filter"),
        }

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``expand`` and ``weigh1``, in place. True: a mean passes it through."""
        self.expand, self.weigh1 = fold_norm_before(self.expand, norm), fold_norm_before(self.weigh1, norm)
        return True

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 4 * self.dim * rfft2_macs(height, width)
