"""Look at a data set before training, or write it as tar shards.

`tokenmix data check PATH` decodes every picture and reports counts, classes, sizes, broken files, duplicates within and
across splits, and imbalance. Exit code 0: usable; 2: it cannot be loaded; 3: an error was found, or with --strict a
warning. `tokenmix data pack PATH OUT` writes WebDataset's tar shards.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tokenmix.cli.options import whole
from tokenmix.cli.output import print_json, table
from tokenmix.data import load_data
from tokenmix.data.check import check_data
from tokenmix.data.pack import pack_data
from tokenmix.names import unknown
from tokenmix.terminal import say

ACTIONS = ("check", "pack")
FOUND = 3  # the exit code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix data``."""
    add = parser.add_argument
    add("action", help="check or pack")
    add("path", help="digits, an image folder, tar shards, cifar10, ..., or hf:owner/name")
    add("out", nargs="?", help="pack: the new folder for the shards")
    add("--seed", type=whole("seed"), default=0, help="of the split of a set that has none; the training run's")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add("--strict", action="store_true", help="check: warnings give exit code 3 too")
    add("--json", action="store_true", help="check: print the report as JSON and nothing else")
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
    if args.action == "pack":
        if args.out is None:
            raise ValueError("pack needs a folder to write to: tokenmix data pack PATH OUT")
        shards = pack_data(
            load_data(args.path, seed=args.seed, download=args.download), args.out, shard_size=args.shard_size
        )
        say(f"wrote {sum(shards.values()):,} shards to {Path(args.out)}")
        return 0
    if args.out is not None:
        raise ValueError(f"unexpected argument {args.out!r}: check takes one data set")
    log = (lambda line: None) if args.json else say
    report = check_data(args.path, seed=args.seed, download=args.download, log=log)
    if args.json:
        print_json(report)
    else:
        _print(report)
    levels = {finding["level"] for finding in report["findings"]}
    return FOUND if "error" in levels or (args.strict and levels) else 0


def _print(report: dict[str, Any]) -> None:
    rows = []
    for split, numbers in report["splits"].items():
        counts = np.array(numbers["per_class"])
        per_class = f"{counts.min():,}-{counts.max():,}, median {np.median(counts):,.0f}"
        rows.append([split, f"{numbers['images']:,}", f"{np.count_nonzero(counts):,}", per_class])
    say("\n" + table(["split", "images", "classes", "images per class"], rows) + "\n")
    width, height = report["sizes"]["width"], report["sizes"]["height"]
    say(
        f"pixels: {width['min']} to {width['max']} wide (median {width['median']:.0f}), "
        f"{height['min']} to {height['max']} high (median {height['median']:.0f})"
    )
    for what in ("formats", "modes"):
        say(f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in report[what].items()))
    balance = report["imbalance"]
    (largest, most), (smallest, fewest) = balance["largest"], balance["smallest"][0]
    say(
        f"balance: largest class {largest!r} ({most:,} training images), smallest {smallest!r} ({fewest:,}); "
        f"as even as {balance['effective']:.1f} of {len(report['classes']):,} classes"
    )
    for finding in report["findings"]:
        say(f"{finding['level']}: {finding['message']}")
    if not report["findings"]:
        say("nothing wrong was found")
