"""The pieces of a mixer as pictures: what fills its slots, the kernel that it equals, its bands, its own kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tokenmix.inspection.spectra import kernel_of, whole_spectrum
from tokenmix.layers import RepDepthwise, fold_norm_after
from tokenmix.mixers import MIXERS, MetaMixer, MixerInfo, Slot, Slots, SpectrumMixer
from tokenmix.mixers.bands import carried_by_band
from tokenmix.pictures.heat import amounts, angles, gates, signed, spread, strip, weights
from tokenmix.tasks.view import Figure, MixerDrawing

CHANNELS = 3  # shown of a map, those with the most energy
HEADS = 3  # shown of an attention
MOST_TOKENS = 4096  # of a map whose attention between all pixels is made
_WORDS = {"query": "query", "key": "key", "act": "activation", "value": "value: what the mixer returns"}
_KERNEL = "What this input is convolved with, circularly; in the middle, what a place keeps of itself."


def slots_of(mixer: nn.Module, y: Tensor, *given: Any) -> tuple[Slots, float | None]:
    """What fills the slots for what a mixer is given, and how far their value is from its output ``y``, relatively.

    Of a mixer that says nothing of its slots: input and output, and None.
    """
    if not hasattr(mixer, "slots"):
        return {"input": Slot(given[0]), "value": Slot(y)}, None
    slots: Slots = mixer.slots(*given)  # type: ignore[operator]
    scale = float(y.abs().max()) or 1.0
    return slots, float((slots["value"].value - y).abs().max()) / scale


def about(mixer: nn.Module, known: Mapping[str, MixerInfo] = MIXERS) -> dict[str, str]:
    """What fills each slot, in the words of a table of mixers; empty for a mixer that is not in it."""
    kinds: dict[Any, str] = {info.build: name for name, info in known.items()}
    name = "ffnified" if type(mixer) is MetaMixer else kinds.get(type(mixer), "")
    info = known.get(name)
    return {} if info is None else {"paper": info.paper, **{part: getattr(info, part) for part in _WORDS}}


def slot_figures(drawing: MixerDrawing, mixer: nn.Module, slots: Slots, given: Sequence[Any]) -> Iterator[Figure]:
    """A figure of each slot for the first one of what a mixer is given, and of what follows from them."""
    words = about(mixer, drawing.known)
    for name, slot in slots.items():
        note = words.get(name, "")
        yield Figure(name, _WORDS.get(name, name.replace("_", " ")), drawing.slot(slot, given), note)
    for slot in slots.values():
        if slot.kind == "filter" and len(slot.value) in (1, len(given[0])):
            size = given[0].shape[2:]
            kernel = torch.fft.fftshift(kernel_of(slot.value, size), dim=tuple(range(-len(size), 0)))
            yield Figure("kernel", "dynamic kernel", drawing.slot(Slot(kernel, "kernel"), given), _KERNEL)


def band_figure(mixer: nn.Module, x: Tensor) -> Figure | None:
    """What each band of a cosine spectrum carries; None where a mixer has no bands."""
    if not isinstance(mixer, SpectrumMixer):
        return None
    slots = mixer.slots(x)
    carried = carried_by_band(slots["query"].value, slots["act"].value, mixer.nodes)[0]  # (K, C, H, W)
    energy = carried.square().mean(1).sqrt()
    share = carried.square().flatten(1).sum(1)
    share = share / share.sum().clamp(min=1e-30)
    side = mixer.nodes
    rows = [strip([spread(_plain(energy[row * side + column])) for column in range(side)], 110) for row in range(side)]
    return Figure(
        "bands",
        "what each band carries",
        _stacked(rows),
        "From the lowest vertical frequencies on top to the highest, from the lowest horizontal ones on the left; each "
        "with a range of brightness of its own. Shares of the energy, in this order: "
        + ", ".join(f"{100 * float(one):.1f} %" for one in share),
        {"band_energy": [round(float(one), 6) for one in share]},
    )


def kernel_figures(mixer: nn.Module) -> Iterator[Figure]:
    """The depthwise kernels of a mixer: every branch as trained, its norm folded in, and what they are once merged."""
    inside: list[str] = []
    for name, module in mixer.named_modules():
        if any(name.startswith(f"{other}.") for other in inside):
            continue
        if isinstance(module, RepDepthwise):
            inside.append(name)
            branches: list[Any] = list(module.branches)
            convs = [fold_norm_after(branch.conv, branch.norm) for branch in branches]
            merged = module.fuse()
            sizes = [" x ".join(map(str, conv.kernel_size)) for conv in convs]
            weights = [_centred(conv.weight, merged.kernel_size) for conv in convs]
            note = f"Branches of {', '.join(sizes)} with their norms, and the one kernel that they are once merged."
            yield _kernels(name, [*weights, merged.weight[:, 0]], note)
        elif isinstance(module, nn.Conv2d) and module.groups == module.in_channels and max(module.kernel_size) > 1:
            note = f"{' x '.join(map(str, module.kernel_size))} pixels, as trained."
            yield _kernels(name, [module.weight[:, 0]], note)


def _kernels(name: str, weights: list[Tensor], note: str) -> Figure:
    """A row for each of several forms of kernels (C, k, l): the mean over the channels, and a few of them."""
    weights = [weight.detach() for weight in weights]
    best = weights[-1].square().sum((1, 2)).topk(min(CHANNELS + 1, len(weights[-1]))).indices
    rows = []
    for weight in weights:
        tops = [signed(_plain(weight[one]), float(weights[-1][one].abs().max())) for one in best]
        rows.append(strip([amounts(_plain(weight.square().mean(0).sqrt())), *tops], 110))
    title = f"kernels of {name.removesuffix('.op') or 'the mixer'}"
    return Figure(f"kernels-{name.replace('.', '-') or 'mixer'}", title, _stacked(rows), note)


def _centred(weight: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(C, 1, k, l) -> (C, K, L)``: smaller kernels in the middle of a larger one."""
    down, right = (size[0] - weight.shape[-2]) // 2, (size[1] - weight.shape[-1]) // 2
    return F.pad(weight[:, 0], (right, right, down, down))


