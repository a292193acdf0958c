"""The commands of ``tokenmix``, and what it says where none of them is asked for: without loading torch."""

from __future__ import annotations

from tokenmix_runtime.names import unknown

COMMANDS = {
    "compare": "which token mixer for these images and this device? train, judge, export and measure several",
    "train": "train one model by a recipe",
    "sweep": "train a recipe over a grid of settings: mixers x seeds x sizes",
    "job": "do one run of a comparison or sweep: what a cluster starts",
    "eval": "judge a trained model on a data set",
    "predict": "name what is on pictures",
    "inspect": "look inside a model: receptive fields, slots of its mixers, maps, spectra",
    "upscale": "make photographs larger",
    "forecast": "what follows a series: dates, intervals, base lines",
    "export": "write a model for another runtime, verified",
    "web": "run an exported model in the browser, on this machine or as static files",
    "bench": "time models side by side, against each other and against what the machine can do",
    "convert": "rewrite an official checkpoint under our names, or back",
    "models": "list the models",
    "recipes": "list the training recipes, or print one",
    "mixers": "list the token mixers and what fills their slots",
    "demo": "train a small model on embedded data, in minutes",
    "docs": "print a page of the documentation",
    "env": "print versions, devices, threads and optional packages: what a report of a problem needs",
    "data": "check a data set before training, or pack it into tar shards",
}
MEANT = {  # by words that other programs have
    "list": "'models', 'mixers' or 'recipes'",
    "help": "'--help', or 'docs tutorial'",
    "version": "'--version'",
    "test": "'eval'",
    "validate": "'eval'",
    "val": "'eval'",
    "fit": "'train'",
    "infer": "'predict'",
    "serve": "'web', or 'bench --serve'",
}


def first_answer(name: str, version: str) -> tuple[str, int] | None:
    """What a first word gets that is no command: the text and the exit code; None for a command.

    Args:
        name: The word; empty where there is none.
        version: Of tokenmix.

    Examples:
        >>> from tokenmix_runtime.commands import first_answer
        >>> first_answer("--version", "0.2.0")
        ('tokenmix 0.2.0', 0)
    """
    if name in COMMANDS:
        return None
    if name in ("-V", "--version"):
        return f"tokenmix {version}", 0
    if name in ("", "-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        codes = "0 done, 1 bug, 2 mistake, 3 wrong data, 75 try again later, 130/143 interrupted"
        more = f"New here? `tokenmix docs tutorial`. `tokenmix COMMAND --help` explains each. Exit codes: {codes}."
        head = "usage: tokenmix COMMAND ...\n\nEfficient token mixers for vision backbones."
        return f"{head}\n\n{lines}\n\n{more}", 0 if name else 2
    return f"tokenmix: error: {_no_command(name)}", 2


def _no_command(name: str) -> str:
    """The message for a first word that is no command."""
    if name.startswith("-"):
        return unknown("option", name, ("--help", "--version"))
    if name in MEANT:
        return f"unknown command {name!r}; did you mean {MEANT[name]}? Known: {', '.join(sorted(COMMANDS))}"
    return unknown("command", name, COMMANDS)
