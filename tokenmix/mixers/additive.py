"""Convolutional additive self-attention, the token mixer of CAS-ViT (arXiv:2408.03703)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.chains import recomputes, then_convolve
from tokenmix.layers import (
    depthwise_weights,
    fold_norm_after,
    fold_norm_before,
    is_silent,
    with_act,
)
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.gates import gate_sum
from tokenmix.ops.inference import kept, plain_inference
from tokenmix.ops.kernels.additive import gate_convolve
from tokenmix.ops.kernels.rule import takes
from tokenmix.ops.layout import is_channels_last
from tokenmix.ops.recompute import Conv


@torch.fx.wrap
def gated_sum(query_key: Tensor, hidden: Tensor, pixel_weight: Tensor, channel_weight: Tensor) -> Tensor:
    """Both gates: ``(B, 2C, H, W)`` and the spatial gate's hidden map of that shape -> ``(B, C, H, W)``.

    ``pixel_weight`` (2, C, 1, 1) makes one score per pixel of the query and one of the key, ``channel_weight``
    (2C, C, 1, 1) those of the channels from their means.
    """
    if torch.jit.is_scripting():
        return _gated_sum_maps(query_key, hidden, pixel_weight, channel_weight)
    if torch.compiler.is_compiling() or not is_channels_last(query_key):
        return _gated_sum_maps(query_key, hidden, pixel_weight, channel_weight)
    return _gated_sum_rows(query_key, hidden, pixel_weight, channel_weight)


def _gated_sum_maps(query_key: Tensor, hidden: Tensor, pixel_weight: Tensor, channel_weight: Tensor) -> Tensor:
    dim = pixel_weight.size(1)
    score = torch.sigmoid(F.conv2d(hidden, pixel_weight, groups=2))  # (B, 2, H, W)
    gated = query_key.unflatten(1, (2, dim)) * score.unsqueeze(2)  # (B, 2, C, H, W)
    mean = gated.mean([3, 4], keepdim=True).flatten(1, 2)  # (B, 2C, 1, 1)
    gate = torch.sigmoid(F.conv2d(mean, channel_weight, groups=2)).unflatten(1, (2, dim))
    if torch.jit.is_scripting():
        return (gated * gate).sum(1)
    if torch.compiler.is_exporting():  # a sum over an axis of two is slow in other runtimes
        return gated[:, 0] * gate[:, 0] + gated[:, 1] * gate[:, 1]
    return (gated * gate).sum(1)


def _gated_sum_rows(query_key: Tensor, hidden: Tensor, pixel_weight: Tensor, channel_weight: Tensor) -> Tensor:
    """The same for maps in channels_last memory: one row of channels per pixel."""
    batch, _, height, width = query_key.shape
    dim = pixel_weight.size(1)
    rows = query_key.permute(0, 2, 3, 1).reshape(batch, height * width, 2, dim)
    weight = torch.block_diag(pixel_weight[0, :, 0], pixel_weight[1, :, 0])  # (2C, 2)
    score = torch.sigmoid(hidden.permute(0, 2, 3, 1).reshape(-1, 2 * dim) @ weight)
    gated = rows * score.view(batch, height * width, 2, 1)
    mean = gated.flatten(2).mean(1).view(batch, 2, dim)
    gate = torch.sigmoid(torch.einsum("bgi,goi->bgo", mean, channel_weight.view(2, dim, dim))).unsqueeze(1)
    similarity = torch.addcmul(gated[:, :, 0] * gate[:, :, 0], gated[:, :, 1], gate[:, :, 1])
    return similarity.view(batch, height, width, dim).permute(0, 3, 1, 2)


def _gated_sum_(query_key: Tensor, hidden: Tensor, pixel_weight: Tensor, channel_weight: Tensor) -> Tensor:
    """`gated_sum` of rows, ``(B, H, W, 2C)`` twice to ``(B, H, W, C)``, in few calls; overwrites ``query_key``."""
    batch, height, width, both = query_key.shape
    dim = both // 2
    # From the left: a product with two columns is slow.
    score = (kept(_both_scores, pixel_weight) @ hidden.reshape(-1, both).t()).sigmoid_()  # (2, B H W)
    query_key.view(-1, 2, dim).mul_(score.t().unsqueeze(2))
    query, key = query_key.view(batch, height * width, 2, dim).unbind(2)
    mean = query_key.mean((1, 2)).view(batch, 2, dim).transpose(0, 1)
    gate = torch.bmm(mean, channel_weight.view(2, dim, dim).transpose(1, 2)).sigmoid_()  # (2, B, C)
    query_gate, key_gate = gate.unsqueeze(2)
    return (query * query_gate).addcmul_(key, key_gate).view(batch, height, width, dim)


def _both_scores(pixel_weight: Tensor) -> Tensor:
    """``(2, C, 1, 1) -> (2, 2C)``: both scores as one product."""
    return torch.block_diag(pixel_weight[0, :, 0, 0], pixel_weight[1, :, 0, 0])


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

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            if plain_inference(x) and is_channels_last(x) and is_silent(self.spatial):
                return self.rows(x)
            fast = self.kernel(x) if takes(x) else None
            if fast is not None:
                return fast
            if recomputes(x) and is_channels_last(x) and is_silent(self.pixel_score):
                return self.trained((), x)
        # Two convolutions, so that neither result is a strided part of a larger one.
        both, weight, bias = 2 * self.dim, self.qkv.weight, self.qkv.bias
        query_key = F.conv2d(x, weight[:both], None if bias is None else bias[:both])
        value = F.conv2d(x, weight[both:], None if bias is None else bias[both:])
        hidden = self.act(self.norm(self.spatial(query_key)))
        similarity = gated_sum(query_key, hidden, self.pixel_score.weight, self.channel_score.weight)
        return self.proj(self.dwc(similarity) * value)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`; and the gates: two of the pixels and two of the channels, the query's first."""
        query_key, value = self.qkv(x).split([2 * self.dim, self.dim], 1)
        hidden = self.act(self.norm(self.spatial(query_key)))
        score = torch.sigmoid(self.pixel_score(hidden))  # (B, 2, H, W)
        gated = query_key.unflatten(1, (2, self.dim)) * score.unsqueeze(2)
        gate = torch.sigmoid(self.channel_score(gated.mean([3, 4]).flatten(1)[:, :, None, None]))
        gate = gate.view(-1, 2, self.dim)
        similarity = gated_sum(query_key, hidden, self.pixel_score.weight, self.channel_score.weight)
        act = self.dwc(similarity)
        return {
            "query": Slot(query_key[:, : self.dim]),
            "key": Slot(similarity),
            "act": Slot(act),
            "value": Slot(self.proj(act * value)),
            "spatial_gate": Slot(score),
            "channel_gate": Slot(gate, "gates"),
        }

    def kernel(self, x: Tensor) -> Tensor | None:
        """``forward`` with everything between the scores and ``proj`` in one kernel; None where a part is another."""
        dwc = depthwise_weights(self.dwc)
        if dwc is None or not is_silent(self.channel_score):
            return None
        qkv = self.qkv(x)
        score = torch.sigmoid(self.pixel_score(self.act(self.norm(self.spatial(qkv[:, : 2 * self.dim])))))
        return self.proj(gate_convolve(qkv, score, self.channel_score.weight, *dwc))

    def rows(self, x: Tensor) -> Tensor:
        """``forward`` in inference on a map in channels_last memory, as a matrix with one row per pixel."""
        both, weight, bias = 2 * self.dim, self.qkv.weight.flatten(1), self.qkv.bias
        pixels = x.permute(0, 2, 3, 1)
        query_key = F.linear(pixels, weight[:both], None if bias is None else bias[:both])
        hidden = self.act(self.norm(self.spatial(query_key.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
        similarity = _gated_sum_(query_key, hidden, self.pixel_score.weight, self.channel_score.weight)
        value = F.linear(pixels, weight[both:], None if bias is None else bias[both:])
        value *= self.dwc(similarity.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(value.permute(0, 3, 1, 2))

    def after_norm(self, norm: nn.Module, x: Tensor) -> Tensor:
        """``self(norm(x))`` for `tokenmix.chains.run`."""
        if is_channels_last(x) and is_silent(self.pixel_score) and not takes(x):
            return self.trained((norm,), x)
        return self(norm(x))

    def trained(self, before: Sequence[nn.Module], x: Tensor) -> Tensor:
        """The mixer after other modules, for training in channels_last memory: keeps half of what PyTorch keeps."""
        both, weight, bias = 2 * self.dim, self.qkv.weight, self.qkv.bias
        halves = (slice(None, both), slice(both, None))
        convs = [Conv(weight[half], None if bias is None else bias[half]) for half in halves]
        query_key, value = then_convolve(before, x, convs)
        pixel = self.pixel_score.weight[:, :, 0, 0]
        scorer = Conv(torch.block_diag(pixel[:1], pixel[1:])[:, :, None, None], None)
        (score,) = then_convolve((self.norm, self.act), self.spatial(query_key), [scorer])
        similarity = gate_sum(query_key, torch.sigmoid(score), self.channel_score.weight)
        return self.proj(self.dwc(similarity) * value)

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
