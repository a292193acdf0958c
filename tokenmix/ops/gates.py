"""The two gates of additive attention (arXiv:2408.03703) for training: they keep only what they are given.

PyTorch keeps the gated map too, of twice the channels, and passes over it several times. Here means and gradients of
scores and gates are products with thin matrices, which read a map once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tokenmix.ops.recompute import differentiated, full_precision


def gate_sum(query_key: Tensor, score: Tensor, channel_weight: Tensor) -> Tensor:
    """``(B, 2C, H, W)`` in channels_last memory to ``(B, C, H, W)``: query and key, each gated twice, added.

    Args:
        query_key: Query before key.
        score: (B, 2, H, W), what the pixels of query and key are multiplied with.
        channel_weight: (2C, C, 1, 1), makes the channels' scores from the means of the gated query and of the key.
    """
    batch, double, height, width = query_key.shape
    dim = double // 2
    rows = query_key.permute(0, 2, 3, 1).reshape(batch, height * width, 2, dim)
    scores = score.permute(0, 2, 3, 1).reshape(batch, height * width, 2)
    weight = channel_weight.view(2, dim, dim).to(rows.dtype)
    with torch.autocast(rows.device.type, enabled=False):
        similarity = _GateSum.apply(rows, scores.to(rows.dtype), weight)
    return similarity.view(batch, height, width, dim).permute(0, 3, 1, 2)


def _reference(rows: Tensor, scores: Tensor, weight: Tensor) -> Tensor:
    gated = rows * scores.unsqueeze(3)
    gate = torch.sigmoid(torch.einsum("bpi,poi->bpo", gated.mean(1), weight))
    return (gated * gate.unsqueeze(1)).sum(2)


class _GateSum(torch.autograd.Function):
    """Rows (B, N, 2, C), scores (B, N, 2), weight (2, C, C) -> (B, N, C)."""

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
        if torch.is_grad_enabled():
            return differentiated(_reference, (rows, scores, weight), ctx.needs_input_grad, grads)
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
