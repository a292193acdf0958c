"""What a forecast was made from: how much each step ahead moves with each past one, a kernel in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.pictures.heat import enlarged, signed
from tokenmix.tasks.view import Figure, View
from tokenmix_runtime.series import read_series

MOST_ROWS = 96  # steps ahead that are looked at, evenly spread
SHARE = 0.95  # of the energy that a width holds


def see(loaded: Any, path: str) -> View:
    """The last window of a series, normalised as the model's training was; where it does not say, by the series itself.

    Raises:
        ValueError: The file is no series, lacks a variable of the model, or is shorter than a window.
    """
    series, model = read_series(path), loaded.model
    if names := loaded.facts.get("variables"):
        series = series.select(names)
    length = model.look_back
    if len(series) < length:
        raise ValueError(f"{path} has {len(series)} rows, and the model looks back {length}")
    mean = np.array(loaded.mean) if loaded.mean else series.values.mean(0)
    std = np.array(loaded.std) if loaded.mean else series.values.std(0).clip(1e-9)
    device = next(iter(model.parameters()), torch.empty(0)).device
    window = torch.from_numpy((series.values[-length:] - mean) / std).float()[None].to(device)
    return View(series.name, window, model, None, f"{model.horizon} steps ahead from {length}")


def time_kernel(model: Any, window: Tensor) -> Tensor:
    """``(1, L, M) -> (H', L)``: by how much each step ahead grows with each past one, as the mean over the variables.

    The derivative of the forecast at this very window, in normalised units: a column is the response to an impulse, a
    row the kernel by which a step ahead is made. H' is at most `MOST_ROWS`, evenly spread over the horizon.
    """
    x = window.detach().clone().requires_grad_()
    with torch.enable_grad():
        forecast = model(x)[0]  # (H, M)
        steps = torch.linspace(0, len(forecast) - 1, min(len(forecast), MOST_ROWS)).round().long().tolist()
        rows = [torch.autograd.grad(forecast[step].sum(), x, retain_graph=True)[0][0].mean(1) for step in steps]
    return torch.stack(rows).detach()


def figures(loaded: Any, view: View) -> list[Figure]:
    """The kernel, and how much of the past holds most of it."""
    kernel = time_kernel(loaded.model, view.inputs).cpu()
    energy = kernel.double().square().sum(0).flip(0).cumsum(0)  # from the last step back
    width = int(torch.searchsorted(energy, SHARE * energy[-1])) + 1
    note = (
        "A row for each step ahead, the first on top; a column for each past step, the last on the right. Orange: it "
        f"grows with that step, blue: it falls. The last {width} steps hold {SHARE:.0%} of the energy."
    )
    shown = enlarged(signed(kernel.numpy()), 640)
    numbers = {"past_steps": width, "look_back": kernel.shape[1]}
    return [Figure("time-kernel", "Kernel in time", shown, note, numbers)]
