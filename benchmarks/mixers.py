"""Time of every mixer alone, side by side: ``python benchmarks/mixers.py [--device cuda]``.

Inference of the fused form at the papers' map sizes, all mixers interleaved in random order in one process; ratios are
to softmax attention. On a CPU in float32, on a GPU in float32, and in bfloat16 and float16 autocast.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokenmix.bench.machine import describe
from tokenmix.bench.speed import interleave
from tokenmix.files import write_json
from tokenmix.layers import fused
from tokenmix.mixers import MIXERS, make_mixer

RESULTS = Path(__file__).parent / "results"
SIZES = ((56, 64), (28, 128), (14, 256), (7, 512))  # side of the map, channels


def measure(side: int, dim: int, batch: int, device: str, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Median milliseconds of every mixer on a ``(batch, dim, side, side)`` input."""
    x = torch.randn(batch, dim, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    mixers: dict[str, nn.Module] = {name: fused(make_mixer(name, dim).eval()).to(device) for name in MIXERS}
    half = torch.autocast(device, dtype) if dtype != torch.float32 else contextlib.nullcontext()

    def call(mixer: nn.Module):
        def run() -> None:
            mixer(x)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    with torch.inference_mode(), half:
        timings = interleave({name: call(mixer) for name, mixer in mixers.items()}, max_seconds=seconds)
    reference = timings["attention"].median_ms
    return {
        name: {
            "median_ms": round(timing.median_ms, 4),
            "low_ms": round(timing.low_ms, 4),
            "high_ms": round(timing.high_ms, 4),
            "ratio_to_attention": round(timing.median_ms / reference, 3),
        }
        for name, timing in timings.items()
    }


def main() -> None:
    """Measure, print and write ``results/mixers-<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default: 1, the least noisy)")
    parser.add_argument("--seconds", type=float, default=8.0, help="per size and type")
    parser.add_argument("--out", type=Path, help="the result file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device == "cuda"
    dtypes = (torch.float32, torch.bfloat16, torch.float16) if gpu else (torch.float32,)
    batch = 64 if gpu else 1
    rows = []
    for dtype in dtypes:
        for side, dim in SIZES:
            times = measure(side, dim, batch, args.device, dtype, args.seconds)
            rows.append({"side_px": side, "channels": dim, "batch": batch, "dtype": str(dtype)[6:], "mixers": times})
            line = "  ".join(f"{name} {value['median_ms']:.3f}" for name, value in times.items())
            print(f"{str(dtype)[6:]} {side}x{side}x{dim} batch {batch}: {line} ms", flush=True)
    write_json(args.out or RESULTS / f"mixers-{args.device}.json", {"machine": describe(), "rows": rows})


if __name__ == "__main__":
    main()
