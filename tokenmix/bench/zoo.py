"""The table of models: what each costs, by our count, and what was published of it. `docs/models.md` is made from it."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import timm

from tokenmix.bench.cost import cost
from tokenmix.checkpoints import our_models

COLUMNS = (
    ("model", "model"),
    ("params_m", "params (M)"),
    ("gmacs", "GMACs"),
    ("transform_gmacs", "+ transforms"),
    ("input_px", "input"),
    ("top1", "published top-1 (%)"),
    ("source", "source"),
    ("weights", "weights"),
)

# How published.json calls our tags: variant, and the resolution where one variant has several rows.
_CASVIT = {"in1k": "first number of the pair", "ft_in1k_384": "second number of the pair"}
_VARIANTS = {
    "affnet_et": "AFFNet-ET",
    "affnet_t": "AFFNet-T",
    "affnet_s": "AFFNet",
    **{f"ffnet_{i}": f"FFNet-{i}" for i in range(1, 5)},
    **{f"casvit_{size}": f"CAS-ViT-{size.upper()}" for size in ("xs", "s", "m", "t")},
}
_BY_HAND = {
    "affnet": "OneDrive, linked from github.com/microsoft/TokenMixers; then `tokenmix convert`",
    "casvit": "Google Drive, linked from github.com/Tianfang-Zhang/CAS-ViT MODEL_ZOO.md; then `tokenmix convert`",
}


def zoo() -> list[dict[str, str]]:
    """One row per model and published training: the keys of `COLUMNS`, as text; "" where there is nothing."""
    return [_row(name, tag) for name in our_models() for tag in _tags(name)]


def _tags(name: str) -> list[str]:
    """The tags of a model's weights, first the default; "" stands for untrained."""
    prefix = f"{name}."
    tags = [full[len(prefix) :] for full in timm.list_models(f"{name}.*", pretrained=False, include_tags=True)]
    return [tag if tag != "untrained" else "" for tag in tags] or [""]


def _row(name: str, tag: str) -> dict[str, str]:
    cfg = timm.models.get_pretrained_cfg(f"{name}.{tag}" if tag else name)
    assert cfg is not None
    size = cfg.input_size[-1]
    counted = _cost(name, size)
    published = _published(name, tag)
    family = name.split("_")[0]
    weights = cfg.url or (_BY_HAND.get(family, "") if published else "")
    source = published.get("source", "")
    if family == "dsm":
        source = "reconstruction from the abstract of arXiv:2309.06721; no accuracy is claimed"
    return {
        "model": f"{name}.{tag}" if tag else name,
        "params_m": f"{counted[0] / 1e6:.3f}",
        "gmacs": f"{counted[1] / 1e9:.3f}",
        "transform_gmacs": f"{counted[2] / 1e9:.3f}" if counted[2] else "",
        "input_px": str(size),
        "top1": f"{published['value']:.1f}" if published else "",
        "source": source,
        "weights": str(weights),
    }


@cache
def _cost(name: str, size: int) -> tuple[int, int, float]:
    # Without memory: counting needs shapes only.
    found = cost(timm.create_model(name, device="meta"), size)
    return found.params, found.macs, found.transform_macs


@cache
def _table() -> list[dict[str, Any]]:
    return json.loads(files("tokenmix.bench").joinpath("published.json").read_text(encoding="utf-8"))


def _published(name: str, tag: str) -> dict[str, Any]:
    """The row of the published table for a model's tag, or an empty dict."""
    variant = _VARIANTS.get(name)
    if variant is None or (name == "ffnet_4" and tag != "ft_in1k_384"):
        return {}
    if tag.startswith("dist"):
        variant += " +KD"
    for row in _table():
        if (row["variant"], row["task"], row["metric"]) != (variant, "classification", "top1"):
            continue
        resolution = str(row["resolution"])
        wanted = _CASVIT.get(tag, "") if name.startswith("casvit") else ("384" if tag.endswith("_384") else "256")
        if resolution.startswith(wanted):
            return row
    return {}
