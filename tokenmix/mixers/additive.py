"""Convolutional additive self-attention, the token mixer of CAS-ViT (arXiv:2408.03703)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import Pointwise, fold_norm_after, with_act
from tokenmix.mixers.additive_forms import FORMS
from tokenmix.mixers.slots import Slots, named_slots
from tokenmix.ops.convolution import pointwise
from tokenmix.ops.dispatch import operator
from tokenmix.ops.gates import channel_gates, gate_sum

torch.fx.wrap("gate_sum")  # leaves for torch.fx
torch.fx.wrap("pointwise")


class AdditiveAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(dwc(gate(q) + gate(k)) * v)``, CATM.

    A gate is ``x * sigmoid(PW(ReLU(BN(DW3(x)))))`` with one score per pixel, then ``x * sigmoid(PW(mean(x)))`` with one
    per channel. Those of query and key run side by side as one gate of double width, whose parameters are those of the
    two, one after the other along the output channels, **query first**.
    Source: arXiv:2408.03703 and its official code, whose keys `tokenmix.backbones.casvit` maps to these.

    Args:
        dim: Channels, C.
        device: Where the parameters are created.
        dtype: Their type.

    Examples:
        >>> AdditiveAttention(16).channel_score.weight.shape
        torch.Size([32, 16, 1, 1])
    """

    input_layers = ("qkv",)
    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.qkv: nn.Conv2d = Pointwise(dim, 3 * dim, bias=False, **dd)
        self.spatial = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim, **dd)
        self.norm: nn.Module = nn.BatchNorm2d(2 * dim, **dd)
        self.act: nn.Module = nn.ReLU()
        self.pixel_score = nn.Conv2d(2 * dim, 2, 1, groups=2, bias=False, **dd)
        self.channel_score = nn.Conv2d(2 * dim, 2 * dim, 1, groups=2, bias=False, **dd)
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)

    @operator(*FORMS)
    def forward(self, x: Tensor) -> Tensor:
        query_key, value = self.query_key_value(x)
        similarity = gate_sum(query_key, self.pixel_gates(query_key), self.channel_score.weight)
        return self.proj(self.dwc(similarity) * value)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key ``(B, 2C, H, W)``, and the value: neither is a strided part of a larger map."""
        both, weight, bias = 2 * self.dim, self.qkv.weight, self.qkv.bias
        query_key = pointwise(x, weight[:both], None if bias is None else bias[:both])
        return query_key, pointwise(x, weight[both:], None if bias is None else bias[both:])

    def pixel_gates(self, query_key: Tensor) -> Tensor:
        """``(B, 2C, H, W) -> (B, 2, H, W)``."""
        hidden = self.act(self.norm(self.spatial(query_key)))
        return torch.sigmoid(F.conv2d(hidden, self.pixel_score.weight, groups=2))

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the gates: two of the pixels and two of the channels, the query's first."""
        query_key, value = self.query_key_value(x)
        pixels, weight = self.pixel_gates(query_key), self.channel_score.weight
        similarity = gate_sum(query_key, pixels, weight)
        act = self.dwc(similarity)
        channels = channel_gates(query_key, pixels, weight)
        pieces = query_key[:, : self.dim], similarity, act, self.proj(act * value), pixels, channels
        return named_slots("query key act value spatial_gate channel_gate", pieces, channel_gate="gates")

    def fuse(self) -> AdditiveAttention:
        """A copy with the norm folded into the depthwise convolution before it."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm2d):
            new.spatial, new.act = with_act(fold_norm_after(new.spatial, new.norm), new.act)  # type: ignore[assignment]
            new.norm = nn.Identity()
        return new
