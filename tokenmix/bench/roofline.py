"""What the machine can do at most, measured, and how near a model comes to it.

A computation of F floating-point operations that must move B bytes takes at least max(F / rate, B / bandwidth): the
roofline of S. Williams, A. Waterman and D. Patterson, 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

SIZES = (256, 512, 1024, 2048)
"""Sides of the square matrices whose product gives the rate."""
TRIAD_BYTES = 96e6
"""Of each of the triad's three arrays: more than caches hold."""


@dataclass(frozen=True)
class Roofline:
    """What a number of threads reach here.

    Attributes:
        gflops: 1e9 floating-point operations per second in float32 matrix products, the best of several sizes.
        gbytes_per_s: 1e9 bytes per second of ``a = b + s * c`` over arrays that no cache holds, counting each once.
    """

    gflops: float
    gbytes_per_s: float

    def seconds(self, flops: float, moved_bytes: float) -> float:
        """The least time of a computation."""
        return max(flops / (1e9 * self.gflops), moved_bytes / (1e9 * self.gbytes_per_s))

    def bound(self, flops: float, moved_bytes: float) -> str:
        """What limits it: ``"compute"`` or ``"memory"``."""
        return "compute" if flops / self.gflops >= moved_bytes / self.gbytes_per_s else "memory"

    def slowed(self, factor: float) -> Roofline:
        """The limits of the same machine while it takes ``factor`` times as long for the same work."""
        return Roofline(self.gflops / factor, self.gbytes_per_s / factor)


def measure_roofline(
    device: torch.device | str = "cpu",
    *,
    seconds: float = 1.0,
    sizes: tuple[int, ...] = SIZES,
    clock: Callable[[], float] = time.perf_counter,
) -> Roofline:
    """The machine's limits with as many threads as PyTorch has now.

    Args:
        device: CPU or GPU. On a GPU products run in full float32, as the models do.
        seconds: For each matrix size and for the triad, after one call that is not timed.
        sizes: Of the matrices.
        clock: Seconds; only tests need another one.
    """
    rates = []
    for side in sizes:
        a, b = torch.rand(2, side, side, device=device)
        product = functools.partial(torch.mm, a, b, out=torch.empty_like(a))
        rates.append(2.0 * side**3 / _fastest(product, a, seconds, clock))
    count = int(TRIAD_BYTES // 4)
    x, y, z = torch.zeros(count, device=device), torch.ones(count, device=device), torch.ones(count, device=device)
    moved = 3 * 4 * count
    bandwidth = moved / _fastest(lambda: torch.add(y, z, alpha=3.0, out=x), x, seconds, clock)
    return Roofline(max(rates) / 1e9, bandwidth / 1e9)


def _fastest(call: Callable[[], object], where: torch.Tensor, budget: float, clock: Callable[[], float]) -> float:
    """The fastest of at least three calls: a limit is what can be reached, not what is usual."""
    call()
    times: list[float] = []
    begin = clock()
    while len(times) < 3 or clock() - begin < budget:
        start = clock()
        call()
        if where.is_cuda:
            torch.cuda.synchronize(where.device)
        times.append(clock() - start)
    return min(times)
