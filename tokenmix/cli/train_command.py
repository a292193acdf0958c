"""Train one model.

`tokenmix train --data FOLDER` looks at the data and this machine, says what it is going to do and how long it takes,
and does it. With a RECIPE it does what that says: a recipe's name, a recipe's JSON file, or a model's name (which gets
its own recipe, or `basic`). The same command continues an interrupted run. On eight GPUs: `torchrun --nproc-per-node=8
--max-restarts=3 -m tokenmix train RECIPE ...`; under Slurm, one task per GPU, `srun python -m tokenmix train RECIPE
...`.
"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from tokenmix.argument_types import number, whole
from tokenmix.cli.judging import numbers_line
from tokenmix.cli.options import add_common, add_settings
from tokenmix.cli.output import print_json
from tokenmix.planning import read_budget
from tokenmix.planning.training import PLAN, TrainedModel, train_model
from tokenmix.recipes import RECIPES
from tokenmix.tasks import all_tasks
from tokenmix.train.distributed import TIMEOUT_S, speaks
from tokenmix.train.trackers import TRACKERS
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix train``."""
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe's name or JSON file, or a model's name (default: planned from the data)")
    add_common(parser, "--data", "--budget")
    add("--plan", action="store_true", help="say and store the plan, and train nothing")
    add("--out", default="runs/train", metavar="DIR", help="the run's folder (default: %(default)s)")
    add_common(parser, "--device", "--workers", "--download")
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
    add_common(parser, "--fresh", "--json")
    add("--track", default="", metavar="NAMES", help=f"who else follows the run, with commas: {', '.join(TRACKERS)}")
    add_settings(parser)


def run(args: argparse.Namespace) -> None:
    """Train, then print what came of it."""
    log = (lambda line: None) if args.json or not speaks() else say
    recipe, data = args.recipe, args.data
    if recipe is not None and data is None and is_data(recipe):
        kind = "folder" if Path(recipe).expanduser().is_dir() else "file"
        log(f"{recipe} is a {kind} of data, not a recipe: taken as --data {recipe}")
        recipe, data = None, recipe
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0  # by torchrun: it goes on
    trained = train_model(
        recipe,
        args.set,
        data=data,
        out=args.out,
        budget=read_budget(args.budget) if args.budget else None,
        device=args.device,
        workers=args.workers,
        download=args.download,
        fresh=args.fresh and not restarted,
        plan_only=args.plan,
        log=log,
        trackers=[name.strip() for name in args.track.split(",") if name.strip()],
        progress=not args.json,
        checkpoint_seconds=args.checkpoint_seconds,
        keep=args.keep,
        parallel=args.parallel,
        timeout=args.timeout,
    )
    if not speaks():
        return
    if args.json:
        print_json(outcome(trained))
        return
    tell(trained)


def is_data(name: str) -> bool:
    """Whether what stands in the place of a recipe is a folder of data, or a file of them."""
    path = Path(name).expanduser()
    if name in RECIPES or path.is_file():
        return name not in RECIPES and name.endswith(tuple(e for task in all_tasks().values() for e in task.endings))
    return path.is_dir() and not (path / "recipe.json").exists()


def outcome(trained: TrainedModel) -> dict[str, object]:
    """What came of a training, for programs."""
    if trained.result is None:
        return {"plan": str(trained.out / PLAN), "seconds": trained.plan.seconds if trained.plan else None}
    result = trained.result
    told = {"best": result.best, "seconds": result.seconds, "weights": str(result.best_weights)}
    return told | {"test": trained.test, "advice": [one.told() for one in trained.advice]}


def tell(trained: TrainedModel) -> None:
    """Say how good the model is, where its files are, and what can be done with it."""
    out, task, result = trained.out, trained.task, trained.result
    if result is None:
        say("train it: the same command without --plan")
        if trained.recipe.model.weights is None:
            again = ["tokenmix", "train", str(out / PLAN), "--data", trained.recipe.run.data]
            say(f"elsewhere, or by several processes: {shlex.join(again)}")
        return
    headline = task.headline
    value = task.shown(headline, result.best[f"val_{headline}"])  # None where there was nothing to be found
    learnt = result.best.get(f"train_{headline}")
    beside = "" if learnt is None else f", {task.shown(headline, learnt)} on some of what it learnt from"
    say(f"best: {headline} {value} on the validation {task.noun} after epoch {result.best['epoch']}{beside}")
    if trained.test is not None:
        say(f"test: {numbers_line(task, trained.test, trained.facts)}")
        say(f"      on {trained.test_samples:,} {task.noun}, which nothing was chosen by")
    for one in trained.advice:
        say(f"note: {one.text}" + (f"\n  try: {one.command}" if one.command else ""))
    say(f"weights: {result.best_weights}")
    say(f"report: {out / 'report.html'}")
    folder, data = shlex.quote(str(out)), shlex.quote(trained.recipe.run.data)
    say(f"next: tokenmix predict FILE --model {folder}")
    say(f"      tokenmix eval {folder} --data {data}")
    if task.exported():
        say(f"      tokenmix export {folder} --to onnx --out {shlex.quote(str(out / 'model'))}")
