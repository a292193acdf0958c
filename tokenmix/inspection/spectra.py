"""Frequencies: the kernel that a filter of the spectrum equals, and which frequencies each block's features have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

POINTS = 17  # frequencies of a radial spectrum, from 0 to Nyquist's


def dynamic_kernel(mixer: nn.Module, x: Tensor) -> Tensor:
    """``(B, C, H, W) -> (B, C', H, W)``: what a filter of the spectrum convolves with, circularly, for this very input.

    A filter of a series, ``(B, C, N)``, has one of that shape.

    By the convolution theorem ``irfft2(M * rfft2(x))`` is ``x`` convolved with ``irfft2(M)``, whatever M was made from:
    AFFNet makes it from ``x`` (arXiv:2307.14008, section 3.2), which makes it a convolution as large as the map with
    kernels of its own for each picture. Entry (0, 0) is the pixel itself.

    Args:
        mixer: One of which a slot is of the kind ``"filter"``: ``aff``, ``global_filter``, ``dynamic_filter``.
        x: What it is given.

    Raises:
        ValueError: The mixer filters no spectrum.

    Examples:
        >>> from tokenmix import make_mixer
        >>> dynamic_kernel(make_mixer("aff", 8), torch.randn(1, 8, 14, 14)).shape
        torch.Size([1, 8, 14, 14])
    """
    slots = mixer.slots(x) if hasattr(mixer, "slots") else {}  # type: ignore[operator]
    masks = [slot.value for slot in slots.values() if slot.kind == "filter"]
    if not masks:
        raise ValueError(
            f"{type(mixer).__name__} multiplies no Fourier spectrum: it equals no kernel as large as the map"
        )
    return kernel_of(masks[0], x.shape[2:])


def kernel_of(mask: Tensor, size: Sequence[int]) -> Tensor:
    """``(B, C, H, W//2+1)`` complex -> ``(B, C, H, W)``: the kernel that a mask of the half spectrum stands for.

    ``size`` are H and W, or the one length of a series.
    """
    return torch.fft.irfftn(mask, s=tuple(size), dim=tuple(range(-len(size), 0)), norm="backward")


def whole_spectrum(half: Tensor, width: int) -> Tensor:
    """``(..., H, W//2+1)`` complex -> ``(..., H, W)``: with the mirrored half, the zero frequency in the middle."""
    height = half.shape[-2]
    column = torch.arange(width // 2 + 1, width, device=half.device)
    row = -torch.arange(height, device=half.device) % height
    mirrored = half[..., row, :][..., width - column].conj()
    return torch.fft.fftshift(torch.cat([half, mirrored], -1), dim=(-2, -1))


def radial_spectrum(maps: Sequence[Tensor], points: int = POINTS) -> list[float]:
    """Maps (B, C, H, W) -> the mean log amplitude at radial frequencies from 0 to Nyquist's, less that at 0.

    The amplitude is averaged over pictures and channels before the logarithm (arXiv:2202.06709, section 2.3, averages
    logarithms along the diagonal; rings use all directions). Between a small map's few frequencies it is interpolated.

    Args:
        maps: Of one size or several.
        points: How many frequencies.
    """
    total = torch.zeros(points, dtype=torch.float64)
    for x in maps:
        amplitude = torch.fft.fft2(x.detach().double(), norm="ortho").abs().mean((0, 1)).cpu()
        least = max(float(amplitude.max()) * torch.finfo(torch.float64).eps, 1e-300)  # what rounding leaves of nothing
        rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64).abs() * 2 for side in amplitude.shape)
        radius = (rows[:, None].square() + columns.square()).sqrt()
        steps = min(points, min(amplitude.shape) // 2 + 1)
        wanted = torch.linspace(0, 1, points, dtype=torch.float64)
        if steps < 2:
            total += amplitude[0, 0].clamp(min=least).log()
            continue
        ring = (radius * (steps - 1)).round().long()
        inside = ring < steps
        sums = torch.zeros(steps, dtype=torch.float64).index_add_(0, ring[inside], amplitude[inside])
        counts = torch.zeros(steps, dtype=torch.float64).index_add_(
            0, ring[inside], torch.ones(int(inside.sum())).double()
        )
        logs = (sums / counts.clamp(min=1)).clamp(min=least).log()
        place = wanted * (steps - 1)
        low = place.floor().long().clamp(max=steps - 2)
        total += torch.lerp(logs[low], logs[low + 1], place - low)
    mean = total / max(len(maps), 1)
    return [float(value) for value in mean - mean[0]]


def kept_high(spectrum: Sequence[float]) -> float:
    """The relative log amplitude of the upper third of the frequencies, as one number."""
    upper = spectrum[2 * len(spectrum) // 3 :]
    return math.fsum(upper) / len(upper)


def spectra(passed: Sequence[Mapping[str, Tensor]]) -> dict[str, list[float]]:
    """Of each layer the radial spectrum over all pictures, of each of which ``passed`` has the maps by layer."""
    names = list(passed[0]) if passed else []
    return {name: radial_spectrum([maps[name] for maps in passed if name in maps]) for name in names}
