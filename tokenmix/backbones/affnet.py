"""AFFNet: a MobileNet-like network whose deeper stages mix tokens with adaptive frequency filters.

Source: arXiv:2307.14008 and its official code (microsoft/TokenMixers, built on CVNets). Where both differ the code is
followed: its blocks mix channels first, and there is no local convolution in front of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from tokenmix.backbones.base import Backbone, Head, Stage, drop_path_rates
from tokenmix.backbones.keymap import KeyMap, Official, Rule
from tokenmix.backbones.official import build, unwrap
from tokenmix.blocks import InvertedResidual
from tokenmix.layers import ACTIVATIONS, ConvNorm, DropPath, fold_norm_before, fused
from tokenmix.mixers import MixerSpec, make_mixer, per_stage
from tokenmix.mixers.frequency import FrequencyFilter
from tokenmix_runtime.names import unknown

STEM_DIM = 16
MAX_FEATURES = 960
NORMS = ("group", "layer", "batch")
# What the configurations of the official code call them.
OFFICIAL_NORMS = {"layer_norm_2d": "group", "layer_norm": "layer", "batch_norm": "batch", "sync_batch_norm": "batch"}
OFFICIAL_ACTS = {"swish": "silu", "hard_swish": "hardswish"}


class PixelNorm(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: CVNets' layer norm of a map, over the channels of each pixel.

    Unlike `torch.nn.LayerNorm` it adds eps to the standard deviation, not to the variance.
    """

    def __init__(self, dim: int, eps: float = 1e-5, *, device=None, dtype=None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        centred = centred / (x.std(1, correction=0, keepdim=True) + self.eps)
        return centred * self.weight[:, None, None] + self.bias[:, None, None]


class AFFLayer(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: ``x + y + mixer(y)`` with ``y = norm2(mlp(norm1(x)))``.

    The ``mlp`` has a skip of its own, so a batch norm in front of it has two readers and cannot be folded into it.
    """

    def __init__(
        self, norm1: nn.Module, mlp: nn.Module, norm2: nn.Module, mixer: nn.Module, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1, self.mlp, self.norm2, self.mixer = norm1, mlp, norm2, mixer
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.mlp(self.norm1(x)))
        return x + self.drop_path(y + self.mixer(y))


class AFFBlock(nn.Module):
    """``(B, C, H, W) -> (B, C, H, W)``: a chain of layers and a projection, fused with the input by a 1x1 convolution.

    Args:
        chain: `AFFLayer` modules and at the end a norm.
        proj: ``(B, C, H, W) -> (B, C, H, W)``.
        fusion: ``(B, 2C, H, W) -> (B, C, H, W)`` of the input and the projection, or None to return the projection.
    """

    def __init__(self, chain: nn.Sequential, proj: nn.Module, fusion: nn.Module | None) -> None:
        super().__init__()
        self.chain, self.proj, self.fusion = chain, proj, fusion

    def forward(self, x: Tensor) -> Tensor:
        y = self.proj(self.chain(x))
        if self.fusion is not None:
            y = self.fusion(torch.cat([x, y], 1))
        return y

    def fuse(self) -> AFFBlock:
        """Every part fused, and the norm that ends the chain folded into the projection if it is a batch norm."""
        new = copy.deepcopy(self)
        for name, child in new.named_children():
            setattr(new, name, fused(child))
        if isinstance(new.chain[-1], nn.BatchNorm2d) and isinstance(new.proj, nn.Conv2d):
            new.proj = fold_norm_before(new.proj, new.chain[-1])
            new.chain[-1] = nn.Identity()
        return new


def affnet(
    depths: Sequence[int] = (1, 3, 2, 4, 3),
    dims: Sequence[int] = (32, 48, 64, 104, 144),
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = "aff",
    expand_ratio: float = 2.0,
    mlp_ratio: float = 2.0,
    fusion: Sequence[bool] = (True, True, True),
    norm: str = "group",
    act: str = "silu",
    threshold: float = 0.01,
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    output_stride: int = 32,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> Backbone:
    """AFFNet (arXiv:2307.14008) with feature levels at strides 2, 4, 8, 16 and 32, for any image size.

    Args:
        depths: Inverted residuals in the first two levels, mixing layers in the other three.
        dims: Channels per level.
        mixers: One spec for the three mixing levels, or one each. ``"aff"`` without options gets the network's ``act``
            and ``threshold``; any other spec brings its own.
        expand_ratio: Of the inverted residuals outside of the mixing layers.
        mlp_ratio: Of the inverted residuals inside.
        fusion: For each mixing level, whether its input is concatenated to its output and both reduced by a 1x1
            convolution.
        norm: Norm of the mixing layers: ``"group"`` (one group, the released networks'), ``"layer"`` (per pixel) or
            ``"batch"``. The official names work too (``"layer_norm_2d"``, ``"layer_norm"``, ``"batch_norm"``).
        act: Activation of the whole network, a name among `tokenmix.layers.ACTIVATIONS` or ``"prelu"``; or the official
            name (``"swish"``, ``"hard_swish"``).
        threshold: Of the frequency filter's soft-shrink.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        output_stride: 32, or 16 or 8 to keep the last levels at that stride (dilated as CVNets does it).
        drop_rate: Dropout probability in front of the classifier.
        drop_path_rate: Drop-path probability of the last mixing layer; linear from 0. The official networks have none.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If there are not five positive depths, five dims and three fusions, or a name or the stride is
            unknown.
    """
    if len(depths) != 5 or len(dims) != 5:
        raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} must each have five entries")
    if min(depths) < 1:
        raise ValueError(f"depths {tuple(depths)} must be at least 1 each")
    if len(fusion) != 3:
        raise ValueError(f"fusion {tuple(fusion)} must have three entries, one for each of the last levels")
    norm, act = OFFICIAL_NORMS.get(norm, norm), OFFICIAL_ACTS.get(act, act)
    if norm not in NORMS:
        raise ValueError(unknown("norm", norm, NORMS))
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    dd = {"device": device, "dtype": dtype}
    activation = partial(_activation, act, **dd)

    def inverted(width: int, dim: int, ratio: float, stride: int = 1, dilation: int = 1) -> InvertedResidual:
        return InvertedResidual(width, dim, stride=stride, expand_ratio=ratio, dilation=dilation, act=activation, **dd)

    rates = drop_path_rates(drop_path_rate, depths[2:])

    stages, width = [], STEM_DIM
    for i in range(2):  # strides 2 and 4
        blocks = []
        for j in range(depths[i]):
            stride = 2 if i == 1 and j == 0 else 1
            blocks.append(inverted(width, dims[i], expand_ratio, stride))
            width = dims[i]
        stages.append(Stage(None, blocks, width, i + 1))

    dilation = 1
    for i, (spec, joined) in enumerate(zip(per_stage(mixers, 3), fusion, strict=True)):
        dim, stride = dims[i + 2], 2 if 8 << i <= output_stride else 1
        # The convolution that lost its stride keeps the dilation in force before it.
        down = inverted(width, dim, expand_ratio, stride, dilation)
        dilation *= 2 // stride
        width = dim
        layers = [
            AFFLayer(
                _norm(norm, dim, **dd),
                inverted(dim, dim, mlp_ratio),
                _norm(norm, dim, **dd),
                FrequencyFilter(dim, threshold=threshold, act=act, **dd)
                if spec == "aff"
                else make_mixer(spec, dim, **dd),
                rate,
            )
            for rate in rates[i]
        ]
        block = AFFBlock(
            nn.Sequential(*layers, _norm(norm, dim, **dd)),
            ConvNorm(dim, dim, **dd),
            ConvNorm(2 * dim, dim, act=partial(activation, dim), **dd) if joined else None,
        )
        stages.append(Stage(down, [block], dim, stride))

    num_features = min(4 * width, MAX_FEATURES)
    return Backbone(
        ConvNorm(in_chans, STEM_DIM, 3, 2, act=partial(activation, STEM_DIM), **dd),
        stages,
        ConvNorm(width, num_features, act=partial(activation, num_features), **dd),
        Head(num_features, num_classes, global_pool, drop_rate=drop_rate, **dd),
        num_features=num_features,
        stem_stride=2,
        in_chans=in_chans,
        init=_init,
    )


def _activation(name: str, dim: int, *, device=None, dtype=None) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(dim, device=device, dtype=dtype)
    if name not in ACTIVATIONS:
        raise ValueError(unknown("activation", name, [*ACTIVATIONS, "prelu"]))
    return ACTIVATIONS[name]()


def _norm(kind: str, dim: int, *, device=None, dtype=None) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(1, dim, device=device, dtype=dtype)
    if kind == "layer":
        return PixelNorm(dim, device=device, dtype=dtype)
    return nn.BatchNorm2d(dim, device=device, dtype=dtype)


def _init(module: nn.Module) -> None:
    """Xavier-uniform classifier; torch's and the mixers' own for the rest, which is what the official code comes to."""
    if isinstance(module, Head) and isinstance(module.fc, nn.Linear):
        nn.init.xavier_uniform_(module.fc.weight)
        nn.init.zeros_(module.fc.bias)


def unit_rule(ours: str, official: str) -> Rule:
    """CVNets' name of a `ConvNorm`."""
    return Rule(rf"{ours}\.(?P<part>conv|norm|act)\.(?P<leaf>\w+)", (rf"{official}.block.\g<part>.\g<leaf>",))


def _inverted(ours: str, official: str) -> list[Rule]:
    parts = {"expand": "exp_1x1", "depthwise": "conv_3x3", "reduce": "red_1x1"}
    return [unit_rule(rf"{ours}\.{part}", f"{official}.block.{name}") for part, name in parts.items()]


def _mixing(stage: int) -> list[Rule]:
    block, official = rf"stages\.{stage}\.blocks\.0", f"layer_{stage + 1}.1"
    layer, official_layer = rf"{block}\.chain\.(?P<i>\d+)", rf"{official}.global_rep.\g<i>"
    return [
        *_inverted(rf"stages\.{stage}\.downsample", f"layer_{stage + 1}.0"),
        *_inverted(rf"{layer}\.mlp", rf"{official_layer}.mlp"),
        Rule(rf"{layer}\.(?P<norm>norm[12])\.(?P<leaf>\w+)", (rf"{official_layer}.\g<norm>.\g<leaf>",)),
        Rule(
            rf"{layer}\.mixer\.(?P<leaf>[wb][12]|act2?\.weight)",
            (rf"{official_layer}.filter.\g<leaf>",),
        ),
        Rule(rf"{layer}\.(?P<leaf>\w+)", (rf"{official_layer}.\g<leaf>",)),
        unit_rule(rf"{block}\.proj", f"{official}.conv_proj"),
        unit_rule(rf"{block}\.fusion", f"{official}.fusion"),
    ]


KEYS = KeyMap(
    [
        unit_rule("stem", "conv_1"),
        *_inverted(r"stages\.0\.blocks\.(?P<i>\d+)", r"layer_1.\g<i>"),
        *_inverted(r"stages\.1\.blocks\.(?P<i>\d+)", r"layer_2.\g<i>"),
        *_mixing(2),
        *_mixing(3),
        *_mixing(4),
        unit_rule("final", "conv_1x1_exp"),
        Rule(r"head\.fc\.(weight|bias)", (r"classifier.fc.\1",)),
    ]
)

VARIANTS: dict[str, dict[str, Any]] = {
    "affnet_et": {"depths": (1, 3, 2, 4, 3), "dims": (32, 48, 64, 104, 144), "expand_ratio": 2.0},
    "affnet_t": {"depths": (1, 3, 2, 4, 3), "dims": (32, 48, 96, 160, 192), "expand_ratio": 4.0},
    "affnet_s": {"depths": (1, 3, 2, 4, 3), "dims": (32, 64, 128, 256, 320), "expand_ratio": 4.0},
    "affnet_b": {
        "depths": (1, 3, 2, 4, 3),
        "dims": (64, 128, 256, 512, 640),
        "expand_ratio": 4.0,
        "fusion": (True, False, False),
    },
    "affnet_l": {
        "depths": (2, 6, 4, 18, 6),
        "dims": (64, 128, 256, 512, 768),
        "expand_ratio": 4.0,
        "fusion": (True, False, False),
    },
}


def _cfg(**kwargs) -> dict:
    # Shorter side 288, crop 256; pixels are only divided by 255.
    return {
        "num_classes": 1000,
        "input_size": (3, 256, 256),
        "pool_size": (8, 8),
        "crop_pct": 256 / 288,
        "interpolation": "bilinear",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "first_conv": "stem.conv",
        "classifier": "head.fc",
        "license": "mit",
        "paper_name": "Adaptive Frequency Filters As Efficient Global Token Mixers",
        "paper_ids": "arXiv:2307.14008",
        "origin_url": "https://github.com/microsoft/TokenMixers",
        **kwargs,
    }


# The released weights lie behind drive links, so no cfg has an address; `tokenmix.load_checkpoint` reads the files.
default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in VARIANTS})


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """An official checkpoint under our keys; a state dict of ours keeps its keys."""
    plain = unwrap(state_dict)
    return KEYS.from_official(plain, list(model.state_dict())) if "conv_1.block.conv.weight" in plain else plain


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
    """The variant that an official state dict belongs to, by its widths, or None if it is not one of AFFNet's.

    An encoder that was stored for a dense task has neither expansion nor classifier: its ``levels`` are all five.

    Args:
        shapes: Official keys without prefixes, and the shapes of their tensors.
    """

    def first(key: str) -> int:
        return next(iter(shapes.get(key, ())), 0)

    widths = [first(f"layer_{i}.0.block.red_1x1.block.conv.weight") for i in range(1, 6)]
    variant = next((name for name, args in VARIANTS.items() if list(args["dims"]) == widths), None)
    stem = shapes.get("conv_1.block.conv.weight", ())
    if variant is None or len(stem) != 4 or "layer_3.1.global_rep.0.filter.w1" not in shapes:
        return None
    model_args: dict[str, Any] = {"num_classes": first("classifier.fc.weight"), "in_chans": stem[1]}
    if "layer_3.1.global_rep.0.norm1.running_mean" in shapes:
        model_args["norm"] = "batch"
    if "conv_1.block.act.weight" in shapes:
        model_args["act"] = "prelu"
    headless = "conv_1x1_exp.block.conv.weight" not in shapes
    return Official(
        variant,
        model_args,
        levels=(0, 1, 2, 3, 4) if headless else None,
        open_args=tuple(name for name in ("norm", "act", "threshold") if name not in model_args),
    )


def _create(variant: str, pretrained: bool, **kwargs) -> Backbone:
    return build(
        affnet,
        variant,
        pretrained,
        checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4), "flatten_sequential": True},
        **dict(VARIANTS[variant], **kwargs),
    )


