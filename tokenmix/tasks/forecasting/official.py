"""Checkpoints of the official forecasting code: recognised, loaded strictly, and written back.

The official model has parameters that no forecast depends on (down-sampling layers of stages that it does not have, an
embedding of time marks that it ignores, a pyramid that it never runs). They are accepted, listed, and written back, so
that the official code loads what we save.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokenmix.backbones.keymap import KeyMap, Rule
from tokenmix.tasks.forecasting.model import Architecture, build_forecaster

TIME_FEATURES = {"h": 4, "t": 5}  # of the marks: hourly, minutely
DOWNSAMPLE_LAYERS = 4  # of the official model, however many stages it has
PUBLISHED_DECOMPOSITION = 25  # tokens of the moving average, the default of the official code
NETWORKS = {"": "model.", "residual.": "model_res.", "trend.": "model_trend."}  # ours and the official prefix

_UNUSED = re.compile(r"(?:model|model_res|model_trend)\.(?:te_patch|lat_layer|smooth_layer|up_sample_conv)\..+")
_DOWNSAMPLE = re.compile(r"(?:model|model_res|model_trend)\.downsample_layers\.(\d+)\..+")


def _rules(ours: str, official: str) -> list[Rule]:
    """The rules of one network, whose keys begin with ``ours`` here and with ``official`` there."""
    prefix = re.escape(ours)
    block, there = rf"{prefix}stages\.(\d+)\.blocks\.(\d+)\.", rf"{official}stages.\1.blocks.\2."
    token, large = rf"{there}token_mixer.", rf"{block}channel_mixer\.depthwise\.large\."
    channel = rf"{there}channel_mixer."
    merged = f"{ours}stages.0.blocks.0.channel_mixer.depthwise.large.bias"
    return [
        Rule(rf"{prefix}norm\.(weight|bias)", (rf"{official}revin_layer.affine_\1",)),
        Rule(rf"{prefix}stages\.0\.embed\.conv\.(.+)", (rf"{official}downsample_layers.0.0.\1",)),
        Rule(rf"{prefix}stages\.0\.embed\.norm\.(.+)", (rf"{official}downsample_layers.0.1.\1",)),
        Rule(rf"{prefix}stages\.(\d+)\.embed\.norm\.(.+)", (rf"{official}downsample_layers.\1.0.\2",)),
        Rule(rf"{prefix}stages\.(\d+)\.embed\.conv\.(.+)", (rf"{official}downsample_layers.\1.1.\2",)),
        Rule(rf"{block}token_mixer\.query\.expand\.(.+)", (rf"{token}ffnpw1.\3",)),
        Rule(rf"{block}token_mixer\.query\.reduce\.(.+)", (rf"{token}ffnpw2.\3",)),
        Rule(rf"{block}token_mixer\.query\.norm\.(.+)", (rf"{token}norm.\3",)),
        Rule(rf"{block}token_mixer\.core\.key\.(.+)", (rf"{token}dw1.\3",)),
        Rule(rf"{block}token_mixer\.core\.value\.(.+)", (rf"{token}dw2.\3",)),
        Rule(rf"{large}(weight|bias)", (rf"{channel}dw.lkb_reparam.\3",), when=merged),
        Rule(rf"{large}weight", (rf"{channel}dw.lkb_origin.conv.weight",)),
        Rule(rf"{block}channel_mixer\.depthwise\.large_norm\.(.+)", (rf"{channel}dw.lkb_origin.bn.\3",)),
        Rule(rf"{block}channel_mixer\.depthwise\.small\.(.+)", (rf"{channel}dw.small_conv.conv.\3",)),
        Rule(rf"{block}channel_mixer\.depthwise\.small_norm\.(.+)", (rf"{channel}dw.small_conv.bn.\3",)),
        Rule(rf"{block}channel_mixer\.depthwise\.norm\.(.+)", (rf"{channel}norm.\3",)),
        Rule(rf"{block}channel_mixer\.expand\.(.+)", (rf"{channel}ffnpw1.\3",)),
        Rule(rf"{block}channel_mixer\.reduce\.(.+)", (rf"{channel}ffnpw2.\3",)),
        Rule(rf"{prefix}head\.(.+)", (rf"{official}head.linear.\1",)),
    ]


KEYS = KeyMap([rule for ours, official in NETWORKS.items() for rule in _rules(ours, official)])


@dataclass(frozen=True)
class LoadedForecaster:
    """A model made of an official checkpoint.

    Attributes:
        model: In evaluation mode.
        architecture: What it is made of.
        unused: The checkpoint's tensors that no forecast depends on, by their official names.
    """

    model: nn.Module
    architecture: Architecture
    unused: dict[str, Tensor]


def recognise(shapes: Mapping[str, Sequence[int]]) -> Architecture | None:
    """The architecture of an official forecasting checkpoint, None where the keys are another model's.

    The keys do not tell the stride of the patches (taken to be half their size, as in all published models), whether
    windows are normalised (they are), by what they are centred (the mean), the size of a decomposition's moving average
    (25) and the rates of dropout: give `load_official` those that differ.

    Args:
        shapes: Of the checkpoint's tensors.

    Raises:
        ValueError: If the checkpoint is of this model, but has lost a kernel without which its sizes are unknown.
    """
    prefix = next((p for p in ("model.", "model_res.") if f"{p}downsample_layers.0.0.weight" in shapes), None)
    needed = ("head.linear.weight", "stages.0.blocks.0.token_mixer.ffnpw1.weight")
    if prefix is None or any(f"{prefix}{key}" not in shapes for key in needed):
        return None
    of = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
    try:
        return _architecture(of, prefix)
    except (IndexError, KeyError, TypeError, ZeroDivisionError):  # shapes that no tensor of the model has
        return None


def _architecture(of: Mapping[str, Sequence[int]], prefix: str) -> Architecture:
    """What tensors of these shapes are of; their names are without ``prefix``."""
    stages = range(_count(of, r"stages\.(\d+)\..+"))
    first = [f"stages.{stage}.blocks.0." for stage in stages]
    dims = tuple(of[f"{block}token_mixer.norm.weight"][0] for block in first)
    variables = of[f"{first[0]}token_mixer.ffnpw1.weight"][1]
    horizon, width = of["head.linear.weight"][0], of["head.linear.weight"][1]
    patch = of["downsample_layers.0.0.weight"][2]
    ratio = of.get("downsample_layers.1.1.weight", (0, 0, 2))[2]
    stride = max(patch // 2, 1)
    small = [of.get(f"{block}channel_mixer.dw.small_conv.conv.weight", (0,)) for block in first]
    lacking = [f"{block}token_mixer.dw1.weight" for block in first if f"{block}token_mixer.dw1.weight" not in of]
    if lacking:
        raise ValueError(f"this checkpoint of the official forecasting code lacks {prefix}{lacking[0]}")
    return Architecture(
        num_variables=variables,
        look_back=width // dims[-1] * ratio ** (len(stages) - 1) * stride,
        horizon=horizon,
        patch_size=patch,
        patch_stride=stride,
        depths=tuple(_count(of, rf"stages\.{stage}\.blocks\.(\d+)\..+") for stage in stages),
        dims=dims,
        kernel_sizes=tuple(of[f"{block}token_mixer.dw1.weight"][2] for block in first),
        small_sizes=tuple(shape[-1] for shape in small),
        downsample_ratio=ratio,
        mlp_ratio=of[f"{first[0]}channel_mixer.ffnpw1.weight"][0] // (variables * dims[0]),
        norm="revin_affine" if "revin_layer.affine_weight" in of else "revin",
        decomposition=PUBLISHED_DECOMPOSITION if prefix == "model_res." else 0,
    )


def load_official(state_dict: Mapping[str, Tensor], **known: Any) -> LoadedForecaster:
    """The model of an official checkpoint; every tensor of it must have its place.

    Args:
        state_dict: As the official code saves it, also from several GPUs (``module.`` before every key).
        known: What no key tells and differs from the usual, see `recognise`: attributes of `Architecture`.

    Raises:
        ValueError: If it is no such checkpoint, tensors are missing or left over, or ``known`` contradicts it.
    """
    state = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    found = recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    if found is None:
        raise ValueError("this is no checkpoint of the official forecasting code: model.downsample_layers.* is missing")
    arch = _with_known(found, known)
    unused = {key: tensor for key, tensor in state.items() if is_unused(key, len(arch.depths))}
    used = {key: tensor for key, tensor in state.items() if key not in unused}
    # First without memory: an empty tensor may have any shape, and a model of it would take all there is.
    shapes = {key: value.shape for key, value in build_forecaster(arch, device="meta").state_dict().items()}
    keys = list(shapes)
    ours = KEYS.from_official(used, keys)
    if other := next((key for key, value in ours.items() if shapes.get(key, value.shape) != value.shape), None):
        raise ValueError(f"{other} of this checkpoint is of another shape than the rest of it says")
    kinds = [tensor.dtype for tensor in state.values() if tensor.is_floating_point()]
    model = build_forecaster(arch, dtype=kinds[0] if kinds else None)
    try:
        model.load_state_dict(ours, strict=True)
    except RuntimeError as error:
        raise ValueError(f"this checkpoint does not fit the official forecasting model: {error}") from error
    return LoadedForecaster(model.eval(), arch, unused)


def to_official(model: nn.Module, arch: Architecture, unused: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state dict that the official code loads strictly.

    Args:
        model: With the published mixer, not fused.
        arch: Of the model.
        unused: The parameters without effect, of `LoadedForecaster`; those that are missing get neutral values.

    Raises:
        KeyError: If a parameter has no official name: the model is not the official architecture.
    """
    result = KEYS.to_official(model.state_dict())
    given = unused or {}
    like = next(iter(result.values()))
    for official in [NETWORKS[ours] for ours in (("residual.", "trend.") if arch.decomposition else ("",))]:
        for key, shape in unused_shapes(arch).items():
            full = official + key
            result[full] = given[full].clone() if full in given else _neutral(key, shape, like)
    return result


