"""FFNet-SR: a trunk at the small picture's size, and one convolution that makes all the pixels of the large one.

Source: arXiv:2406.02021 (MetaMixer) and the official super-resolution code, which the keys, shapes and numbers here
agree with. The trunk takes any token mixer of the house, one for all blocks or one for each.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.backbones.keymap import KeyMap, Official, Rule
from tokenmix.backbones.official import unwrap
from tokenmix.blocks import Mlp, Residual
from tokenmix.layers import ConvNorm, LayerNorm2d
from tokenmix.mixers import MixerSpec, make_mixer, split_specs
from tokenmix_runtime.names import unknown

NORMS = ("none", "layer", "batch")
PLAIN = "ffnified(key_size=3, value_size=3, query='bias')"
"""FFNet-SR's own mixer."""
NORMED = "ffnified(key_size=3, value_size=3, query='bias_norm')"
"""The same with a batch norm after its first convolution, for ``norm="batch"``."""

VARIANTS: dict[str, dict[str, Any]] = {
    "ffnet_sr": {"dim": 96, "depth": 48},
    "ffnet_sr_light": {"dim": 96, "depth": 36},
    "ffnet_sr_tiny": {"dim": 32, "depth": 8},
}
"""The arguments of each model by name. ``ffnet_sr_tiny`` is ours, for quick trainings; nobody has published it."""


class Upscaler(nn.Module):
    """``(B, C, H, W) -> (B, C, s H, s W)``: a picture in 0..1, s times as large; nothing is clamped.

    Every pixel of the input is repeated s x s times, and what the trunk makes of the picture is added. No layer of the
    frame has a norm, and the trunk has no skip around it.

    Args:
        stem: ``(B, C, H, W) -> (B, dim, H, W)``.
        blocks: ``(B, dim, H, W) -> (B, dim, H, W)`` each.
        head: ``(B, dim, H, W) -> (B, C s^2, H, W)``.
        dim: Channels of the trunk.
        scale: s.
        in_chans: C.
    """

    def __init__(
        self, stem: nn.Module, blocks: Sequence[nn.Module], head: nn.Module, *, dim: int, scale: int, in_chans: int
    ) -> None:
        super().__init__()
        self.dim = dim
        self.scale = scale
        self.in_chans = in_chans
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.head(self.blocks(self.stem(x))), x)

    def finish(self, y: Tensor, x: Tensor) -> Tensor:
        """The head's output ``(B, C s^2, H, W)`` and the picture ``(B, C, H, W)`` -> ``(B, C, s H, s W)``."""
        return torch.pixel_shuffle(y + x.repeat_interleave(self.scale**2, 1), self.scale)

    def parts(self) -> list[tuple[nn.Module, int]]:
        """What runs one after the other before `finish`, and how many channels each takes."""
        inner = [part for block in self.blocks for part in (block if isinstance(block, nn.Sequential) else [block])]
        return [(self.stem, self.in_chans), *((part, self.dim) for part in [*inner, self.head])]

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


def upscaler(
    dim: int = 96,
    depth: int = 48,
    *,
    scale: int = 2,
    mixers: MixerSpec | Sequence[MixerSpec] | None = None,
    mlp_ratio: float = 2.0,
    norm: str = "none",
    in_chans: int = 3,
    device=None,
    dtype=None,
) -> Upscaler:
    """FFNet-SR, or its trunk with other mixers, for pictures of any size.

    Args:
        dim: Channels of the trunk.
        depth: Blocks.
        scale: How many times larger each side becomes.
        mixers: One spec for all blocks, or one for each (a list, or names with commas between); a list whose length
            divides the depth is repeated. None: FFNet-SR's own.
        mlp_ratio: Hidden channels of a channel mixer over its channels.
        norm: ``"none"``, which the published models have; ``"layer"``: over the channels of each pixel, in front of
            both mixers; ``"batch"``: after the first convolution of both, which folds away for inference (a mixer that
            was chosen by ``mixers`` has it in front).
        in_chans: Channels of the picture.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: A number below 1, an unknown norm or mixer, or a number of mixers that does not divide the depth.

    Examples:
        >>> model = upscaler(16, 2, scale=3, mixers="aff")
        >>> model(torch.rand(1, 3, 20, 30)).shape
        torch.Size([1, 3, 60, 90])
    """
    for name, value in {"dim": dim, "depth": depth, "scale": scale, "in_chans": in_chans}.items():
        if value < 1:
            raise ValueError(f"{name} of an upscaler must be at least 1, not {value!r}")
    if norm not in NORMS:
        raise ValueError(unknown("norm", norm, NORMS))
    dd = {"device": device, "dtype": dtype}
    hidden = max(1, int(dim * mlp_ratio))
    own = mixers is None
    blocks = []
    for spec in per_block((NORMED if norm == "batch" else PLAIN) if mixers is None else mixers, depth):
        mixer = Residual(dim, make_mixer(spec, dim, **dd), norm=_front(norm, dim, own, dd), **dd)
        depthwise: nn.Module = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd)
        if norm == "batch":
            depthwise = ConvNorm(dim, dim, 3, groups=dim, bias=True, **dd)
        mlp = Residual(dim, Mlp(dim, hidden, conv=depthwise, **dd), norm=_front(norm, dim, True, dd), **dd)
        blocks.append(nn.Sequential(OrderedDict(mixer=mixer, mlp=mlp)))
    stem = nn.Conv2d(in_chans, dim, 3, padding=1, **dd)
    head = nn.Conv2d(dim, in_chans * scale**2, 3, padding=1, **dd)
    return Upscaler(stem, blocks, head, dim=dim, scale=scale, in_chans=in_chans)


