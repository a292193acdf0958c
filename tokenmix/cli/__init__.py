"""The command line: a command parses its arguments, calls one public function and prints.

Exit codes: 0 done; 1 an unexpected failure (a bug: please report it); 2 a mistake in the command, the names or the
files it was given, too little memory, or failed runs of a sweep; 3 `data check` found something wrong; 75 the training
goes on later (the disk is full, another process of the run was lost, or Slurm has it in a queue) with the same command;
130 interrupted (Ctrl-C) and 143 terminated, in both cases after saving what training had reached; 141 when whoever read
the output has gone. What trains goes on without a reader: its results are in its folder.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tokenmix.cli.dialect import rewritten
from tokenmix.files import DiskFull, is_full
from tokenmix.safety import trusting
from tokenmix.version import __version__
from tokenmix_runtime.commands import COMMANDS as COMMANDS
from tokenmix_runtime.commands import first_answer
from tokenmix_runtime.console import Output, steady_streams
from tokenmix_runtime.names import unknown
from tokenmix_runtime.shortage import OutOfMemory, shortage
from tokenmix_runtime.terminal import say, shown

TRUSTING = (
    "compare",
    "train",
    "sweep",
    "job",
    "eval",
    "predict",
    "inspect",
    "upscale",
    "forecast",
    "export",
    "bench",
    "convert",
    "recipes",
)
RESUMABLE = ("compare", "train", "sweep", "job", "demo")  # what they do is in their folder, whoever reads what they say
TELLING = (
    "predict",
    "models",
    "mixers",
    "recipes",
    "docs",
    "env",
)  # nothing is left to do for them when nobody reads it
MISTAKES = (ValueError, TypeError, OSError, ImportError, OutOfMemory)  # what a user can mend; anything else is a bug
SIZES = ("batch_size", "batch_sizes", "batch", "batches", "image_size", "sizes", "maps", "workers")  # cost memory


class Parser(argparse.ArgumentParser):
    """argparse with suggestions for mistyped options."""

    def error(self, message: str) -> NoReturn:
        if message.startswith(lacking := "the following arguments are required: "):
            names = message.removeprefix(lacking).split(", ")
            told = {action.metavar or action.dest: action.help or "" for action in self._actions}
            message = lacking + "; ".join(f"{name} ({told[name]})" if told.get(name) else name for name in names)
        self.exit(2, shown(f"{self.prog}: error: {message}\n", lines=True))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``; an unknown option is an error with a suggestion."""
        args, rest = self.parse_known_intermixed_args(rewritten(self, argv))  # words may come before and after options
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
    name = words[0] if words else ""
    with steady_streams(needed=name in TELLING) as output:
        code = _run(name, words[1:], output)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        if output.error is None:
            return code
        if isinstance(output.error, BrokenPipeError):
            return code if name in RESUMABLE else 141
        told = f"standard output: {output.error.strerror}; what was printed from then on is lost"
        if name in RESUMABLE:
            print(f"warning: {told}", file=sys.stderr)
            return code
        print(f"tokenmix {name}: error: {told}", file=sys.stderr)
        return 75 if is_full(output.error) else 2


def _run(name: str, words: Sequence[str], output: Output) -> int:
    """Run the command of that name; returns the exit code, also where standard output broke."""
    if (answer := first_answer(name, __version__)) is not None:
        text, code = answer
        say(text, file=sys.stderr if code and name else sys.stdout)
        return code
    args = argparse.Namespace()
    try:
        command = command_module(name)
        parser = make_parser(name, command)
        try:
            args = parser.parse(words)
        except SystemExit as stop:
            return int(stop.code or 0)
        warnings.showwarning = _show_warning
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)
        with trusting(name in TRUSTING and args.trust):
            return command.run(args) or 0
    except KeyboardInterrupt:
        without = " without --fresh" * bool(getattr(args, "fresh", False))
        told = f"interrupted; the same command{without} continues where it stopped" if name in RESUMABLE else "stopped"
        say(f"\n{told}", file=sys.stderr)
        return 130
    except Exception as error:
        if error is output.error:
            return 0
        lack = None if isinstance(error, OutOfMemory) else shortage(error)
        if "--traceback" in words or not (lack or isinstance(error, MISTAKES)):
            raise
        told = f"{lack}; {_smaller(args)}" if lack else str(error)
        say(f"tokenmix {name}: error: {told}", file=sys.stderr)
        return 75 if isinstance(error, ChildProcessError | ConnectionError | DiskFull) else 2


def command_module(name: str) -> Any:
    """The module of a command, which has ``add_arguments`` and ``run``: one here, or one of a task."""
    if (Path(__file__).parent / f"{name}_command.py").is_file():
        return importlib.import_module(f"tokenmix.cli.{name}_command")
    from tokenmix.tasks import all_tasks

    (path,) = [task.commands[name] for task in all_tasks().values() if name in task.commands]
    return importlib.import_module(path)


def make_parser(name: str, command: Any) -> Parser:
    """The parser of a command, whose module is ``command``: its own options, and those that several have."""
    parser = Parser(prog=f"tokenmix {name}", description=command.__doc__, allow_abbrev=False)
    parser.add_argument("--traceback", action="store_true", help="show where in the code an error came from")
    if name in TRUSTING:
        parser.add_argument(
            "--trust",
            action="store_true",
            help="the files named here are yours: what they name may be run and opened (`tokenmix docs security`)",
        )
    command.add_arguments(parser)
    return parser


def _smaller(args: argparse.Namespace) -> str:
    """Which of the options that a command was given need less memory when they are smaller."""
    given = {name: value for name in SIZES if (value := getattr(args, name, None))}
    told = [
        f"--{name.replace('_', '-')} (now {' '.join(map(str, value)) if isinstance(value, list | tuple) else value})"
        for name, value in given.items()
    ]
    options = [f"--{name.replace('_', '-')}" for name in SIZES if hasattr(args, name)]
    if told or options:
        return f"smaller values of {', '.join(told or options)} need less, and so does a smaller model"
    return "a smaller model needs less, and other programs may be closed"


def _terminate(*_: Any) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category is UserWarning:
        say(f"warning: {message}", file=sys.stderr)
