"""Time and memory of submanifold convolutions: ``python benchmarks/sparse.py [--device cuda] [--points 200000]``.

Beside each layer run its bare matrix products: the same products of the same rows, gathered before the clock starts and
never added up, which no layer made of them can beat. Layer and products are measured in turn. The memory is the most
that the process has held after a forward and a backward pass of the layer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokenmix.bench.machine import describe
from tokenmix.bench.memory import resident_peak
from tokenmix.files import write_json
from tokenmix.ops.sparse import Neighbours, Voxels, convolve

RESULTS = Path(__file__).parent / "results"
MODES = ("forward", "forward and backward")


def surfaces(points: int, seed: int = 0) -> Tensor:
    """(points, 3) cells on three wavy, rough walls: about as many neighbours as in a scanned room."""
    draw = np.random.default_rng(seed)
    tries = 2 * points
    side = int((points / 3) ** 0.5)
    plane, wall = draw.integers(0, side, (tries, 2)), draw.integers(0, 3, tries)
    waves = 8 * np.sin(plane[:, 0] / 30) * np.cos(plane[:, 1] / 40)
    height = np.rint(waves + draw.normal(0, 0.5, tries)).astype(int) + 20
    stacked = np.column_stack((plane, height))
    cells = np.where((wall == 0)[:, None], stacked, np.where((wall == 1)[:, None], stacked[:, [0, 2, 1]], 0))
    cells = np.where((wall == 2)[:, None], stacked[:, [2, 0, 1]], cells)
    cells = np.unique(cells, axis=0)
    return torch.from_numpy(cells[draw.permutation(len(cells))[:points]])


def bare_products(x: Tensor, weight: Tensor, neighbours: Neighbours) -> dict[str, Callable[[], None]]:
    """The matrix products of a layer, forward, and forward and backward, on rows that are gathered already."""
    flat = weight.detach().flatten(1, 3)
    sources: dict[int, list[Tensor]] = {neighbours.centre: [torch.arange(len(x), device=x.device)]}
    for place, _, source in neighbours.steps:
        sources.setdefault(place, []).append(source)
    rows = {place: x.detach()[torch.cat(parts)] for place, parts in sources.items()}

    def forward() -> None:
        for place, part in rows.items():
            part @ flat[:, place].T

    def both() -> None:
        for place, part in rows.items():
            grad = part @ flat[:, place].T  # of the right shape: the values do not matter to the time
            grad @ flat[:, place]
            grad.T @ part

    return {"forward": forward, "forward and backward": both}


def seconds(call: Callable[[], None], device: str) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def most_bytes(device: str) -> int:
    """The most memory that this process has held so far, PyTorch itself with it on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resident_peak()


def measure(voxels: Voxels, channels: int, size: int, device: str, rounds: int) -> dict[str, Any]:
    """The medians of a layer and of its products, in milliseconds, and their ratio."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(voxels), channels, generator=generator).to(device).requires_grad_()
    weight = torch.randn(channels, size, size, size, channels, generator=generator).to(device).requires_grad_()
    neighbours = voxels.neighbours(size)
    grad = torch.ones_like(x)

    def forward() -> None:
        with torch.no_grad():
            convolve(x, weight, None, neighbours)

    def both() -> None:
        x.grad = weight.grad = None
        convolve(x, weight, None, neighbours).backward(grad)

    layer = dict(zip(MODES, (forward, both), strict=True))
    both()
    result: dict[str, Any] = {"peak_mib": round(most_bytes(device) / 2**20)}
    products = bare_products(x, weight, neighbours)
    for mode in MODES:
        seconds(layer[mode], device), seconds(products[mode], device)
        pairs = [(seconds(layer[mode], device), seconds(products[mode], device)) for _ in range(rounds)]
        ours, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
        result[mode] = {
            "layer_ms": round(1e3 * ours, 1),
            "products_ms": round(1e3 * bare, 1),
            "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        }
    return result


def main() -> None:
    """Measure, print and write ``results/sparse-<device>.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default: 1, the least noisy)")
    parser.add_argument("--points", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--channels", type=int, nargs="*", default=(32, 64, 128), help="in growing order")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cells = surfaces(args.points).to(args.device)
    begin = time.perf_counter()
    voxels, _ = Voxels.of(cells, torch.zeros_like(cells[:, 0]), 1)
    numbered = time.perf_counter()
    neighbours = voxels.neighbours(3)
    searched = time.perf_counter()
    results: dict[str, Any] = {
        "voxels": len(voxels),
        "neighbours": round(float(neighbours.counts.double().mean()), 1),
        "sort_ms": round(1e3 * (numbered - begin), 1),
        "search_ms": round(1e3 * (searched - numbered), 1),
        "threads": args.threads,
    }
    print(results)
    for channels in args.channels:
        results[f"{channels} channels"] = row = measure(voxels, channels, 3, args.device, args.rounds)
        print(channels, row)
    write_json(RESULTS / f"sparse-{args.device}.json", {"machine": describe(), **results})


if __name__ == "__main__":
    main()
