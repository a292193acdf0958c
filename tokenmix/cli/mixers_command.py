"""List the token mixers: paper, what fills each slot of the MetaMixer frame, cost, and how any width fits."""

from __future__ import annotations

import argparse
import dataclasses

from tokenmix.cli.output import print_json
from tokenmix.mixers import MIXERS
from tokenmix.text_tables import table
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix mixers``."""
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    columns = [field.name for field in dataclasses.fields(next(iter(MIXERS.values()))) if field.name != "build"]
    rows = {name: {column: getattr(info, column) for column in columns} for name, info in MIXERS.items()}
    if args.json:
        print_json(rows)
        return
    say(table(["name", *columns], [[name, *row.values()] for name, row in rows.items()]))
