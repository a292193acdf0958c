"""What the tests of exported files share: small models as `open_model` returns them."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from tests.dense_cases import dense
from tests.scramble import scramble
from tokenmix.checkpoints import LoadedModel
from tokenmix.heads import HEADS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def conv_net() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 12, 3, 2, 1))
    return scramble(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)))


def small_net(mixers: str, dims: tuple[int, int] = (16, 24)) -> nn.Module:
    """Two stages with maps of 16 and 8 pixels for images of 32, so that both automatic forms of a transform occur."""
    args: dict[str, Any] = {"depths": (1, 1), "dims": dims, "stem_stride": 2, "num_classes": 5}
    return scramble(timm.create_model("mixernet_pico", mixers=mixers, **args)).eval()


def opened(
    model: nn.Module, size: tuple[int, int] = (16, 16), *, classes: list[str] | None = None, **changes: Any
) -> LoadedModel:
    """A classifier."""
    known: dict[str, Any] = {
        "name": "net",
        "task": "classification",
        "head": None,
        "facts": {} if classes is None else {"classes": list(classes)},
        "mean": MEAN,
        "std": STD,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "crop_mode": "center",
    }
    return LoadedModel(model=model, image_size=size, **{**known, **changes})


def opened_dense(
    head: str, backbone: str, size: tuple[int, int], *, narrow: bool = True, **options: Any
) -> LoadedModel:
    """A dense model with three classes."""
    info = HEADS[head]
    model = dense(head, backbone, narrow=narrow, **options).float()
    for name, module in model.named_modules():  # or random logits were so large that rounding decided about their order
        if name.endswith(("cls_logits", "mask_fcn_logits")):
            module.weight.data *= 0.01
    kind = {"task": info.task, "head": head, "crop_mode": info.crop_mode, "interpolation": "bilinear", "crop_pct": 1.0}
    return opened(model, size, name=backbone, **kind)
