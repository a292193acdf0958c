"""The batch size at which a model takes the most images per second."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenmix.bench.memory import resident_peak, start_peak
from tokenmix_runtime.shortage import shortage

GAIN = 0.03
"""Share by which a larger batch must speed a model up to be worth it."""


@dataclass(frozen=True)
class BestBatch:
    """What was found.

    Attributes:
        size: Images per call, a power of two.
        tried: Images per second by the batch size.
        ended: Why no larger one was tried: ``"no faster"``, ``"memory"`` or ``"largest"``.
    """

    size: int
    tried: dict[int, float]
    ended: str


def best_batch(
    rate: Callable[[int], float],
    *,
    largest: int = 256,
    memory: Callable[[Callable[[], float]], tuple[float, float]] | None = None,
    free: Callable[[], float] | None = None,
) -> BestBatch:
    """Double the batch until two sizes running bring no more images per second, or the next might not fit into memory.

    Args:
        rate: ``(batch) -> images per second``; an error that says that there is no memory for it ends the search.
        largest: Batch to try at most.
        memory: ``(call) -> (its result, bytes that it took)``; only tests need another one.
        free: Bytes that are available; only tests need another one.
    """
    memory, free = memory or _resident, free or available_memory
    tried: dict[int, float] = {}
    size, found, best, idle, ended = 1, 1, 0.0, 0, "largest"
    while size <= largest:
        try:
            tried[size], taken = memory(functools.partial(rate, size))
        except (RuntimeError, MemoryError) as error:
            if not tried or not shortage(error):
                raise
            ended = "memory"
            break
        if tried[size] >= (1 + GAIN) * best:
            best, found, idle = tried[size], size, 0
        else:
            idle += 1
        if idle == 2:
            ended = "no faster"
            break
        if 2 * taken > free() / 2:
            ended = "memory"
            break
        size *= 2
    return BestBatch(found, tried, ended)


def available_memory() -> float:
    """Bytes of main memory that a process can still have; infinite where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return float("inf")


def _resident(call: Callable[[], float]) -> tuple[float, float]:
    before = start_peak()
    result = call()
    return result, resident_peak() - before
