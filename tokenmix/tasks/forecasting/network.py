"""The parts of the forecaster: reversible normalisation, patches, the two mixers, and the network that they make.

Source: the official forecasting code of FFNet (arXiv:2406.02021) at commit f3c3e4c. Letters: B windows, L past and H
future values, M variables, D channels of a variable, N tokens. Inside, maps are ``(M, D, B, N)``, see
`tokenmix.tasks.forecasting.convolution`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


class ReversibleNorm(nn.Module):
    """Normalise every window by its own statistics, and undo it after the network (RevIN, ICLR 2022).

    ``normalize``: ``(B, L, M) -> (B, L, M)`` and the statistics; ``restore``: ``(B, H, M) -> (B, H, M)``.

    Args:
        num_variables: Variables, M.
        affine: Whether a learnt scale and shift of every variable follow.
        center: ``"mean"`` of the window, or its ``"last"`` value.
        eps: Added to the variance, under the root.
        device: Where the parameters are created.
        dtype: Their type.
    """

    def __init__(
        self,
        num_variables: int,
        *,
        affine: bool = False,
        center: str = "mean",
        eps: float = 1e-5,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.center = center
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_variables, **dd)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_variables, **dd)) if affine else None

    def normalize(self, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normalised window and what `restore` needs: centre and scale, each ``(B, 1, M)``."""
        center = past[:, -1:] if self.center == "last" else past.mean(1, keepdim=True)
        scale = torch.sqrt(past.var(1, correction=0, keepdim=True) + self.eps)
        x = (past - center) / scale
        if self.weight is not None and self.bias is not None:
            x = x * self.weight + self.bias
        return x, center, scale

    def restore(self, future: Tensor, center: Tensor, scale: Tensor) -> Tensor:
        """The network's output in the units of the window."""
        if self.weight is not None and self.bias is not None:
            future = (future - self.bias) / (self.weight + self.eps**2)
        return future * scale + center

    def extra_repr(self) -> str:
        return f"center={self.center!r}, affine={self.weight is not None}"


