"""Judge a trained model on a data set: top-1, top-5 and loss."""

from __future__ import annotations

import argparse

from tokenmix.checkpoints import open_model
from tokenmix.cli.output import print_json
from tokenmix.data import Loader, load_data
from tokenmix.evaluate import evaluate, find_device
from tokenmix.names import unknown
from tokenmix.tasks.classification import Classification
from tokenmix.train.log import Shown

SPLITS = ("test", "val", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix eval``."""
    add = parser.add_argument
    add("model", help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add("--data", required=True, help="digits, an image folder, cifar10, ..., or hf:owner/name")
    add("--split", choices=SPLITS, default="test", help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the split of a folder that has none; the training run's")
    add("--batch-size", type=int, default=64, metavar="N")
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=int, default=0, metavar="N", help="processes that load images")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> None:
    """Evaluate, then print."""
    device = find_device(args.device)
    opened = open_model(args.model)
    log = (lambda line: None) if args.json else print
    data = load_data(args.data, seed=args.seed, download=args.download, log=log)
    if opened.classes is not None and opened.classes != data.classes:
        missing = [name for name in data.classes if name not in opened.classes]
        hint = unknown("class", missing[0], opened.classes) if missing else "they stand in another order"
        raise ValueError(f"{args.data} has other classes than {args.model} was trained with: {hint}")
    loader = Loader(
        getattr(data, args.split),
        batch_size=args.batch_size,
        image_size=opened.image_size,
        mean=opened.mean,
        std=opened.std,
        crop_pct=opened.crop_pct,
        interpolation=opened.interpolation,
        train=False,
        workers=args.workers,
    )
    task = Classification(opened.model, num_classes=len(data.classes)).to(device)
    numbers = evaluate(task, loader if args.json else Shown(loader, log, args.split), device)
    images = len(getattr(data, args.split))
    if args.json:
        print_json({"model": opened.name, "data": data.name, "split": args.split, "images": images, **numbers})
        return
    print(f"{opened.name} on {images:,} {args.split} images of {data.name}")
    print("  ".join(f"{name} {value:.2f}{'' if name == 'loss' else ' %'}" for name, value in numbers.items()))
