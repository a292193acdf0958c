"""Train a small model on real pictures that need no download, in minutes on two cores.

`tokenmix demo detect` learns to put boxes around coins, faces, digits, cups and motorcycles, `tokenmix demo segment` to
name every pixel of them, `tokenmix demo upscale` to make photographs twice as large. At the end it says what the test
pictures say, which training never saw. The same command continues an interrupted demo. `tokenmix train scenes_detect`,
`scenes_segment` and `photographs_upscale` are the same with all options.
"""

from __future__ import annotations

import argparse

from tokenmix.cli.judging import numbers_line, rows_table
from tokenmix.cli.options import add_common
from tokenmix.cli.output import print_json
from tokenmix.tasks import find_task
from tokenmix.train.demo import demos, train_demo
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix demo``."""
    add = parser.add_argument
    add("demo", help=" or ".join(demos()))
    add("--mixers", metavar="MIXER", help="a token mixer, or one per stage with commas between (default: the recipe's)")
    add("--out", metavar="DIR", help="the run's folder (default: runs/demo-NAME)")
    add("--epochs", type=float, metavar="N", help="default: the recipe's")
    add_common(parser, "--seed", "--workers", "--fresh", "--json")


def run(args: argparse.Namespace) -> None:
    """Train, then print what the test pictures say."""
    outcome = train_demo(
        args.demo,
        args.out or f"runs/demo-{args.demo}",
        mixers=args.mixers,
        epochs=args.epochs,
        seed=args.seed,
        workers=args.workers,
        fresh=args.fresh,
        log=(lambda line: None) if args.json else say,
        progress=not args.json,
    )
    task, count, rows = find_task(outcome["task"]), outcome.pop("samples"), outcome.pop("rows")
    if args.json:
        print_json({**outcome, task.noun: count, "classes": rows})
        return
    say(f"\n{rows_table(task, rows)}\n")
    say(f"{count} test {task.noun}: {numbers_line(task, outcome['metrics'])}")
    say(f"weights: {outcome['weights']}\nreport: {outcome['report']}")
