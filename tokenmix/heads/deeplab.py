"""DeepLabv3 (arXiv:1706.05587) as AFFNet's code has it (CVNets' head): the last level through parallel dilations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.backbones.affnet import unit_rule
from tokenmix.backbones.keymap import KeyMap, Rule
from tokenmix.heads.levels import feature_levels
from tokenmix.heads.segmenter import FCNHead, Segmenter, activation
from tokenmix.layers import ConvNorm


class ASPP(nn.Module):
    """``(B, C, H, W) -> (B, channels, H, W)``: 1x1, dilated 3x3 convolutions and the map's mean, joined by a 1x1.

    Args:
        in_chans: C.
        channels: Of every branch and of the output.
        rates: Dilations of the 3x3 convolutions.
        act: Factory of the activation.
    """

    def __init__(self, in_chans: int, channels: int, rates: Sequence[int], act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([ConvNorm(in_chans, channels, act=act)])
        self.branches.extend(ConvNorm(in_chans, channels, 3, dilation=rate, act=act) for rate in rates)
        self.pool = ConvNorm(in_chans, channels, act=act)
        self.project = ConvNorm((len(rates) + 2) * channels, channels, act=act)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, x.shape[2], x.shape[3])
        return self.project(torch.cat([*(branch(x) for branch in self.branches), mean], 1))


class DeepLabHead(nn.Module):
    """Feature maps -> ``(B, num_classes, h, w)`` at the size of the last one."""

    def __init__(self, aspp: ASPP, channels: int, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.aspp = aspp
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.drop(self.aspp(maps[-1])))


def deeplabv3(
    backbone: str | nn.Module,
    num_classes: int,
    *,
    output_stride: int = 16,
    rates: Sequence[int] = (6, 12, 18),
    channels: int = 256,
    head_act: str = "silu",
    aux: bool = False,
    drop_rate: float = 0.1,
    **backbone_args: Any,
) -> Segmenter:
    """AFFNet's DeepLabv3. In training a batch needs two images, because the mean of a map goes through a batch norm.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`.
        num_classes: Classes, the background included.
        output_stride: 8 or 16, for a backbone with this argument; 32 leaves any backbone as it is.
        rates: Dilations; the official defaults are those for stride 16, CVNets' recipe has (12, 24, 36) at stride 8.
        channels: Of the parallel convolutions.
        head_act: Activation of the head; CVNets' recipe has ``"relu"``.
        aux: Whether an auxiliary head reads the level before the last one in training.
        drop_rate: Probability that a channel is dropped in front of a classifier.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    if output_stride != 32:
        backbone_args["output_stride"] = output_stride
    try:
        levels = feature_levels(backbone, (-2, -1), **backbone_args)
    except TypeError as error:
        if "output_stride" not in str(error):
            raise
        name = backbone if isinstance(backbone, str) else type(backbone).__name__
        raise ValueError(
            f"{name} takes no output_stride={output_stride}: pass output_stride=32, which leaves the backbone as it is"
        ) from None
    act = activation(head_act)
    decoder = DeepLabHead(ASPP(levels.num_chs[-1], channels, rates, act), channels, num_classes, drop_rate)
    narrow = levels.num_chs[-2]
    second = FCNHead(-2, narrow, max(narrow // 4, 128), num_classes, act=act, drop_rate=drop_rate) if aux else None
    model = Segmenter(levels, decoder, second, align_corners=True)
    model.least_batch = 2
    return model


_LEAF = r"\.(?P<leaf>weight|bias)"
KEYS = KeyMap(
    [
        unit_rule(r"decoder\.aspp\.branches\.(?P<i>[0-3])", r"seg_head.aspp.aspp_layer.convs.\g<i>"),
        unit_rule(r"decoder\.aspp\.pool", "seg_head.aspp.aspp_layer.convs.4.aspp_pool.conv_1x1"),
        unit_rule(r"decoder\.aspp\.project", "seg_head.aspp.aspp_layer.project"),
        Rule(r"decoder\.classifier" + _LEAF, (r"seg_head.classifier.block.conv.\g<leaf>",)),
        unit_rule(r"aux\.conv", "seg_head.aux_head.0"),
        Rule(r"aux\.classifier" + _LEAF, (r"seg_head.aux_head.2.block.conv.\g<leaf>",)),
    ]
)
OPEN_ARGS = ("output_stride", "rates", "head_act")


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The options that an official state dict with these keys and shapes tells, or None if it is no such head."""
    classifier = shapes.get("seg_head.classifier.block.conv.weight", ())
    if len(classifier) != 4 or "seg_head.aspp.aspp_layer.project.block.conv.weight" not in shapes:
        return None
    options: dict[str, Any] = {"num_classes": classifier[0]}
    if classifier[1] != 256:
        options["channels"] = classifier[1]
    if "seg_head.aux_head.2.block.conv.weight" in shapes:
        options["aux"] = True
    return options
