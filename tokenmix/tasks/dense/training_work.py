"""What a training of a dense model computes: its network, its auxiliary head, and the regions of a second stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from tokenmix.heads import Raw, make_dense


def training_work(recipe: Any, size: tuple[int, int], num_classes: int) -> Iterator[tuple[nn.Module, Any, float]]:
    """See `tokenmix.tasks.base.Task.training_work`: one image of that size forward and back, on the meta device.

    With the auxiliary head, and all regions that may be sampled.
    """
    model: Any = make_dense(
        recipe.model.head, recipe.model.name.split(".")[0], num_classes, device="meta", **recipe.model.args
    )
    model.eval()
    image = torch.zeros(1, 3, *size, device="meta")
    yield Raw(model), image, 3.0
    if getattr(model, "aux", None) is not None:
        with torch.no_grad():
            maps = model.backbone(image)
        yield model.aux, maps, 3.0
    if not hasattr(model, "roi_heads"):
        return
    for stage in getattr(model.roi_heads, "stages", [model.roi_heads]):
        regions = stage.fg_bg_sampler.batch_size_per_image
        masks = int(regions * stage.fg_bg_sampler.positive_fraction)
        chans = model.backbone.out_channels
        pooled = torch.zeros(regions, chans, *stage.box_roi_pool.output_size, device="meta")
        yield nn.Sequential(stage.box_head, stage.box_predictor), pooled, 3.0
        pooled = torch.zeros(masks, chans, *stage.mask_roi_pool.output_size, device="meta")
        yield nn.Sequential(stage.mask_head, stage.mask_predictor), pooled, 3.0
