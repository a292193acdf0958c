"""The gates of additive attention (arXiv:2408.03703): one score per pixel, then one per channel from the means."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tokenmix.ops.dispatch import Form, Situation, operator


def _fits_rows(now: Situation, *args: object) -> bool:
    return now.mode == "inference" and now.device == "cpu" and now.channels_last


def _score_rows(hidden: Tensor, weight: Tensor) -> Tensor:
    """Both scores as one product, from the left: a product with two columns is slow."""
    batch, both, height, width = hidden.shape
    matrix = torch.block_diag(weight[0, :, 0, 0], weight[1, :, 0, 0])  # (2, 2C)
    score = matrix @ hidden.permute(0, 2, 3, 1).reshape(-1, both).t()
    return score.sigmoid_().view(2, batch, height, width).transpose(0, 1)


@torch.fx.wrap
@operator(Form("rows", _score_rows, _fits_rows))
def pixel_scores(hidden: Tensor, weight: Tensor) -> Tensor:
    """``(B, 2C, H, W) -> (B, 2, H, W)``: what the pixels of query and key are multiplied with.

    Args:
        hidden: The spatial gates' hidden maps, the query's before the key's.
        weight: (2, C, 1, 1).
    """
    return torch.sigmoid(F.conv2d(hidden, weight, groups=2))


def _sum_rows(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """One row of channels per pixel."""
    batch, both, height, width = query_key.shape
    dim = both // 2
    rows = query_key.permute(0, 2, 3, 1).reshape(batch, height * width, 2, dim)
    gated = rows * score.permute(0, 2, 3, 1).reshape(batch, height * width, 2, 1)
    mean = gated.mean(1).transpose(0, 1)  # (2, B, C)
    query_gate, key_gate = torch.bmm(mean, weight.view(2, dim, dim).transpose(1, 2)).sigmoid_().unsqueeze(2)
    query, key = gated.unbind(2)
    similarity = (query * query_gate).addcmul_(key, key_gate)
    return similarity.view(batch, height, width, dim).permute(0, 3, 1, 2)


def _sum_kept_less(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """Keeps the arguments alone, without the gated maps."""
    return checkpoint(_sum, query_key, score, weight, use_reentrant=False, preserve_rng_state=False)


def _sum(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    dim = query_key.size(1) // 2
    gated = query_key.unflatten(1, (2, dim)) * score.unsqueeze(2)  # (B, 2, C, H, W)
    mean = gated.mean([3, 4], keepdim=True).flatten(1, 2)  # (B, 2C, 1, 1)
    gate = torch.sigmoid(F.conv2d(mean, weight, groups=2)).unflatten(1, (2, dim))
    return gated[:, 0] * gate[:, 0] + gated[:, 1] * gate[:, 1]


@torch.fx.wrap
@operator(Form("rows", _sum_rows, _fits_rows), Form("keeps less", _sum_kept_less))
def gate_sum(query_key: Tensor, score: Tensor, weight: Tensor) -> Tensor:
    """``(B, 2C, H, W) -> (B, C, H, W)``: query and key, each gated twice, added.

    Args:
        query_key: Query before key.
        score: (B, 2, H, W), see `pixel_scores`.
        weight: (2C, C, 1, 1), makes the channels' scores from the means of the gated query and of the key.
    """
    return _sum(query_key, score, weight)
