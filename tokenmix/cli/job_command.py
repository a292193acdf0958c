"""Do one run of a comparison or a sweep: what a cluster starts.

FOLDER holds a `job.json`, which `tokenmix compare` and `tokenmix sweep` write. The same command continues an
interrupted run; one that has finished ends at once.
"""

from __future__ import annotations

import argparse

from tokenmix.jobs import perform


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix job``."""
    parser.add_argument("folder", help="the run's folder")


def run(args: argparse.Namespace) -> None:
    """Train."""
    outcome = perform(args.folder)  # which main lets trust the folder where --trust was given
    if isinstance(outcome, Exception):
        raise outcome
