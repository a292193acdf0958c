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
from tokenmix.cli.options import DATA, add_common, add_settings
from tokenmix.cli.output import print_json
from tokenmix.cli.runner import add_runner, chosen_runner, say_queued
from tokenmix.comparison import DEFAULT_MIXERS, compare
from tokenmix.comparison.request import MATCHED
from tokenmix.jobs import Queued
from tokenmix.pages.comparison_table import text_table
from tokenmix.pages.conclusions import headline
from tokenmix.planning import Budget, read_budget
from tokenmix.planning.latency import TIMED_IN
from tokenmix_runtime.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix compare``."""
    add = parser.add_argument
    add("data", nargs="?", help=DATA)
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
        help="a recipe's name or JSON file (default: planned from the data, of which the digits have their own)",
    )
    add_common(
        parser,
        "--budget",
        budget={
            "help": "what a plan may take for all trainings, 30min or 2h (default: 1h), what an answer may take here, "
            "2ms, or both: mixers that take longer are made narrower, or left out",
        },
    )
    add("--seeds", type=whole("seeds"), default=1, metavar="N", help="train each N times and report mean and spread")
    add(
        "--match",
        choices=MATCHED,
        help="change widths so that all have the first mixer's budget; latency: that of --budget, if it has one",
    )
    add(
        "--timed-in",
        choices=TIMED_IN,
        default=TIMED_IN[0],
        help="where --match latency and --budget 2ms time one sample (default: %(default)s)",
    )
    add(
        "--batch-sizes",
        type=whole("batch_size"),
        nargs="+",
        default=[1, 32],
        metavar="N",
        help="of the latency measurement",
    )
    add(
        "--corruptions",
        action="store_true",
        help="judge each on corrupted test pictures too: noise of four bands, blur, JPEG, brightness, shift, scale, "
        "rotation",
    )
    add("--compile", action="store_true", help="measure torch.compile too (a minute of compilation per mixer)")
    add(
        "--measure-seconds",
        type=number("measure_seconds"),
        default=60.0,
        metavar="S",
        help="time for all latency measurements together",
    )
    add_common(parser, "--device", "--workers", "--download", "--fresh", "--json", device={"default": "cpu"})
    add_runner(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, then print the table."""
    mixers = args.mixers[0] if args.mixers is not None and len(args.mixers) == 1 else args.mixers
    budget = read_budget(args.budget) if args.budget else Budget()
    data = args.data_option or args.data or "digits"
    if args.data not in (None, data):
        raise ValueError(f"{args.data} and --data {data} are two data sets: name one")
    try:
        results = compare(
            data,
            mixers,
            out=args.out,
            skeleton=args.skeleton,
            recipe=args.recipe,
            settings=args.set,
            seeds=args.seeds,
            match=args.match,
            batch_sizes=tuple(args.batch_sizes),
            compile=args.compile,
            measure_seconds=args.measure_seconds,
            device=args.device,
            workers=args.workers,
            download=args.download,
            fresh=args.fresh,
            budget_s=budget.seconds,
            corruptions=args.corruptions,
            budget_ms=budget.latency_ms,
            timed_in=args.timed_in,
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
