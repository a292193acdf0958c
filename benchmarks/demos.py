"""What do `tokenmix demo detect` and `tokenmix demo segment` reach, and how much processor time do they take?

    python benchmarks/demos.py [DEMO ...] [--seeds 0 1] [--out benchmarks/results/demos.json]

Each demo is trained whole, in one thread, and judged on the test pictures. A result replaces the one of the same demo
and seed in the file, and others stay, so that the runs may be made one by one.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.train.demo import demos, train_demo

ROOT = Path(__file__).resolve().parent


def measure(demo: str, seed: int) -> dict[str, Any]:
    """One demo with one seed, as plain values for JSON; metrics in percent."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        outcome = train_demo(demo, folder, seed=seed)
        spent = time.process_time() - start
    return {
        "demo": demo,
        "seed": seed,
        "cpu_seconds": round(spent, 1),
        "training_seconds": round(outcome["seconds"], 1),
        "images": outcome["samples"],
        "metrics": _plain(outcome["metrics"]),
        "classes": [_plain(row) for row in outcome["rows"]],
        "machine": describe(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _plain(numbers: dict[str, Any]) -> dict[str, Any]:
    """The names, and the single numbers that exist."""
    kept = {name: value for name, value in numbers.items() if isinstance(value, str | float)}
    return {name: value for name, value in kept.items() if isinstance(value, str) or math.isfinite(value)}


def main() -> None:
    """Train, print one line each, write the JSON file."""
    parser = argparse.ArgumentParser(description="What the demos reach, and the processor time that they take.")
    parser.add_argument("demos", nargs="*", default=list(demos()), metavar="DEMO", help=", ".join(demos()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="default: 0 1")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "demos.json", help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for demo in args.demos:
        for seed in args.seeds:
            run = measure(demo, seed)
            old = json.loads(args.out.read_text(encoding="utf-8"))["runs"] if args.out.exists() else []
            runs = [*(each for each in old if (each["demo"], each["seed"]) != (demo, seed)), run]
            write_json(args.out, {"runs": sorted(runs, key=lambda each: (each["demo"], each["seed"]))})
            print(f"{demo}, seed {seed}: {run['metrics']}, {run['cpu_seconds']} s of one core")


if __name__ == "__main__":
    main()
