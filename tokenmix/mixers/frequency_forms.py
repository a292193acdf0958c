"""The forms of AFF's filter that are faster, or keep less in training: `tokenmix.mixers.frequency` has its definition.

All of them are for the activation of the released networks, SiLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tokenmix.mixers.complex_maps import by_parts
from tokenmix.ops.convolution import fits_onednn
from tokenmix.ops.dispatch import Form, Situation, is_channels_last, keeps_less
from tokenmix.ops.fourier import irfft2, irfft2_planes, rfft2, rfft2_planes
from tokenmix.ops.kernels.frequency import MOST_CHANNELS, filter_spectrum
from tokenmix.ops.kernels.rule import can_run
from tokenmix.ops.masks import mask_product
from tokenmix.ops.rows import MOST_ROWS, filter_rows

if TYPE_CHECKING:
    from tokenmix.mixers.frequency import FrequencyFilter


def _has_silu(mixer: FrequencyFilter) -> bool:
    return type(mixer.act) is type(mixer.act2) is nn.SiLU


def _is_usual(mixer: FrequencyFilter) -> bool:
    """Nobody asked for a form of the transforms either."""
    return _has_silu(mixer) and mixer.form == "auto"


def _fits_kernel(now: Situation, mixer: FrequencyFilter, x: Tensor) -> bool:
    return can_run(now, x) and _is_usual(mixer) and mixer.dim // mixer.groups <= MOST_CHANNELS


def _by_kernel(mixer: FrequencyFilter, x: Tensor) -> Tensor:
    maps: tuple[Tensor, Tensor, Tensor, Tensor]
    if mixer.conv1 is None:
        maps = mixer.w1, mixer.b1, mixer.w2, mixer.b2
    else:
        maps = *by_parts(*mixer.real_map1(), mixer.groups), *by_parts(*mixer.real_map2(), mixer.groups)
    return irfft2(filter_spectrum(rfft2(x), *maps, mixer.threshold), (x.size(-2), x.size(-1))).to(x.dtype)


def _fits_rows(now: Situation, mixer: FrequencyFilter, x: Tensor) -> bool:
    return fits_onednn(now) and max(x.size(2), x.size(3)) <= MOST_ROWS and _is_usual(mixer) and now.channels_last


def _on_rows(mixer: FrequencyFilter, x: Tensor) -> Tensor:
    return filter_rows(x, *mixer.real_map1(), *mixer.real_map2(), mixer.groups, mixer.threshold)


def _fits_less(now: Situation, mixer: FrequencyFilter, x: Tensor) -> bool:
    return keeps_less(now) and _has_silu(mixer)


def _kept_less(mixer: FrequencyFilter, x: Tensor) -> Tensor:
    """Keeps the spectrum alone."""
    planes = rfft2_planes(x, mixer.form)
    (kernel1, shift1), (kernel2, shift2) = mixer.real_map1(), mixer.real_map2()
    dtype = planes.dtype
    maps = kernel1.to(dtype), shift1.to(dtype), kernel2.to(dtype), shift2.to(dtype)
    filtered = mask_product(planes, *maps, mixer.threshold)
    out = irfft2_planes(filtered, x.size(-2), x.size(-1), mixer.form).to(x.dtype)
    return out.contiguous(memory_format=torch.channels_last) if is_channels_last(x) else out  # sums of two are slow


FORMS = (
    Form("kernel", _by_kernel, _fits_kernel),
    Form("rows", _on_rows, _fits_rows),
    Form("keeps less", _kept_less, _fits_less),
)
