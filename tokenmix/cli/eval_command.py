"""Judge a trained model on a data set.

A classifier: accuracy, loss, calibration, and which classes it confuses. ECE is the expected calibration error: by how
much the confidence misses the accuracy, over 15 equally wide bins of confidence. Brier is the mean squared distance of
the probabilities from the truth. A detector: COCO's AP of boxes and masks. A segmenter: mIoU and accuracies. On several
GPUs: `torchrun --nproc-per-node=8 -m tokenmix eval MODEL ...`; every image counts exactly once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tokenmix.checkpoints import Opened, open_model
from tokenmix.cli.judging import class_table, numbers_line
from tokenmix.cli.options import refuse_others, size, whole
from tokenmix.cli.output import print_json
from tokenmix.data import ImageSet, load_data
from tokenmix.data.loader import named_deaths
from tokenmix.evaluate import Judgement, find_device, judge
from tokenmix.metrics import CocoAP
from tokenmix.names import unknown
from tokenmix.report.dense_results import LabelMaps, write_detections
from tokenmix.report.results import add_result, read_results, write_predictions
from tokenmix.terminal import say
from tokenmix.train.distributed import processes, speaks
from tokenmix.train.log import Shown

SPLITS = ("test", "val", "train")
BATCH_SIZE, DENSE_BATCH_SIZE = 64, 4
SEGMENTING = ("scales", "mirror", "window", "stride")
FOR_TASKS = {"results": ("classification",), **dict.fromkeys(SEGMENTING, ("segmentation",))}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix eval``."""
    add = parser.add_argument
    add("model", help="a run's folder, a .safetensors file, an official checkpoint, or a model's name")
    add(
        "--data",
        required=True,
        help="digits, an image folder, cifar10, ..., hf:owner/name, or scenes, a COCO folder, ...",
    )
    add("--split", choices=SPLITS, default="test", help="default: %(default)s")
    add("--seed", type=whole("seed"), default=0, help="of the split of a folder that has none; the training run's")
    add("--image-size", type=size, metavar="H[,W]", help="pixels (default: the model's)")
    add("--batch-size", type=whole("batch_size"), metavar="N", help="default: 64, of dense tasks 4")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--workers", type=whole("workers"), default=0, metavar="N", help="processes that load images")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add("--results", metavar="FILE.csv", help="classification: put a row into a table like timm's results-imagenet.csv")
    add(
        "--predictions",
        metavar="PATH",
        help="write the answer to each image: a .csv file; of a detector COCO's results, a .json file; of a segmenter "
        "a folder of PNG files",
    )
    add("--json", action="store_true", help="print the numbers, every class's too, as JSON")
    more = parser.add_argument_group("segmentation").add_argument
    more("--scales", nargs="+", type=float, metavar="S", help="average over the image at these scales: 0.5 1 1.5")
    more("--mirror", action="store_const", const=True, help="average over the mirrored image too")
    more("--window", type=size, metavar="H[,W]", help="look at the image by overlapping windows of that many pixels")
    more("--stride", type=size, metavar="H[,W]", help="from window to window (default: two thirds of the window)")


def run(args: argparse.Namespace) -> None:
    """Evaluate, in all processes; then the first one writes and prints."""
    device = find_device(args.device)
    if args.results:
        _check_ending("--results", args.results, ".csv")
        read_results(args.results)  # a mistake is told before the work
    opened = open_model(args.model)
    refuse_others(args, opened.task, FOR_TASKS)
    if opened.task in ("detection", "instances"):
        CocoAP(1)  # a missing package is told now
    if args.predictions:
        _check_predictions(args.predictions, opened.task)
    if args.batch_size is None:
        args.batch_size = BATCH_SIZE if opened.task == "classification" else DENSE_BATCH_SIZE
    log = (lambda line: None) if args.json or not speaks() else say
    with named_deaths(), processes(device) as group:
        data = load_data(args.data, task=opened.task, seed=args.seed, download=args.download, log=log)
        if opened.classes is not None and opened.classes != data.classes:
            hint = _difference(data.classes, opened.classes)
            raise ValueError(f"{args.data} has other classes than {args.model} was trained with: {hint}")
        images: ImageSet = getattr(data, args.split)
        maps = args.predictions and opened.task == "segmentation"
        judged = judge(
            opened,
            images,
            data.classes,
            device=group.device,
            batch_size=args.batch_size,
            image_size=args.image_size,
            workers=args.workers,
            rank=group.rank,
            world=group.world,
            witnesses=[LabelMaps(args.predictions, images.names)] if maps else [],
            shown=lambda loader: Shown(loader, log, args.split) if group.first and not args.json else loader,
            **{name: value for name in SEGMENTING if (value := getattr(args, name)) is not None},
        )
    if not group.first:
        return
    _write(args, opened, images, judged, data.classes)
    if args.json:
        told = {"model": opened.name, "task": opened.task, "data": data.name, "split": args.split}
        print_json({**told, "images": len(images), **judged.numbers, "classes": judged.by_class})
        return
    say(f"{opened.name} on {len(images):,} {args.split} images of {data.name}")
    say(numbers_line(judged.numbers))
    say()
    say(class_table(judged.by_class))


def _difference(classes: Sequence[str], known: Sequence[str]) -> str:
    """In what a data set's classes differ from the model's."""
    if strange := [name for name in classes if name not in known]:
        return unknown("class", strange[0], known)
    lacking = [name for name in known if name not in classes]
    return f"it lacks {', '.join(lacking[:5])}" if lacking else "they stand in another order"


def _check_ending(option: str, path: str, ending: str) -> None:
    if not path.endswith(ending):
        raise ValueError(f"{option} {path}: the file's name must end in {ending}")


def _check_predictions(path: str, task: str) -> None:
    """Refuse a path that is not what the task's predictions are written to."""
    if task != "segmentation":
        _check_ending("--predictions", path, ".csv" if task == "classification" else ".json")
    elif Path(path).suffix in (".csv", ".json", ".png") or Path(path).is_file():
        raise ValueError(f"--predictions {path}: of a segmenter they are a folder of PNG files; name a folder")


def _write(
    args: argparse.Namespace, opened: Opened, images: ImageSet, judged: Judgement, classes: Sequence[str]
) -> None:
    """The files that were asked for; maps of classes have been written while they were made."""
    if args.predictions and judged.answered is not None:
        write_predictions(args.predictions, judged.answered, images.names, classes)
    elif args.predictions and isinstance(judged.metric, CocoAP):
        found = {index: found for index, (found, *_) in judged.metric.everything().items()}
        write_detections(args.predictions, found, images)
    if args.results:
        parameters = sum(parameter.numel() for parameter in opened.model.parameters())
        shape = args.image_size or opened.image_size
        add_result(args.results, args.model, judged.numbers, parameters, shape, opened.preparation)
