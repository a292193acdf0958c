"""Every head on every family: odd and differing sizes, gradients, and the fused form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.backbone_cases import SMALLEST, distance, images
from tests.dense_cases import SEGMENTERS, SIZES, dense, objects, pictures
from tokenmix import reparameterize
from tokenmix.heads import HEADS
from tokenmix.layers import ConvNorm, RepDepthwise

# Small versions, each head with one family and each family with a head; the published sizes in all combinations.
SMALL = [
    ("deeplabv3", "affnet"),
    ("semantic_fpn", "casvit"),
    ("upernet", "dsm"),
    ("ffnet_seg", "ffnet"),
    ("ssdlite", "affnet"),
    ("retinanet", "casvit"),
    ("mask_rcnn", "ffnet"),
    ("cascade_mask_rcnn", "mixernet"),
]
FULL = [pytest.param(head, family, False, marks=pytest.mark.slow) for head in HEADS for family in SMALLEST]
every_pair = pytest.mark.parametrize(("head", "family", "small"), [*((*pair, True) for pair in SMALL), *FULL])
TOY_OF = {**SMALLEST, "dsm": "dsm_s"}


def build(head: str, family: str, small: bool) -> Any:
    options: dict[str, Any] = {}
    if head == "deeplabv3":
        options = {"output_stride": 16 if family == "affnet" else 32, "aux": True}
    return dense(head, (TOY_OF if small else SMALLEST)[family], narrow=small, **options)


@torch.no_grad()
def results(model: nn.Module, head: str) -> list[Tensor]:
    """All that a model computes, as one list of tensors; images of one odd size, or of several."""
    if head in SEGMENTERS:
        return [model(images(*SIZES[0], dtype=torch.float64))]
    return [one[key] for one in model(pictures()) for key in sorted(one)]


@every_pair
def test_trains_on_odd_sizes(head: str, family: str, small: bool) -> None:
    model = build(head, family, small).float().train()
    if head in SEGMENTERS:
        losses = {name: y.square().mean() for name, y in model(images(*SIZES[0])).items()}
    else:
        losses = model(pictures(torch.float32), objects(torch.float32))
    total = sum(losses.values())
    total.backward()
    assert bool(torch.isfinite(total))
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert missing == []


@every_pair
def test_fused_form_is_equal(head: str, family: str, small: bool) -> None:
    model = build(head, family, small)
    fused = reparameterize(model)
    assert not any(isinstance(module, ConvNorm | RepDepthwise) for module in fused.modules())
    found, expected = results(fused, head), results(model, head)
    assert [one.shape for one in found] == [one.shape for one in expected]
    filled = [pair for pair in zip(found, expected, strict=True) if len(pair[1])]
    assert filled
    assert all(distance(one.double(), other.double()) < 1e-8 for one, other in filled)
