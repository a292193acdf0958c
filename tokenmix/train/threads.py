"""Whether PyTorch's threads help: on a CPU that others use too, they wait for each other and may be slower than one.

The number of threads is only judged here, never changed: the last digits of a result depend on it, and a run that is
resumed ends with the same bits as one that never stopped.
"""

from __future__ import annotations

import time

import torch

from tokenmix_runtime.cores import usable_cores

SLOWER = 1.5  # than one thread: worth a word


def slowdown(rounds: int = 8) -> float:
    """How many times as long PyTorch's threads take for small operators as one thread does; below 1 they help.

    It takes some hundredths of a second, and some tenths where the threads are in each other's way. No random number is
    drawn.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return 1.0
    maps = torch.ones(8, 32, 32, 32)
    seconds = {1: 0.0, threads: 0.0}
    try:
        for count in (1, threads, *(1, threads) * rounds):
            torch.set_num_threads(count)
            begin = time.perf_counter()
            for _ in range(10):
                (maps * 2).relu_()
            seconds[count] += time.perf_counter() - begin
    finally:
        torch.set_num_threads(threads)
    return seconds[threads] / seconds[1]


def crowded() -> str:
    """What to say to the user if the threads are slower than one would be, or more than the cores; else nothing."""
    threads, cores = torch.get_num_threads(), usable_cores()
    many = "the same command continues, and the last digits of its results may differ"
    if (slower := slowdown()) >= SLOWER:
        return (
            f"PyTorch's {threads} threads are {slower:.1f} times slower than one: others keep the cores busy; "
            f"start again with OMP_NUM_THREADS=1: {many}"
        )
    if threads > cores:
        return (
            f"PyTorch computes with {threads} threads, but this process may use {cores} of the cores; "
            f"start again with OMP_NUM_THREADS={cores}: {many}"
        )
    return ""
