"""How fast models are evaluated and exported: ``python benchmarks/evaluation.py [--models NAME ...]``.

Evaluation: drawn JPEG photographs through `tokenmix.evaluate.judge`, what ``tokenmix eval`` calls, and through a loop
like timm's ``validate.py``, timm's loader and the model as it was trained under ``inference_mode``, in turn in one
process; both without workers, with one thread. ``model`` is the same without the photographs: a batch that is ready.
Export: the processor's seconds of ``export(NAME, ["onnx"])``, its verification included; the first one, which imports
the exporter, is left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from data_path import draw, quiet
from timm.data import create_dataset, create_loader
from timm.utils import AverageMeter, accuracy
from torch import nn

from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.bench.machine import describe
from tokenmix.checkpoints import LoadedModel
from tokenmix.data.dataset import DataSet
from tokenmix.evaluate import judge
from tokenmix.export import export
from tokenmix.files import write_json
from tokenmix.sources import load_data

RESULTS = Path(__file__).parent / "results"
MODELS = ("affnet_et", "casvit_xs", "ffnet_1")
BATCH = 32


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def random_weights(name: str, num_classes: int) -> LoadedModel:
    """A model by its name, without a download."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=num_classes).eval()
    cfg: Any = model.pretrained_cfg
    mean, std, size = tuple(cfg["mean"]), tuple(cfg["std"]), tuple(cfg["input_size"][1:])
    crop_pct, interpolation = cfg["crop_pct"], cfg["interpolation"]
    return LoadedModel(
        model, name, "classification", None, {}, None, size, mean, std, crop_pct, interpolation, "center"
    )


def plain_loop(model: nn.Module, folder: Path, opened: LoadedModel) -> None:
    """What timm's validation script does with a folder."""
    loader = create_loader(
        create_dataset("", root=str(folder)),
        (3, *opened.image_size),
        BATCH,
        is_training=False,
        mean=opened.mean,
        std=opened.std,
        crop_pct=opened.crop_pct,
        interpolation=opened.interpolation,
        num_workers=0,
        persistent_workers=False,
        pin_memory=False,
        use_prefetcher=False,
    )
    criterion, losses, top1 = nn.CrossEntropyLoss(), AverageMeter(), AverageMeter()
    with torch.inference_mode():
        for images, label in loader:
            output = model(images)
            losses.update(criterion(output, label).item(), len(images))
            top1.update(accuracy(output, label)[0].item(), len(images))


def evaluation(name: str, data: DataSet, folder: Path, rounds: int) -> dict[str, Any]:
    """Images per second of both ways, and of the model alone."""
    opened = random_weights(name, len(data.classes))
    model = opened.model
    folded = reparameterize(model)
    batch = torch.randn(BATCH, 3, *opened.image_size)
    images = len(data.train)
    with torch.inference_mode():
        calls: dict[str, tuple[int, Callable[[], Any]]] = {
            "tokenmix": (images, lambda: judge(opened, data.train, data.classes, batch_size=BATCH)),
            "timm": (images, lambda: plain_loop(model, folder, opened)),
            "tokenmix_model": (BATCH, lambda: folded(batch)),
            "timm_model": (BATCH, lambda: model(batch)),
        }
        for _, call in calls.values():
            call()
        taken: dict[str, list[float]] = {kind: [] for kind in calls}
        for _ in range(rounds):
            for kind, (_, call) in calls.items():
                taken[kind].append(seconds(call))
    speeds = {kind: calls[kind][0] / statistics.median(times) for kind, times in taken.items()}
    row = {"model": name, **{f"{kind}_images_per_s": round(speed, 1) for kind, speed in speeds.items()}}
    return row | {"ratio": round(speeds["tokenmix"] / speeds["timm"], 3)}


def exporting(names: list[str], folder: Path) -> list[dict[str, Any]]:
    """Processor seconds of an export to ONNX, and the file's size."""
    export(random_weights(names[0], 1000), ["onnx"], folder / "first", image_size=64)
    rows = []
    for name in names:
        opened = random_weights(name, 1000)
        begin = time.process_time()
        manifest = export(opened, ["onnx"], folder / name)
        took = time.process_time() - begin
        rows.append({"model": name, "cpu_s": round(took, 2), "megabytes": manifest["files"]["onnx"]["bytes"] / 1e6})
    return rows


def main() -> None:
    """Measure, print and write ``results/evaluation-cpu.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation-cpu.json", help="the result file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"images": args.images, "batch_size": BATCH, "rounds": args.rounds, "evaluation": []}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["TOKENMIX_DATA"] = str(root / "cache")
        for part in ("train", "val", "test"):
            draw(root / "files" / part, args.images if part == "train" else 2)
        data = load_data(root / "files", log=quiet)
        for model in args.models:
            result["evaluation"].append(evaluation(model, data, root / "files" / "train", args.rounds))
            print(result["evaluation"][-1], flush=True)
        result["export"] = exporting(args.models, root)
        print(*result["export"], sep="\n")
    write_json(args.out, {"machine": describe(), **result})


if __name__ == "__main__":
    main()
