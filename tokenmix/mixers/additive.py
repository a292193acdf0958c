"""Convolutional additive self-attention, the token mixer of CAS-ViT (arXiv:2408.03703)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import Pointwise, depthwise_weights, fold_norm_after, fold_norm_before, with_act
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.convolution import fits_onednn, pointwise
from tokenmix.ops.dispatch import Form, Situation, operator
from tokenmix.ops.gates import gate_sum, gate_sum_, score_matrix
from tokenmix.ops.kernels.additive import gate_convolve
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.recompute import in_turn, without_keeping

torch.fx.wrap("gate_sum")  # leaves for torch.fx
torch.fx.wrap("pointwise")


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

    Args:
        dim: Channels, C.
        device: Where the parameters are created.
        dtype: Their type.

    Examples:
        >>> import torch
        >>> AdditiveAttention(16)(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 16, 7, 7])
    """

    output_layer = "proj"

    def __init__(self, dim: int, *, device=None, dtype=None) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.dim = dim
        self.qkv: nn.Conv2d = Pointwise(dim, 3 * dim, bias=False, **dd)
        self.spatial: Any = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim, **dd)
        self.norm: nn.Module = nn.BatchNorm2d(2 * dim, **dd)
        self.act: nn.Module = nn.ReLU()
        self.pixel_score = nn.Conv2d(2 * dim, 2, 1, groups=2, bias=False, **dd)
        self.channel_score = nn.Conv2d(2 * dim, 2 * dim, 1, groups=2, bias=False, **dd)
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)

    @staticmethod
    def _fits_kernel(now: Situation, self: AdditiveAttention, x: Tensor) -> bool:
        return can_run(now, x) and not now.channels_last and depthwise_weights(self.dwc) is not None

    def _by_kernel(self, x: Tensor) -> Tensor:
        """Everything between the scores and ``proj`` in one kernel."""
        dwc = depthwise_weights(self.dwc)
        assert dwc is not None
        qkv = self.qkv(x)
        score = torch.sigmoid(self.pixel_score(self.act(self.norm(self.spatial(qkv[:, : 2 * self.dim])))))
        return self.proj(gate_convolve(qkv, score, self.channel_score.weight, *dwc))

    @staticmethod
    def _fits_rows(now: Situation, self: AdditiveAttention, x: Tensor) -> bool:
        return fits_onednn(now) and now.channels_last

    def _on_rows(self, x: Tensor) -> Tensor:
        """Maps are matrices with one row of channels per pixel; gates overwrite what they gate."""
        both, weight, bias = 2 * self.dim, self.qkv.weight.flatten(1), self.qkv.bias
        pixels = x.permute(0, 2, 3, 1)
        query_key = F.linear(pixels, weight[:both], None if bias is None else bias[:both])
        hidden = self.act(self.norm(self.spatial(query_key.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
        similarity = gate_sum_(query_key, hidden, self.pixel_score.weight, self.channel_score.weight)
        value = F.linear(pixels, weight[both:], None if bias is None else bias[both:])
        value *= self.dwc(similarity.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(value.permute(0, 3, 1, 2))

    def _kept_less(self, x: Tensor) -> Tensor:
        query_key, value = without_keeping(x, self.query_key_value)
        hidden = in_turn(self.spatial(query_key), self.norm, self.act)
        matrix = score_matrix(self.pixel_score.weight)[:, :, None, None]
        score = torch.sigmoid(without_keeping(hidden, lambda hidden: pointwise(hidden, matrix)))
        similarity = gate_sum(query_key, score, self.channel_score.weight)
        return without_keeping(self.dwc(similarity) * value, self.proj)

    @operator(
        Form("kernel", _by_kernel, _fits_kernel), Form("rows", _on_rows, _fits_rows), Form("keeps less", _kept_less)
    )
    def forward(self, x: Tensor) -> Tensor:
        query_key, value = self.query_key_value(x)
        hidden = self.act(self.norm(self.spatial(query_key)))
        score = torch.sigmoid(F.conv2d(hidden, self.pixel_score.weight, groups=2))
        return self.proj(self.dwc(gate_sum(query_key, score, self.channel_score.weight)) * value)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key ``(B, 2C, H, W)``, and the value: neither is a strided part of a larger map."""
        both, weight, bias = 2 * self.dim, self.qkv.weight, self.qkv.bias
        query_key = pointwise(x, weight[:both], None if bias is None else bias[:both])
        return query_key, pointwise(x, weight[both:], None if bias is None else bias[both:])

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the gates: two of the pixels and two of the channels, the query's first."""
        query_key, value = self.query_key_value(x)
        hidden = self.act(self.norm(self.spatial(query_key)))
        score = torch.sigmoid(self.pixel_score(hidden))  # (B, 2, H, W)
        gated = query_key.unflatten(1, (2, self.dim)) * score.unsqueeze(2)
        gate = torch.sigmoid(self.channel_score(gated.mean([3, 4]).flatten(1)[:, :, None, None]))
        similarity = gate_sum(query_key, score, self.channel_score.weight)
        act = self.dwc(similarity)
        return {
            "query": Slot(query_key[:, : self.dim]),
            "key": Slot(similarity),
            "act": Slot(act),
            "value": Slot(self.proj(act * value)),
            "spatial_gate": Slot(score),
            "channel_gate": Slot(gate.view(-1, 2, self.dim), "gates"),
        }

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
