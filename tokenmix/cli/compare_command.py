"""Which token mixer for these images and this device?

Trains each mixer in the same skeleton under one budget, judges it on held-out images, exports it to ONNX, checks that
file, and measures latency, memory and cost. Writes results.json, report.html and the models. The same command
continues an interrupted comparison.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tokenmix.argument_types import number, whole
from tokenmix.bench.match import BUDGETS
from tokenmix.cli.output import print_json
from tokenmix.cli.runner import add_runner, chosen_runner, say_queued
from tokenmix.comparison import DEFAULT_MIXERS, compare
from tokenmix.jobs import Queued
from tokenmix.pages.comparison_table import text_table
from tokenmix.pages.conclusions import headline
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix compare``."""
    add = parser.add_argument
    add("data", nargs="?", default="digits", help="digits, an image folder, cifar10, ..., or hf:owner/name")
    add("--data", dest="data_option", metavar="DATA", help="the same as the first argument")
    add(
        "--mixers",
        nargs="+",
        metavar="MIXER",
        help="a name, 'name(option=value)', 'package.file:Class(option=1)', or one per stage with commas between; "
        "a single argument with commas lists mixers, '[a,b,c,d]' is then one mixer per stage (default: "
        f"{' '.join(DEFAULT_MIXERS)} for pictures)",
    )
    add("--out", default="runs/compare", metavar="DIR", help="folder for the results (default: %(default)s)")
    add("--skeleton", metavar="MODEL", help="default: mixernet_pico for classes of pictures, else the recipe's model")
    add(
        "--recipe",
        metavar="NAME",
        help="a recipe's name or JSON file (default: that of the data or their task)",
    )
    add("--epochs", type=float, metavar="N", help="short for --set epochs=N")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a value of the recipe; repeatable")
    add("--seeds", type=whole("seeds"), default=1, metavar="N", help="train each N times and report mean and spread")
    add("--match", choices=BUDGETS, help="change widths so that all have the first mixer's budget")
    add(
        "--batch-sizes",
        type=whole("batch_size"),
        nargs="+",
        default=[1, 32],
        metavar="N",
        help="of the latency measurement",
    )
    add("--compile", action="store_true", help="measure torch.compile too (a minute of compilation per mixer)")
    add(
        "--measure-seconds",
        type=number("measure_seconds"),
        default=60.0,
        metavar="S",
        help="time for all latency measurements together",
    )
    add("--device", default="cpu", help="cpu or cuda")
    add("--workers", type=whole("workers"), default=0, metavar="N", help="processes that load images")
    add("--download", action="store_true", help="allow named data sets to be downloaded")
    add("--fresh", action="store_true", help="start again, whatever the folder holds")
    add("--json", action="store_true", help="print the results as JSON and nothing else")
    add_runner(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, then print the table."""
    mixers = args.mixers[0] if args.mixers is not None and len(args.mixers) == 1 else args.mixers
    settings = [*args.set, *([f"epochs={args.epochs:g}"] if args.epochs is not None else [])]
    try:
        results = compare(
            args.data_option or args.data,
            mixers,
            out=args.out,
            skeleton=args.skeleton,
            recipe=args.recipe,
            settings=settings,
            seeds=args.seeds,
            match=args.match,
            batch_sizes=tuple(args.batch_sizes),
            compile=args.compile,
            measure_seconds=args.measure_seconds,
            device=args.device,
            workers=args.workers,
            download=args.download,
            fresh=args.fresh,
            on=chosen_runner(args),
            log=(lambda line: None) if args.json else say,
        )
    except Queued as queued:
        return say_queued(queued, args.json)
    if args.json:
        print_json(results)
        return 0
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    say(f"\n{text_table(results, width=width)}\n{headline(results)}")
    say(f"\nreport: {Path(args.out) / 'report.html'}\nagain:  {results['command']}")
    return 0
