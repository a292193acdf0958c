"""FFNet-Seg's own head (arXiv:2406.02021 and its official code): three levels joined at stride 8, FFNified blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.backbones.ffnet import STRIP_LARGE, conv_norm_rules
from tokenmix.backbones.keymap import KeyMap, Rule
from tokenmix.blocks import Mlp, Residual
from tokenmix.heads.levels import feature_levels
from tokenmix.heads.segmenter import Segmenter
from tokenmix.layers import GELU, ConvNorm, RepDepthwise
from tokenmix.mixers import make_mixer

STRIPS = (9, 5, (1, 9), (9, 1))


class FFNetSegHead(nn.Module):
    """Feature maps -> ``(B, num_classes, h, w)`` at the size of the first one.

    Args:
        chans: The maps' channels.
        num_classes: Of the classifier.
        depth: Blocks: a token mixer and a channel mixer, each followed by a GELU behind its skip.
        ratio: Hidden channels of a channel mixer over its channels.
        dim: Channels of the blocks.
        channels: In front of the classifier.
        drop_rate: Probability that one of these is dropped.
    """

    def __init__(
        self,
        chans: Sequence[int],
        num_classes: int,
        *,
        depth: int,
        ratio: float,
        dim: int = 256,
        channels: int = 1024,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        total = sum(chans)
        self.squeeze = nn.Sequential(ConvNorm(total, total, act=GELU), ConvNorm(total, dim))
        self.blocks = nn.Sequential()
        for _ in range(depth):
            mlp = Mlp(dim, int(dim * ratio), conv=RepDepthwise(dim, STRIPS))
            mixer = Residual(dim, make_mixer(STRIP_LARGE, dim))
            block = OrderedDict(mixer=mixer, mixer_act=GELU(), mlp=Residual(dim, mlp), mlp_act=GELU())
            self.blocks.append(nn.Sequential(block))
        self.align = ConvNorm(dim, channels, act=GELU)
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[0].shape[-2:]
        upper = [F.interpolate(y, size, mode="bicubic", align_corners=False) for y in maps[1:]]
        x = self.squeeze(torch.cat([maps[0], *upper], 1))
        return self.classifier(self.drop(self.align(self.blocks(x))))


def ffnet_seg(
    backbone: str | nn.Module,
    num_classes: int,
    *,
    head_depth: int = 3,
    head_ratio: float = 4.0,
    head_dim: int = 256,
    channels: int = 1024,
    drop_rate: float = 0.1,
    **backbone_args: Any,
) -> Segmenter:
    """FFNet-Seg: its backbone is ``"ffnet_seg"``; any other works, which then gives its last three levels.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`.
        num_classes: Classes.
        head_depth: Blocks of the head: 3 for ADE20K, 5 for Cityscapes.
        head_ratio: Hidden over outer channels of their channel mixers: 4 for ADE20K, 1 for Cityscapes.
        head_dim: Channels of the blocks.
        channels: In front of the classifier.
        drop_rate: Probability that a channel is dropped in front of the classifier.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    levels = feature_levels(backbone, (-3, -2, -1), **backbone_args)
    head = FFNetSegHead(
        levels.num_chs,
        num_classes,
        depth=head_depth,
        ratio=head_ratio,
        dim=head_dim,
        channels=channels,
        drop_rate=drop_rate,
    )
    return Segmenter(levels, head)


def _rules() -> list[Rule]:
    leaf = r"\.(?P<leaf>weight|bias)"
    block, official = r"decoder\.blocks\.(?P<i>\d+)\.", r"decode_head.head_blocks.\g<i>."
    fronts = {
        r"mixer\.op\.key\.op": "token_mixer.main.conv1",
        r"mixer\.op\.value\.op": "token_mixer.main.conv2",
        r"mlp\.op\.conv": "channel_mixer.main.conv",
    }
    rules = [
        Rule(r"decoder\.classifier" + leaf, (r"decode_head.conv_seg.\g<leaf>",)),
        Rule(block + r"mlp\.op\.(?P<fc>fc[12])" + leaf, (official + r"channel_mixer.main.\g<fc>.\g<leaf>",)),
        *conv_norm_rules(r"decoder\.squeeze\.0", "decode_head.squeeze.0"),
        *conv_norm_rules(r"decoder\.squeeze\.1", "decode_head.squeeze.2"),
        *conv_norm_rules(r"decoder\.align", "decode_head.align.0"),
        *conv_norm_rules(block + r"mixer\.op\.query", official + "token_mixer.main.fc"),
    ]
    for ours, theirs in fronts.items():
        for i, name in enumerate(("conv1", "conv2", "strip_conv1", "strip_conv2")):
            rules += conv_norm_rules(block + ours + rf"\.branches\.{i}", f"{official}{theirs}.{name}")
    return rules


KEYS = KeyMap(_rules())
OPEN_ARGS: tuple[str, ...] = ()


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The options that an official state dict with these keys and shapes tells, or None if it is no such head."""
    hidden = shapes.get("decode_head.head_blocks.0.channel_mixer.main.fc1.weight", ())
    classifier = shapes.get("decode_head.conv_seg.weight", ())
    if len(hidden) != 4 or len(classifier) != 4:
        return None
    return {
        "num_classes": classifier[0],
        "head_depth": sum(key.startswith("decode_head") and key.endswith("fc1.weight") for key in shapes),
        "head_ratio": hidden[0] / hidden[1],
        "head_dim": hidden[1],
        "channels": classifier[1],
    }
