"""Published top-1 accuracies: of our models from the table of the zoo, of other models from ``peers.json``."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import timm

from tokenmix.bench.zoo import zoo


def published(name: str, image_size: tuple[int, int]) -> dict[str, Any] | None:
    """``top1`` (percent, ImageNet-1K), ``source`` and ``note`` of a model at the size that it was published for.

    Args:
        name: Of timm's registry, with the tag of its weights or without: then timm's default weights come first, and
            else the first in the table.
        image_size: Height and width in pixels.
    """
    base, _, tag = name.partition(".")
    rows = [row for row in _rows() if row["model"].partition(".")[0] == base and image_size == (row["px"],) * 2]
    cfg = timm.models.get_pretrained_cfg(base) if rows else None
    wanted = tag or (cfg.tag if cfg is not None else "")
    chosen = [row for row in rows if row["model"].partition(".")[2] == wanted] or ([] if tag else rows)
    return {key: chosen[0][key] for key in ("top1", "source", "note")} if chosen else None


@cache
def _rows() -> list[dict[str, Any]]:
    ours = [
        {"model": row["model"], "px": row["input_px"], "top1": row["top1"], "source": row["source"], "note": ""}
        for row in zoo()
        if row["top1"] is not None
    ]
    peers = json.loads(files("tokenmix.bench").joinpath("peers.json").read_text(encoding="utf-8"))
    return ours + [{**row, "px": row["image_size"]} for row in peers]