def _stacked(rows: list[Image.Image]) -> Image.Image:
    """Strips below each other."""
    whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows) + 4 * (len(rows) - 1)))
    whole.paste((128, 132, 138), (0, 0, *whole.size))
    top = 0
    for row in rows:
        whole.paste(row, (0, top))
        top += row.height + 4
    return whole


# --------------------------------------------------------------------------------------------------- the kinds of slots


def _plain(x: Tensor) -> Any:
    return x.detach().double().cpu().numpy()


def _strongest(maps: Tensor) -> Tensor:
    """(C, H, W) -> the few channels that vary most."""
    centred = maps - maps.mean((1, 2), keepdim=True)
    return maps[centred.square().sum((1, 2)).topk(min(CHANNELS, len(maps))).indices]


def _map(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """The root mean square over the channels, and the channels that vary most."""
    maps = value[0]
    if len(maps) == 1:
        return strip([spread(_plain(maps[0]))])
    return strip([spread(_plain(maps.square().mean(0).sqrt())), *(signed(_plain(one)) for one in _strongest(maps))])


def _fourier(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """The logarithm of the mean amplitude, then amplitude and phase of the strongest channel; zero in the middle."""
    whole = whole_spectrum(value, size[1])[0]
    strongest = whole[whole.abs().square().sum((1, 2)).argmax()]
    logs = [part.clamp(min=1e-8).log() for part in (whole.abs().mean(0), strongest.abs())]
    return strip([*(spread(_plain(part)) for part in logs), angles(_plain(strongest.angle()))])


def _filter(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """The mean amplitude, which is zero where all is shrunk away, then amplitude and phase of the strongest channel."""
    whole = whole_spectrum(value, size[1])[0]
    strongest = whole[whole.abs().square().sum((1, 2)).argmax()]
    amplitudes = [amounts(_plain(part)) for part in (whole.abs().mean(0), strongest.abs())]
    return strip([*amplitudes, angles(_plain(strongest.angle()))])


def _cosine(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """The logarithm of the mean amplitude, and that of the strongest channels; the lowest frequency on top left."""
    maps = value[0].abs().clamp(min=1e-8)
    return strip([spread(_plain(maps.mean(0).log())), *(spread(_plain(one.log())) for one in _strongest(maps))])


def _attention(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """What the pixel in the middle takes from each, by head, and what each is taken from by all, as the mean."""
    heads = value[0]
    middle = (size[0] // 2) * size[1] + size[1] // 2
    asked = [heads[number, middle].view(size) for number in range(min(HEADS, len(heads)))]
    given = heads.mean((0, 1)).view(size)
    return strip([weights(_plain(one)) for one in (*asked, given)])


def _kernel(value: Tensor, size: tuple[int, int]) -> Image.Image:
    """The root mean square over the channels, then those that vary most; the pixel itself in the middle."""
    rms = amounts(_plain(value[0].square().mean(0).sqrt()))
    return strip([rms, *(signed(_plain(one)) for one in _strongest(value[0]))])


def _gates(value: Tensor, size: tuple[int, int]) -> Image.Image:
    return gates(_plain(value[0]))


_DRAWN: dict[str, Callable[[Tensor, tuple[int, int]], Image.Image]] = {
    "map": _map,
    "fourier": _fourier,
    "filter": _filter,
    "cosine": _cosine,
    "attention": _attention,
    "kernel": _kernel,
    "gates": _gates,
}


def _drawn(slot: Slot, given: Sequence[Any]) -> Image.Image:
    return _DRAWN[slot.kind](slot.value, (given[0].shape[-2], given[0].shape[-1]))


_TEXT = (
    "Of a map the root mean square over the channels, then the channels that vary most: blue below zero, orange above."
)
MAPS = MixerDrawing(MIXERS, _drawn, kernel_figures, _TEXT)
"""Of mixers of maps (B, C, H, W)."""
