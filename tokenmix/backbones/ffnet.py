"""FFNet: attention whose two interactions are depthwise convolutions, in a plain convolutional pyramid.

Source: arXiv:2406.02021 (MetaMixer) and its official code, which the keys, shapes and numbers here agree with.
``ffnet_1`` to ``ffnet_4`` classify; ``ffnet_seg`` is the backbone of FFNet-Seg, with strip convolutions.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from tokenmix.backbones.base import Backbone, Head, Stage, drop_path_rates
from tokenmix.backbones.keymap import KeyMap, Official, Rule
from tokenmix.backbones.official import build, unwrap
from tokenmix.blocks import Mlp, Residual
from tokenmix.layers import GELU, ConvNorm, LayerNorm2d, NormConv, RepDepthwise, SqueezeExcite
from tokenmix.mixers import MixerSpec, make_mixer, per_stage
from tokenmix_runtime.names import unknown

SMALL = "ffnified(key_size=3, value_size=3)"
LARGE = "ffnified(key_size=7, value_size=7)"
STRIP_SMALL = "ffnified(key_size=3, value_size=3, conv='strip')"
STRIP_LARGE = "ffnified(key_size=9, value_size=9, conv='strip')"
NORMS = {"batch": nn.BatchNorm2d, "layer": LayerNorm2d}


def ffnet(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = (SMALL, SMALL, LARGE, LARGE),
    mlp_ratio: float = 3.0,
    mlp_kernel: int = 7,
    layer_scale: float | None = None,
    stem_dim: int = 64,
    squeeze: Sequence[bool] = (),
    norm: str = "batch",
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> Backbone:
    """FFNet for classification, for any image size.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage, each a multiple of the one before.
        mixers: One spec for all stages, or one per stage (a list, or names with commas between).
        mlp_ratio: Hidden channels of a channel mixer over its channels.
        mlp_kernel: The depthwise kernel in front of every channel mixer: 3, or 7 with a parallel 3.
        layer_scale: Initial value of a learnt factor per channel on both branches; None or 0 for no factor (timm's
            ``create_model`` drops arguments that are None).
        stem_dim: Channels between the stem's two convolutions.
        squeeze: Per stage, whether every second block, from the first on, has a squeeze-and-excitation between its two
            mixers (``use_ses`` of the official code; no published model has it). Empty for none.
        norm: The norm before pooling: ``"batch"``, or ``"layer"`` over the channels of each pixel.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        drop_rate: Dropout probability in front of the classifier.
        drop_path_rate: Drop-path probability of the last block; linear from 0.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If depths, dims and squeeze differ in length, a width is no multiple of the one before, or a mixer,
            kernel or norm is unknown.
    """
    _check_widths(depths, dims, squeeze)
    if any(wide % narrow for narrow, wide in pairwise(dims)):
        raise ValueError(f"dims {tuple(dims)}: each must be a multiple of the one before (depthwise downsampling)")
    if mlp_kernel not in (3, 7):
        raise ValueError(f"mlp_kernel must be 3 or 7, got {mlp_kernel}")
    if norm not in NORMS:
        raise ValueError(unknown("norm", norm, NORMS))
    dd = {"device": device, "dtype": dtype}
    stem = nn.Sequential(
        ConvNorm(in_chans, stem_dim, 3, 2, act=GELU, **dd),
        ConvNorm(stem_dim, dims[0], 3, 2, **dd),
    )

    def downsample(dim: int, out_dim: int) -> nn.Module:
        depthwise = RepDepthwise(dim, (7, 3), 2, out_chans=out_dim, **dd)
        return nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=NormConv(out_dim, **dd)))

    def front(dim: int) -> nn.Module:
        return RepDepthwise(dim, (7, 3), **dd) if mlp_kernel == 7 else ConvNorm(dim, dim, 3, groups=dim, **dd)

    stages = _stages(depths, dims, mixers, downsample, front, mlp_ratio, layer_scale, squeeze, drop_path_rate, dd)
    head = Head(dims[-1], num_classes, global_pool, drop_rate=drop_rate, **dd)
    return Backbone(
        stem,
        stages,
        NORMS[norm](dims[-1], **dd),
        head,
        num_features=dims[-1],
        stem_stride=4,
        in_chans=in_chans,
        init=_init,
    )


def strip_ffnet(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = (STRIP_SMALL, STRIP_SMALL, STRIP_LARGE, STRIP_LARGE),
    mlp_ratio: float = 4.0,
    layer_scale: float | None = 1e-5,
    stem_dim: int = 64,
    squeeze: Sequence[bool] = (),
    final_dim: int = 1024,
    hidden_size: int = 1280,
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> Backbone:
    """FFNet-Seg's backbone with the classifier of its ImageNet training, for any image size.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage.
        mixers: One spec for all stages, or one per stage (a list, or names with commas between).
        mlp_ratio: Hidden channels of a channel mixer over its channels.
        layer_scale: Initial value of a learnt factor per channel on both branches; None or 0 for no factor.
        stem_dim: Channels of the stem's first two convolutions.
        squeeze: See `ffnet`.
        final_dim: Channels before pooling.
        hidden_size: Channels of the hidden layer after pooling.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        drop_rate: Dropout probability in front of the classifier.
        drop_path_rate: Drop-path probability of the last block; linear from 0.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If depths, dims and squeeze differ in length, or a mixer is unknown.
    """
    _check_widths(depths, dims, squeeze)
    dd = {"device": device, "dtype": dtype}
    stem = nn.Sequential(
        ConvNorm(in_chans, stem_dim, 3, 2, act=GELU, **dd),
        ConvNorm(stem_dim, stem_dim, 3, act=GELU, **dd),
        ConvNorm(stem_dim, dims[0], 3, **dd),
        ConvNorm(dims[0], dims[0], 3, 2, **dd),
    )

    def downsample(dim: int, out_dim: int) -> nn.Module:
        expand = ConvNorm(dim, 2 * out_dim, 3, 2, act=GELU, **dd)
        return nn.Sequential(OrderedDict(expand=expand, project=ConvNorm(2 * out_dim, out_dim, **dd)))

    def front(dim: int) -> nn.Module:
        return ConvNorm(dim, dim, 3, groups=dim, **dd)

    stages = _stages(depths, dims, mixers, downsample, front, mlp_ratio, layer_scale, squeeze, drop_path_rate, dd)
    hidden = HiddenLayer(final_dim, hidden_size, **dd)
    head = Head(final_dim, num_classes, global_pool, hidden=hidden, hidden_size=hidden_size, drop_rate=drop_rate, **dd)
    final = ConvNorm(dims[-1], final_dim, act=nn.Hardswish, **dd)
    return Backbone(stem, stages, final, head, num_features=final_dim, stem_stride=4, in_chans=in_chans, init=_init)


class HiddenLayer(nn.Module):
    """``(B, C, H, W) -> (B, hidden, H, W)``: linear layer, layer norm and Hardswish, each pixel on its own."""

    def __init__(self, dim: int, hidden: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.fc = nn.Linear(dim, hidden, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(hidden, eps=1e-6, device=device, dtype=dtype)
        self.act = nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.fc(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)


def _check_widths(depths: Sequence[int], dims: Sequence[int], squeeze: Sequence[bool]) -> None:
    if len(depths) != len(dims):
        raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} must have the same length")
    if len(squeeze) not in (0, len(depths)):
        raise ValueError(f"squeeze {tuple(squeeze)} must have one entry for each of the {len(depths)} stages, or none")


def _stages(
    depths: Sequence[int],
    dims: Sequence[int],
    mixers: MixerSpec | Sequence[MixerSpec],
    downsample: Callable[[int, int], nn.Module],
    front: Callable[[int], nn.Module],
    mlp_ratio: float,
    layer_scale: float | None,
    squeeze: Sequence[bool],
    drop_path_rate: float,
    dd: dict[str, Any],
) -> list[Stage]:
    """The stages: blocks of a token mixer and a channel mixer, the stream itself without norms."""
    specs = per_stage(mixers, len(depths))
    rates = drop_path_rates(drop_path_rate, depths)
    stages = []
    for i, dim in enumerate(dims):
        blocks = []
        for j, rate in enumerate(rates[i]):
            branch = {"drop_path": rate, "layer_scale": layer_scale or None, **dd}
            mixer = Residual(dim, make_mixer(specs[i], dim, **dd), **branch)
            mlp = Residual(dim, Mlp(dim, int(dim * mlp_ratio), conv=front(dim), **dd), **branch)
            parts = OrderedDict[str, nn.Module](mixer=mixer)
            if squeeze and squeeze[i] and j % 2 == 0:
                parts["squeeze"] = SqueezeExcite(dim, **dd)
            blocks.append(nn.Sequential(OrderedDict(parts, mlp=mlp)))
        stages.append(Stage(downsample(dims[i - 1], dim) if i else None, blocks, dim, 2 if i else 1))
    return stages


def _init(module: nn.Module) -> None:
    """Truncated normal 0.02 and zero biases for every convolution and linear layer."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# Only the strip architecture has a fourth convolution in its stem.
