"""Convolutional additive self-attention, the token mixer of CAS-ViT (arXiv:2408.03703)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import depthwise_weights, fold_norm_after, fold_norm_before, with_act
from tokenmix.ops.dispatch import Form, Situation, operator
from tokenmix.ops.gates import gate_sum, pixel_scores
from tokenmix.ops.kernels.additive import gate_convolve
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.recompute import in_turn, without_keeping

# Leaves for torch.fx.
torch.fx.wrap("gate_sum")
torch.fx.wrap("pixel_scores")


class AdditiveAttention(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``proj(dwc(gate(q) + gate(k)) * v)``, CATM.

    Source: arXiv:2408.03703 and its official code.

    A gate is a spatial one, ``x * sigmoid(PW(ReLU(BN(DW3(x)))))`` with one score per pixel, followed by one of the
    channels, ``x * sigmoid(PW(mean(x)))``. Query and key have separate gates; here they run side by side as one gate of
    double width, whose parameters are those of the two concatenated along the output channels, **query first**:

    ============================ ===================== ==========================================================
    parameter                    shape                 official keys
    ============================ ===================== ==========================================================
    ``qkv.weight``               (3C, C, 1, 1)         ``qkv.weight``
    ``spatial.weight``, ``bias`` (2C, 1, 3, 3), (2C,)  ``oper_q.0.block.0.*``, ``oper_k.0.block.0.*``
    ``norm.*``                   (2C,)                 ``oper_q.0.block.1.*``, ``oper_k.0.block.1.*``
    ``pixel_score.weight``       (2, C, 1, 1)          ``oper_q.0.block.3.weight``, ``oper_k.0.block.3.weight``
    ``channel_score.weight``     (2C, C, 1, 1)         ``oper_q.1.block.1.weight``, ``oper_k.1.block.1.weight``
    ``dwc.*``, ``proj.*``        (C, 1, 3, 3), (C,)    ``dwc.*``, ``proj.*``
    ============================ ===================== ==========================================================

    ``norm.num_batches_tracked`` is either one's.
    """

    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False, **dd)
        self.spatial: Any = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim, **dd)
        self.norm: nn.Module = nn.BatchNorm2d(2 * dim, **dd)
        self.act: nn.Module = nn.ReLU()
        self.pixel_score = nn.Conv2d(2 * dim, 2, 1, groups=2, bias=False, **dd)
        self.channel_score = nn.Conv2d(2 * dim, 2 * dim, 1, groups=2, bias=False, **dd)
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)

    def _fits_kernel(now: Situation, self: AdditiveAttention, x: Tensor) -> bool:
        return not now.channels_last and can_run(now, x) and depthwise_weights(self.dwc) is not None

    def _by_kernel(self, x: Tensor) -> Tensor:
        """Everything between the scores and ``proj`` in one kernel."""
        dwc = depthwise_weights(self.dwc)
        assert dwc is not None
        qkv = self.qkv(x)
        score = torch.sigmoid(self.pixel_score(self.act(self.norm(self.spatial(qkv[:, : 2 * self.dim])))))
        return self.proj(gate_convolve(qkv, score, self.channel_score.weight, *dwc))

    def _kept_less(self, x: Tensor) -> Tensor:
        query_key, value = without_keeping(x, self.query_key_value)
        hidden = in_turn(self.spatial(query_key), self.norm, self.act)
        score = without_keeping(hidden, lambda hidden: pixel_scores(hidden, self.pixel_score.weight))
        similarity = gate_sum(query_key, score, self.channel_score.weight)
        return without_keeping(self.dwc(similarity) * value, self.proj)

    @operator(Form("kernel", _by_kernel, _fits_kernel), Form("keeps less", _kept_less))
    def forward(self, x: Tensor) -> Tensor:
        query_key, value = self.query_key_value(x)
        score = pixel_scores(self.act(self.norm(self.spatial(query_key))), self.pixel_score.weight)
        return self.proj(self.dwc(gate_sum(query_key, score, self.channel_score.weight)) * value)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key ``(B, 2C, H, W)``, and the value: neither is a strided part of a larger map."""
        both, weight, bias = 2 * self.dim, self.qkv.weight, self.qkv.bias
        query_key = F.conv2d(x, weight[:both], None if bias is None else bias[:both])
        return query_key, F.conv2d(x, weight[both:], None if bias is None else bias[both:])

    @torch.no_grad()
    def fuse(self) -> AdditiveAttention:
        """A copy with the norm folded into the depthwise convolution before it."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm2d):
            new.spatial, new.act = with_act(fold_norm_after(new.spatial, new.norm), new.act)
            new.norm = nn.Identity()
        return new

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qkv``, which gets a bias; in place. True: it always can."""
        self.qkv = fold_norm_before(self.qkv, norm)
        return True
