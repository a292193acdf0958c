"""What a fine-tune on few photographs gains: ``python benchmarks/finetune.py``.

A small model is trained on the textures of ``examples/photographs.py``; the scenes, cut anew for every seed, are learnt
from it by the recipe ``finetune``, by the recipe with one of its values changed, and from fresh weights in the same
number of steps. The score is that of the test images, which nothing was chosen by. Runs in ``--runs`` are not repeated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.photographs import build
from tokenmix.bench.machine import describe
from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import evaluate
from tokenmix.files import write_json
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.train import fit, load_run

RESULTS = Path(__file__).parent / "results"
MODEL = ["model=mixernet_pico", "model_args.mixers=aff", "image_size=64"]
SCRATCH = ["weights=None", "freeze_epochs=0", "layer_decay=None"]
WAYS: dict[str, list[str]] = {
    "finetune": [],
    "scratch": SCRATCH,
    "scratch, lr=3e-3": [*SCRATCH, "lr=3e-3"],
    "epochs=100": ["epochs=100", "freeze_epochs=10"],
    "scratch, epochs=100": [*SCRATCH, "epochs=100"],
    "batch_size=16": ["batch_size=16"],
    "freeze_epochs=0": ["freeze_epochs=0"],
    "layer_decay=None": ["layer_decay=None"],
    "layer_decay=0.9": ["layer_decay=0.9"],
    "lr=2e-3": ["lr=2e-3"],
    "lr=4e-3": ["lr=4e-3"],
}


def test_top1(run: Path, data: DataSet) -> float:
    """Percent of the test images that the best weights of a run name rightly."""
    model, info = load_run(run)
    shape: dict[str, Any] = {name: info[name] for name in ("image_size", "mean", "std", "crop_pct", "interpolation")}
    loader = Loader(data.test, batch_size=64, train=False, **shape)
    return evaluate(ClassificationObjective(model, num_classes=len(data.classes)), loader)["top1"]


def train(name: str, settings: list[str], folder: Path, out: Path) -> dict[str, float]:
    """One run; its score on the test images, and its seconds."""
    data = load_data(str(folder), log=lambda line: None)
    recipe = make_recipe(name, [*MODEL, f"data={folder.name}", *settings], images=len(data.train))
    result = fit(recipe, data, out, progress=False)
    return {"test_top1": test_top1(out, data), "seconds": result.seconds}


def main() -> None:
    """Train, print and write ``results/finetune.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/finetune"), help="(default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--images", type=int, nargs="+", default=[10, 24], help="of a class (default: %(default)s)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS, metavar="WAY")
    parser.add_argument("--epochs", type=int, default=15, help="of the first training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "finetune.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scores: dict[str, Any] = {}
    runs = args.runs
    for seed in range(args.seeds):
        for images in args.images:
            folder = runs / f"photos-{seed}-{images}"
            if not folder.exists():
                build(folder, seed, scenes=images)
    textures = runs / f"photos-0-{args.images[0]}" / "textures"
    first = train("basic", [f"epochs={args.epochs}"], textures, runs / "textures")
    print(f"textures: {first['test_top1']:.1f} %, {first['seconds']:.0f} s", flush=True)
    for way in args.ways:
        for images in args.images:
            rows = scores[f"{images} per class, {way}"] = []
            for seed in range(args.seeds):
                settings = [f"weights={runs / 'textures'}", f"seed={seed}", *WAYS[way]]
                folder = runs / f"photos-{seed}-{images}" / "scenes"
                rows.append(train("finetune", settings, folder, runs / f"{way}-{seed}-{images}"))
            print(f"{images} per class, {way}: {[round(row['test_top1'], 1) for row in rows]} %", flush=True)
    for name, rows in scores.items():
        values = [row["test_top1"] for row in rows]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{name:40} {statistics.mean(values):5.1f} +- {spread:.1f} %")
    write_json(args.out, {"machine": describe(), "textures": first, "scores": scores})


if __name__ == "__main__":
    main()