_STRIP, _OFFICIAL_STRIP = "stem.3.conv.weight", "patch_embed.5.c.weight"


def _block(template: str) -> Callable[[re.Match[str]], str]:
    """An official key inside a block: from the second stage on, the downsampling is counted as the first block."""

    def name(match: re.Match[str]) -> str:
        block = int(match["block"]) + (match["stage"] != "0")
        return f"stages.{match['stage']}.{block}.{match.expand(template)}"

    return name


def conv_norm_rules(ours: str, official: str, when: str | None = None) -> list[Rule]:
    """The two rules of a `ConvNorm`; a pattern that names a block is placed there."""
    place = _block if "?P<block>" in ours else str
    return [
        Rule(ours + r"\.conv\.weight", (place(official + ".c.weight"),), when=when),
        Rule(ours + r"\.norm\.(?P<leaf>\w+)", (place(official + r".bn.\g<leaf>"),), when=when),
    ]


def _rules() -> list[Rule]:
    stage, block = r"stages\.(?P<stage>\d)\.", r"stages\.(?P<stage>\d)\.blocks\.(?P<block>\d+)\."
    first, last = block.replace(r"\d)", "[01])", 1), block.replace(r"\d)", "[23])", 1)
    leaf = r"\.(?P<leaf>weight|bias)"
    down, merger = stage + r"downsample\.", r"stages.\g<stage>.0.proj."
    rules = [
        Rule(block + r"mixer\.scale", (_block("token_mixer.0.layer_scale"),), trailing=2),
        Rule(block + r"squeeze\.(?P<layer>fc[12])" + leaf, (_block(r"token_mixer.1.\g<layer>.\g<leaf>"),)),
        Rule(block + r"mlp\.scale", (_block("channel_mixer.layer_scale"),), trailing=2),
        Rule(block + r"mlp\.op\.(?P<layer>fc[12])" + leaf, (_block(r"channel_mixer.main.\g<layer>.\g<leaf>"),)),
        Rule(r"head\.hidden\.fc" + leaf, (r"head2.0.\g<leaf>",)),
        Rule(r"head\.hidden\.norm" + leaf, (r"head2.1.\g<leaf>",)),
        Rule(r"head\.fc" + leaf, (r"head2.3.\g<leaf>",), when=_STRIP),
        Rule(r"head\.fc" + leaf, (r"head.\g<leaf>",)),
        *conv_norm_rules("final", "head1.0", when=_STRIP),
        Rule(r"final\.(\w+)", (r"norm.\1",)),
        Rule(r"norms\.(\d)\.(\w+)", (r"norm\1.\2",)),
        *conv_norm_rules(down + r"depthwise\.branches\.0", merger + "0.conv"),
        *conv_norm_rules(down + r"depthwise\.branches\.1", merger + "0.conv1"),
        *conv_norm_rules(down + "pointwise", merger + "1.conv"),
        *conv_norm_rules(down + "expand", merger + "0"),
        *conv_norm_rules(down + "project", merger + "2"),
        *conv_norm_rules(block + r"mixer\.op\.query", "token_mixer.0.main.fc"),
        *conv_norm_rules(block + r"mlp\.op\.conv", "channel_mixer.main.conv"),
        *conv_norm_rules(block + r"mlp\.op\.conv\.branches\.0", "channel_mixer.main.conv.conv"),
        *conv_norm_rules(block + r"mlp\.op\.conv\.branches\.1", "channel_mixer.main.conv.conv1"),
    ]
    for i, official in enumerate((0, 2, 4, 5)):
        rules += conv_norm_rules(rf"stem\.{i}", f"patch_embed.{official}")
    for part, conv in (("key", "conv1"), ("value", "conv2")):
        ours, theirs = rf"mixer\.op\.{part}\.op", f"token_mixer.0.main.{conv}"
        rules.append(Rule(block + ours + leaf, (_block(theirs + r".\g<leaf>"),)))
        for i, name in enumerate(("conv1", "strip_conv1", "strip_conv2")):
            rules += conv_norm_rules(first + ours + rf"\.branches\.{i}", f"{theirs}.{name}", when=_STRIP)
        for i, name in enumerate(("conv1", "conv2", "strip_conv1", "strip_conv2")):
            rules += conv_norm_rules(last + ours + rf"\.branches\.{i}", f"{theirs}.{name}", when=_STRIP)
        for i, name in enumerate(("conv", "conv1")):
            rules += conv_norm_rules(block + ours + rf"\.branches\.{i}", f"{theirs}.{name}")
    return rules


