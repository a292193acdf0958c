"""Look at a data set before training, or write it as tar shards.

`tokenmix data check PATH` decodes every picture and reports counts, classes, sizes, broken files, duplicates within and
across splits, and imbalance. Exit code 0: usable; 2: it cannot be loaded; 3: an error was found, or with --strict a
warning. `tokenmix data pack PATH OUT` writes WebDataset's tar shards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenmix.argument_types import whole
from tokenmix.cli.options import DATA, add_common
from tokenmix.cli.output import print_json
from tokenmix.sources import load_data, recognise
from tokenmix.tasks import find_task
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say

ACTIONS = ("check", "pack")
FOUND = 3  # the exit code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix data``."""
    add = parser.add_argument
    add("action", help="check or pack")
    add("path", help=DATA)
    add("out", nargs="?", help="pack: the new folder for the shards")
    add("--task", help="whose data they are: detection, segmentation, ... (default: what the folder looks like)")
    add_common(parser, "--seed", seed={"help": "of the split of a set that has none; the training run's"})
    add_common(parser, "--download")
    add("--strict", action="store_true", help="check: warnings give exit code 3 too")
    add_common(parser, "--json", json={"help": "check: print the report as JSON and nothing else"})
    add(
        "--shard-size",
        type=whole("shard_size"),
        default=1000,
        metavar="N",
        help="pack: pictures per shard (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Check or pack; returns the exit code."""
    if args.action not in ACTIONS:
        raise ValueError(unknown("action", args.action, ACTIONS))
    if args.task is None:
        task, evidence = recognise(args.path)
        if not args.json:
            say(f"read as a set for {task.title}: {evidence}; --task says otherwise")
    else:
        task = find_task(args.task)
    if args.action == "pack":
        if args.out is None:
            raise ValueError("pack needs a folder to write to: tokenmix data pack PATH OUT")
        data = load_data(args.path, task=task.name, seed=args.seed, download=args.download)
        shards = task.write_shards(data, args.out, shard_size=args.shard_size)
        say(f"wrote {sum(shards.values()):,} shards to {Path(args.out)}")
        return 0
    if args.out is not None:
        raise ValueError(f"unexpected argument {args.out!r}: check takes one data set")
    log = (lambda line: None) if args.json else say
    report = task.check_data(args.path, seed=args.seed, download=args.download, log=log)
    if args.json:
        print_json(report)
    else:
        for line in task.check_lines(report):
            say(line)
        for finding in report["findings"]:
            say(f"{finding['level']}: {finding['message']}")
        if not report["findings"]:
            say("nothing wrong was found")
    levels = {finding["level"] for finding in report["findings"]}
    return FOUND if "error" in levels or (args.strict and levels) else 0
