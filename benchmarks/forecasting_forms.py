"""The forecaster in the official code's layers and order of axes, for comparisons of numbers and of speed.

Convolutions are ``conv1d``, norms are layers, maps are ``(B, M, D, N)`` and permuted as there; the modules, and so the
parameters, are those of a copy of ours.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.tasks.forecasting.blocks import Block
from tokenmix.tasks.forecasting.embeddings import PatchEmbedding
from tokenmix.tasks.forecasting.network import Forecaster, Stage


class PlainBlock(nn.Module):
    """``(B, M, D, N) -> (B, M, D, N)``: both mixers of a block of the published architecture."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.token, self.channel = block.token_mixer, block.channel_mixer

    def forward(self, x: Tensor) -> Tensor:
        batch, variables, dim, tokens = x.shape
        query, core, channel = self.token.query, self.token.core, self.channel
        y = F.gelu(query.drop1(query.expand(x.transpose(1, 2).reshape(batch, -1, tokens))))
        y = y.view(batch, dim, 2 * variables, tokens).transpose(1, 2).reshape(batch, -1, tokens)
        y = query.norm(query.drop2(query.reduce(y)).reshape(-1, dim, tokens)).view(batch, -1, tokens)
        x = x + core.value(F.gelu(core.key(y))).view(x.shape)
        conv, y = channel.depthwise, x.reshape(batch, -1, tokens)
        y = conv.large_norm(conv.large(y)) + conv.small_norm(conv.small(y))
        y = conv.norm(y.view(-1, dim, tokens)).view(batch, -1, tokens)
        y = F.gelu(channel.drop1(channel.expand(y)))
        y = y.view(batch, variables, -1, tokens).transpose(1, 2).reshape(batch, -1, tokens)
        return x + channel.drop2(channel.reduce(y)).view(batch, dim, variables, tokens).transpose(1, 2)


class PlainStage(nn.Module):
    """``(B, M, D, N) -> (B, M, D', N')``: the embedding of every variable by itself, then the blocks."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.embed = stage.embed
        self.blocks = nn.Sequential(*(PlainBlock(block) for block in stage.blocks))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = self.embed.conv, self.embed.norm
        batch, variables = x.shape[:2]
        x = x.flatten(0, 1)
        if isinstance(self.embed, PatchEmbedding):
            missing = conv.kernel_size[0] - conv.stride[0]
            y = norm(conv(torch.cat([x, x[..., -1:].repeat(1, 1, missing)], -1)))
        else:
            missing = -x.size(-1) % conv.kernel_size[0]
            y = conv(norm(torch.cat([x, x[..., x.size(-1) - missing :]], -1)))
        return self.blocks(y.view(batch, variables, *y.shape[1:]))


class PlainForecaster(nn.Module):
    """``(B, L, M) -> (B, H, M)``: the function of a forecaster with the published mixer and a copy of its weights.

    Args:
        model: Ours; it stays as it is.
    """

    def __init__(self, model: Forecaster) -> None:
        super().__init__()
        model = copy.deepcopy(model)
        self.norm, self.head, self.head_drop = model.norm, model.head, model.head_drop
        self.stages = nn.Sequential(*(PlainStage(stage) for stage in model.stages))

    def forward(self, past: Tensor) -> Tensor:
        x, center, scale = self.norm.normalize(past)
        x = self.stages(x.transpose(1, 2).unsqueeze(2))
        return self.norm.restore(self.head_drop(self.head(x.flatten(2))).transpose(1, 2), center, scale)
