"""What a model costs by count: parameters, multiply-accumulates, and the transforms that profilers overlook."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokenmix.export.prepare import set_form
from tokenmix.recipes import Recipe
from tokenmix.tasks import find_task


@dataclass(frozen=True)
class Cost:
    """Counts for one image (1 MAC = one multiplication and one addition).

    Attributes:
        params: Trainable parameters.
        macs: Convolutions, linear layers and matrix products, attention's two products included.
        transform_macs: Fourier and cosine transforms of the spectral mixers, which ``macs`` does not include, by their
            usual operation counts (a fast 2-D transform of C channels: 1.25 H W log2(H W) C).

    Examples:
        >>> from tokenmix import make_mixer
        >>> found = cost(make_mixer("aff", 16), 14, in_chans=16)
        >>> found.params, found.macs, round(found.transform_macs)
        (192, 28672, 59699)
    """

    params: int
    macs: int
    transform_macs: float


def cost(model: nn.Module, image_size: int | tuple[int, int], *, in_chans: int = 3) -> Cost:
    """Count a model's parameters and its multiply-accumulates for one image; see `count`.

    Args:
        model: A model of one image batch (1, in_chans, H, W).
        image_size: Height and width in pixels, or one number for both.
        in_chans: Channels of the image.

    Returns:
        Counts; a convolution's bias is among its parameters, not among its MACs.

    Raises:
        RuntimeError: The model takes no such images.

    Examples:
        >>> cost(nn.Conv2d(3, 8, kernel_size=3), image_size=10)
        Cost(params=224, macs=13824, transform_macs=0.0)
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    tensors = (*model.parameters(), *model.buffers())
    first = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    return count(model, torch.zeros(1, in_chans, height, width, device=first.device, dtype=first.dtype))


def count(model: nn.Module, inputs: Any) -> Cost:
    """Count a model's parameters and its multiply-accumulates for given inputs; the model is not changed.

    The model is counted as it is given; re-parameterise it first to count the inference form. Whichever form its
    spectral mixers use, their transforms are counted in ``transform_macs`` and never in ``macs``.

    Args:
        model: Any model.
        inputs: What it is called with, on its device.
    """
    counted = copy.deepcopy(model).eval()
    set_form(counted, "fft")  # the FLOP counter passes over FFTs, so that transforms are counted once, by the hooks
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
        counted(inputs)
    return Cost(
        params=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        macs=counter.get_total_flops() // 2,
        transform_macs=float(transforms),
    )


def training_macs(recipe: Recipe, samples: int, facts: Mapping[str, Any]) -> float:
    """Multiply-accumulates of a whole training by the recipe, transforms included.

    A backward pass counts as two forward ones, a teacher as one; gradient checkpointing, which repeats the forward
    pass, and the validation are not counted. Dense models see every image at the recipe's full size.

    Args:
        recipe: With an ``image_size`` of its own, if its samples have one.
        samples: How many there are to learn from.
        facts: Of the data, see `tokenmix.data.DataSet.facts`.
    """
    schedule = recipe.schedule
    seen = samples * schedule.epochs if schedule.steps is None else schedule.steps * recipe.run.batch_size
    total = 0.0
    for module, inputs, times in find_task(recipe.task.name).training_work(recipe, facts):
        found = count(module, inputs)
        total += times * (found.macs + found.transform_macs)
    return seen * total
