"""DSM, the dynamic spectrum mixer: a four-stage backbone that mixes tokens with a gated cosine spectrum.

A reconstruction: of "Dynamic Spectrum Mixer for Visual Recognition" (arXiv:2309.06721) only the abstract could be read.
It says what the mixer does, not how the network around it is built; stages, widths, depths, variant names and every
detail of the weight generation are ours. No accuracy is claimed for these models.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import nn

from tokenmix.backbones.arguments import build_checked
from tokenmix.backbones.base import Backbone, Head, Stage, drop_path_rates
from tokenmix.blocks import Mlp, Residual
from tokenmix.layers import LayerNorm2d
from tokenmix.mixers import MixerSpec, make_mixer, per_stage
from tokenmix.mixers.spectrum import SpectrumMixer


def dsm(
    depths: Sequence[int] = (2, 2, 4, 2),
    dims: Sequence[int] = (64, 128, 320, 512),
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = "dsm",
    nodes: int = 4,
    gate: str = "softmax",
    dynamic: bool = True,
    local: bool = True,
    reduction: int = 4,
    mlp_ratio: float = 4.0,
    layer_scale: float | None = None,
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> Backbone:
    """DSM, a reconstruction from the abstract of arXiv:2309.06721, for any image size.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage.
        mixers: One spec for all stages, or one per stage. ``"dsm"`` without options gets the five options below; any
            other spec brings its own.
        nodes: Nodes per axis between which spectrum bands are interpolated; there are ``nodes ** 2`` bands.
        gate: ``"softmax"`` over the bands, or ``"sigmoid"``.
        dynamic: Generate the band weights from the image; False learns fixed ones.
        local: Add a depthwise 3x3 convolution beside the spectrum.
        reduction: Channels over hidden channels of the weight generation.
        mlp_ratio: Hidden channels of an MLP over its channels.
        layer_scale: Initial value of a learnt factor per channel on both branches; None or 0 for no factor.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        drop_rate: Dropout probability in front of the classifier.
        drop_path_rate: Drop-path probability of the last block; linear from 0.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If depths and dims differ in length, or a mixer or an option of it is unknown.
    """
    if len(depths) != len(dims):
        raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} must have the same length")
    dd = {"device": device, "dtype": dtype}
    options: dict[str, Any] = {"nodes": nodes, "gate": gate, "dynamic": dynamic, "local": local, "reduction": reduction}
    specs = per_stage(mixers, len(depths))
    rates = drop_path_rates(drop_path_rate, depths)

    stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], 7, 4, 3, **dd), LayerNorm2d(dims[0], **dd))
    stages = []
    for i, dim in enumerate(dims):
        down = nn.Sequential(nn.Conv2d(dims[i - 1], dim, 3, 2, 1, **dd), LayerNorm2d(dim, **dd)) if i else None
        blocks = []
        for rate in rates[i]:
            op = SpectrumMixer(dim, **options, **dd) if specs[i] == "dsm" else make_mixer(specs[i], dim, **dd)
            branch = {"drop_path": rate, "layer_scale": layer_scale or None, **dd}
            mixer = Residual(dim, op, norm=LayerNorm2d(dim, **dd), **branch)
            mlp = Residual(dim, Mlp(dim, int(dim * mlp_ratio), **dd), norm=LayerNorm2d(dim, **dd), **branch)
            blocks.append(nn.Sequential(OrderedDict(mixer=mixer, mlp=mlp)))
        stages.append(Stage(down, blocks, dim, 2 if i else 1))
    head = Head(dims[-1], num_classes, global_pool, norm=LayerNorm2d(dims[-1], **dd), drop_rate=drop_rate, **dd)
    return Backbone(stem, stages, None, head, num_features=dims[-1], stem_stride=4, in_chans=in_chans, init=_init)


def _init(module: nn.Module) -> None:
    """Truncated normal 0.02 and zero biases for every linear map and convolution; a mixer's own tables stay."""
    if isinstance(module, nn.Linear | nn.Conv2d):
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
        "first_conv": "stem.0",
        "classifier": "head.fc",
        "license": "apache-2.0",
        "paper_name": "Dynamic Spectrum Mixer for Visual Recognition (reconstructed from its abstract)",
        "paper_ids": "arXiv:2309.06721",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({f"{name}.untrained": _cfg() for name in ("dsm_ti", "dsm_t", "dsm_s", "dsm_b")})


def _create(variant: str, pretrained: bool, **kwargs) -> Backbone:
    return build_checked(
        dsm, variant, pretrained, feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True}, **kwargs
    )


@register_model
def dsm_ti(pretrained: bool = False, **kwargs) -> Backbone:
    """Reconstruction from the abstract, no published counterpart: 13.04 M parameters; train with drop path 0.05."""
    args = {"depths": (2, 2, 4, 2), "dims": (64, 128, 320, 512)}
    return _create("dsm_ti", pretrained, **dict(args, **kwargs))


@register_model
def dsm_t(pretrained: bool = False, **kwargs) -> Backbone:
    """Reconstruction from the abstract, no published counterpart: 27.64 M parameters; train with drop path 0.1."""
    args = {"depths": (2, 2, 6, 2), "dims": (96, 192, 384, 768)}
    return _create("dsm_t", pretrained, **dict(args, **kwargs))


@register_model
def dsm_s(pretrained: bool = False, **kwargs) -> Backbone:
    """Reconstruction from the abstract, no published counterpart: 46.88 M parameters; train with drop path 0.3."""
    args = {"depths": (2, 2, 18, 2), "dims": (96, 192, 384, 768), "layer_scale": 1e-5}
    return _create("dsm_s", pretrained, **dict(args, **kwargs))


@register_model
def dsm_b(pretrained: bool = False, **kwargs) -> Backbone:
    """Reconstruction from the abstract, no published counterpart: 82.81 M parameters; train with drop path 0.5."""
    args = {"depths": (2, 2, 18, 2), "dims": (128, 256, 512, 1024), "layer_scale": 1e-5}
    return _create("dsm_b", pretrained, **dict(args, **kwargs))
