"""What a checkpoint costs the training: ``python benchmarks/saving.py [--model ffnet_2] [--saves 5]``.

Trains a model for some steps and saves a checkpoint every few of them. ``stall_ms`` is how long the training waits in a
save, ``longest_gap_ms`` the longest time between two steps until the next save, ``extra_ms`` by how much all those
steps together took longer than as many median steps without a save. The first save is left out.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tokenmix.bench.machine import describe
from tokenmix.files import write_json
from tokenmix.recipes import Recipe
from tokenmix.tasks.classification.images import ArrayImages, ClassData
from tokenmix.train import fit
from tokenmix.train.loop import _Run

RESULTS = Path(__file__).parent / "results"
EVERY = 16  # steps from one save to the next
WARM = 1  # saves that are left out


def grey(count: int, size: int) -> ArrayImages:
    """Plain pictures of two classes, which cost the loader nothing."""
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    pixels[::2] = 200
    labels = [number % 2 for number in range(count)]
    return ArrayImages(pixels, labels, [str(number) for number in range(count)], glyphs=True, crop_pct=1.0)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train and save; returns the medians."""
    steps = (args.saves + WARM + 1) * EVERY
    parts = [grey(count, args.size) for count in (steps * args.batch, 2, 2)]
    data = ClassData("grey", *parts, args.size, ["dark", "light"])
    shape: dict[str, Any] = {"model": args.model, "batch_size": args.batch}
    recipe = Recipe.from_values(
        {"source": "none", "expect": "nothing", "epochs": 1, "warmup_epochs": 0, "augment": "none", **shape}
    )
    ends: list[float] = []
    stalls: list[float] = []
    inner_step, inner_save = _Run.step, _Run.save

    def step(run: Any, *given: Any) -> None:
        inner_step(run, *given)
        ends.append(time.perf_counter())
        run.due = len(ends) % EVERY == 0

    def save(run: Any, *given: Any) -> None:
        begin = time.perf_counter()
        inner_save(run, *given)
        stalls.append(time.perf_counter() - begin)

    _Run.step, _Run.save = step, save  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=args.folder) as out:
        fit(recipe, data, out, log=lambda line: None, progress=False, device=args.device)
        checkpoint = next(Path(out).glob("checkpoints/*"))
        megabytes = checkpoint.stat().st_size / 1e6
    gaps = [after - before for before, after in itertools.pairwise(ends)]
    plain = statistics.median(gaps[EVERY // 2 : EVERY - 1])  # before the first save
    starts = range(EVERY * (WARM + 1) - 1, len(gaps) - EVERY + 1, EVERY)  # the gap in which a save is
    between = [gaps[start : start + EVERY] for start in starts]

    def middle(values: Any) -> float:
        return round(1000 * statistics.median(values), 1)

    return {
        "model": args.model,
        "device": args.device,
        "checkpoint_mb": round(megabytes, 1),
        "saves": len(between),
        "step_ms": round(1000 * plain, 1),
        "stall_ms": middle(stalls[WARM : WARM + len(between)]),
        "longest_gap_ms": middle(map(max, between)),
        "extra_ms": middle(sum(part) - len(part) * statistics.median(part) for part in between),
    }


def main() -> None:
    """Measure, print and write ``results/saving-cpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ffnet_2")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, in pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where the run's folder is made, and so which disk is measured")
    parser.add_argument("--out", type=Path, default=RESULTS / "saving-cpu.json", help="the result file")
    args = parser.parse_args()
    result = measure(args)
    print(", ".join(f"{name} {value}" for name, value in result.items()))
    write_json(args.out, {"machine": describe(), **result})


if __name__ == "__main__":
    main()
