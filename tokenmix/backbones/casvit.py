"""CAS-ViT: convolutional additive self-attention vision transformers, with one or two classifiers.

Source: arXiv:2408.03703 and its official code, which the keys, shapes and numbers here agree with.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from tokenmix.backbones.base import Backbone, Head, Stage, drop_path_rates
from tokenmix.backbones.keymap import KeyMap, Official, Rule
from tokenmix.backbones.official import build, unwrap
from tokenmix.blocks import Mlp, Residual
from tokenmix.layers import GELU, Chain, ConvNorm, Pointwise
from tokenmix.mixers import MixerSpec, make_mixer, per_stage


class DistillableBackbone(Backbone):
    """A backbone whose head may have a second classifier, trained by a teacher (DeiT, arXiv:2012.12877)."""

    def set_distilled_training(self, enable: bool = True) -> None:
        """In training, return the outputs of both classifiers as a pair instead of their mean; timm's convention.

        Raises:
            ValueError: If there is only one classifier.
        """
        if enable and self.head.num_classifiers != 2:
            raise ValueError("distilled training needs two classifiers: create the model with distillation=True")
        self.head.distilled_training = enable


def casvit(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    mixers: MixerSpec | Sequence[MixerSpec] = "additive",
    mlp_ratio: float = 4.0,
    distillation: bool = True,
    in_chans: int = 3,
    num_classes: int = 1000,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    device=None,
    dtype=None,
) -> DistillableBackbone:
    """CAS-ViT for any image size.

    Args:
        depths: Blocks per stage.
        dims: Channels per stage.
        mixers: One spec for all stages, or one per stage (a list, or names with commas between).
        mlp_ratio: Hidden channels of an MLP over its channels.
        distillation: Give the head a second classifier; the mean of both is the output.
        in_chans: Image channels.
        num_classes: 0 for features only.
        global_pool: ``"avg"``, ``"max"``, ``"avgmax"`` or ``""``.
        drop_rate: Dropout probability in front of the classifiers.
        drop_path_rate: Drop-path probability of the last block's mixer and MLP; linear from 0.
        device: Where parameters and buffers are made.
        dtype: Their type.

    Raises:
        ValueError: If depths and dims differ in length, or a mixer is unknown.
    """
    if len(depths) != len(dims):
        raise ValueError(f"depths {tuple(depths)} and dims {tuple(dims)} must have the same length")
    dd = {"device": device, "dtype": dtype}
    specs = per_stage(mixers, len(depths))
    rates = drop_path_rates(drop_path_rate, depths)
    stem = nn.Sequential(
        ConvNorm(in_chans, dims[0] // 2, 3, 2, bias=True, act=nn.ReLU, **dd),
        ConvNorm(dims[0] // 2, dims[0], 3, 2, bias=True, act=nn.ReLU, **dd),
    )
    stages = []
    for i, dim in enumerate(dims):
        blocks = []
        for rate in rates[i]:
            local = Residual(dim, _local_perception(dim, **dd))
            mixer = Residual(dim, make_mixer(specs[i], dim, **dd), norm=nn.BatchNorm2d(dim, **dd), drop_path=rate, **dd)
            mlp = Residual(
                dim, Mlp(dim, int(dim * mlp_ratio), **dd), norm=nn.BatchNorm2d(dim, **dd), drop_path=rate, **dd
            )
            blocks.append(nn.Sequential(OrderedDict(local=local, mixer=mixer, mlp=mlp)))
        downsample = ConvNorm(dims[i - 1], dim, 3, 2, bias=True, **dd) if i else None
        stages.append(Stage(downsample, blocks, dim, 2 if i else 1))
    head = Head(dims[-1], num_classes, global_pool, drop_rate=drop_rate, num_classifiers=2 if distillation else 1, **dd)
    return DistillableBackbone(
        stem,
        stages,
        nn.BatchNorm2d(dims[-1], **dd),
        head,
        num_features=dims[-1],
        stem_stride=4,
        in_chans=in_chans,
        init=_init,
    )


def _local_perception(dim: int, *, device=None, dtype=None) -> nn.Module:
    """``(B, C, H, W) -> (B, C, H, W)``: 1x1 with batch norm, 3x3 depthwise, GELU, 1x1."""
    dd = {"device": device, "dtype": dtype}
    return Chain(
        OrderedDict(
            pointwise=ConvNorm(dim, dim, bias=True, **dd),
            depthwise=nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **dd),
            act=GELU(),
            proj=Pointwise(dim, dim, **dd),
        )
    )


def _init(module: nn.Module) -> None:
    """Truncated normal 0.02 and zero biases for linear layers; torch's own for the rest."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _numbered(template: str, offset: int = 0) -> Callable[[re.Match[str]], str]:
    """An official key inside a stage: stages and the downsamplings between them are counted as one list there."""
    return lambda match: f"network.{2 * int(match['stage']) + offset}.{match.expand(template)}"