def is_unused(key: str, stages: int) -> bool:
    """Whether the official model of so many stages has this parameter, and no output depends on it."""
    layer = _DOWNSAMPLE.fullmatch(key)
    if layer is not None:
        return stages <= int(layer[1]) < DOWNSAMPLE_LAYERS
    return _UNUSED.fullmatch(key) is not None


def unused_shapes(arch: Architecture, frequency: str = "h") -> dict[str, tuple[int, ...]]:
    """The official parameters without effect and their shapes, without the network's prefix.

    Args:
        arch: The architecture; the official model's further stages have the last one's channels.
        frequency: ``"h"`` or ``"t"``, of the ignored marks of time.
    """
    stages, last = len(arch.depths), arch.dims[-1]
    dims = [*arch.dims, *[last] * (DOWNSAMPLE_LAYERS - stages)]
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, outputs: int) -> None:
        shapes.update({f"{name}.weight": shape, f"{name}.bias": (outputs,)})

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    for i in range(stages, DOWNSAMPLE_LAYERS):
        norm(f"downsample_layers.{i}.0", dims[i - 1])
        conv(f"downsample_layers.{i}.1", dims[i], dims[i - 1], arch.downsample_ratio, outputs=dims[i])
    features = TIME_FEATURES[frequency]
    conv("te_patch.0", features, 1, arch.patch_size, outputs=features)
    conv("te_patch.1", dims[0], features, 1, outputs=dims[0])
    norm("te_patch.2", dims[0])
    for i in range(stages):
        conv(f"lat_layer.{i}", last, dims[i], 1, outputs=last)
        conv(f"smooth_layer.{i}", last, last, 3, outputs=last)
        conv(f"up_sample_conv.{i}.0", last, last, arch.downsample_ratio, outputs=last)
        norm(f"up_sample_conv.{i}.1", last)
    return shapes