KEYS = KeyMap(_rules())

VARIANTS: dict[str, dict[str, Any]] = {
    "ffnet_1": {"depths": (2, 2, 8, 2), "dims": (80, 160, 320, 640), "mlp_kernel": 3},
    "ffnet_2": {"depths": (3, 3, 15, 3), "dims": (88, 176, 352, 704)},
    "ffnet_3": {"depths": (4, 4, 22, 5), "dims": (96, 192, 384, 768), "layer_scale": 1e-6},
    "ffnet_4": {"depths": (4, 4, 27, 3), "dims": (128, 256, 512, 1024), "layer_scale": 1e-6},
    "ffnet_seg": {"depths": (3, 4, 18, 5), "dims": (96, 192, 384, 768), "layer_scale": 1e-5},
}


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
    """Which FFNet an official state dict with these keys and shapes is, or None."""
    if "patch_embed.0.c.weight" not in shapes:
        return None
    strip = _OFFICIAL_STRIP in shapes
    widths: list[list[int]] = [[], [], [], []]
    for key, shape in shapes.items():
        match = re.fullmatch(r"stages\.([0-3])\.\d+\.token_mixer\.0\.main\.fc\.c\.weight", key)
        if match:
            widths[int(match[1])].append(shape[0])
    sizes = {name: (own["depths"], own["dims"], name == "ffnet_seg") for name, own in VARIANTS.items()}
    found = (tuple(map(len, widths)), tuple(width[0] for width in widths if width), strip)
    variant = next((name for name, size in sizes.items() if size == found), None)
    if variant is None:
        return None
    own = VARIANTS[variant]
    args: dict[str, Any] = {"in_chans": shapes["patch_embed.0.c.weight"][1]}
    scaled = any(key.endswith(".layer_scale") for key in shapes)
    if scaled != ("layer_scale" in own):
        args["layer_scale"] = 1e-6 if scaled else 0.0
    firsts = (f"stages.{i}.{min(i, 1)}.token_mixer.1.fc1.weight" for i in range(4))  # of each stage's first block
    squeeze = [first in shapes for first in firsts]
    if any(squeeze):
        args["squeeze"] = squeeze
    levels: tuple[int, ...] | None
    if strip:
        levels = None if any(key.startswith(("head1.", "head2.")) for key in shapes) else (1, 2, 3)
        level_norm, final, classifier = None, "head1.0.c.weight", "head2.3.weight"
    else:
        levels = (0, 1, 2, 3) if "norm0.weight" in shapes else None
        level_norm, final, classifier = "layer" if levels else None, "norm.weight", "head.weight"
        kernel = 7 if "stages.0.0.channel_mixer.main.conv.conv.c.weight" in shapes else 3
        if kernel != own.get("mlp_kernel", 7):
            args["mlp_kernel"] = kernel
        if "norm.weight" in shapes and "norm.running_mean" not in shapes:
            args["norm"] = "layer"
    if classifier in shapes:
        args["num_classes"] = shapes[classifier][0]
    elif levels is not None or final in shapes:
        args["num_classes"] = 0
    return Official(variant, args, level_norm, levels)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """An official checkpoint, as it was published, under our keys (EMA weights if it has them); others unchanged."""
    plain = unwrap(state_dict)
    return KEYS.from_official(plain, list(model.state_dict())) if "patch_embed.0.c.weight" in plain else plain