def _rules() -> list[Rule]:
    stage = r"stages\.(?P<stage>\d)\."
    block, leaf = stage + r"blocks\.(?P<block>\d+)\.", r"\.(?P<leaf>\w+)"
    rules = [
        Rule(stage + r"downsample\.conv" + leaf, (_numbered(r"proj.\g<leaf>", -1),)),
        Rule(stage + r"downsample\.norm" + leaf, (_numbered(r"norm.\g<leaf>", -1),)),
        Rule(r"final" + leaf, (r"norm.\g<leaf>",)),
        Rule(r"head\.fc" + leaf, (r"head.\g<leaf>",)),
        Rule(r"head\.fc_dist" + leaf, (r"dist_head.\g<leaf>",)),
    ]
    for i, (conv, norm) in enumerate(((0, 1), (3, 4))):
        rules.append(Rule(rf"stem\.{i}\.conv" + leaf, (rf"patch_embed.{conv}.\g<leaf>",)))
        rules.append(Rule(rf"stem\.{i}\.norm" + leaf, (rf"patch_embed.{norm}.\g<leaf>",)))
    rules += [Rule(rf"norms\.{level}" + leaf, (rf"norm{2 * level}.\g<leaf>",)) for level in range(4)]
    for ours, official in (
        (r"local\.op\.pointwise\.conv", "local_perception.network.0"),
        (r"local\.op\.pointwise\.norm", "local_perception.network.1"),
        (r"local\.op\.depthwise", "local_perception.network.2"),
        (r"local\.op\.proj", "local_perception.network.4"),
        (r"mixer\.norm", "norm1"),
        (r"mixer\.op\.qkv", "attn.qkv"),
        (r"mixer\.op\.dwc", "attn.dwc"),
        (r"mixer\.op\.proj", "attn.proj"),
        (r"mlp\.norm", "norm2"),
        (r"mlp\.op\.fc1", "mlp.fc1"),
        (r"mlp\.op\.fc2", "mlp.fc2"),
    ):
        rules.append(Rule(block + ours + leaf, (_numbered(rf"\g<block>.{official}.\g<leaf>"),)))
    # The gates of query and key are one gate of double width here.
    for ours, official in (
        ("spatial", "0.block.0"),
        ("norm", "0.block.1"),
        ("pixel_score", "0.block.3"),
        ("channel_score", "1.block.1"),
    ):
        parts = tuple(_numbered(rf"\g<block>.attn.oper_{part}.{official}.\g<leaf>") for part in "qk")
        rules.append(Rule(block + rf"mixer\.op\.{ours}" + leaf, parts))
    return rules


KEYS = KeyMap(_rules())

