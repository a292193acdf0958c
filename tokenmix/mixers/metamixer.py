"""The query-key-value frame of the MetaMixer paper (arXiv:2406.02021) with its sub-operations open."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from tokenmix.layers import depthwise_weights, fold_norm_before, fused, takes_norm_before, with_act
from tokenmix.mixers.slots import Slot, Slots
from tokenmix.ops.dispatch import Form, Situation, operator
from tokenmix.ops.kernels.ffnified import depthwise_gelu_depthwise
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.recompute import without_keeping


class Static(nn.Module):
    """``(B, C, H, W), (B, C, H, W) -> op(q)``: an interaction that ignores the input, for `MetaMixer`.

    Args:
        op: ``(B, C, H, W) -> (B, C, H, W)``, for example a convolution.

    Examples:
        >>> import torch
        >>> q, x = torch.ones(1, 8, 7, 7), torch.zeros(1, 8, 7, 7)
        >>> torch.equal(Static(nn.Identity())(q, x), q)
        True
    """

    output_layer = "op"

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, q: Tensor, x: Tensor) -> Tensor:
        return self.op(q)

    def fuse(self) -> Static:
        """The same with the operation fused, if it can be."""
        return Static(fused(copy.deepcopy(self.op)))


class MetaMixer(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``value(act(key(query(x), x)), x)`` (arXiv:2406.02021).

    Softmax attention fills the frame with dynamic interactions (`tokenmix.mixers.attention_frame.attention_frame`),
    FFNified attention with static ones (`tokenmix.mixers.ffnified.ffnified_attention`).

    Args:
        query: ``(B, C, H, W)`` to the query.
        key: Called with the query and the input; its output goes through ``act``.
        act: Activation of the key interaction.
        value: Called with the activated key interaction and the input; returns ``(B, C, H, W)``.

    Examples:
        >>> import torch
        >>> mixer = MetaMixer(nn.Conv2d(8, 8, 1), Static(nn.AvgPool2d(3, 1, 1)), nn.GELU(), Static(nn.Conv2d(8, 8, 1)))
        >>> mixer(torch.zeros(1, 8, 7, 7)).shape
        torch.Size([1, 8, 7, 7])
    """

    output_layer = "value"

    def __init__(self, query: nn.Module, key: nn.Module, act: nn.Module, value: nn.Module) -> None:
        super().__init__()
        self.query = query
        self.key = key
        self.act = act
        self.value = value

    @staticmethod
    def _fits_kernel(now: Situation, self: MetaMixer, x: Tensor) -> bool:
        return can_run(now, x) and not now.channels_last and self.depthwise_chain() is not None

    def _by_kernel(self, x: Tensor) -> Tensor:
        chain = self.depthwise_chain()
        assert chain is not None
        return depthwise_gelu_depthwise(self.query(x), *chain)

    def _kept_less(self, x: Tensor) -> Tensor:
        interaction = without_keeping(self.query(x), lambda query: self.key(query, x))
        weights = without_keeping(interaction, self.act)
        return without_keeping(weights, lambda weights: self.value(weights, x))

    @operator(Form("kernel", _by_kernel, _fits_kernel), Form("keeps less", _kept_less))
    def forward(self, x: Tensor) -> Tensor:
        return self.value(self.act(self.key(self.query(x), x)), x)

    def slots(self, x: Tensor) -> Slots:
        """See `tokenmix.mixers.slots`: each part by itself."""
        query = self.query(x)
        key = self.key(query, x)
        act = self.act(key)
        kind = "map" if key.shape[-2:] == x.shape[-2:] else "attention"
        return {
            "query": Slot(query),
            "key": Slot(key, kind),
            "act": Slot(act, kind),
            "value": Slot(self.value(act, x)),
        }

    def depthwise_chain(self) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Weights and biases of key and value where both are plain depthwise convolutions with a GELU between."""
        if not (type(self.key) is type(self.value) is Static):
            return None
        first: Any = self.key.op
        last: Any = self.value.op
        act = self.act
        key, value = depthwise_weights(first), depthwise_weights(last)
        inside = getattr(first, "act", "") == "gelu" and isinstance(act, nn.Identity)
        behind = not getattr(first, "act", "") and isinstance(act, nn.GELU) and act.approximate == "none"
        plain = getattr(last, "act", "") == ""
        if key is None or value is None or not (plain and (inside or behind)):
            return None
        return (*key, *value)

    def fuse(self) -> MetaMixer:
        """A new frame with every part that has an equivalent inference form in that form."""
        query, key, act, value = (fused(copy.deepcopy(part)) for part in (self.query, self.key, self.act, self.value))
        if isinstance(key, Static):
            key.op, act = with_act(key.op, act)
        return MetaMixer(query, key, act, value)

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into the query, in place.

        False, and nothing is changed, where the query is no plain 1x1 convolution (fuse first) or the key or value
        interaction may read the input as well.
        """
        if not takes_norm_before(self.query) or not all(isinstance(m, Static) for m in (self.key, self.value)):
            return False
        assert isinstance(self.query, nn.Conv2d)
        self.query = fold_norm_before(self.query, norm)
        return True
