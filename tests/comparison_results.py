"""Made-up results of a comparison, of the size and shape that `compare` writes."""

from __future__ import annotations

import io
import random
from typing import Any

from PIL import Image

# Test top-1 in percent, parameters in thousands, MACs and transforms in millions, milliseconds in PyTorch and in ONNX
# Runtime at batch 1.
_MIXERS = {
    "aff": (98.61, 341, 11.2, 0.61, 4.9, 1.62),
    "ffnified": (98.33, 352, 12.6, 0.0, 3.1, 0.92),
    "additive": (98.06, 365, 13.1, 0.0, 4.2, 1.21),
    "dsm": (97.78, 347, 11.5, 1.83, 5.6, 2.05),
    "attention": (98.33, 388, 14.9, 0.0, 3.6, 1.34),
    "separable": (97.50, 362, 12.2, 0.0, 3.9, 1.18),
    "swift": (97.78, 371, 12.9, 0.0, 4.4, 1.29),
    "pool": (96.94, 318, 10.1, 0.0, 2.2, 0.58),
    "global_filter": (97.22, 330, 10.4, 0.61, 3.8, 1.55),
    "depthwise": (98.06, 334, 11.0, 0.0, 2.3, 0.63),
    "identity": (93.06, 318, 10.1, 0.0, 1.9, 0.47),
}


def made_up(mixers: int = 11, classes: int = 10, epochs: int = 30, compiled: bool = False) -> dict[str, Any]:
    """Results with every field, for the first ``mixers`` mixers."""
    rng = random.Random(0)
    runtimes = ["pytorch", "onnxruntime"] + ["compile"] * compiled
    per_class = 36
    entries = {}
    for name in list(_MIXERS)[:mixers]:
        top1, params, macs, transforms, eager, onnx = _MIXERS[name]
        times = {"pytorch": eager, "onnxruntime": onnx, "compile": eager * 0.45}
        latency = {run: {"1": times[run], "32": times[run] * rng.uniform(9, 14)} for run in runtimes}
        entries[name] = {
            "mixer": name,
            "test_top1": top1,
            "test_top1_spread": None,
            "test_top1_per_seed": [top1],
            "val_top1": top1 + rng.uniform(-0.5, 0.8),
            "params": params * 1000 + 10,
            "macs": int(macs * 1e6),
            "transform_macs": transforms * 1e6,
            "dims": [32, 64, 128, 256],
            "latency_ms": latency,
            "latency_range_ms": {
                run: {size: [0.97 * time, 1.04 * time] for size, time in sizes.items()}
                for run, sizes in latency.items()
            },
            "throughput": {
                run: {size: 1000 * int(size) / time for size, time in sizes.items()} for run, sizes in latency.items()
            },
            "peak_memory_mb": 11 + 6 * rng.random(),
            "onnx_max_error": 10 ** rng.uniform(-6, -4.5),
            "onnx_top1_agreement": 100.0,
            "seconds": eager * 11,
            "weights_sha256": "0123456789abcdef" * 4,
            "history": _history(rng, top1, epochs),
            "confusion": _confusion(rng, top1, classes, per_class),
            "files": {"weights": f"{name}/best.safetensors", "onnx": f"{name}/model.onnx"},
            "samples": [
                {
                    "name": f"digits/{index}",
                    "truth": index % classes,
                    "prediction": (index + (rng.random() < 0.6 / (1 + index))) % classes,
                    "confidence": rng.uniform(0.55, 1.0),
                }
                for index in range(24)
            ],
        }
    return {
        "schema": "tokenmix.compare/1",
        "created": "2026-01-02T03:04:05+00:00",
        "command": f"tokenmix compare digits --mixers {','.join(entries)} --out runs/digits",
        "skeleton": "mixernet_pico",
        "match": None,
        "seeds": [0],
        "data": {
            "name": "digits",
            "classes": [str(index) for index in range(classes)],
            "train": 1077,
            "val": 360,
            "test": per_class * classes,
            "image_size": 32,
            "skipped": [{"name": "3/broken.png", "reason": "truncated file"}],
        },
        "recipe": {"optimizer": "adamw", "lr": 0.002, "epochs": epochs, "batch_size": 64, "augment": {"shift": 0.1}},
        "machine": {"cpu": "Example CPU @ 2.5 GHz", "cores": 2, "threads": 2, "gpu": None, "memory_gb": 8.0},
        "versions": {"python": "3.11.9", "torch": "2.14.0", "onnxruntime": "1.27.0", "tokenmix": "0.1.0"},
        "batch_sizes": [1, 32],
        "runtimes": runtimes,
        "mixers": entries,
    }


def _history(rng: random.Random, top1: float, epochs: int) -> list[dict[str, float]]:
    rows = []
    for epoch in range(1, epochs + 1):
        missing = (100 - top1) + 80 * 0.72**epoch * rng.uniform(0.8, 1.2) + rng.uniform(-0.4, 0.6)
        val = min(max(100 - missing, 10.0), 100.0)
        rows.append(
            {
                "epoch": epoch,
                "loss": 0.52 + 1.9 * 0.8**epoch * rng.uniform(0.95, 1.05),
                "val_loss": 0.06 + 2.1 * 0.75**epoch * rng.uniform(0.9, 1.15),
                "val_top1": val,
                "lr": 0.002 * (1 - epoch / (epochs + 1)),
                "seconds": 1.2 * epoch,
            }
        )
    return rows


def _confusion(rng: random.Random, top1: float, classes: int, per_class: int) -> list[list[int]]:
    matrix = [[per_class * (row == column) for column in range(classes)] for row in range(classes)]
    for _ in range(round((100 - top1) / 100 * classes * per_class)):
        row, column = rng.sample(range(classes), 2)
        if matrix[row][row]:
            matrix[row][row] -= 1
            matrix[row][column] += 1
    return matrix


def drawn_pictures(count: int = 24) -> dict[str, bytes]:
    """A small PNG per sample of `made_up`."""
    pictures = {}
    for index in range(count):
        image = Image.new("RGB", (8, 8))
        image.putdata([((x * 37 + index * 53) % 256,) * 3 for x in range(64)])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        pictures[f"digits/{index}"] = buffer.getvalue()
    return pictures