@register_model
def affnet_et(pretrained: bool = False, **kwargs) -> Backbone:
    """AFFNet-ET (official name xx_small): 1.44 M parameters, 0.36 GMACs at 256 px; published top-1 73.0 %."""
    return _create("affnet_et", pretrained, **kwargs)


@register_model
def affnet_t(pretrained: bool = False, **kwargs) -> Backbone:
    """AFFNet-T (official name x_small): 2.65 M parameters, 0.79 GMACs at 256 px; published top-1 77.0 %."""
    return _create("affnet_t", pretrained, **kwargs)


@register_model
def affnet_s(pretrained: bool = False, **kwargs) -> Backbone:
    """AFFNet (official name small): 5.57 M parameters, 1.45 GMACs at 256 px; published top-1 79.8 %."""
    return _create("affnet_s", pretrained, **kwargs)


@register_model
def affnet_b(pretrained: bool = False, **kwargs) -> Backbone:
    """AFFNet base of the official code: 17.18 M parameters, 5.34 GMACs at 256 px; no accuracy was published."""
    return _create("affnet_b", pretrained, **kwargs)


@register_model
def affnet_l(pretrained: bool = False, **kwargs) -> Backbone:
    """AFFNet large of the official code: 46.07 M parameters, 13.24 GMACs at 256 px; no accuracy was published."""
    return _create("affnet_l", pretrained, **kwargs)
