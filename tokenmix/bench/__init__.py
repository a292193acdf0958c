"""Measuring: cost, time and memory, and the machine that they were measured on."""

from __future__ import annotations

from tokenmix.bench.cost import Cost, cost
from tokenmix.bench.interleaved import Timing, interleave
from tokenmix.bench.machine import describe
from tokenmix.bench.memory import peak_memory_mb
from tokenmix.bench.runtimes import compile_unavailable
from tokenmix.bench.speed import latency

__all__ = [
    "Cost",
    "Timing",
    "compile_unavailable",
    "cost",
    "describe",
    "interleave",
    "latency",
    "peak_memory_mb",
]