class PatchEmbedding(nn.Module):
    """``(M, B, L) -> (M, D, B, N)``: overlapping patches of every variable, one linear map for all, batch norm.

    The end is padded with copies of the last value, so that N = L // stride.
    """

    def __init__(self, dim: int, size: int, stride: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, dim, size, stride, device=device, dtype=dtype)
        self.norm: nn.Module = nn.BatchNorm1d(dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        size, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if size > stride:
            x = torch.cat([x, x[..., -1:].expand(-1, -1, size - stride)], -1)
        patches = x.unfold(-1, size, stride).permute(0, 3, 1, 2)  # (M, size, B, N)
        weight, bias = self.folded(patches.flatten(2))
        y = torch.baddbmm(bias[None, :, None], weight.expand(x.size(0), -1, -1), patches.flatten(2))  # (M, D, B N)
        return y.unflatten(2, patches.shape[2:])

    def folded(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Weight ``(D, size)`` and bias ``(D,)`` with the norm; in training by the moments of ``(M, size, P)``."""
        weight, bias = self.conv.weight[:, 0], self.conv.bias
        assert bias is not None
        if not isinstance(self.norm, nn.BatchNorm1d):
            return weight, bias
        if not self.training:
            scale, shift = affine_of(self.norm)
            return weight * scale[:, None], bias * scale + shift
        values = patches.transpose(0, 1).flatten(1)  # (size, M P)
        mean = values.mean(1)
        centred = values - mean[:, None]
        count = values.size(1)
        variance = (weight @ (centred @ centred.t() / count) * weight).sum(1)
        scale, shift = affine_by_batch(self.norm, weight @ mean + bias, variance, count)
        return weight * scale[:, None], bias * scale + shift

    @torch.no_grad()
    def fuse(self) -> PatchEmbedding:
        """A copy with the norm folded into the map."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            weight, bias = new.eval().folded(new.conv.weight)
            new.conv.weight.copy_(weight[:, None])
            new.conv.bias = nn.Parameter(bias.clone())
            new.norm = nn.Identity()
        return new


class PatchMerging(nn.Module):
    """``(M, D, B, N) -> (M, D', B, N / ratio)``: batch norm, then a linear map of ``ratio`` neighbouring tokens.

    Where the ratio does not divide N, the last tokens are repeated.
    """

    def __init__(self, dim: int, out_dim: int, ratio: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(dim, device=device, dtype=dtype)
        self.conv = nn.Conv1d(dim, out_dim, ratio, ratio, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        ratio = self.conv.kernel_size[0]
        missing = -x.size(-1) % ratio
        if missing:
            x = torch.cat([x, x[..., -missing:]], -1)
        variables, dim, batch, tokens = x.shape
        x = self.norm(x.flatten(2)).view(variables, dim, batch, tokens // ratio, ratio)
        groups = x.permute(0, 1, 4, 2, 3).reshape(variables, dim * ratio, -1)
        y = torch.matmul(self.conv.weight.flatten(1), groups) + _column(self.conv.bias)
        return y.view(variables, -1, batch, tokens // ratio)

    @torch.no_grad()
    def fuse(self) -> PatchMerging:
        """A copy with the norm folded into the map."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm1d):
            scale, shift = affine_of(new.norm)
            assert new.conv.bias is not None
            new.conv.bias.add_((new.conv.weight * shift[:, None]).sum((1, 2)))
            new.conv.weight.mul_(scale[:, None])
            new.norm = nn.Identity()
        return new


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
        self.form = "auto"
        self.key = nn.Conv1d(width, width, kernel_size, padding=padding, groups=width, **dd)
        self.value = nn.Conv1d(width, width, kernel_size, padding=padding, groups=width, **dd)

    def forward(self, x: Tensor) -> Tensor:
        y = depthwise_gelu(x, self.key.weight, self.key.bias, self.form)
        return depthwise(y, self.value.weight, self.value.bias, self.form)


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
        self.form = "auto"
        self.large = nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width, bias=merged, **dd)
        self.large_norm = None if merged else nn.BatchNorm1d(width, **dd)
        self.small = self.small_norm = None
        if not merged:
            self.small = nn.Conv1d(width, width, small_size, padding=small_size // 2, groups=width, bias=False, **dd)
            self.small_norm = nn.BatchNorm1d(width, **dd)
        self.norm: nn.Module = nn.BatchNorm1d(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.Identity):
            return depthwise(x, self.large.weight, self.large.bias, self.form)
        if not self.training:
            return depthwise(x, *self.folded(), self.form)
        if uses_products(self.large.out_channels, x.size(2), x.size(3), self.form):
            return depthwise(x, *self.folded_by_batch(x), self.form)
        y = self.branch(x, self.large, self.large_norm)
        if self.small is not None:
            y = y + self.branch(x, self.small, self.small_norm)
        return self.norm(y.flatten(2)).view(x.shape)

    def branch(self, x: Tensor, conv: nn.Conv1d, norm: nn.Module | None) -> Tensor:
        """One convolution with its norm, as defined."""
        y = depthwise(x, conv.weight, conv.bias, self.form)
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


class Stage(nn.Module):
    """An embedding and blocks: ``(M, B, L)`` or ``(M, D, B, N)`` to ``(M, D', B, N')``."""

    def __init__(self, embed: nn.Module, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.embed(x))


class Forecaster(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the next H values of M variables from the last L ones.

    Args:
        norm: What makes windows comparable and undoes it, or None.
        stages: One after the other; the first takes ``(M, B, L)``.
        head: From the ``D N`` numbers of a variable, channel by channel, to its H values.
        head_drop: Dropout of the head's outputs.
    """

    def __init__(
        self, norm: ReversibleNorm | None, stages: list[nn.Module], head: nn.Linear, head_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.norm = norm
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.head_drop = nn.Dropout(head_drop)

    def forward(self, past: Tensor, marks: Tensor | None = None) -> Tensor:
        """The forecast.

        Args:
            past: ``(B, L, M)``.
            marks: Features of the time, which the official model accepts and ignores too.
        """
        if self.norm is None:
            return self.network(past)
        x, center, scale = self.norm.normalize(past)
        return self.norm.restore(self.network(x), center, scale)

    def network(self, x: Tensor) -> Tensor:
        """``(B, L, M) -> (B, H, M)`` without the normalisation."""
        x = self.stages(x.permute(2, 0, 1))  # (M, D, B, N)
        y = self.head_drop(self.head(x.transpose(1, 2).flatten(2)))  # (M, B, H)
        return y.permute(1, 2, 0)


def moving_average(past: Tensor, size: int) -> Tensor:
    """``(B, L, M) -> (B, L, M)``: the mean of ``size`` (odd) values around each, both ends repeated."""
    reach = size // 2
    x = torch.cat([past[:, :1].expand(-1, reach, -1), past, past[:, -1:].expand(-1, reach, -1)], 1)
    return F.avg_pool1d(x.transpose(1, 2), size, 1).transpose(1, 2)


class DecomposedForecaster(nn.Module):
    """``(B, L, M) -> (B, H, M)``: one network for the trend and one for what remains, summed.

    Args:
        build: Makes one network.
        size: Of the moving average that is the trend, odd.
    """

    def __init__(self, build: Callable[[], Forecaster], size: int = 25) -> None:
        super().__init__()
        self.size = size
        self.residual = build()
        self.trend = build()

    def forward(self, past: Tensor, marks: Tensor | None = None) -> Tensor:
        """The forecast; ``marks`` are ignored, as in `Forecaster`."""
        trend = moving_average(past, self.size)
        return self.residual(past - trend) + self.trend(trend)


def factors(conv: nn.Conv1d, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``(G, I, P)``: a grouped 1x1 convolution of P positions as a product for `product_gelu`: weight, ``x``, bias."""
    assert conv.bias is not None
    return conv.weight.view(conv.groups, -1, conv.weight.size(1)), x, conv.bias.view(conv.groups, -1, 1)


def rate_of(dropout: nn.Dropout) -> float:
    """Its rate now: 0 in evaluation."""
    return dropout.p if dropout.training else 0.0


def affine_of(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation as ``scale * x + shift``, each ``(C,)``."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale


def affine_by_batch(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A batch norm in training as ``scale * x + shift``; its running statistics move as in ``torch``'s.

    Args:
        norm: The norm.
        mean: Of its input, ``(C,)``.
        variance: The same, biased.
        count: Values of each channel.

    Raises:
        ValueError: If there is one value only, which has no variance.
    """
    if count < 2:
        raise ValueError("a batch norm needs more than one value of each channel in training: take larger batches")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    scale = norm.weight * torch.rsqrt(variance.clamp(min=0) + norm.eps)
    return scale, norm.bias - mean * scale


def _column(bias: Tensor | None) -> Tensor:
    assert bias is not None
    return bias[:, None]
