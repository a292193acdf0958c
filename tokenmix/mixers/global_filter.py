"""The global filter of GFNet (arXiv:2107.00645): a learnt grid times the spectrum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tokenmix.mixers.slots import Slot, Slots, spectrum_slot
from tokenmix.ops.fourier import filter_planes, resize_kernel, rfft2_macs, rfft2_planes

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")
torch.fx.wrap("resize_kernel")


class GlobalFilter(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``irfft2(K * rfft2(x))``, K a learnt complex grid for each channel.

    Source: arXiv:2107.00645 (GFNet), eq. 5. GFNet's grid is bound to one image size and has to be interpolated when a
    network moves to another; here it is resized for each input, bilinearly with aligned corners: the first row and
    column stay the zero frequency, the last row frequency -1, the last column the highest. Computed in float32 for half
    inputs and under autocast.

    Args:
        dim: Channels.
        size: Side in pixels of the maps for which the grid has one value per frequency; ``weight`` is
            (2, C, size, size//2+1), real part first. The default is GFNet's for images of 224 px.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the size is below 1.

    Examples:
        >>> import torch
        >>> GlobalFilter(16, size=7)(torch.zeros(1, 16, 15, 20)).shape
        torch.Size([1, 16, 15, 20])
    """

    def __init__(self, dim: int, *, size: int = 14, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the size of global_filter must be at least 1, not {size}")
        self.dim = dim
        self.form = "auto"
        self.weight = nn.Parameter(0.02 * torch.randn(2, dim, size, size // 2 + 1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        planes = rfft2_planes(x, self.form)  # (B, C, 2, H, W//2+1)
        kernel = resize_kernel(self.weight, planes.size(-2), planes.size(-1))
        return filter_planes(planes, kernel.to(planes.dtype), x.size(-2), x.size(-1), self.form).to(x.dtype)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the spectrum, and the grid that it is multiplied with."""
        planes = rfft2_planes(x, self.form)
        kernel = resize_kernel(self.weight, planes.size(-2), planes.size(-1)).to(planes.dtype)
        return {
            "query": spectrum_slot(planes),
            "key": spectrum_slot(kernel, "filter"),
            "value": Slot(filter_planes(planes, kernel, x.size(-2), x.size(-1), self.form).to(x.dtype)),
        }

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 2 * self.dim * rfft2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, form={self.form!r}"
