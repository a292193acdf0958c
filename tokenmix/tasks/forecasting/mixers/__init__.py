"""The mixers of `tokenmix.mixers` in one dimension: ``(B, C, N) -> (B, C, N)``, N tokens of one variable.

Each is a sibling of the mixer with the same name: the same formula, options and names of parameters, and the same
string selects it (`make_series_mixer`).
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from tokenmix.mixers import MIXERS, MixerInfo, MixerSpec, make_mixer
from tokenmix.tasks.forecasting.mixers.attention import AdditiveAttention, SoftmaxAttention
from tokenmix.tasks.forecasting.mixers.convolutions import Depthwise, FFNifiedAttention, Identity, Pooling
from tokenmix.tasks.forecasting.mixers.spectral import FrequencyFilter, GlobalFilter, SpectrumMixer

__all__ = [
    "SERIES_MIXERS",
    "AdditiveAttention",
    "Depthwise",
    "FFNifiedAttention",
    "FrequencyFilter",
    "GlobalFilter",
    "Identity",
    "Pooling",
    "SoftmaxAttention",
    "SpectrumMixer",
    "make_series_mixer",
]

# What differs from the sibling: the class, and what the slots of the frame and the cost say.
SERIES_MIXERS: dict[str, MixerInfo] = {
    "aff": replace(MIXERS["aff"], build=FrequencyFilter, query="rfft", value="times spectrum, irfft"),
    "ffnified": replace(
        MIXERS["ffnified"], build=FFNifiedAttention, key="depthwise conv k", value="depthwise conv k",
        complexity="O(N C^2 + N C k)",
    ),
    "additive": replace(
        MIXERS["additive"], build=AdditiveAttention, key="gate(q) + gate(k), token and channel",
        act="depthwise conv 3", value="times v, depthwise conv 3",
    ),
    "dsm": replace(
        MIXERS["dsm"], build=SpectrumMixer, key="generated gates of 8 soft bands",
        value="times spectrum, IDCT, + depthwise 3, 1x1 conv",
    ),
    "attention": replace(MIXERS["attention"], build=SoftmaxAttention),
    "pool": replace(MIXERS["pool"], build=Pooling, key="average pool 3", complexity="O(N C k)"),
    "global_filter": replace(
        MIXERS["global_filter"], build=GlobalFilter, query="rfft", key="learnt complex values, resized to the tokens",
        value="times spectrum, irfft",
    ),
    "depthwise": replace(MIXERS["depthwise"], build=Depthwise, key="depthwise conv 51", complexity="O(N C k)"),
    "identity": replace(MIXERS["identity"], build=Identity),
}  # fmt: skip


def make_series_mixer(spec: MixerSpec, dim: int, *, device=None, dtype=None) -> nn.Module:
    """A mixer ``(B, dim, N) -> (B, dim, N)`` from its specification, as `tokenmix.mixers.make_mixer`.

    Raises:
        ValueError: If the specification cannot be read or names no mixer.
        TypeError: If the mixer has no such option, or what was built is no ``nn.Module``.

    Examples:
        >>> make_series_mixer("ffnified(key_size=25)", 64)(torch.zeros(2, 64, 48)).shape
        torch.Size([2, 64, 48])
    """
    return make_mixer(spec, dim, known=SERIES_MIXERS, device=device, dtype=dtype)
