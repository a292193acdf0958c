"""The adaptive frequency filter of AFFNet (arXiv:2307.14008): a convolution as large as the image, made from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import ACTIVATIONS
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.convolution import fits_onednn
from tokenmix.ops.dispatch import Form, Situation, is_channels_last, keeps_less, operator
from tokenmix.ops.fourier import filter_planes, irfft2, irfft2_planes, rfft2, rfft2_macs, rfft2_planes
from tokenmix.ops.kernels.frequency import MOST_CHANNELS, filter_spectrum
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.masks import mask_product
from tokenmix.ops.rows import MOST_ROWS, filter_rows
from tokenmix_runtime.names import unknown

# Leaves for torch.fx: they look at dtypes, devices and the autocast state.
torch.fx.wrap("rfft2_planes")
torch.fx.wrap("filter_planes")


def real_form(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A block-diagonal complex linear map as the kernel and bias of one grouped 1x1 convolution of real planes.

    Args:
        weight: ``(2, G, b, b)``: part (real, imaginary), group, input channel, output channel.
        bias: ``(2, G, b)``.

    Returns:
        ``(2C, 2b, 1, 1)`` and ``(2C,)``, channels ordered (group, channel, part).
    """
    real, imag = weight[0].transpose(-1, -2), weight[1].transpose(-1, -2)  # (G, out, in)
    block = torch.stack([torch.stack([real, -imag], -1), torch.stack([imag, real], -1)], 2)  # (G, out, 2, in, 2)
    # Stacked, not permuted: torch 2.11's inductor cannot take a permuted view as the bias of a convolution.
    return block.flatten(0, 2).flatten(1)[:, :, None, None], torch.stack([bias[0], bias[1]], -1).flatten()


def _as_products(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    batch, height, width = x.size(0), x.size(2), x.size(3)
    blocks = x.reshape(batch * groups, -1, height * width)
    kernel = weight.to(x.dtype).view(groups, -1, weight.size(1)).expand(batch, -1, -1, -1).flatten(0, 1)
    shift = bias.to(x.dtype).view(groups, -1, 1).expand(batch, -1, -1, -1).flatten(0, 1)
    return torch.baddbmm(shift, kernel, blocks).view(batch, -1, height, width)


@torch.fx.wrap
@operator(Form("batched product", _as_products, lambda now, *args: now.mode != "exporting"), precise=True)
def grouped_pointwise(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """``(B, C, H, W) -> (B, C, H, W)``: grouped 1x1 convolution in the precision of ``x``, outside of autocast."""
    return F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), groups=groups)


def soft_shrink(x: Tensor, threshold: float) -> Tensor:
    """Any shape to itself: ``sign(x) * max(|x| - threshold, 0)``, which few runtimes have as one operation."""
    return x - x.clamp(-threshold, threshold)


class ScalarPReLU(nn.Module):
    """Any shape to itself: ``max(x, 0) + slope * min(x, 0)``, one learnt slope, computed in the precision of ``x``."""

    def __init__(self, init: float = 0.25, *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), init, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.clamp(x, min=0) + self.weight.to(x.dtype) * torch.clamp(x, max=0)


