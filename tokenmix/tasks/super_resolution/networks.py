"""The networks of super-resolution by name, bicubic interpolation among them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from tokenmix.backbones.arguments import check_parameters
from tokenmix.tasks.super_resolution.model import VARIANTS, create_upscaler, upscaler
from tokenmix.tasks.super_resolution.resize import Bicubic
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import LIMITS

NETWORKS = {
    "ffnet_sr": "FFNet-SR, 2.38 M parameters at x2 (arXiv:2406.02021)",
    "ffnet_sr_light": "FFNet-SR light, 1.79 M parameters at x2 (arXiv:2406.02021)",
    "ffnet_sr_tiny": "the same trunk, small enough to train in minutes: 0.05 M parameters at x2; ours",
    **{f"bicubic_x{scale}": f"bicubic interpolation, {scale} times; nothing to learn" for scale in (2, 3, 4)},
}


def make_network(name: str, **arguments: Any) -> nn.Module:
    """A network of `NETWORKS` with fresh weights.

    Args:
        name: Which.
        **arguments: For `upscaler`, such as ``scale=3`` or ``mixers="aff"``.

    Raises:
        ValueError: There is no such network or argument, or a value is out of range.
    """
    if name not in NETWORKS:
        raise ValueError(unknown("super-resolution network", name, NETWORKS))
    known = inspect.signature(upscaler).parameters if name in VARIANTS else ()
    for argument in arguments:
        if argument not in known:
            raise ValueError(unknown(f"argument of {name}", argument, known))
    if name not in VARIANTS:
        return Bicubic(int(name.removeprefix("bicubic_x")))
    for argument, limit in {"dim": "width", "depth": "depth", "scale": "width", "in_chans": "width"}.items():
        if (value := arguments.get(argument, 1)) > LIMITS[limit]:
            raise ValueError(f"{argument} of {name} is {value}, and {LIMITS[limit]:,} is the most that it may be")
    check_parameters(name, lambda: create_upscaler(name, **{**arguments, "device": "meta"}))
    return create_upscaler(name, **arguments)
