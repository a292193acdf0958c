"""Semantic segmentation: feature levels, a decoder, and in training perhaps an auxiliary head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.layers import ACTIVATIONS, ConvNorm
from tokenmix_runtime.names import unknown


class Segmenter(nn.Module):
    """``(B, in_chans, H, W) -> (B, num_classes, H, W)`` logits in eval mode, for any H and W.

    In training mode it returns a dict: ``out``, and ``aux`` with the auxiliary head's logits if there is one.

    Args:
        backbone: ``(B, in_chans, H, W)`` -> feature maps from fine to coarse.
        decoder: The maps -> ``(B, num_classes, h, w)``; its last layer is named ``classifier``.
        aux: The same, or None.
        align_corners: How logits are resized to the image's size, see `torch.nn.functional.interpolate`.
    """

    least_batch = 1  # images that a step of training needs

    def __init__(
        self, backbone: nn.Module, decoder: nn.Module, aux: nn.Module | None = None, *, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.aux = backbone, decoder, aux
        self.align_corners = align_corners
        self.classifiers = ("decoder.classifier",) + (() if aux is None else ("aux.classifier",))

    def raw(self, x: Tensor) -> Tensor:
        """``(B, in_chans, H, W) -> (B, num_classes, h, w)``: the decoder's logits before they are resized."""
        return self.decoder(self.backbone(x))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        maps = self.backbone(x)
        logits = self._resize(self.decoder(maps), x)
        if not self.training:
            return logits
        return {"out": logits} if self.aux is None else {"out": logits, "aux": self._resize(self.aux(maps), x)}

    def _resize(self, logits: Tensor, x: Tensor) -> Tensor:
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=self.align_corners)


class FCNHead(nn.Module):
    """The auxiliary head (arXiv:1411.4038): one map -> 3x3 convolution, dropout, 1x1 classifier.

    Args:
        index: Which of the maps it reads.
        in_chans: That map's channels.
        channels: Of the convolution.
        num_classes: Of the classifier.
        act: Factory of the activation.
        drop_rate: Probability that a channel is dropped.
    """

    def __init__(
        self,
        index: int,
        in_chans: int,
        channels: int,
        num_classes: int,
        *,
        act: Callable[[], nn.Module] = nn.ReLU,
        drop_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.index = index
        self.conv = ConvNorm(in_chans, channels, 3, act=act)
        self.drop = nn.Dropout2d(drop_rate)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classifier(self.drop(self.conv(maps[self.index])))


def activation(name: str) -> Callable[[], nn.Module]:
    """The factory of a head's activation, by our name or the official configurations'.

    Raises:
        ValueError: For an unknown name.
    """
    name = {"swish": "silu", "hard_swish": "hardswish"}.get(name, name)
    if name not in ACTIVATIONS:
        raise ValueError(unknown("head_act", name, ACTIVATIONS))
    return ACTIVATIONS[name]