def _with_known(found: Architecture, known: Mapping[str, Any]) -> Architecture:
    """The architecture with what the caller knows; look-back and stride must give the tokens that the head has."""
    unknown = [name for name in known if name not in Architecture.__dataclass_fields__]
    if unknown:
        raise ValueError(f"a forecaster has no attribute {unknown[0]!r}")
    tokens = found.tokens[-1]
    if "look_back" in known and "patch_stride" not in known:
        strides = sorted(range(1, found.patch_size + 1), key=lambda stride: abs(stride - found.patch_stride))
    else:
        strides = [known.get("patch_stride", found.patch_stride)]
    for stride in strides:
        look_back = known.get("look_back", found.look_back // found.patch_stride * stride)
        arch = replace(found, **{**known, "look_back": look_back, "patch_stride": stride})
        if arch.tokens[-1] == tokens:
            return arch
    raise ValueError(f"the checkpoint's head has {tokens} tokens, which {dict(known)} do not give")


def _neutral(key: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64, device=like.device)
    scale = len(shape) == 1 and key.endswith((".weight", ".running_var"))
    return torch.full(shape, float(scale), dtype=like.dtype, device=like.device)


def _count(keys: Mapping[str, Any], pattern: str) -> int:
    """How many different numbers the group of the pattern has among the keys."""
    return len({match[1] for match in (re.fullmatch(pattern, key) for key in keys) if match})
