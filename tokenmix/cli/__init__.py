"""The command line: a command parses its arguments, calls one public function and prints.

Exit codes: 0 done; 1 an unexpected failure (a bug: please report it); 2 a mistake in the command, the names or the
files it was given, or failed runs of a sweep; 3 `data check` found something wrong; 75 the training goes on later (the
disk is full, another process of the run was lost, or Slurm has it in a queue) with the same command; 130 interrupted
(Ctrl-C) and 143 terminated, in both cases after saving what training had reached; 141 when whoever read the output has
gone.
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from tokenmix.cores import cpu_quota, usable_cores
from tokenmix.files import DiskFull
from tokenmix.names import unknown
from tokenmix.safety import trusting
from tokenmix.terminal import say, shown
from tokenmix.version import __version__

COMMANDS = {
    "compare": "which token mixer for these images and this device? train, judge, export and measure several",
    "train": "train one model by a recipe",
    "sweep": "train a recipe over a grid of settings: mixers x seeds x sizes",
    "job": "do one run of a comparison or sweep: what a cluster starts",
    "eval": "judge a trained model on a data set",
    "predict": "name what is on pictures",
    "export": "write a model for another runtime, verified",
    "web": "run an exported model in the browser, on this machine or as static files",
    "bench": "time models side by side, against each other and against what the machine can do",
    "convert": "rewrite an official checkpoint under our names, or back",
    "models": "list the models",
    "recipes": "list the training recipes, or print one",
    "mixers": "list the token mixers and what fills their slots",
    "demo": "train a detector or a segmenter on embedded pictures, in minutes",
    "data": "check a data set before training, or pack it into tar shards",
}
TRUSTING = ("compare", "train", "sweep", "job", "eval", "predict", "export", "bench", "convert", "recipes")
RESUMABLE = ("compare", "train", "sweep", "job", "demo")


class Parser(argparse.ArgumentParser):
    """argparse with suggestions for mistyped options."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, shown(f"{self.prog}: error: {message}\n", lines=True))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``; an unknown option is an error with a suggestion."""
        args, rest = self.parse_known_intermixed_args(argv)  # words may come before and after options
        if rest:
            word = rest[0].split("=")[0]
            if word.startswith("-"):
                known = [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]
                self.error(unknown("option", word, known))
            self.error(f"unexpected argument {word!r}; see {self.prog} --help")
        return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        say("usage: tokenmix COMMAND ...\n\nEfficient token mixers for vision backbones.\n")
        say("\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()))
        codes = "0 done, 1 bug, 2 mistake, 3 wrong data, 75 try again later, 130/143 interrupted"
        say(f"\n`tokenmix COMMAND --help` explains each. Exit codes: {codes}.")
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        say(f"tokenmix {__version__}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        say(f"tokenmix: error: {unknown('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    _limit_threads()
    try:
        command: Any = importlib.import_module(f"tokenmix.cli.{name}_command")
        parser = Parser(prog=f"tokenmix {name}", description=command.__doc__, allow_abbrev=False)
        parser.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
        if name in TRUSTING:
            parser.add_argument(
                "--trust",
                action="store_true",
                help="the files named here are your own: what they name may be run and opened (see docs/security.md)",
            )
        command.add_arguments(parser)
        try:
            args = parser.parse(rest)
        except SystemExit as stop:
            return int(stop.code or 0)
        warnings.showwarning = _show_warning
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
        with trusting(name in TRUSTING and args.trust):
            code = command.run(args)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        told = "interrupted; the same command continues where it stopped" if name in RESUMABLE else "stopped"
        say(f"\n{told}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes the pipe
        return 141
    except (ValueError, TypeError, OSError, ImportError) as error:
        if "--traceback" in rest:
            raise
        say(f"tokenmix {name}: error: {error}", file=sys.stderr)
        return 75 if isinstance(error, ChildProcessError | ConnectionError | DiskFull) else 2


def _limit_threads() -> None:
    """Let PyTorch and its children take no more threads than a container's CPU quota pays for, if nobody chose."""
    if math.isfinite(cpu_quota()) and "torch" not in sys.modules:
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def _terminate(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category is UserWarning:
        say(f"warning: {message}", file=sys.stderr)
