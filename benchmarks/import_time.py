"""How long does `import tokenmix` take after `import torch, timm`?

    python benchmarks/import_time.py [--rounds 7] [--out benchmarks/results/import_time.json]

New processes import torch and timm, with and without tokenmix in turn; each times its own import statements, so that
the interpreter's start does not count. The result is the median time of the statement `import tokenmix`, and as a check
the median difference between the two kinds of process, which carries the noise of importing torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tokenmix.bench.machine import describe
from tokenmix.files import write_json

TARGET_SECONDS = 0.5
ROOT = Path(__file__).resolve().parent
PROGRAM = """
import json, sys, time
start = time.perf_counter()
import torch, timm
middle = time.perf_counter()
if sys.argv[1] == "with":
    import tokenmix
end = time.perf_counter()
print(json.dumps([end - start, end - middle]))
"""


def time_imports(which: str) -> tuple[float, float]:
    """Seconds of all imports, and of `import tokenmix` alone, in a new process (``which``: "with" or "without")."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT.parent), *sys.path]))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, which], capture_output=True, text=True, check=True, env=environment
    )
    total, added = json.loads(done.stdout)
    return total, added


def measure(rounds: int) -> dict[str, Any]:
    """Interleaved repetitions after one that is not counted, as plain values for JSON; times in seconds."""
    time_imports("with")
    total: dict[str, list[float]] = {"without": [], "with": []}
    added = []
    for index in range(rounds):
        for which in ("without", "with") if index % 2 == 0 else ("with", "without"):
            seconds, own = time_imports(which)
            total[which].append(seconds)
            if which == "with":
                added.append(own)
    pairs = [after - before for before, after in zip(total["without"], total["with"], strict=True)]
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "added_seconds": round(statistics.median(added), 4),
        "added_seconds_range": [round(min(added), 4), round(max(added), 4)],
        "difference_seconds": round(statistics.median(pairs), 4),
        "torch_and_timm_seconds": round(statistics.median(total["without"]), 4),
        "target_seconds": TARGET_SECONDS,
        "rounds": rounds,
        "machine": describe(),
    }


def main() -> None:
    """Measure, print one line, write the JSON file."""
    parser = argparse.ArgumentParser(description="Time that importing tokenmix adds to importing torch and timm.")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each kind (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "import_time.json", help="JSON file to write")
    args = parser.parse_args()
    result = measure(args.rounds)
    write_json(args.out, result)
    low, high = result["added_seconds_range"]
    print(
        f"import tokenmix adds {result['added_seconds']:.3f} s ({low:.3f} to {high:.3f}) to the "
        f"{result['torch_and_timm_seconds']:.2f} s of torch and timm; target: under {TARGET_SECONDS} s"
    )


if __name__ == "__main__":
    main()
