"""Convolutional additive self-attention, the token mixer of CAS-ViT (arXiv:2408.03703)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tokenmix.layers import depthwise_weights, fold_norm_after, fold_norm_before, is_silent
from tokenmix.ops.kernels.additive import gate_convolve
from tokenmix.ops.kernels.rule import takes


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
        self.spatial = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim, **dd)
        self.norm: nn.Module = nn.BatchNorm2d(2 * dim, **dd)
        self.act = nn.ReLU()
        self.pixel_score = nn.Conv2d(2 * dim, 2, 1, groups=2, bias=False, **dd)
        self.channel_score = nn.Conv2d(2 * dim, 2 * dim, 1, groups=2, bias=False, **dd)
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        query_key, value = qkv.split([2 * self.dim, self.dim], 1)
        score = torch.sigmoid(self.pixel_score(self.act(self.norm(self.spatial(query_key)))))  # (B, 2, H, W)
        if not torch.jit.is_scripting():
            dwc = depthwise_weights(self.dwc) if takes(qkv) else None
            if dwc is not None and is_silent(self.channel_score):
                return self.proj(gate_convolve(qkv, score, self.channel_score.weight, *dwc))
        gated = query_key.unflatten(1, (2, self.dim)) * score.unsqueeze(2)  # (B, 2, C, H, W)
        mean = gated.mean([3, 4], keepdim=True).flatten(1, 2)  # (B, 2C, 1, 1)
        gate = torch.sigmoid(self.channel_score(mean)).unflatten(1, (2, self.dim))
        similarity = (gated * gate).sum(1)
        return self.proj(self.dwc(similarity) * value)

    @torch.no_grad()
    def fuse(self) -> AdditiveAttention:
        """A copy with the norm folded into the depthwise convolution before it."""
        new = copy.deepcopy(self)
        if isinstance(new.norm, nn.BatchNorm2d):
            new.spatial = fold_norm_after(new.spatial, new.norm)
            new.norm = nn.Identity()
        return new

    def fold_input_norm(self, norm: nn.BatchNorm2d) -> bool:
        """Fold a norm before the mixer into ``qkv``, which gets a bias; in place. True: it always can."""
        self.qkv = fold_norm_before(self.qkv, norm)
        return True
