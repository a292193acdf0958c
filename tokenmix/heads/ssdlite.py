"""SSDLite (arXiv:1512.02325, 1801.04381) as AFFNet's code has it: CVNets' levels and heads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from tokenmix.backbones.affnet import unit_rule
from tokenmix.backbones.base import Pool
from tokenmix.backbones.keymap import KeyMap, Rule
from tokenmix.heads import ssd_boxes
from tokenmix.heads.canvas import Canvas
from tokenmix.heads.levels import Levels, TimmLevels, feature_levels
from tokenmix.heads.segmenter import activation
from tokenmix.layers import ConvNorm

EXTRA_DIMS = (256, 128, 128)  # of the levels at strides 64, 128 and 256
LAST_DIM = 64  # of the level with one cell
HEAD_DIMS = (512, 256, 256, 128, 128)  # between the two convolutions of a level's head
RATIOS = ((2, 3), (2, 3), (2, 3), (2, 3), (2, 3), (2,))


class SSDLite(nn.Module):
    """A list of images -> a list of detections, or in training a dict of losses.

    Images are ``(in_chans, H, W)``, normalised. Targets are dicts of ``boxes`` ``(N, 4)``, corners in pixels, and
    ``labels`` ``(N,)`` from 1, as 0 is the background. Detections are dicts of ``boxes``, ``scores`` and ``labels``,
    best first. The official pipeline resizes all images to 320x320; images of several sizes are padded to the largest.

    Args:
        backbone: Gives two maps, at strides 16 and 32.
        num_classes: Kinds of objects.
        act: Factory of the activation.
        score_threshold: Detections that are not above it are dropped.
        candidates: How many per class and image enter the suppression.
        nms_threshold: Overlap (intersection over union) above which the lesser of two detections of a class goes.
        max_detections: How many per image remain.
    """

    classifiers = tuple(f"heads.{i}.output" for i in range(len(RATIOS)))

    def __init__(
        self,
        backbone: Levels | TimmLevels,
        num_classes: int,
        *,
        act: Callable[[], nn.Module] = nn.SiLU,
        score_threshold: float = 0.01,
        candidates: int = 400,
        nms_threshold: float = 0.5,
        max_detections: int = 200,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.score_threshold, self.candidates = score_threshold, candidates
        self.nms_threshold, self.max_detections = nms_threshold, max_detections
        self.transform = Canvas(1)
        self.backbone = backbone
        dims = [*backbone.num_chs, *EXTRA_DIMS]
        self.extra = nn.ModuleList(
            _separable(dim, ConvNorm(dim, out, act=act), stride=2)
            for dim, out in zip(dims[1:-1], EXTRA_DIMS, strict=True)
        )
        last = nn.Conv2d(dims[-1], LAST_DIM, 1, bias=False)
        self.extra.append(nn.Sequential(OrderedDict(pool=Pool("avg"), conv=last, act=act())))
        outputs = [(2 + 2 * len(ratios)) * (4 + 1 + num_classes) for ratios in RATIOS]
        self.heads = nn.ModuleList()
        for dim, inner, out in zip(dims, HEAD_DIMS, outputs, strict=False):
            head = _separable(inner, nn.Conv2d(inner, out, 1))
            proj = {} if dim == inner else {"proj": ConvNorm(dim, inner, act=act)}
            self.heads.append(nn.Sequential(OrderedDict(proj, **head._modules)))
        self.heads.append(nn.Sequential(OrderedDict(output=nn.Conv2d(LAST_DIM, outputs[-1], 1))))
        for convolution in (*self.extra.modules(), *self.heads.modules()):
            if isinstance(convolution, nn.Conv2d):
                nn.init.xavier_uniform_(convolution.weight)
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)

    def features(self, x: Tensor) -> list[Tensor]:
        """``(B, in_chans, H, W)`` -> the six levels, from fine to coarse."""
        maps = list(self.backbone(x))
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        return maps

    def predict(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Six levels -> logits ``(B, N, 1 + num_classes)``, background first, and locations ``(B, N, 4)``."""
        width = 4 + 1 + self.num_classes
        cells = [head(y).permute(0, 2, 3, 1).flatten(1) for head, y in zip(self.heads, maps, strict=True)]
        both = torch.cat([level.unflatten(1, (-1, width)) for level in cells], 1)
        return both[..., 4:], both[..., :4]

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, in_chans, H, W)`` -> what `predict` returns."""
        return self.predict(self.features(x))

    def detect(self, scores: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """Suppression in one image: logits ``(N, 1 + num_classes)`` and corners ``(N, 4)`` -> its detections."""
        probabilities = scores.softmax(-1)
        kept = []
        for label in range(1, self.num_classes + 1):
            (above,) = torch.where(probabilities[:, label] > self.score_threshold)
            best = probabilities[above, label].topk(min(len(above), self.candidates)).indices
            kept.append(torch.stack([above[best], torch.full_like(best, label)]))
        anchors, labels = torch.cat(kept, 1)
        found = {"boxes": boxes[anchors], "scores": probabilities[anchors, labels], "labels": labels}
        order = batched_nms(found["boxes"], found["scores"], labels, self.nms_threshold)[: self.max_detections]
        return {name: value[order] for name, value in found.items()}

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        batch, _ = self.transform(list(images))
        maps = self.features(batch.tensors)
        scores, locations = self.predict(maps)
        anchors = ssd_boxes.anchors([(y.shape[2], y.shape[3]) for y in maps], RATIOS, scores.device).to(scores.dtype)
        height, width = batch.tensors.shape[-2:]
        pixels = scores.new_tensor([width, height, width, height])
        if self.training:
            if targets is None:
                raise ValueError("SSDLite in training mode needs targets: call it with images and targets, or eval()")
            pairs = [ssd_boxes.match(t["boxes"].to(pixels) / pixels, t["labels"], anchors) for t in targets]
            labels = torch.stack([label for label, _ in pairs])
            wanted = torch.stack([ssd_boxes.encode(box, anchors) for _, box in pairs])
            return ssd_boxes.losses(scores, locations, labels, wanted)
        boxes = ssd_boxes.decode(locations, anchors)
        found = [self.detect(*one) for one in zip(scores, boxes, strict=True)]
        for one, size in zip(found, batch.image_sizes, strict=True):
            one["boxes"] = clip_boxes_to_image(one["boxes"] * pixels, size)
        return found


def _separable(dim: int, output: nn.Module, stride: int = 1) -> nn.Sequential:
    """A depthwise 3x3 convolution with a norm and no activation, then ``output``."""
    return nn.Sequential(OrderedDict(depthwise=ConvNorm(dim, dim, 3, stride, groups=dim), output=output))


def ssdlite(backbone: str | nn.Module, num_classes: int, *, head_act: str = "silu", **backbone_args: Any) -> SSDLite:
    """AFFNet's SSDLite.

    Args:
        backbone: See `tokenmix.heads.levels.feature_levels`; the last two levels are taken.
        num_classes: Kinds of objects, without the background.
        head_act: Activation of the head; CVNets' recipe has ``"relu"``.
        **backbone_args: See `tokenmix.heads.levels.feature_levels`.
    """
    return SSDLite(feature_levels(backbone, (-2, -1), **backbone_args), num_classes, act=activation(head_act))


def _rules() -> list[Rule]:
    leaf = r"\.(?P<leaf>weight|bias)"
    rules = [
        unit_rule(r"heads\.(?P<i>\d)\.proj", r"ssd_heads.\g<i>.proj_layer"),
        unit_rule(r"heads\.(?P<i>\d)\.depthwise", r"ssd_heads.\g<i>.loc_cls_layer.dw_conv"),
        Rule(r"heads\.5\.output" + leaf, (r"ssd_heads.5.loc_cls_layer.block.conv.\g<leaf>",)),
        Rule(r"heads\.(?P<i>[0-4])\.output" + leaf, (r"ssd_heads.\g<i>.loc_cls_layer.pw_conv.block.conv.\g<leaf>",)),
        Rule(r"extra\.3\.conv\.weight", ("extra_layers.os_-1.1.block.conv.weight",)),
    ]
    for i, stride in enumerate((64, 128, 256)):
        rules.append(unit_rule(rf"extra\.{i}\.depthwise", f"extra_layers.os_{stride}.dw_conv"))
        rules.append(unit_rule(rf"extra\.{i}\.output", f"extra_layers.os_{stride}.pw_conv"))
    return rules


KEYS = KeyMap(_rules())
OPEN_ARGS = ("head_act",)


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The options that an official state dict with these keys and shapes tells, or None if it is no such head."""
    outputs = next(iter(shapes.get("ssd_heads.5.loc_cls_layer.block.conv.bias", ())), 0)
    num_classes = outputs // (2 + 2 * len(RATIOS[-1])) - 4 - 1
    return {"num_classes": num_classes} if num_classes > 0 else None
