"""Which pixels a patch of the enlarged picture was made from: a local attribution map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as VF

from tokenmix.pictures.heat import over
from tokenmix.tasks.view import Figure, View
from tokenmix_runtime.images import open_image

SIDE_PX = 96  # of what is cut out of the middle of a picture, where nobody says
PATCH_SHARE = 0.15  # of the enlarged picture's sides


def see(loaded: Any, path: str, image_size: Any = None) -> View:
    """The middle of a picture, as the network sees it."""
    picture = open_image(path)
    height, width = image_size or (SIDE_PX, SIDE_PX)
    middle = VF.center_crop(picture, [min(height, picture.height), min(width, picture.width)])
    device = next(iter(loaded.model.parameters()), torch.empty(0)).device
    x = VF.pil_to_tensor(middle)[None].to(device, torch.float32) / 255
    words = f"{loaded.model.scale} times larger"
    return View(Path(path).name, x, loaded.model, middle, words)


def attribution(model: Any, x: Tensor, patch: Sequence[int]) -> Tensor:
    """``(1, C, H, W) -> (H, W)``: the size of the gradient of a patch's detail to each pixel of the input.

    Detail is the sum of the absolute differences of neighbours (arXiv:2011.11506, eq. 2); that paper integrates the
    gradient on a path from a blurred picture, here it is the one at the picture itself.

    Args:
        model: The network, which enlarges s times.
        x: The picture, in 0..1.
        patch: Top, left, bottom and right in pixels of the enlarged picture.
    """
    x = x.detach().clone().requires_grad_()
    top, left, bottom, right = patch
    with torch.enable_grad():
        part = model(x)[..., top:bottom, left:right]
        detail = part.diff(dim=-1).abs().sum() + part.diff(dim=-2).abs().sum()
        (gradient,) = torch.autograd.grad(detail, x)
    return gradient[0].abs().sum(0)


def diffusion_index(influence: Tensor) -> float:
    """(H, W) -> 0 to 100: 100 less the Gini coefficient in percent; the more pixels take part, the higher.

    Source: arXiv:2011.11506, eq. 6.
    """
    values = influence.flatten().double().sort().values
    count = len(values)
    ranks = torch.arange(1, count + 1, dtype=torch.float64, device=values.device)
    gini = ((2 * ranks - count - 1) * values).sum() / (count * values.sum().clamp(min=1e-300))
    return 100 * (1 - float(gini))


def figures(loaded: Any, view: View) -> list[Figure]:
    """The map of a patch in the middle."""
    assert view.picture is not None
    height, width = (side * loaded.model.scale for side in view.inputs.shape[-2:])
    sides = [max(2, round(PATCH_SHARE * side)) for side in (height, width)]
    top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
    influence = attribution(loaded.model, view.inputs, (top, left, top + sides[0], left + sides[1])).cpu()
    spread = diffusion_index(influence)
    note = (
        f"Bright: pixels on which the detail of the patch of {sides[1]} x {sides[0]} pixels in the middle depends. "
        f"Diffusion index {spread:.1f} of 100: the higher, the more pixels take part."
    )
    shown = over(view.picture, influence.sqrt().numpy(), 0.8)
    return [Figure("attribution", "Local attribution", shown, note, {"diffusion_index": spread})]