def _cfg(file: str = "", **kwargs) -> dict:
    return {
        "url": f"https://github.com/ysj9909/FFNet/releases/download/v1.0/{file}" if file else "",
        "num_classes": 1000,
        "input_size": (3, 256, 256),
        "pool_size": (8, 8),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.0.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
        "origin_url": "https://github.com/ysj9909/FFNet",
        "paper_ids": "arXiv:2406.02021",
        **kwargs,
    }


_384 = {"input_size": (3, 384, 384), "pool_size": (12, 12), "crop_pct": 1.0}

default_cfgs = generate_default_cfgs(
    {
        "ffnet_1.in1k": _cfg("ffnet_1.pth.tar"),
        "ffnet_1.dist_in1k": _cfg("ffnet_1_distillation.pth.tar"),
        "ffnet_2.in1k": _cfg("ffnet_2.pth.tar"),
        "ffnet_2.dist_in1k": _cfg("ffnet_2_distillation.pth.tar"),
        "ffnet_3.in1k": _cfg("ffnet_3.pth.tar", crop_pct=0.95),
        "ffnet_3.dist_in1k": _cfg("ffnet_3_distillation.pth.tar", crop_pct=0.95),
        "ffnet_3.ft_in1k_384": _cfg("ffnet_3_384.pth.tar", **_384),
        "ffnet_4.ft_in1k_384": _cfg("ffnet_4_384.pth.tar", **_384),
        "ffnet_4.untrained": _cfg(crop_pct=0.95),
        "ffnet_seg.untrained": _cfg(),
    }
)


