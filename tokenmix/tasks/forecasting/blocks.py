"""The block of the forecaster: the token mixer with the query where the variables meet, and the channel mixer.

Source: the official forecasting code of FFNet (arXiv:2406.02021) at commit f3c3e4c. Letters: B windows, M variables,
D channels of a variable, N tokens. Maps are ``(M, D, B, N)``, see `tokenmix.tasks.forecasting.convolution`.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.mixers import Slot, Slots
from tokenmix.tasks.forecasting.batch_norms import affine_by_batch, affine_of
from tokenmix.tasks.forecasting.convolution import (
    band_matrices,
    depthwise,
    depthwise_gelu,
    input_moments,
    output_moments,
    uses_products,
)
from tokenmix.tasks.forecasting.dropout import product_dropout, product_gelu

QUERY_RATIO = 2  # of the token mixer's map of the variables
QUERY_DROPS = (0.3, 0.15)  # of its two dropouts; fixed in the official code
MLP_DROP = 0.15  # of the channel mixer's second dropout; fixed there too


class VariableQuery(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: the query of the token mixer, where the variables meet.

    At each token: a map of the M variables to 2 M in every channel, GELU, a map of the 2 D channels of every variable
    to D, batch norm. ``expand`` is grouped by channels, ``reduce`` by variables.
    """

    def __init__(self, num_variables: int, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        width = num_variables * dim
        self.expand = nn.Conv1d(width, QUERY_RATIO * width, 1, groups=dim, **dd)
        self.reduce = nn.Conv1d(QUERY_RATIO * width, width, 1, groups=num_variables, **dd)
        self.norm: nn.Module = nn.BatchNorm1d(dim, **dd)
        self.drop1 = nn.Dropout(QUERY_DROPS[0])
        self.drop2 = nn.Dropout(QUERY_DROPS[1])

    def forward(self, x: Tensor) -> Tensor:
        variables, dim = x.shape[:2]
        y = product_gelu(
            *factors(self.expand, x.flatten(2).transpose(0, 1)),
            rate_of(self.drop1),
            (dim, variables, QUERY_RATIO, -1),
            (1, 2, 0, 3),
        )  # (M, 2, D, B N)
        y = product_dropout(*factors(self.reduce, y.flatten(1, 2)), rate_of(self.drop2))  # (M, D, B N)
        return self.norm(y).view(x.shape)

    @torch.no_grad()
    def fuse(self) -> VariableQuery:
        """A copy with the norm folded into ``reduce``."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            scale, shift = (part.repeat(new.reduce.groups) for part in affine_of(new.norm))
            assert new.reduce.bias is not None
            new.reduce.weight.mul_(scale[:, None, None])
            new.reduce.bias.copy_(new.reduce.bias * scale + shift)
            new.norm = nn.Identity()
        return new


class KeyValue(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: depthwise key, GELU, depthwise value; the published token mixer's core.

    Every channel of every variable has kernels of its own.
    """

    def __init__(self, num_variables: int, dim: int, kernel_size: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        width, padding = num_variables * dim, kernel_size // 2
        self.convolution = "auto"
        self.key = nn.Conv1d(width, width, kernel_size, padding=padding, groups=width, **dd)
        self.value = nn.Conv1d(width, width, kernel_size, padding=padding, groups=width, **dd)

    def forward(self, x: Tensor) -> Tensor:
        y = depthwise_gelu(x, self.key.weight, self.key.bias, self.convolution)
        return depthwise(y, self.value.weight, self.value.bias, self.convolution)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; the query is what the mixer is given."""
        key = depthwise(x, self.key.weight, self.key.bias, self.convolution)
        act = F.gelu(key)
        value = depthwise(act, self.value.weight, self.value.bias, self.convolution)
        return {"query": Slot(x), "key": Slot(key), "act": Slot(act), "value": Slot(value)}


class SharedMixer(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: a mixer ``(B, D, N) -> (B, D, N)``, the same for all variables."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        variables, dim, batch, tokens = x.shape
        y = self.mixer(x.transpose(1, 2).reshape(variables * batch, dim, tokens))
        return y.view(variables, batch, dim, tokens).transpose(1, 2)


class TokenMixer(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: ``x + core(query(x))``, key and value interaction in the core."""

    def __init__(self, query: nn.Module, core: nn.Module) -> None:
        super().__init__()
        self.query = query
        self.core = core

    def forward(self, x: Tensor) -> Tensor:
        return x + self.core(self.query(x))


class NormalizedDepthwise(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: a large and a small depthwise kernel, each with a norm, summed, and a norm.

    The norm after the sum has one scale for each of the D channels, whatever the variable. A batch norm is linear, so
    that all of it is one convolution, in training too: there the norms' statistics follow from those of the input, and
    neither branch is computed.

    Args:
        num_variables: Variables, M.
        dim: Channels of a variable, D.
        kernel_size: Of the large kernel, odd.
        small_size: Of the small one, odd and not larger; 0 for the merged form: one kernel with a bias and no norm.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(
        self, num_variables: int, dim: int, kernel_size: int, small_size: int, *, device=None, dtype=None
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        width, merged = num_variables * dim, small_size == 0
        self.convolution = "auto"
        self.large = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=merged, **dd)
        self.large_norm = None if merged else nn.BatchNorm1d(width, **dd)
        self.small = self.small_norm = None
        if not merged:
            self.small = nn.Conv1d(width, width, small_size, padding=small_size // 2, groups=width, bias=False, **dd)
            self.small_norm = nn.BatchNorm1d(width, **dd)
        self.norm: nn.Module = nn.BatchNorm1d(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return depthwise(x, self.large.weight, self.large.bias, self.convolution)
        if not self.training:
            return depthwise(x, *self.folded(), self.convolution)
        if uses_products(self.large.out_channels, x.size(2), x.size(3), self.convolution):
            with torch.autocast(x.device.type, enabled=False):  # statistics are sums of many values
                folded = self.folded_by_batch(x if x.dtype == torch.float64 else x.float())
            return depthwise(x, *folded, self.convolution)
        y = self.branch(x, self.large, self.large_norm)
        if self.small is not None:
            y = y + self.branch(x, self.small, self.small_norm)
        return self.norm(y.flatten(2)).view(x.shape)

    def branch(self, x: Tensor, conv: nn.Conv1d, norm: nn.Module | None) -> Tensor:
        """One convolution with its norm, as defined."""
        y = depthwise(x, conv.weight, conv.bias, self.convolution)
        if norm is None:
            return y
        return norm(y.flatten(0, 1).transpose(0, 1)).transpose(0, 1).view(x.shape)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel ``(M D, 1, k)`` and bias ``(M D,)`` of the whole in evaluation."""
        if self.large_norm is None or self.small_norm is None:
            kernel, bias = self.large.weight, self.large.bias
        else:
            (large, small), shifts = zip(affine_of(self.large_norm), affine_of(self.small_norm), strict=True)
            kernel, bias = self.summed(large, small), shifts[0] + shifts[1]
        assert bias is not None
        assert isinstance(self.norm, nn.BatchNorm1d)
        scale, shift = (part.repeat(kernel.size(0) // part.numel()) for part in affine_of(self.norm))
        return kernel * scale[:, None, None], bias * scale + shift

    def summed(self, large: Tensor, small: Tensor) -> Tensor:
        """The kernel of both branches, each times its scales ``(M D,)``."""
        assert self.small is not None
        border = (self.large.kernel_size[0] - self.small.kernel_size[0]) // 2
        return self.large.weight * large[:, None, None] + F.pad(self.small.weight * small[:, None, None], [border] * 2)

    def folded_by_batch(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same in training: by the statistics that the norms' inputs have in this batch, which they remember."""
        variables, dim, batch, tokens = x.shape
        moments = input_moments(x.reshape(variables * dim, batch, tokens))
        count = batch * tokens
        if self.large_norm is None or self.small is None or self.small_norm is None:
            kernel, bias = self.large.weight, self.large.bias
            assert bias is not None
        else:
            scales, bias = [], torch.zeros_like(self.large_norm.bias)
            for conv, norm in ((self.large, self.large_norm), (self.small, self.small_norm)):
                mean, variance = output_moments(*moments, band_matrices(conv.weight, tokens))
                scale, shift = affine_by_batch(norm, mean, variance, count)
                scales.append(scale)
                bias = bias + shift
            kernel = self.summed(*scales)
        mean, variance = output_moments(*moments, band_matrices(kernel, tokens))
        mean, variance = (mean + bias).view(variables, dim), variance.view(variables, dim)
        total = variance.mean(0) + mean.var(0, correction=0)
        assert isinstance(self.norm, nn.BatchNorm1d)
        both = affine_by_batch(self.norm, mean.mean(0), total, variables * count)
        scale, shift = (part.repeat(variables) for part in both)
        return kernel * scale[:, None, None], bias * scale + shift

    @torch.no_grad()
    def fuse(self) -> NormalizedDepthwise:
        """A copy that is one convolution with a bias."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            kernel, bias = self.folded()
            new.large.weight.copy_(kernel)
            new.large.bias = nn.Parameter(bias.clone())
            new.large_norm = new.small = new.small_norm = None
            new.norm = nn.Identity()
        return new


class ChannelMixer(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: depthwise convolution with norms, then a two-layer map; with its residual.

    ``expand`` maps the D channels of every variable to ``ratio`` D; ``reduce`` maps, for every channel, the ``ratio`` M
    values that belong to it to the M variables.
    """

    def __init__(
        self,
        num_variables: int,
        dim: int,
        kernel_size: int,
        small_size: int,
        ratio: int,
        drop_rate: float,
        *,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        width = num_variables * dim
        self.depthwise = NormalizedDepthwise(num_variables, dim, kernel_size, small_size, **dd)
        self.expand = nn.Conv1d(width, ratio * width, 1, groups=num_variables, **dd)
        self.reduce = nn.Conv1d(ratio * width, width, 1, groups=dim, **dd)
        self.drop1 = nn.Dropout(drop_rate)
        self.drop2 = nn.Dropout(MLP_DROP)

    def forward(self, x: Tensor) -> Tensor:
        y = product_gelu(
            *factors(self.expand, self.depthwise(x).flatten(2)), rate_of(self.drop1), order=(1, 0, 2)
        )  # (ratio D, M, B N)
        y = y.view(x.size(1), -1, y.size(-1))
        y = product_dropout(*factors(self.reduce, y), rate_of(self.drop2))  # (D, M, B N)
        return (x.flatten(2) + y.transpose(0, 1)).view(x.shape)


class Block(nn.Module):
    """``(M, D, B, N) -> (M, D, B, N)``: the token mixer, then the channel mixer; both hold their residual."""

    def __init__(self, token_mixer: nn.Module, channel_mixer: nn.Module) -> None:
        super().__init__()
        self.token_mixer = token_mixer
        self.channel_mixer = channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        return self.channel_mixer(self.token_mixer(x))


def factors(conv: nn.Conv1d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(G, I, P)``: a grouped 1x1 convolution of P positions as a product for `product_gelu`: weight, ``x``, bias."""
    assert conv.bias is not None
    return conv.weight.view(conv.groups, -1, conv.weight.size(1)), x, conv.bias.view(conv.groups, -1, 1)


def rate_of(dropout: nn.Dropout) -> float:
    """Its rate now: 0 in evaluation."""
    return dropout.p if dropout.training else 0.0