class _Filter(nn.Module):
    """What the trainable filter and its fused form share: everything but the two complex linear maps."""

    def __init__(self, dim: int, groups: int, threshold: float, act: nn.Module, act2: nn.Module) -> None:
        super().__init__()
        self.dim = dim
        self.groups = groups
        if threshold < 0:
            raise ValueError(f"the threshold of a soft-shrink must be 0 or more, not {threshold}")
        self.threshold = float(threshold)
        self.form = "auto"
        self.act = act
        self.act2 = act2
        # One call for both parts where they cannot differ.
        self.shared_act = type(act) is type(act2) and not [*act.parameters(), *act2.parameters()]

    def real_maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of both maps as grouped 1x1 convolutions of real planes, see `real_form`."""
        raise NotImplementedError

    def maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of both maps, as `filter_spectrum` takes them."""
        raise NotImplementedError

    def has_silu(self) -> bool:
        """Whether both activations are SiLU, as in the released networks."""
        return type(self.act) is type(self.act2) is nn.SiLU

    def is_usual(self) -> bool:
        """Whether nobody asked for a form either."""
        return self.has_silu() and self.form == "auto"

    @staticmethod
    def _fits_kernel(now: Situation, self: _Filter, x: Tensor) -> bool:
        return can_run(now, x) and self.is_usual() and self.dim // self.groups <= MOST_CHANNELS

    def _by_kernel(self, x: Tensor) -> Tensor:
        return irfft2(filter_spectrum(rfft2(x), *self.maps(), self.threshold), (x.size(-2), x.size(-1))).to(x.dtype)

    @staticmethod
    def _fits_rows(now: Situation, self: _Filter, x: Tensor) -> bool:
        return fits_onednn(now) and max(x.size(2), x.size(3)) <= MOST_ROWS and self.is_usual() and now.channels_last

    def _on_rows(self, x: Tensor) -> Tensor:
        return filter_rows(x, *self.real_maps(), self.groups, self.threshold)

    @staticmethod
    def _fits_less(now: Situation, self: _Filter, x: Tensor) -> bool:
        return keeps_less(now) and self.has_silu()

    def _kept_less(self, x: Tensor) -> Tensor:
        """Keeps the spectrum alone."""
        planes = rfft2_planes(x, self.form)
        kernel1, shift1, kernel2, shift2 = (each.to(planes.dtype) for each in self.real_maps())
        filtered = mask_product(planes, kernel1, shift1, kernel2, shift2, self.threshold)
        out = irfft2_planes(filtered, x.size(-2), x.size(-1), self.form).to(x.dtype)
        return out.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else out  # sums of two are slow

    @operator(
        Form("kernel", _by_kernel, _fits_kernel),
        Form("rows", _on_rows, _fits_rows),
        Form("keeps less", _kept_less, _fits_less),
    )
    def forward(self, x: Tensor) -> Tensor:
        planes = rfft2_planes(x, self.form)  # (B, C, 2, H, W//2+1)
        return filter_planes(planes, self.mask_planes(planes), x.size(-2), x.size(-1), self.form).to(x.dtype)

    def mask_planes(self, planes: Tensor) -> Tensor:
        """``(B, C, 2, H, W//2+1) -> (B, C, 2, H, W//2+1)``: the mask of a spectrum, both as real planes."""
        return soft_shrink(self.mapped_planes(planes), self.threshold).unflatten(1, (self.dim, 2))

    def mapped_planes(self, planes: Tensor) -> Tensor:
        """``(B, C, 2, H, W//2+1) -> (B, 2C, H, W//2+1)``: both maps of a spectrum; the mask before it is shrunk."""
        kernel1, shift1, kernel2, shift2 = self.real_maps()
        hidden = grouped_pointwise(planes.flatten(1, 2), kernel1, shift1, self.groups)
        if self.shared_act:
            hidden = self.act(hidden)
        else:
            parts = hidden.unflatten(1, (self.dim, 2))
            hidden = torch.stack([self.act(parts.select(2, 0)), self.act2(parts.select(2, 1))], 2).flatten(1, 2)
        return grouped_pointwise(hidden, kernel2, shift2, self.groups)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: spectrum, the mask before and after the soft-shrink, output."""
        planes = rfft2_planes(x, self.form)
        mapped, mask = self.mapped_planes(planes).unflatten(1, (self.dim, 2)), self.mask_planes(planes)
        return {
            "query": Slot(torch.complex(planes[:, :, 0], planes[:, :, 1]), "fourier"),
            "key": Slot(torch.complex(mapped[:, :, 0], mapped[:, :, 1]), "fourier"),
            "act": Slot(torch.complex(mask[:, :, 0], mask[:, :, 1]), "filter"),
            "value": Slot(filter_planes(planes, mask, x.size(-2), x.size(-1), self.form).to(x.dtype)),
        }

    def mask(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W//2+1)`` complex: what the spectrum of this input is multiplied with."""
        planes = self.mask_planes(rfft2_planes(x, self.form))
        return torch.complex(planes[:, :, 0], planes[:, :, 1])

    def transform_macs(self, height: int, width: int) -> float:
        """Multiply-accumulates of the two transforms of one image of that size in pixels, counted as FFTs."""
        return 2 * self.dim * rfft2_macs(height, width)

    def extra_repr(self) -> str:
        return f"{self.dim}, groups={self.groups}, threshold={self.threshold:g}, form={self.form!r}"


