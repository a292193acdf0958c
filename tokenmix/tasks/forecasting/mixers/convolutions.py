"""Mixers of neighbouring tokens: depthwise convolutions, FFNified attention, pooling, and none at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tokenmix.mixers import Slot, Slots
from tokenmix.tasks.forecasting.convolution import depthwise
from tokenmix_runtime.names import unknown


class DepthwiseConv(nn.Conv1d):
    """``(B, C, N) -> (B, C, N)``: one odd kernel for each channel, zeros outside.

    Raises:
        ValueError: If the size is even or below 1.
    """

    def __init__(self, dim: int, size: int, *, bias: bool = True, device=None, dtype=None) -> None:
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the kernel of a depthwise convolution must be odd and at least 1, not {size}")
        super().__init__(dim, dim, size, padding=size // 2, groups=dim, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x.transpose(0, 1).unsqueeze(0), self.weight, self.bias).squeeze(0).transpose(0, 1)


class NormedConv(nn.Module):
    """``(B, C, N) -> (B, C, N)``: a convolution without bias and a batch norm; one convolution once fused."""

    def __init__(self, conv: nn.Conv1d, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = conv
        self.norm = nn.BatchNorm1d(conv.out_channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fuse(self) -> nn.Conv1d:
        """One convolution with a bias."""
        return fuse_conv_bn_eval(self.conv, self.norm)


class BranchedConv(nn.Module):
    """``(B, C, N) -> (B, C, N)``: depthwise branches of several sizes, each with a norm; one kernel once fused."""

    def __init__(self, dim: int, sizes: tuple[int, ...], *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.branches = nn.ModuleList(NormedConv(DepthwiseConv(dim, size, bias=False, **dd), **dd) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branches[0](x)
        for branch in list(self.branches)[1:]:
            y = y + branch(x)
        return y

    @torch.no_grad()
    def fuse(self) -> nn.Conv1d:
        """One convolution with a bias: smaller kernels padded with zeros and added."""
        merged, *others = [branch.fuse() for branch in self.branches]  # type: ignore[operator]
        for conv in others:
            border = (merged.kernel_size[0] - conv.kernel_size[0]) // 2
            merged.weight += F.pad(conv.weight, [border, border])
            merged.bias += conv.bias
        return merged


class FFNifiedAttention(nn.Module):
    """``(B, C, N) -> (B, C, N)``: a map of the channels with batch norm, depthwise key, exact GELU, depthwise value.

    Source: arXiv:2406.02021. Unlike the published forecaster's own token mixer, it shares its kernels among variables.

    Args:
        dim: Channels.
        key_size: Kernel of the key in tokens, odd. The default is the published forecaster's.
        value_size: Kernel of the value.
        conv: ``"plain"``, one convolution with a bias, as published; ``"rep"``: one of this size and one of five
            tokens, each with a norm, one kernel once fused.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If a size is even or below 1, or the kind is unknown.
    """

    def __init__(
        self, dim: int, *, key_size: int = 51, value_size: int = 51, conv: str = "plain", device=None, dtype=None
    ) -> None:
        super().__init__()
        if conv not in ("plain", "rep"):
            raise ValueError(unknown("kind of convolution for ffnified", conv, ("plain", "rep")))
        dd = {"device": device, "dtype": dtype}
        self.query = NormedConv(nn.Conv1d(dim, dim, 1, bias=False, **dd), **dd)
        self.key, self.value = (
            DepthwiseConv(dim, size, **dd) if conv == "plain" else BranchedConv(dim, (size, 5)[: 1 + (size > 5)], **dd)
            for size in (key_size, value_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.value(F.gelu(self.key(self.query(x))))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        query = self.query(x)
        key = self.key(query)
        act = F.gelu(key)
        return {"query": Slot(query), "key": Slot(key), "act": Slot(act), "value": Slot(self.value(act))}


class Pooling(nn.Module):
    """``(B, C, N) -> (B, C, N)``: the mean of the neighbouring tokens minus the token (PoolFormer, arXiv:2111.11418).

    Args:
        dim: Channels; only for the common signature.
        size: Tokens of a neighbourhood, odd. Only tokens of the series count.
        device: Not used: there is no parameter.
        dtype: Not used.

    Raises:
        ValueError: If the size is even or below 1.
    """

    def __init__(self, dim: int, *, size: int = 3, device=None, dtype=None) -> None:
        super().__init__()
        if size < 1 or size % 2 == 0:
            raise ValueError(f"the size of pool must be odd and at least 1, not {size}")
        self.pool = nn.AvgPool1d(size, 1, size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: the means, and less the tokens."""
        mean = self.pool(x)
        return {"key": Slot(mean), "value": Slot(mean - x)}


class Depthwise(nn.Module):
    """``(B, C, N) -> (B, C, N)``: depthwise convolution with a bias (ConvNeXt's, here of the forecaster's 51 tokens).

    Raises:
        ValueError: If the kernel size is even or below 1.
    """

    def __init__(self, dim: int, *, kernel_size: int = 51, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = DepthwiseConv(dim, kernel_size, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        key = self.conv(x)
        return {"key": Slot(key), "value": Slot(key)}


class Identity(nn.Module):
    """``(B, C, N) -> (B, C, N)``: the input; what a skeleton reaches without any mixing. No parameters."""

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`."""
        return {"value": Slot(x)}