def _front(norm: str, dim: int, inside: bool, dd: dict[str, Any]) -> nn.Module | None:
    """What stands in front of a branch; a batch norm only where the branch has none ``inside``."""
    if norm == "layer":
        return LayerNorm2d(dim, **dd)
    return nn.BatchNorm2d(dim, **dd) if norm == "batch" and not inside else None


def per_block(mixers: MixerSpec | Sequence[MixerSpec], depth: int) -> list[MixerSpec]:
    """One specification for each block: those given, as often in turn as the depth asks for.

    Raises:
        ValueError: Their number does not divide the depth.
    """
    given: list[MixerSpec]
    if isinstance(mixers, str):
        given = list(split_specs(mixers))
    else:
        given = list(mixers) if isinstance(mixers, Sequence) else [mixers]
    if not given or depth % len(given):
        raise ValueError(f"{len(given)} mixers given for {depth} blocks; give one, or a number that divides {depth}")
    return given * (depth // len(given))


def create_upscaler(variant: str, **kwargs: Any) -> Upscaler:
    """A model of `VARIANTS` by its name.

    Args:
        variant: Such as ``"ffnet_sr_light"``.
        **kwargs: For `upscaler`, such as ``scale=4`` or ``mixers="additive"``.

    Raises:
        ValueError: The name is unknown, or see `upscaler`.
    """
    if variant not in VARIANTS:
        raise ValueError(unknown("super-resolution model", variant, VARIANTS))
    return upscaler(**{**VARIANTS[variant], **kwargs})


# Which norm a model has: only with that one is there such a key.
_LAYER, _BATCH = "blocks.0.mlp.norm.weight", "blocks.0.mlp.op.conv.norm.weight"


def _rules() -> list[Rule]:
    block, leaf = r"blocks\.(?P<block>\d+)\.", r"\.(?P<leaf>\w+)"
    rules = [Rule("stem" + leaf, (r"proj.\g<leaf>",)), Rule("head" + leaf, (r"conv_bef_up.\g<leaf>",))]
    branches = {
        ("mixer", "token_mixer"): (r"op\.query", r"op\.key\.op", r"op\.value\.op"),
        ("mlp", "channel_mixer"): (r"op\.conv", r"op\.fc1", r"op\.fc2"),
    }
    for (name, official), (first, middle, last) in branches.items():
        # The layers in the official order; the activation before the last one has a number too.
        orders: list[tuple[str | None, list[str]]] = [
            (_LAYER, ["norm", first, middle, "", last]),
            (_BATCH, [rf"{first}\.conv", rf"{first}\.norm", middle, "", last]),
            (None, [first, middle, "", last]),
        ]
        for when, layers in orders:
            for number, layer in enumerate(layers):
                if layer:
                    theirs = rf"body.\g<block>.{official}.{number}.\g<leaf>"
                    rules.append(Rule(block + rf"{name}\.{layer}" + leaf, (theirs,), when=when))
    return rules


KEYS = KeyMap(_rules())


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
    """Which FFNet-SR an official state dict with these keys and shapes is, or None."""
    if not {"proj.weight", "conv_bef_up.weight", "body.0.channel_mixer.0.weight"} <= shapes.keys():
        return None
    dim, in_chans = shapes["proj.weight"][:2]
    blocks = {int(match[1]) for key in shapes if (match := re.match(r"body\.(\d+)\.", key))}
    scale = math.isqrt(shapes["conv_bef_up.weight"][0] // in_chans)
    norm = "none"
    if len(shapes["body.0.channel_mixer.0.weight"]) == 1:
        norm = "layer"
    elif "body.0.channel_mixer.1.running_mean" in shapes:
        norm = "batch"
    expand = shapes.get(f"body.0.channel_mixer.{1 if norm == 'none' else 2}.weight")
    if expand is None:
        return None
    args: dict[str, Any] = {"dim": dim, "depth": max(blocks) + 1, "scale": scale, "in_chans": in_chans}
    args |= {"norm": norm, "mlp_ratio": _ratio(expand[0], dim)}
    named = {"ffnet_sr": 48, "ffnet_sr_light": 36}
    variant = next((name for name, depth in named.items() if (dim, args["depth"]) == (96, depth)), "ffnet_sr")
    own = {"mlp_ratio": 2.0, "norm": "none", **VARIANTS[variant]}
    return Official(variant, {key: value for key, value in args.items() if own.get(key) != value})


def _ratio(hidden: int, dim: int) -> float:
    """The ratio of which ``dim`` times, rounded down, is ``hidden``."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """An official checkpoint, as it was published, under our keys (EMA weights if it has them); others unchanged."""
    plain = unwrap(state_dict)
    return KEYS.from_official(plain, list(model.state_dict())) if "conv_bef_up.weight" in plain else plain


def official_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the official project's names.

    Raises:
        ValueError: It has no such network: the mixers are others.
    """
    problem = "this network is not the official architecture and has no official names"
    try:
        state_dict = KEYS.to_official(model.state_dict())
    except KeyError as error:
        raise ValueError(problem) from error
    # Other mixers may have keys that look like the official ones: compare with the network that would be read back.
    shapes = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    found = recognise(shapes)
    again = create_upscaler(found.variant, **found.model_args, device="meta") if found else None
    if again is None or list(again.state_dict()) != list(model.state_dict()):
        raise ValueError(problem)
    return state_dict
