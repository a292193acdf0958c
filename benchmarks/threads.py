"""PyTorch's threads beside a busy neighbour: ``python benchmarks/threads.py [--seconds 6]``.

Trains a small model with PyTorch's own number of threads and with one, on the machine as it is and beside as many
processes that keep a core busy as there are cores. ``slowdown`` is what a run measures of its threads
(`tokenmix.train.threads.slowdown`: how many times as long as one thread they take), ``said`` what it tells the user.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from tokenmix import create_model
from tokenmix.bench.machine import describe, load_average
from tokenmix.files import write_json
from tokenmix.train.threads import crowded, slowdown
from tokenmix_runtime.cores import usable_cores

RESULTS = Path(__file__).parent / "results"
BATCH, SIDE_PX = 16, 64


def measure(model: str, seconds: float) -> dict[str, Any]:
    """Images per second of training steps in this process, and what it says of its threads."""
    network = create_model(model, num_classes=10)
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    images, labels = torch.randn(BATCH, 3, SIDE_PX, SIDE_PX), torch.arange(BATCH) % 10

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()  # warms up
    steps, begin, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        step()
        steps += 1
    passed = time.perf_counter() - begin
    return {
        "threads": torch.get_num_threads(),
        "images_per_s": round(steps * BATCH / passed, 1),
        "cpu_s_per_100_images": round(100 * (time.process_time() - used) / (steps * BATCH), 2),
        "slowdown": round(slowdown(), 2),
        "said": crowded(),
    }


def main() -> None:
    """Measure, print and write ``results/threads-cpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mixernet_pico")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each measurement")
    parser.add_argument("--out", type=Path, default=RESULTS / "threads-cpu.json", help="the result file")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(measure(args.model, args.seconds)))
        return
    rows = []
    for neighbours in (0, usable_cores()):
        for threads in (None, 1):
            rows.append({"busy_neighbours": neighbours, "load_average": load_average()})
            rows[-1] |= _apart(threads, neighbours, ["--model", args.model, "--seconds", str(args.seconds)])
            print(rows[-1])
    settings = {"model": args.model, "batch": BATCH, "side_px": SIDE_PX, "seconds": args.seconds}
    write_json(args.out, {"machine": describe(), "settings": settings, "rows": rows})


def _apart(threads: int | None, neighbours: int, words: list[str]) -> dict[str, Any]:
    """`measure` in a process of its own, with PyTorch's own number of threads if none is given."""
    place = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if threads:
        place["OMP_NUM_THREADS"] = str(threads)
    with ExitStack() as stack:
        for _ in range(neighbours):
            burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        command = [sys.executable, __file__, "--inside", *words]
        done = subprocess.run(command, env=place, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
