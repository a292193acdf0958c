"""Train one model.

RECIPE is a recipe's name, a recipe's JSON file, or a model's name (which gets its own recipe, or `basic`). The same
command continues an interrupted run. On eight GPUs: `torchrun --nproc-per-node=8 --max-restarts=3 -m tokenmix train
RECIPE ...`; under Slurm, one task per GPU, `srun python -m tokenmix train RECIPE ...`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenmix.argument_types import number, whole
from tokenmix.cli.output import print_json
from tokenmix.evaluate import find_device
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.train.distributed import TIMEOUT_S, speaks
from tokenmix.train.loop import fit
from tokenmix.train.trackers import TRACKERS, check_trackers
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix train``."""
    add = parser.add_argument
    add("recipe", help="a recipe's name or JSON file, or a model's name")
    add("settings", nargs="*", default=[], metavar="KEY=VALUE", help="overrides: epochs=3 model_args.mixers=pool")
    add("--data", help="digits, an image folder, cifar10, ..., or hf:owner/name (default: the recipe's)")
    add("--out", default="runs/train", metavar="DIR", help="the run's folder (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one (default)")
    add("--workers", type=whole("workers"), default=0, metavar="N", help="processes that load images")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add(
        "--checkpoint-seconds",
        type=number("checkpoint_seconds"),
        default=60.0,
        metavar="S",
        help="between two checkpoints at most (default: 60)",
    )
    add("--keep", type=whole("keep"), default=2, metavar="N", help="checkpoints that stay (default: %(default)s)")
    add("--parallel", default="ddp", help="ddp: each process holds all weights; fsdp: its share (default: %(default)s)")
    add(
        "--timeout",
        type=number("timeout"),
        default=TIMEOUT_S,
        metavar="S",
        help="until a silent process is lost (default: 300)",
    )
    add("--fresh", action="store_true", help="start again, whatever the folder holds")
    add("--track", default="", metavar="NAMES", help=f"who else follows the run, with commas: {', '.join(TRACKERS)}")
    add("--json", action="store_true", help="print the outcome as JSON and nothing else")


def run(args: argparse.Namespace) -> None:
    """Train, then print what came of it."""
    log = (lambda line: None) if args.json or not speaks() else say
    trackers = [name.strip() for name in args.track.split(",") if name.strip()]
    check_trackers(trackers)
    settings = [*args.settings, *([f"data={args.data}"] if args.data else [])]
    recipe = make_recipe(args.recipe, settings)
    find_device(args.device)
    data = load_data(recipe.run.data, task=recipe.task.name, seed=recipe.run.seed, download=args.download, log=log)
    recipe = make_recipe(args.recipe, settings, images=len(data.train))
    result = fit(
        recipe,
        data,
        args.out,
        device=args.device,
        workers=args.workers,
        log=log,
        progress=not args.json,
        fresh=args.fresh,
        checkpoint_seconds=args.checkpoint_seconds,
        keep=args.keep,
        parallel=args.parallel,
        timeout=args.timeout,
        trackers=trackers,
    )
    if not speaks():
        return
    if args.json:
        print_json({"best": result.best, "seconds": result.seconds, "weights": str(result.best_weights)})
        return
    task = find_task(recipe.task.name)
    headline = task.headline
    value = task.shown(headline, result.best[f"val_{headline}"])  # None where there was nothing to be found
    say(f"best: {headline} {value} on the validation {task.noun} after epoch {result.best['epoch']}")
    say(f"weights: {result.best_weights}")
    say(f"report: {Path(args.out) / 'report.html'}")
