"""What a forecast was made from: how each step ahead moves with each past one, a kernel in time; and its mixers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tokenmix.mixers import Slot
from tokenmix.pictures.heat import amounts, angles, bars, enlarged, gates, signed, spread, strip, weights
from tokenmix.tasks.forecasting.blocks import KeyValue
from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS
from tokenmix.tasks.forecasting.mixers.convolutions import BranchedConv
from tokenmix.tasks.forecasting.series_data import read_spec
from tokenmix.tasks.view import Figure, MixerDrawing, View

MOST_ROWS = 96  # steps ahead that are looked at, evenly spread
SHARE = 0.95  # of the energy that a width holds
MOST_CHANNELS = 16  # that are drawn, those that vary most
HEADS = 3  # of an attention
_WIDTH = 320  # pixels of a picture of tokens


def see(loaded: Any, path: str) -> View:
    """The last window of a series, normalised as the model's training was; where it does not say, by the series itself.

    Raises:
        ValueError: The file is no series, lacks a variable of the model, or is shorter than a window.
    """
    series, model = read_spec(path), loaded.model
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


# --------------------------------------------------------------------------------------------------- inside the mixers


def _rows(value: Tensor) -> Tensor:
    """``(B, C, N)``, or ``(M, D, B, N)`` inside the network -> ``(c, N)``: of the first variable, what varies most."""
    rows = value[0] if value.ndim == 3 else value[0, :, 0]
    energy = (rows - rows.mean(1, keepdim=True)).abs().square().sum(1)
    return rows[energy.topk(min(MOST_CHANNELS, len(rows))).indices.sort().values]


def _drawn_rows(draw: Callable[[Any], Image.Image], rows: Tensor) -> Image.Image:
    return bars(draw(rows.detach().double().cpu().numpy()), _WIDTH, row=8)


def _logs(rows: Tensor) -> Image.Image:
    return _drawn_rows(spread, rows.abs().clamp(min=1e-8).log())


def _filter(rows: Tensor) -> Image.Image:
    pictures = [_drawn_rows(amounts, rows.abs()), _drawn_rows(angles, rows.angle())]
    return strip(pictures, _WIDTH)


def _attention(value: Tensor) -> Image.Image:
    heads = value[0, :HEADS].detach().double().cpu().numpy()
    return strip([weights(one) for one in heads], 160)


def draw_slot(slot: Slot, given: Sequence[Any]) -> Image.Image:
    """A piece of a one-dimensional mixer, of the first variable: a row for each of some channels, time to the right.

    Of spectra the frequency grows to the right; of an attention a row is a token that asks.
    """
    if slot.kind in ("attention", "gates"):
        return _attention(slot.value) if slot.kind == "attention" else gates(slot.value[0].detach().cpu().numpy())
    rows = _rows(slot.value)
    if slot.kind == "filter":
        return _filter(rows)
    return _logs(rows) if slot.kind in ("fourier", "cosine") else _drawn_rows(weights, rows)


def kernel_figures(mixer: nn.Module) -> Iterator[Figure]:
    """The depthwise kernels in time of a mixer, a row for each of some channels: branches, and what they merge to."""
    for name, module in mixer.named_modules():
        forms: dict[str, nn.Conv1d] = {}
        if isinstance(module, BranchedConv):
            forms = {f"branch {place}": branch.fuse() for place, branch in enumerate(module.branches, 1)}  # type: ignore[operator]
            forms["merged"] = module.fuse()
        elif isinstance(module, nn.Conv1d) and module.groups == module.in_channels and max(module.kernel_size) > 1:
            forms = {"as trained": module} if ".branches." not in f".{name}" else {}
        for form, conv in forms.items():
            weight = conv.weight[:, 0].detach()
            best = weight.square().sum(1).topk(min(MOST_CHANNELS, len(weight))).indices.sort().values
            note = f"{conv.kernel_size[0]} tokens, {form}; the strongest of {len(weight):,} channels."
            place = f"kernels-{name or 'mixer'}-{form}".replace(".", "-").replace(" ", "-")
            yield Figure(place, f"kernels of {name or 'the mixer'}", _drawn_rows(signed, weight[best]), note)


_PUBLISHED = replace(SERIES_MIXERS["ffnified"], build=KeyValue, query="the map of the variables")
_TEXT = (
    "Of the first variable a row for each of the channels that vary most, time or frequency to the right: blue below "
    "zero, orange above; of an attention a row for each token that asks."
)
DRAWING = MixerDrawing({**SERIES_MIXERS, "ffnet": _PUBLISHED}, draw_slot, kernel_figures, _TEXT)
