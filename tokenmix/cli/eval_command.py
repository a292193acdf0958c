"""Judge a trained model on a data set: accuracy, loss, calibration, and which classes it confuses.

ECE is the expected calibration error: by how much the confidence misses the accuracy, over 15 equally wide bins of
confidence. Brier is the mean squared distance of the probabilities from the truth. On several GPUs: `torchrun
--nproc-per-node=8 -m tokenmix eval MODEL ...`; every image counts exactly once.
"""

from __future__ import annotations

import argparse
from typing import Any

from tokenmix.checkpoints import open_model
from tokenmix.cli.output import print_json, table
from tokenmix.data import ImageSet, Loader, load_data
from tokenmix.data.loader import named_deaths
from tokenmix.evaluate import evaluate, find_device
from tokenmix.metrics import Answers, Calibration
from tokenmix.names import unknown
from tokenmix.report.results import add_result, class_rows, read_results, write_predictions
from tokenmix.tasks.classification import Classification
from tokenmix.train.distributed import processes, speaks
from tokenmix.train.log import Shown

SPLITS = ("test", "val", "train")
SHOWN = 25  # classes in the printed table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix eval``."""
    add = parser.add_argument
    add("model", help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--data", required=True, help="digits, an image folder, cifar10, ..., or hf:owner/name")
    add("--split", choices=SPLITS, default="test", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the split of a folder that has none; the training run's")
    add("--batch-size", type=int, default=64, metavar="N")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--workers", type=int, default=0, metavar="N", help="processes that load images")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add("--results", metavar="FILE.csv", help="put a row into a table like timm's results-imagenet.csv")
    add("--predictions", metavar="FILE.csv", help="write the answer to each image")
    add("--json", action="store_true", help="print the numbers, every class's too, as JSON")


def run(args: argparse.Namespace) -> None:
    """Evaluate, in all processes; then the first one writes and prints."""
    for path in (args.results, args.predictions):
        if path is not None and not path.endswith(".csv"):
            raise ValueError(f"{path}: the table's name must end in .csv")
    if args.results:
        read_results(args.results)  # a mistake is told before the work
    device = find_device(args.device)
    opened = open_model(args.model, tasks=("classification",))
    log = (lambda line: None) if args.json or not speaks() else print
    with named_deaths(), processes(device) as group:
        data = load_data(args.data, seed=args.seed, download=args.download, log=log)
        if opened.classes is not None and opened.classes != data.classes:
            missing = [name for name in data.classes if name not in opened.classes]
            hint = unknown("class", missing[0], opened.classes) if missing else "they stand in another order"
            raise ValueError(f"{args.data} has other classes than {args.model} was trained with: {hint}")
        images: ImageSet = getattr(data, args.split)
        loader: Any = Loader(
            images,
            batch_size=args.batch_size,
            image_size=opened.image_size,
            train=False,
            workers=args.workers,
            rank=group.rank,
            world=group.world,
            **opened.preparation,
        )
        task = Classification(opened.model, num_classes=len(data.classes)).to(group.device)
        answers, calibration = Answers(), Calibration()
        shown = Shown(loader, log, args.split) if group.first and not args.json else loader
        numbers = evaluate(task, shown, group.device, (answers, calibration)) | calibration.compute()
        answered = answers.gather()
    if not group.first:
        return
    if args.predictions:
        write_predictions(args.predictions, answered, images.names, data.classes)
    if args.results:
        parameters = sum(parameter.numel() for parameter in opened.model.parameters())
        add_result(args.results, args.model, numbers, parameters, opened.image_size, opened.preparation)
    rows = class_rows(answered, data.classes)
    if args.json:
        told = {"model": opened.name, "data": data.name, "split": args.split, "images": len(images), **numbers}
        print_json({**told, "classes": rows})
        return
    print(f"{opened.name} on {len(images):,} {args.split} images of {data.name}")
    print("  ".join(_number(name, value) for name, value in numbers.items()))
    print()
    print(_class_table(rows))


def _number(name: str, value: float) -> str:
    return f"{name} {value:.4f}" if name in ("loss", "brier") else f"{name} {value:.2f} %"


def _class_table(rows: list[dict[str, Any]]) -> str:
    """The classes, or the hardest ones of many, with what they were taken for most often."""
    shown = rows if len(rows) <= SHOWN else sorted(rows, key=lambda row: row["top1"])[:SHOWN]
    lines = [
        (
            row["class"],
            f"{row['images']:,}",
            f"{row['top1']:.2f}",
            f"{row['confused_with']} ({row['confused']:,})" if row["confused_with"] else "",
        )
        for row in shown
    ]
    text = table(("class", "images", "top1, %", "most often taken for"), lines)
    more = f"\nthe hardest {SHOWN} of {len(rows):,} classes; --json has all" if len(rows) > SHOWN else ""
    return text + more
