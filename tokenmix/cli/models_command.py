"""List the models: parameters, multiply-accumulates, input size, published accuracy, where the weights are."""

from __future__ import annotations

import argparse

from tokenmix.bench.zoo import TITLES, cells, zoo
from tokenmix.cli.output import print_json
from tokenmix.text_tables import table
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix models``."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model or the beginning of names (default: all)")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    rows = zoo()
    for name in args.names:
        if not any(row["model"].startswith(name) for row in rows):
            raise ValueError(unknown("model", name, [row["model"] for row in rows]))
    rows = [row for row in rows if not args.names or row["model"].startswith(tuple(args.names))]
    if args.json:
        print_json(rows)
        return
    say(table(TITLES, [cells(row) for row in rows]))