class FrequencyFilter(_Filter):
    """``(B, C, H, W) -> (B, C, H, W)``: ``irfft2(M * X)``, ``X = rfft2(x)``, ``M = softshrink(map2(act(map1(X))))``.

    Both maps are complex, linear in the channels and block-diagonal, the same at every frequency; activation and
    soft-shrink act on real and imaginary part separately. By the convolution theorem this is a circular convolution
    with the kernel ``irfft2(M, norm="backward")``. Computed in float32 for half inputs and under autocast. AFFNet's own
    residual around the filter is left to its block.

    Source: arXiv:2307.14008 and its official code, whose parameters these are: ``w1``, ``w2`` ``(2, G, b, b)`` (part,
    group, input channel, output channel), ``b1``, ``b2`` ``(2, G, b)``, b = C / G.

    Args:
        dim: Channels.
        groups: Diagonal blocks; None means gcd(dim, 8).
        threshold: Of the soft-shrink.
        act: A name among `tokenmix.layers.ACTIVATIONS`, ``"prelu"`` (one slope for each part), or a factory without
            arguments. The released networks have ``"silu"``.
        device: Where the parameters are created.
        dtype: Their type.

    Raises:
        ValueError: If the groups do not divide the channels or the activation is unknown.

    Examples:
        >>> import torch
        >>> FrequencyFilter(32, groups=4)(torch.zeros(1, 32, 15, 20)).shape
        torch.Size([1, 32, 15, 20])
    """

    def __init__(
        self,
        dim: int,
        *,
        groups: int | None = None,
        threshold: float = 0.01,
        act: str | Callable[[], nn.Module] = "silu",
        device=None,
        dtype=None,
    ) -> None:
        groups = math.gcd(dim, 8) if groups is None else groups
        if groups < 1 or dim % groups:
            raise ValueError(
                f"groups={groups} does not divide the {dim} channels of aff; leave it out for {math.gcd(dim, 8)}"
            )
        dd = {"device": device, "dtype": dtype}
        super().__init__(dim, groups, threshold, _activation(act, **dd), _activation(act, **dd))
        width = dim // groups
        self.w1 = nn.Parameter(0.02 * torch.randn(2, groups, width, width, **dd))
        self.b1 = nn.Parameter(0.02 * torch.randn(2, groups, width, **dd))
        self.w2 = nn.Parameter(0.02 * torch.randn(2, groups, width, width, **dd))
        self.b2 = nn.Parameter(0.02 * torch.randn(2, groups, width, **dd))

    def maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.w1, self.b1, self.w2, self.b2

    def real_maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *real_form(self.w1, self.b1), *real_form(self.w2, self.b2)

    def fuse(self) -> FusedFrequencyFilter:
        """The same function with both maps as prebuilt grouped 1x1 convolutions of real planes."""
        return FusedFrequencyFilter(self)


class FusedFrequencyFilter(_Filter):
    """``(B, C, H, W) -> (B, C, H, W)``: the inference form of `FrequencyFilter`, its maps as grouped 1x1 convolutions.

    The channels of ``conv1`` and ``conv2`` are ordered (group, channel, part).
    """

    @torch.no_grad()
    def __init__(self, source: FrequencyFilter) -> None:
        super().__init__(
            source.dim, source.groups, source.threshold, copy.deepcopy(source.act), copy.deepcopy(source.act2)
        )
        self.form = source.form
        self.conv1 = self._convolution(source.w1, source.b1)
        self.conv2 = self._convolution(source.w2, source.b2)
        self.train(source.training)

    def _convolution(self, weight: Tensor, bias: Tensor) -> nn.Conv2d:
        conv = nn.Conv2d(2 * self.dim, 2 * self.dim, 1, groups=self.groups, device=weight.device, dtype=weight.dtype)
        kernel, shift = real_form(weight, bias)
        conv.weight.copy_(kernel)
        assert conv.bias is not None
        conv.bias.copy_(shift)
        return conv

    def maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = []
        for conv in (self.conv1, self.conv2):
            assert conv.bias is not None
            weight = conv.weight.view(self.groups, -1, 2, self.dim // self.groups, 2)  # (G, out, part, in, part)
            found += [weight.permute(2, 4, 0, 3, 1), conv.bias.view(self.groups, -1, 2).permute(2, 0, 1)]
        return found[0], found[1], found[2], found[3]

    def real_maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        bias1, bias2 = self.conv1.bias, self.conv2.bias
        assert bias1 is not None
        assert bias2 is not None
        return self.conv1.weight, bias1, self.conv2.weight, bias2


def _activation(act: str | Callable[[], nn.Module], *, device=None, dtype=None) -> nn.Module:
    if act == "prelu":
        return ScalarPReLU(device=device, dtype=dtype)
    if isinstance(act, str):
        if act not in ACTIVATIONS:
            raise ValueError(unknown("activation", act, [*ACTIVATIONS, "prelu"]))
        act = ACTIVATIONS[act]
    return act().to(device=device, dtype=dtype)
