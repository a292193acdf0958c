"""What the mixers' tests share: the cases, scrambled mixers, images, and a distance."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.scramble import scramble
from tokenmix.mixers import MIXERS, make_mixer

DIM = 12
VARIANTS = (
    "aff(groups=3,act='prelu')",
    "ffnified(key_size=3,value_size=3)",
    "ffnified(conv='strip',key_size=9,value_size=7)",
    "dsm(gate='sigmoid',nodes=3)",
    "dsm(dynamic=False)",
    "dsm(local=False,reduction=2)",
    "attention(head_dim=4,qkv_bias=True)",
    "window(window=3,shift=1,head_dim=4)",
    "relu_linear(head_dim=4,size=3)",
    "selective_scan(state=3,head_dim=4)",
    "focal(levels=3,window=5)",
)
CASES = (*MIXERS, *VARIANTS)
# The others came later: the quick suite does for them what finds most in little time, `make test-all` everything.
ALWAYS = (
    *("aff", "ffnified", "additive", "dsm", "attention", "separable", "swift", "pool"),
    *("global_filter", "depthwise", "identity"),
)
SPECTRAL = tuple(spec for spec in CASES if hasattr(make_mixer(spec, DIM), "form"))


def thorough(spec: str, *rest: Any, quick: bool = False) -> Any:
    """A test's parameters, left to `make test-all` where the mixer came later and the test is not called quick."""
    always = quick or spec.split("(")[0] in ALWAYS
    return pytest.param(spec, *rest, marks=() if always else pytest.mark.slow)


def build(
    spec: str, dim: int = DIM, *, dtype: torch.dtype = torch.float64, training: bool = False, seed: int = 0
) -> nn.Module:
    """A mixer with weights that matter, in evaluation mode unless told otherwise."""
    return scramble(make_mixer(spec, dim, dtype=dtype), seed).train(training)


def image(
    height: int, width: int, *, batch: int = 2, dim: int = DIM, dtype: torch.dtype = torch.float64, seed: int = 0
) -> torch.Tensor:
    """(batch, dim, height, width) normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, height, width, generator=generator, dtype=torch.float64).to(dtype)


def closeness(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference over the largest expected size; shapes must agree."""
    assert actual.shape == expected.shape
    difference = (actual.detach() - expected.detach()).abs().max()
    scale = expected.detach().abs().max()
    return float(difference / scale) if scale > 0 else float(difference)


def state_shapes(mixer: nn.Module) -> dict[str, tuple[int, ...]]:
    """The state dict's keys and shapes."""
    return {key: tuple(value.shape) for key, value in mixer.state_dict().items()}
