"""What the tests of `tokenmix bench` share: a tiny model, and a result that nobody measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch

from tests.scramble import scramble
from tokenmix.bench import main as bench
from tokenmix.weight_files import weights_bytes

TINY: dict[str, Any] = {"depths": (1, 1), "dims": (8, 16), "stem_stride": 2, "mixers": "pool", "num_classes": 3}


def tiny_checkpoint(folder: Path) -> Path:
    """A classifier's checkpoint."""
    info = {"model": "mixernet_pico", "model_args": TINY, "classes": list("abc"), "image_size": [32, 32]}
    torch.manual_seed(0)
    path = folder / "tiny.safetensors"
    path.write_bytes(weights_bytes(scramble(timm.create_model("mixernet_pico", **TINY)).state_dict(), info))
    return path


def made_up(**changes: Any) -> dict[str, Any]:
    """The result of a measurement of two models."""
    row: dict[str, Any] = {
        "runtime": "pytorch",
        "threads": 1,
        "batch": 1,
        "best_batch": False,
        "median_ms": 2.0,
        "min_ms": 1.9,
    }
    row |= {"low_ms": 1.9, "high_ms": 2.1, "rounds": 9, "images_per_s": 500.0}
    row |= {"limit_ms": 0.5, "share": 0.25, "bound": "memory", "place": 1, "tied_with": []}
    fact = {"top1": 75.0, "source": "a <paper>", "note": "distilled"}
    model: dict[str, Any] = {
        "image_size": [32, 32],
        "params": 1000,
        "published": fact,
        "weights": "random",
        "gflops": 0.1,
    }
    model |= {"least_mbytes": 1.0, "peak_memory_mb": {"pytorch": 20.0}, "layers": []}
    result = {
        "schema": bench.SCHEMA,
        "kind": "inference",
        "noun": "images",
        "created": "2026-01-01T00:00:00",
        "device": "cpu",
        "machine": {"cpu": "a processor", "architecture": "x86_64", "cores": 4},
        "load_average": {"before": [0.1, 0.1, 0.1], "after": [1.0, 0.2, 0.1]},
        "clock": {"drift": {"1": 0.01}, "limit": 0.05, "drifted": False},
        "settings": {"rounds": 9, "threads": [1]},
        "limits": {"1": {"gflops": 100.0, "gbytes_per_s": 10.0}},
        "models": {"one": model, "<two>": {**model, "published": {**fact, "top1": 80.0}}},
        "timings": [{**row, "model": "one"}, {**row, "model": "<two>", "median_ms": 4.0, "place": 2}],
        "skipped": [],
    }
    return result | changes
