"""The options that say where jobs run, and what a command says whose jobs are in a queue."""

from __future__ import annotations

import argparse
import sys

from tokenmix.argument_types import number, whole
from tokenmix.cli.output import print_json
from tokenmix.jobs import RUNNERS, Queued, Runner, make_runner
from tokenmix_runtime.terminal import say

OPTIONS = ("address", "cpus", "gpus", "at_once", "sbatch", "wait")
QUEUED = 75  # EX_TEMPFAIL of sysexits.h: try again later


def add_runner(parser: argparse.ArgumentParser) -> None:
    """The options for `chosen_runner`."""
    add = parser.add_argument_group("where to train").add_argument
    add("--on", default="local", choices=RUNNERS, help="this process, a Ray cluster, or Slurm (default: %(default)s)")
    add("--address", metavar="HOST:PORT", help="ray: the cluster (default: RAY_ADDRESS, else this machine's)")
    add(
        "--cpus",
        type=whole("cpus"),
        metavar="N",
        help="ray, slurm: processor cores for each run (default: as many as here)",
    )
    add("--gpus", type=number("gpus"), metavar="N", help="ray: GPUs for each run (default: 1 with --device cuda)")
    add("--at-once", type=whole("at_once"), metavar="N", help="slurm: runs at the same time (default: Slurm decides)")
    add(
        "--sbatch",
        nargs="+",
        metavar="KEY=VALUE",
        help="slurm: options of sbatch, partition=gpu gres=gpu:1 time=4:00:00",
    )
    add("--wait", action="store_const", const=True, help="slurm: wait until the runs have ended, and collect them")


def chosen_runner(args: argparse.Namespace) -> Runner:
    """The runner that the command asks for."""
    given = {name: value for name in OPTIONS if (value := getattr(args, name)) is not None}
    return make_runner(args.on, **{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


def say_queued(queued: Queued, json: bool) -> int:
    """Say that the jobs are in a queue; returns the exit code."""
    if json:
        print_json({"queued": queued.id, "unfinished": [str(folder) for folder in queued.unfinished]})
    else:
        say(queued, file=sys.stderr)
    return QUEUED
