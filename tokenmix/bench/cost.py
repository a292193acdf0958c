"""What a model costs by count: parameters, multiply-accumulates, and the transforms that profilers overlook."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokenmix.export.prepare import set_form
from tokenmix.heads import Raw, make_dense
from tokenmix.recipes import Recipe


@dataclass(frozen=True)
class Cost:
    """Counts for one image (1 MAC = one multiplication and one addition).

    Attributes:
        params: Trainable parameters.
        macs: Convolutions, linear layers and matrix products, attention's two products included.
        transform_macs: Fourier and cosine transforms of the spectral mixers, which ``macs`` does not include, by their
            usual operation counts (a fast 2-D transform of C channels: 1.25 H W log2(H W) C).
    """

    params: int
    macs: int
    transform_macs: float


def cost(model: nn.Module, image_size: int | tuple[int, int], *, in_chans: int = 3) -> Cost:
    """Count a model's parameters and its multiply-accumulates for one image; the model is not changed.

    The model is counted as it is given; re-parameterise it first to count the inference form. Whichever form its
    spectral mixers use, their transforms are counted in ``transform_macs`` and never in ``macs``.

    Args:
        model: A model of one image batch (1, in_chans, H, W).
        image_size: Height and width in pixels, or one number for both.
        in_chans: Channels of the image.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    counted = copy.deepcopy(model).eval()
    set_form(counted, "fft")  # the FLOP counter passes over FFTs, so that transforms are counted once, by the hooks
    tensors = (*counted.parameters(), *counted.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    image = torch.zeros(1, in_chans, height, width, device=first.device, dtype=first.dtype)

    transforms = 0.0

    def add_transforms(module: nn.Module, args: tuple[Tensor, ...], output: object) -> None:
        nonlocal transforms
        transforms += module.transform_macs(*args[0].shape[-2:])  # type: ignore[operator]

    outermost: list[str] = []
    for name, module in counted.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in outermost)
        if callable(getattr(module, "transform_macs", None)) and not inside:
            outermost.append(name)
            module.register_forward_hook(add_transforms)

    counter = FlopCounterMode(display=False)
    # The counter does not know the CPU's fused attention; as plain matrix products every device counts alike.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        counted(image)
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        macs=counter.get_total_flops() // 2,
        transform_macs=float(transforms),
    )


def training_macs(recipe: Recipe, images: int, *, num_classes: int = 1000) -> float:
    """Multiply-accumulates of a whole training by the recipe, transforms included.

    A backward pass counts as two forward ones, a teacher as one; gradient checkpointing, which repeats the forward
    pass, and the validation are not counted. A dense model sees every image at the recipe's full size.

    Args:
        recipe: With an ``image_size`` of its own.
        images: How many there are to learn from.
        num_classes: Of a dense model.
    """
    schedule, head = recipe.schedule, recipe.model.head
    seen = images * schedule.epochs if schedule.steps is None else schedule.steps * recipe.run.batch_size
    return seen * (_image_macs(recipe) if head is None else 3 * _dense_macs(recipe, head, num_classes))


def _image_macs(recipe: Recipe) -> float:
    """Of a classifier, one image forward and back."""
    assert recipe.task.image_size is not None
    height, width = recipe.task.image_size
    model = timm.create_model(recipe.model.name.split(".")[0], **recipe.model.args)
    sizes = [(side, side) for side in recipe.task.multi_scale] or [(height, width)]
    shares = [max(1.0, height * width / (h * w)) for h, w in sizes]  # a step of smaller images has more of them
    counts = [cost(model, size) for size in sizes]
    macs = 3 * sum(s * (c.macs + c.transform_macs) for s, c in zip(shares, counts, strict=True)) / sum(shares)
    if recipe.task.teacher is not None:
        macs += cost(timm.create_model(recipe.task.teacher.split(".")[0]), recipe.task.image_size).macs
    return macs


def _dense_macs(recipe: Recipe, head: str, num_classes: int) -> float:
    """Of a dense model in training, one image forward: with the auxiliary head, and all regions that may be sampled."""
    assert recipe.task.image_size is not None
    size = recipe.augment.parts.crop_size or recipe.task.image_size
    name, args = recipe.model.name.split(".")[0], recipe.model.args
    model: Any = make_dense(head, name, num_classes, device="meta", **args).eval()
    found = cost(Raw(model), size)
    macs = found.macs + found.transform_macs
    if getattr(model, "aux", None) is not None:
        macs += _macs(model.aux, model.backbone(torch.zeros(1, 3, *size, device="meta")))
    if hasattr(model, "roi_heads"):
        for stage in getattr(model.roi_heads, "stages", [model.roi_heads]):
            regions = stage.fg_bg_sampler.batch_size_per_image
            masks = int(regions * stage.fg_bg_sampler.positive_fraction)
            chans = model.backbone.out_channels
            pooled = torch.zeros(regions, chans, *stage.box_roi_pool.output_size, device="meta")
            macs += _macs(nn.Sequential(stage.box_head, stage.box_predictor), pooled)
            pooled = torch.zeros(masks, chans, *stage.mask_roi_pool.output_size, device="meta")
            macs += _macs(nn.Sequential(stage.mask_head, stage.mask_predictor), pooled)
    return macs


def _macs(module: nn.Module, *inputs: Any) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops() / 2
