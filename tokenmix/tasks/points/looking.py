"""What a point's class was made from: how much each voxel around it counts; and what its mixers do with the voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tokenmix.mixers import Slot
from tokenmix.pictures.heat import amounts, colours, gates, signed_colours, strip
from tokenmix.tasks.points.batches import whole_sample
from tokenmix.tasks.points.fixed import OneCloud
from tokenmix.tasks.points.mixers import VOXEL_MIXERS, VoxelConv
from tokenmix.tasks.points.normals import estimate_normals
from tokenmix.tasks.points.picture import draw_cloud
from tokenmix.tasks.points.readers import read_cloud
from tokenmix.tasks.view import Figure, MixerDrawing, View

MOST_VOXELS = 20_000  # that are looked at, the nearest to the cloud's middle
SHARE = 0.95  # of the energy that a radius holds
_WIDTH, _HEIGHT = 640, 480  # pixels of the picture


@dataclass(frozen=True)
class CloudView(View):
    """The same of a cloud.

    Attributes:
        coord: (V, 3), where the voxels are, in metres.
        chosen: Which of them is asked.
    """

    coord: NDArray[Any] = field(default_factory=lambda: np.zeros((0, 3)))
    chosen: int = 0


def see(loaded: Any, path: str, features: Sequence[str], voxel: float, wanted: int | None) -> CloudView:
    """The voxels of a cloud; asked is the one in the middle, for its most likely class or for the wanted one.

    Raises:
        CloudError: It cannot be read, or lacks what the model reads.
    """
    cloud = read_cloud(Path(path))
    if cloud.normal is None and "normal" in features:
        cloud = estimate_normals(cloud)
    sample = whole_sample(cloud, features, voxel)
    away = np.linalg.norm(sample.grid - np.median(sample.grid, axis=0), axis=1)
    kept = np.sort(np.argsort(away, kind="stable")[:MOST_VOXELS])
    chosen = int(np.argmin(away[kept]))
    grid, device = sample.grid[kept], next(loaded.model.parameters()).device
    grid_coord = torch.from_numpy(grid - grid.min(0)).to(device)
    network = OneCloud(loaded.model, grid_coord, torch.tensor([len(kept)], device=device))
    feat = torch.from_numpy(sample.feat[kept])[None].to(device)
    with torch.no_grad():
        shares = network(feat)[0, chosen].softmax(0)
    number = int(shares.argmax()) if wanted is None else wanted
    names = loaded.classes or [f"class {place}" for place in range(len(shares))]
    words = f"voxel {chosen:,} of {len(kept):,}: {names[number]}, {100 * float(shares[number]):.1f} %"

    def score(inputs: Tensor) -> Tensor:
        return network(inputs)[:, chosen, number]

    return CloudView(Path(path).name, feat, network, None, words, score, grid * voxel, chosen)


def influence_of(view: View) -> Tensor:
    """(V,): the size of the gradient of the chosen voxel's logit to each voxel's features."""
    assert view.score is not None
    x = view.inputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(view.score(x).sum(), x)
    return gradient[0].double().square().sum(1).sqrt().cpu()


def figures(view: Any) -> list[Figure]:
    """The cloud, each voxel as bright as it counts, and how far away the ones are that count most."""
    influence = influence_of(view)
    away = torch.from_numpy(np.linalg.norm(view.coord - view.coord[view.chosen], axis=1))
    order = away.argsort()
    held = influence[order].square().cumsum(0)
    radius = float(away[order][int(torch.searchsorted(held, SHARE * held[-1]).clamp(max=len(order) - 1))])
    count = int((influence > 0).sum())
    share = (influence / influence.max().clamp(min=1e-300)).pow(0.25).numpy()  # four decades can be told apart
    shown = draw_cloud(view.coord.astype(np.float32), colours(share), width=_WIDTH, height=_HEIGHT)
    note = (
        f"Bright: voxels on whose features the class of the one in the middle depends; {count:,} of {len(away):,} do. "
        f"{SHARE:.0%} of the energy lies within {radius:.2f} m."
    )
    return [Figure("neighbourhood", "Voxels that count", shown, note, {"radius_m": radius, "voxels": count})]


# --------------------------------------------------------------------------------------------------- inside the mixers


def draw_slot(slot: Slot, given: Sequence[Any]) -> Image.Image:
    """A piece of a mixer of voxels: the size at each voxel over the channels, and the channel that varies most.

    The voxels are those of the mixer's level. Gates are a row for each group, a column for each channel.
    """
    value = slot.value.detach().double().cpu()
    if slot.kind == "gates":
        return gates(value[0].numpy())
    size = value.square().mean(1).sqrt()
    parts = [colours((size / size.max().clamp(min=1e-300)).numpy())]
    if value.shape[1] > 1:
        channel = value[:, value.var(0, correction=0).argmax()].numpy()
        parts.append(signed_colours(channel))
    coord = given[1].coords.cpu().numpy().astype(np.float32)
    return strip([draw_cloud(coord, part, width=320, height=240) for part in parts], 320)


@torch.no_grad()
def kernel_figures(mixer: nn.Module) -> Iterator[Figure]:
    """The kernels of a mixer's convolutions: a slice for each height, the root mean square over the channels."""
    for name, module in mixer.named_modules():
        if isinstance(module, VoxelConv) and module.size > 1:
            weight = module.weight.double().cpu()
            mean = weight.square().flatten(4).mean(-1) if weight.ndim == 5 else weight.square()
            size = mean.mean(0).sqrt()  # (x, y, z)
            top = float(size.max())
            note = f"{module.size} x {module.size} x {module.size} voxels, from the lowest to the highest."
            slices = strip([amounts(one.numpy(), top) for one in size.unbind(2)], 96)
            yield Figure(f"kernels-{name}", f"kernels of {name}", slices, note)


_TEXT = (
    "At the voxels of the mixer's level the size over the channels, bright is large, and the channel that varies most: "
    "blue below zero, orange above."
)
DRAWING = MixerDrawing(VOXEL_MIXERS, draw_slot, kernel_figures, _TEXT)