VARIANTS: dict[str, dict[str, Any]] = {
    "casvit_xs": {"depths": (2, 2, 4, 2), "dims": (48, 56, 112, 220)},
    "casvit_s": {"depths": (3, 3, 6, 3), "dims": (48, 64, 128, 256)},
    "casvit_m": {"depths": (3, 3, 6, 3), "dims": (64, 96, 192, 384)},
    "casvit_t": {"depths": (3, 3, 6, 3), "dims": (96, 128, 256, 512)},
}


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
    """Which CAS-ViT an official state dict with these keys and shapes is, or None."""
    if len(shapes.get("patch_embed.0.weight", ())) != 4:
        return None
    widths: list[list[int]] = [[], [], [], []]
    for key, shape in shapes.items():
        match = re.fullmatch(r"network\.([0246])\.\d+\.attn\.qkv\.weight", key)
        if match:
            widths[int(match[1]) // 2].append(shape[1])
    found = {"depths": tuple(map(len, widths)), "dims": tuple(width[0] for width in widths if width)}
    variant = next((name for name, sizes in VARIANTS.items() if sizes == found), None)
    if variant is None:
        return None
    args: dict[str, Any] = {"in_chans": shapes["patch_embed.0.weight"][1]}
    # The official code can leave out the norm of the first level, which RetinaNet does not read.
    norms = tuple("batch" if f"norm{2 * level}.weight" in shapes else "none" for level in range(4))
    if "batch" in norms:
        level_norm = norms if "none" in norms else "batch"
        return Official(variant, {**args, "num_classes": 0}, level_norm, (0, 1, 2, 3))
    if "head.weight" in shapes:
        args.update(num_classes=shapes["head.weight"][0], distillation="dist_head.weight" in shapes)
    elif "norm.weight" in shapes:
        args["num_classes"] = 0
    return Official(variant, args)


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """An official checkpoint under our keys, others unchanged; a model with one classifier gets the mean of two."""
    result = unwrap(state_dict)
    if len(getattr(result.get("patch_embed.0.weight"), "shape", ())) == 4:
        result = KEYS.from_official(result, list(model.state_dict()))
        for leaf in ("weight", "bias"):  # what a model without that classifier leaves under the official name
            if f"dist_head.{leaf}" in result:
                result[f"head.fc_dist.{leaf}"] = result.pop(f"dist_head.{leaf}")
    if "head.fc_dist.weight" not in model.state_dict():
        for leaf in ("weight", "bias"):
            key, second = f"head.fc.{leaf}", result.pop(f"head.fc_dist.{leaf}", None)
            if second is not None and key in result:
                result[key] = (result[key] + second) / 2
    return result


def _cfg(**kwargs) -> dict:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "stem.0.conv",
        "classifier": ("head.fc", "head.fc_dist"),
        "license": "mit",
        "origin_url": "https://github.com/Tianfang-Zhang/CAS-ViT",
        "paper_ids": "arXiv:2408.03703",
        **kwargs,
    }


_384 = {"input_size": (3, 384, 384), "pool_size": (12, 12), "crop_pct": 1.0, "crop_mode": "squash"}

# The published weights lie behind drive links and so have no address here.
default_cfgs = generate_default_cfgs(
    {f"{variant}.{tag}": _cfg(**cfg) for variant in VARIANTS for tag, cfg in (("in1k", {}), ("ft_in1k_384", _384))}
)


def _create(variant: str, pretrained: bool, **kwargs) -> DistillableBackbone:
    return build(
        casvit,
        variant,
        pretrained,
        checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **{**VARIANTS[variant], **kwargs},
    )


@register_model
def casvit_xs(pretrained: bool = False, **kwargs) -> DistillableBackbone:
    """3.20 M parameters with both classifiers, 0.547 GMACs at 224 px (counted on the official code)."""
    return _create("casvit_xs", pretrained, **kwargs)


@register_model
def casvit_s(pretrained: bool = False, **kwargs) -> DistillableBackbone:
    """5.76 M parameters with both classifiers, 0.912 GMACs at 224 px (counted on the official code)."""
    return _create("casvit_s", pretrained, **kwargs)


@register_model
def casvit_m(pretrained: bool = False, **kwargs) -> DistillableBackbone:
    """12.4 M parameters with both classifiers, 1.86 GMACs at 224 px (counted on the official code)."""
    return _create("casvit_m", pretrained, **kwargs)


@register_model
def casvit_t(pretrained: bool = False, **kwargs) -> DistillableBackbone:
    """21.8 M parameters with both classifiers, 3.56 GMACs at 224 px (counted on the official code)."""
    return _create("casvit_t", pretrained, **kwargs)
