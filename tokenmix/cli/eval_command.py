"""Judge a trained model on a data set.

A classifier: accuracy, loss, calibration, and which classes it confuses. ECE is the expected calibration error: by how
much the confidence misses the accuracy, over 15 equally wide bins of confidence. Brier is the mean squared distance of
the probabilities from the truth. A detector: COCO's AP of boxes and masks. A segmenter: mIoU and accuracies. On several
GPUs: `torchrun --nproc-per-node=8 -m tokenmix eval MODEL ...`; every image counts exactly once.
"""

from __future__ import annotations

import argparse
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from tokenmix.argument_types import whole
from tokenmix.checkpoints import open_model
from tokenmix.cli.judging import numbers_line, rows_table
from tokenmix.cli.options import add_common, add_task_options, task_options
from tokenmix.cli.output import print_json
from tokenmix.data.dataset import Samples
from tokenmix.data.loader import named_deaths
from tokenmix.evaluate import find_device, judge
from tokenmix.exported import ExportedObjective, is_exported, open_exported
from tokenmix.files import write_text
from tokenmix.pages.robustness import corruption_text, robustness_page
from tokenmix.recipes import Recipe
from tokenmix.robustness import check_corruptible, corruption_errors
from tokenmix.tasks import Option, Task, find_task
from tokenmix.train.distributed import processes, speaks
from tokenmix.train.log import Shown
from tokenmix_runtime.terminal import say, shown
from tokenmix_runtime.untrusted import read_json

SPLITS = ("test", "val", "train", "all")


def _options(task: Task) -> tuple[Option, ...]:
    return task.eval_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix eval``."""
    add = parser.add_argument
    add(
        "model",
        help="a run's folder, a .safetensors file, an official checkpoint, a model's name, an exported .onnx file",
    )
    add_common(parser, "--data")
    add(
        "--split",
        choices=SPLITS,
        help="default: of a run's own data its test part, of any other folder all of it, of named data the test part",
    )
    add_common(parser, "--seed", seed={"help": "of the split of a folder that has none and is not the run's"})
    add_common(parser, "--image-size")
    add("--batch-size", type=whole("batch_size"), metavar="N", help="default: the task's, 64 or 4")
    add_common(parser, "--device", "--workers", "--download")
    add(
        "--results", metavar="FILE.csv", help="of a classifier: put a row into a table like timm's results-imagenet.csv"
    )
    add(
        "--predictions",
        metavar="PATH",
        help="write the answer to each image: a .csv file; of a detector COCO's results, a .json file; of a segmenter "
        "a folder of PNG files",
    )
    add(
        "--corruptions",
        action="store_true",
        help="judge corrupted pictures too: noise of four bands, blur, JPEG, brightness, shift, scale, rotation, at "
        "five strengths each (fifty times the work)",
    )
    add("--page", metavar="FILE.html", help="draw what --corruptions finds as a page")
    add_common(parser, "--json", json={"help": "print the numbers, every class's too, as JSON"})
    add_task_options(parser, _options)


def _data_hint(model: str) -> str:
    """The data that a run's folder names: told, not opened, as all that a file says."""
    file = Path(model) / "recipe.json"
    try:
        data = Recipe.from_values(read_json(file), str(file)).run.data
    except (ValueError, OSError):
        return "add --data DATA"
    return shown(f"add --data {shlex.quote(data)}, which it learnt from (only its test part is then judged), or others")


def run(args: argparse.Namespace) -> None:
    """Evaluate, in all processes; then the first one writes and prints."""
    if args.data is None:
        raise ValueError(f"what {args.model} is to be judged by is required: {_data_hint(args.model)}")
    device = find_device(args.device)
    exported = is_exported(args.model)
    loaded = open_exported(args.model) if exported else open_model(args.model)
    task = find_task(loaded.task)
    options = task_options(args, task, _options)
    if exported and (options or args.image_size):
        given = [f"--{name.replace('_', '-')}" for name in ({"image_size": 0} if args.image_size else {}) | options]
        raise ValueError(f"{', '.join(given)}: an exported file answers as it was exported; judge the model so")
    if args.results:
        task.check_results(args.results)  # a mistake is told before the work
    if args.corruptions:
        check_corruptible(task.name)
        if exported:
            raise ValueError("--corruptions: an exported file prepares its pictures itself; judge the model")
    elif args.page:
        raise ValueError("--page draws corruptions: add --corruptions")
    if args.predictions:
        task.predictions_writer(args.predictions, Samples([]), {"classes": []} | loaded.facts)
    log = (lambda line: None) if args.json or not speaks() else say
    with named_deaths(), processes(device) as group:
        options_of_data = {"seed": args.seed, "download": args.download, "log": log}
        data = task.open_judged(args.data, loaded, args.split, **options_of_data)
        if not data.labelled and not args.predictions:
            raise ValueError(f"{args.data}: nobody knows the answers, so none is judged; give --predictions FILE")
        if not data.labelled and (args.results or args.corruptions):
            asked = "--results" if args.results else "--corruptions"
            raise ValueError(f"{args.data}: nobody knows the answers, so that {asked} cannot be told")
        writer = None
        if args.predictions:
            writer = task.predictions_writer(args.predictions, data.samples, data.facts, labelled=data.labelled)
        what = args.split or "judging"
        seen = group.first and not args.json
        how: dict[str, Any] = {
            "device": group.device,
            "batch_size": args.batch_size,
            "image_size": args.image_size,
            "workers": args.workers,
            "rank": group.rank,
            "world": group.world,
            **options,
        }
        judged = judge(
            loaded,
            data.samples,
            data.facts,
            witnesses=[writer] if writer else [],
            shown=lambda loader: Shown(loader, log, what, task.noun) if seen else loader,
            objective=partial(ExportedObjective, loaded, data.samples) if exported else None,
            **how,
        )
        corrupted = None
        if args.corruptions:
            how["shown"] = lambda loader: Shown(loader, log, "corrupted", task.noun) if seen else loader
            corrupted = corruption_errors(loaded, data.samples, data.facts, seed=args.seed, **how)
    if not group.first:
        return
    if corrupted and args.page:
        names = {"model": loaded.name, "task_name": task.name, "data": data.name}
        write_text(args.page, robustness_page(corrupted, **names))
    if writer:
        writer.finish(judged.judging)
    if not data.labelled and args.json:
        print_json(
            {"model": loaded.name, "data": data.name, task.noun: len(data.samples), "predictions": args.predictions}
        )
        return
    if not data.labelled:
        say(f"{args.predictions}: the answers to {len(data.samples):,} {task.noun}")
        return
    if args.results:
        task.add_result(args.results, args.model, loaded, judged.numbers, args.image_size)
    if args.json:
        told = {"model": loaded.name, "task": task.name, "data": data.name, "split": args.split}
        more = {} if corrupted is None else {"corruptions": corrupted}
        print_json({**told, task.noun: len(data.samples), **judged.numbers, "classes": judged.rows, **more})
        return
    part = f"{args.split} " if args.split else ""
    say(f"{loaded.name} on {len(data.samples):,} {part}{task.noun} of {data.name}")
    say(numbers_line(task, judged.numbers, data.facts))
    say()
    say(rows_table(task, judged.rows))
    if corrupted:
        say(f"\n{corruption_text(corrupted)}")