def _create(variant: str, pretrained: bool, **kwargs) -> Backbone:
    return build(
        strip_ffnet if variant == "ffnet_seg" else ffnet,
        variant,
        pretrained,
        checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **{**VARIANTS[variant], **kwargs},
    )


@register_model
def ffnet_1(pretrained: bool = False, **kwargs) -> Backbone:
    """13.8 M parameters, 3.00 GMACs at 256 px; 13.7 M and 2.98 fused (counted on the official code)."""
    return _create("ffnet_1", pretrained, **kwargs)


@register_model
def ffnet_2(pretrained: bool = False, **kwargs) -> Backbone:
    """27.2 M parameters, 6.06 GMACs at 256 px; 26.9 M and 6.00 fused (counted on the official code)."""
    return _create("ffnet_2", pretrained, **kwargs)


@register_model
def ffnet_3(pretrained: bool = False, **kwargs) -> Backbone:
    """48.8 M parameters, 10.2 GMACs at 256 px; 48.3 M and 10.1 fused (counted on the official code)."""
    return _create("ffnet_3", pretrained, **kwargs)


@register_model
def ffnet_4(pretrained: bool = False, **kwargs) -> Backbone:
    """79.9 M parameters, 19.3 GMACs at 256 px; 79.2 M and 19.2 fused (counted on the official code)."""
    return _create("ffnet_4", pretrained, **kwargs)


@register_model
def ffnet_seg(pretrained: bool = False, **kwargs) -> Backbone:
    """FFNet-Seg's backbone: 67.2 M parameters, 14.0 GMACs at 256 px (counted on the official code)."""
    return _create("ffnet_seg", pretrained, **kwargs)
