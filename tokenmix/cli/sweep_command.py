"""Train a recipe over a grid of settings.

One run for every combination of the values of all `--over`, each in a folder of its own, and a table with the mean and
the spread over the seeds. A run that fails stands in the table, and the others go on. The same command continues, and
may ask for more values.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenmix.cli.options import add_common, add_settings
from tokenmix.cli.output import print_json
from tokenmix.cli.runner import add_runner, chosen_runner, say_queued
from tokenmix.jobs import Queued
from tokenmix.sweeps import sweep
from tokenmix.text_tables import table
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix sweep``."""
    add = parser.add_argument
    add("recipe", help="a recipe's name or JSON file, or a model's name")
    add(
        "--over",
        action="append",
        default=[],
        metavar="KEY=VALUE,VALUE",
        help="what is varied: seed=0,1,2 or model_args.mixers=aff,pool; a value with commas in brackets or quotes; "
        "repeatable",
    )
    add_common(parser, "--data")
    add("--out", default="runs/sweep", metavar="DIR", help="folder for the runs (default: %(default)s)")
    add_common(parser, "--device", "--workers", "--download", "--fresh", "--json", device={"default": "cpu"})
    add_runner(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Train, then print the table."""
    try:
        results = sweep(
            args.recipe,
            args.over,
            out=args.out,
            settings=args.set,
            data=args.data,
            device=args.device,
            workers=args.workers,
            download=args.download,
            fresh=args.fresh,
            on=chosen_runner(args),
            log=(lambda line: None) if args.json else say,
        )
    except Queued as queued:
        return say_queued(queued, args.json)
    failed = [row for row in results["runs"] if row["error"]]
    if args.json:
        print_json(results)
        return 2 if failed else 0
    rows = [
        [*row["values"].values(), str(row["runs"]), str(row["failed"]), _number(row["mean"]), _number(row["spread"])]
        for row in results["table"]
    ]
    say()
    say(table([*results["table"][0]["values"], "runs", "failed", results["metric"], "spread"], rows))
    for row in failed:
        say(f"\n{row['folder']} failed: {row['error']}")
    say(f"\ntable: {Path(args.out) / 'sweep.csv'}")
    return 2 if failed else 0


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
