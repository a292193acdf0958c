"""mixernet: the neutral four-stage skeleton in which token mixers are compared.

MetaFormer's frame (arXiv:2111.11418): every block is a token mixer and an MLP, each behind a batch norm (which folds
into a 1x1 convolution for inference) and inside a skip. Nothing else mixes tokens but the stem and the downsampling.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from timm.models import generate_default_cfgs, register_model
from torch import nn

from tokenmix.backbones.arguments import build_checked
from tokenmix.backbones.base import Backbone, Head, Stage, drop_path_rates
from tokenmix.blocks import Mlp, Residual
from tokenmix.layers import GELU, ConvNorm
from tokenmix.mixers import MixerSpec, make_mixer, per_stage


def mixernet(
    depths: Sequence[int] = (2, 2, 6, 2),
    dims: Sequence[int] = (48, 96, 192, 320),
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = "ffnified",
    mlp_ratio: float = 4.0,
    stem_stride: int = 4,
    layer_scale: float | None = None,
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> Backbone:
    """A backbone with any token mixer per stage, for any image size.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage.
        mixers: One spec for all stages, or one per stage (a list, or names with commas between).
        mlp_ratio: Hidden channels of an MLP over its channels.
        stem_stride: 4, or 2 for small images.
        layer_scale: Initial value of a learnt factor per channel on both branches, or None.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        drop_rate: Dropout probability in front of the classifier.
        drop_path_rate: Drop-path probability of the last block; linear from 0.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If depths and dims differ in length, or a mixer is unknown.
    """
    if len(depths) != len(dims):
        raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} must have the same length")
    if stem_stride not in (2, 4):
        raise ValueError(f"stem_stride must be 2 or 4, got {stem_stride}")
    dd = {"device": device, "dtype": dtype}
    specs = per_stage(mixers, len(depths))
    rates = drop_path_rates(drop_path_rate, depths)
    stem = nn.Sequential(
        ConvNorm(in_chans, dims[0] // 2, 3, 2, act=GELU, **dd),
        ConvNorm(dims[0] // 2, dims[0], 3, stem_stride // 2, **dd),
    )
    stages = []
    for i, dim in enumerate(dims):
        blocks = []
        for rate in rates[i]:
            branch = {"drop_path": rate, "layer_scale": layer_scale, **dd}
            mixer = Residual(dim, make_mixer(specs[i], dim, **dd), norm=nn.BatchNorm2d(dim, **dd), **branch)
            mlp = Residual(dim, Mlp(dim, int(dim * mlp_ratio), **dd), norm=nn.BatchNorm2d(dim, **dd), **branch)
            blocks.append(nn.Sequential(OrderedDict(mixer=mixer, mlp=mlp)))
        downsample = ConvNorm(dims[i - 1], dim, 3, 2, **dd) if i else None
        stages.append(Stage(downsample, blocks, dim, 2 if i else 1))
    head = Head(dims[-1], num_classes, global_pool, drop_rate=drop_rate, **dd)
    final = nn.BatchNorm2d(dims[-1], **dd)
    return Backbone(
        stem, stages, final, head, num_features=dims[-1], stem_stride=stem_stride, in_chans=in_chans, init=_init
    )


def _init(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear and 1x1 layers; torch's own for the rest."""
    if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _cfg(**kwargs) -> dict:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.0.conv",
        "classifier": "head.fc",
        "license": "apache-2.0",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": _cfg() for name in ("mixernet_pico", "mixernet_tiny", "mixernet_small")}
)


def _create(variant: str, pretrained: bool, **kwargs) -> Backbone:
    return build_checked(
        mixernet, variant, pretrained, feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True}, **kwargs
    )


@register_model
def mixernet_pico(pretrained: bool = False, **kwargs) -> Backbone:
    """The smallest, for small images and quick comparisons: 1.4 M parameters with its default mixer."""
    return _create("mixernet_pico", pretrained, **dict({"depths": (1, 1, 3, 1), "dims": (32, 64, 128, 192)}, **kwargs))


@register_model
def mixernet_tiny(pretrained: bool = False, **kwargs) -> Backbone:
    """For phones: 5.4 M parameters with its default mixer."""
    return _create("mixernet_tiny", pretrained, **dict({"depths": (2, 2, 6, 2), "dims": (48, 96, 192, 320)}, **kwargs))


@register_model
def mixernet_small(pretrained: bool = False, **kwargs) -> Backbone:
    """For laptops and small servers: 19.1 M parameters with its default mixer."""
    return _create(
        "mixernet_small", pretrained, **dict({"depths": (3, 3, 9, 3), "dims": (64, 128, 320, 512)}, **kwargs)
    )
