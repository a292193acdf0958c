"""The forms of additive attention that are faster, or keep less in training: `tokenmix.mixers.additive` defines it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenmix.layers import depthwise_weights
from tokenmix.ops.convolution import fits_onednn, pointwise
from tokenmix.ops.dispatch import Form, Situation
from tokenmix.ops.gates import gate_sum, gate_sum_, score_matrix
from tokenmix.ops.kernels.additive import gate_convolve
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.recompute import in_turn, without_keeping

if TYPE_CHECKING:
    from tokenmix.mixers.additive import AdditiveAttention


def _fits_kernel(now: Situation, mixer: AdditiveAttention, x: Tensor) -> bool:
    return can_run(now, x) and not now.channels_last and depthwise_weights(mixer.dwc) is not None


def _by_kernel(mixer: AdditiveAttention, x: Tensor) -> Tensor:
    """Everything between the scores and ``proj`` in one kernel."""
    dwc = depthwise_weights(mixer.dwc)
    assert dwc is not None
    qkv = mixer.qkv(x)
    score = torch.sigmoid(mixer.pixel_score(mixer.act(mixer.norm(mixer.spatial(qkv[:, : 2 * mixer.dim])))))
    return mixer.proj(gate_convolve(qkv, score, mixer.channel_score.weight, *dwc))


def _fits_rows(now: Situation, mixer: AdditiveAttention, x: Tensor) -> bool:
    return fits_onednn(now) and now.channels_last


def _on_rows(mixer: AdditiveAttention, x: Tensor) -> Tensor:
    """Maps are matrices with one row of channels per pixel; gates overwrite what they gate."""
    both, weight, bias = 2 * mixer.dim, mixer.qkv.weight.flatten(1), mixer.qkv.bias
    pixels = x.permute(0, 2, 3, 1)
    query_key = F.linear(pixels, weight[:both], None if bias is None else bias[:both])
    hidden = mixer.act(mixer.norm(mixer.spatial(query_key.permute(0, 3, 1, 2)))).permute(0, 2, 3, 1)
    similarity = gate_sum_(query_key, hidden, mixer.pixel_score.weight, mixer.channel_score.weight)
    value = F.linear(pixels, weight[both:], None if bias is None else bias[both:])
    value *= mixer.dwc(similarity.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return mixer.proj(value.permute(0, 3, 1, 2))


def _kept_less(mixer: AdditiveAttention, x: Tensor) -> Tensor:
    query_key, value = without_keeping(x, mixer.query_key_value)
    hidden = in_turn(mixer.spatial(query_key), mixer.norm, mixer.act)
    matrix = score_matrix(mixer.pixel_score.weight)[:, :, None, None]
    score = torch.sigmoid(without_keeping(hidden, lambda hidden: pointwise(hidden, matrix)))
    similarity = gate_sum(query_key, score, mixer.channel_score.weight)
    return without_keeping(mixer.dwc(similarity) * value, mixer.proj)


FORMS = (
    Form("kernel", _by_kernel, _fits_kernel),
    Form("rows", _on_rows, _fits_rows),
    Form("keeps less", _kept_less),
)
