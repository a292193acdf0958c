"""Official checkpoints of networks on points, as Pointcept writes them: recognised, and translated both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tokenmix.backbones.keymap import KeyMap, Official, Rule
from tokenmix.backbones.official import unwrap
from tokenmix.tasks.points.cloud import feature_width
from tokenmix.tasks.points.model import PointUNet
from tokenmix.tasks.points.sets import S3DIS, SCANNET


def _rules() -> list[Rule]:
    leaf, stats = r"\.(?P<leaf>weight|bias)", r"\.(?P<leaf>\w+)"
    rules = [
        Rule("head" + leaf, (r"seg_head.\g<leaf>",)),
        Rule(r"stem\.(?P<part>conv|norm)" + stats, (r"backbone.embedding.stem.\g<part>.\g<leaf>",)),
        Rule(r"encoder\.(?P<s>\d+)\.change\.fc" + leaf, (r"backbone.enc.enc\g<s>.down.proj.\g<leaf>",)),
        Rule(r"encoder\.(?P<s>\d+)\.change\.norm" + stats, (r"backbone.enc.enc\g<s>.down.norm.0.\g<leaf>",)),
    ]
    for ours, theirs in (("coarse", "proj"), ("skip", "proj_skip")):
        for i, part in enumerate(("fc", "norm")):
            key = rf"decoder\.(?P<s>\d+)\.change\.{ours}\.{part}"
            rules.append(Rule(key + stats, (rf"backbone.dec.dec\g<s>.up.{theirs}.{i}.\g<leaf>",)))
    parts = {
        "mixer_norm": "norm1.0",
        "mixer.query": "token_mixer.0",
        "mixer.key": "token_mixer.1",
        "mixer.key_norm": "token_mixer.2",
        "mixer.value": "token_mixer.4",
        "mixer.value_norm": "token_mixer.5",
        "mlp_norm": "norm2.0",
        "mlp.conv": "channel_mixer.0",
        "mlp.norm": "channel_mixer.1",
        "mlp.fc1": "channel_mixer.2.fc1",
        "mlp.fc2": "channel_mixer.2.fc2",
    }
    for ours, theirs in (("encoder", "enc"), ("decoder", "dec")):
        block = rf"backbone.{theirs}.{theirs}\g<s>.block\g<i>."
        rules += [
            Rule(rf"{ours}\.(?P<s>\d+)\.blocks\.(?P<i>\d+)\.{re.escape(part)}" + stats, (rf"{block}{name}.\g<leaf>",))
            for part, name in parts.items()
        ]
    return rules


KEYS = KeyMap(_rules())
# What a network reads of a point, by the number of columns; the published ones read colours and normals.
_READ = (("color", "normal"), ("color",), ("coord", "strength"), ("color", "strength"), ("color", "normal", "coord"))
_STEM = "backbone.embedding.stem.conv.weight"


def recognise(shapes: Mapping[str, tuple[int, ...]]) -> Official | None:
    """Which network an official state dict with these keys and shapes is, or None.

    Of its activation no key tells: GELU is assumed, and the published S3DIS model had ReLU (``act="relu"``).
    """
    if _STEM not in shapes:
        return None

    def way(name: str) -> dict[int, list[tuple[int, ...]]]:
        """The shapes of the keys' convolutions by level, one for each block."""
        levels: dict[int, list[tuple[int, ...]]] = {}
        for key, shape in shapes.items():
            match = re.fullmatch(rf"backbone\.{name}\.{name}(\d+)\.block\d+\.token_mixer\.1\.weight", key)
            if match:
                levels.setdefault(int(match[1]), []).append(shape)
        return dict(sorted(levels.items()))

    down, up = way("enc"), way("dec")
    if not down or list(down) != list(range(len(down))) or list(up) != list(range(len(down) - 1)):
        return None
    sizes = [next(iter(levels.values()))[0][1] if levels else 3 for levels in (down, up)]
    fc1 = shapes.get("backbone.enc.enc0.block0.channel_mixer.2.fc1.weight", (128, 32))
    args: dict[str, Any] = {
        "depths": tuple(len(blocks) for blocks in down.values()),
        "dims": tuple(blocks[0][0] for blocks in down.values()),
        "decoder_depths": tuple(len(blocks) for blocks in up.values()),
        "decoder_dims": tuple(blocks[0][0] for blocks in up.values()),
        "mlp_ratio": fc1[0] / fc1[1],
        "stem_kernel": shapes[_STEM][1],
        "in_chans": shapes[_STEM][4],
        "num_classes": shapes.get("seg_head.weight", (0,))[0],
    }
    if sizes != [3, 3]:
        args["mixers"], args["decoder_mixers"] = (f"ffnified(key_size={size}, value_size={size})" for size in sizes)
        args["mlp_kernels"] = tuple(sizes)
    return Official("ffnet_points", args, open_args=("act",))


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """An official checkpoint, as Pointcept wrote it, under our keys; others unchanged."""
    plain = unwrap(state_dict)
    return KEYS.from_official(plain, list(model.state_dict())) if _STEM in plain else plain


def from_official(
    state_dict: Mapping[str, Any],
) -> tuple[str, dict[str, Any], dict[str, Any], dict[str, Tensor]] | None:
    """An official checkpoint: the network's name, its arguments, what it is for, and its weights by our names; or None.

    The classes are those of ScanNet or S3DIS where there are as many, and have numbers otherwise. ``act`` is None: it
    is not known.
    """
    plain = unwrap(state_dict)
    found = recognise({key: tuple(tensor.shape) for key, tensor in plain.items()})
    if found is None:
        return None
    args = dict(found.model_args)
    count, width = args.pop("num_classes"), args.pop("in_chans")
    names = next((names for names in (SCANNET, S3DIS) if len(names) == count), None)
    features = next((names for names in _READ if feature_width(names) == width), None)
    if features is None or not count:
        return None
    facts = {
        "classes": list(names or (f"class {number}" for number in range(count))),
        "features": list(features),
        "voxel": 0.02,
    }
    keys = list(PointUNet(**{**args, "num_classes": count, "in_chans": width, "device": "meta"}).state_dict())
    return found.variant, args | {"act": None}, facts, KEYS.from_official(plain, keys)
