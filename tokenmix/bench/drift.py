"""Does the machine keep its pace? A small fixed product, timed again and again while others are measured."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import torch

SIZE = 192
LIMIT = 0.05
"""Drift beyond which a measurement is flagged."""


class Pacer:
    """Times one matrix product at each `tick`: at the start, in each round and at the end of a measurement.

    Args:
        device: Where the product is computed.
        clock: Seconds; only tests need another one.
    """

    def __init__(self, device: torch.device | str = "cpu", clock: Callable[[], float] = time.perf_counter) -> None:
        self.matrix = torch.full((SIZE, SIZE), 1 / SIZE, device=device)
        self.clock = clock
        self.seconds: list[float] = []

    def tick(self) -> None:
        """Keep the fastest of ten products: what is slow about it is the machine and no chance."""
        self.seconds.append(min(self._product() for _ in range(10)))

    def _product(self) -> float:
        start = self.clock()
        self.matrix @ self.matrix
        if self.matrix.is_cuda:
            torch.cuda.synchronize(self.matrix.device)
        return self.clock() - start


def drift(seconds: Sequence[float]) -> float:
    """By which share the slowest quarter of a measurement was slower than its fastest; 0 with fewer than four ticks.

    Quarters are compared by their medians, so that single disturbances, which the rounds' medians forget as well, do
    not count.
    """
    if len(seconds) < 4:
        return 0.0
    cuts = [round(part * len(seconds) / 4) for part in range(5)]
    medians = [statistics.median(seconds[start:end]) for start, end in itertools.pairwise(cuts)]
    return max(medians) / min(medians) - 1.0
