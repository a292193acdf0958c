"""The gates of additive attention (arXiv:2408.03703): one score per pixel, then one per channel from the means."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.ops.derived import derived
from tokenmix.ops.dispatch import Form, Situation, keeps_less, operator, situation
from tokenmix.ops.recompute import differentiated, full_precision


def score_matrix(weight: Tensor) -> Tensor:
    """``(2, C, 1, 1) -> (2, 2C)``: the scores of query and key as one product with both."""
    return torch.block_diag(weight[0, :, 0, 0], weight[1, :, 0, 0])


def gate_sum_(query_key: Tensor, hidden: Tensor, pixel_weight: Tensor, channel_weight: Tensor) -> Tensor:
    """``(B, H, W, 2C)`` twice to ``(B, H, W, C)``: scores and `gate_sum` of rows; overwrites ``query_key``."""
    batch, height, width, both = query_key.shape
    dim = both // 2
    # From the left: a product with two columns is slow.
    score = (derived(score_matrix, pixel_weight) @ hidden.reshape(-1, both).t()).sigmoid_()  # (2, B H W)
    query_key.view(-1, 2, dim).mul_(score.t().unsqueeze(2))
    query, key = query_key.view(batch, height * width, 2, dim).unbind(2)
    mean = query_key.mean((1, 2)).view(batch, 2, dim).transpose(0, 1)
    gate = torch.bmm(mean, channel_weight.view(2, dim, dim).transpose(1, 2)).sigmoid_()  # (2, B, C)
    query_gate, key_gate = gate.unsqueeze(2)
    return (query * query_gate).addcmul_(key, key_gate).view(batch, height, width, dim)


def _fits_rows(now: Situation, *args: object) -> bool:
    return keeps_less(now) and now.channels_last


def _sum_rows(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    batch, both, height, width = query_key.shape
    dim = both // 2
    rows = query_key.permute(0, 2, 3, 1).reshape(batch, height * width, 2, dim)
    scores = score.permute(0, 2, 3, 1).reshape(batch, height * width, 2)
    with torch.autocast(rows.device.type, enabled=False):
        similarity = _GateSum.apply(rows, scores.to(rows.dtype), weight.view(2, dim, dim).to(rows.dtype))
    return similarity.view(batch, height, width, dim).permute(0, 3, 1, 2)


def _formula(rows: Tensor, scores: Tensor, weight: Tensor) -> Tensor:
    gated = rows * scores.unsqueeze(3)
    gate = torch.sigmoid(torch.einsum("bpi,poi->bpo", gated.mean(1), weight))
    return (gated * gate.unsqueeze(1)).sum(2)


class _GateSum(torch.autograd.Function):
    """Rows (B, N, 2, C), scores (B, N, 2), weight (2, C, C) -> (B, N, C).

    Keeps its arguments alone. Means and gradients of scores and gates are products with thin matrices, which read a map
    once.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, scores: Tensor, weight: Tensor) -> Tensor:
        mean = [scores[:, None, :, part] @ rows[:, :, part] / rows.size(1) for part in (0, 1)]  # (B, 1, C) each
        gates = [torch.sigmoid(mean[part] @ weight[part].t()) for part in (0, 1)]
        ctx.save_for_backward(rows, scores, weight, *mean, *gates)
        similarity = (rows[:, :, 0] * scores[:, :, 0, None]).mul_(gates[0])
        return similarity.addcmul_(rows[:, :, 1] * scores[:, :, 1, None], gates[1])

    @staticmethod
    @full_precision
    def backward(ctx, *grads: Any):
        rows, scores, weight, *means_gates = ctx.saved_tensors
        if situation(grads[0]).mode == "training":  # the gradients shall have gradients
            return differentiated(_formula, (rows, scores, weight), ctx.needs_input_grad, grads)
        (grad,) = grads
        to_rows, to_scores, to_weight = torch.empty_like(rows), torch.empty_like(scores), torch.empty_like(weight)
        for part in (0, 1):
            x, score = rows[:, :, part], scores[:, :, part, None]
            mean, gate = means_gates[part], means_gates[2 + part]
            product = grad * x
            to_logit = (score.mT @ product) * (gate * (1 - gate))  # (B, 1, C)
            torch.mm(to_logit.flatten(0, 1).t(), mean.flatten(0, 1), out=to_weight[part])
            to_gated = to_logit @ weight[part] / rows.size(1)  # through the mean
            to_scores[:, :, part] = torch.baddbmm(product @ gate.mT, x, to_gated.mT).squeeze(2)
            torch.mul(torch.addcmul(to_gated, grad, gate, out=product), score, out=to_rows[:, :, part])
        return to_rows, to_scores, to_weight


@torch.fx.wrap
@operator(Form("keeps less", _sum_rows, _fits_rows))
def gate_sum(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """``(B, 2C, H, W) -> (B, C, H, W)``: query and key, each gated twice, added.

    Args:
        query_key: Query before key.
        score: (B, 2, H, W), what the pixels of query and key are multiplied with.
        weight: (2C, C, 1, 1), makes the channels' scores from the means of the gated query and of the key.
    """
    dim = query_key.size(1) // 2
    query, key = query_key.chunk(2, 1)
    return _gated(query, score[:, :1], weight[:dim]) + _gated(key, score[:, 1:], weight[dim:])


def _gated(x: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """By its pixels and its channels; without axes of its own for query and key, which runtimes are slow with."""
    gated = x * score
    return gated * _channel_gate(gated, weight)[:, :, None, None]


def _channel_gate(gated: Tensor, weight: Tensor) -> Tensor:
    return torch.sigmoid(F.linear(gated.mean([2, 3]), weight.flatten(1)))


def channel_gates(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """``(B, 2, C)``: what `gate_sum` multiplies the channels of query and key with."""
    parts = zip(query_key.chunk(2, 1), score.split(1, 1), weight.chunk(2), strict=True)
    return torch.stack([_channel_gate(x * pixels, matrix) for x, pixels, matrix in parts], 1)
