"""One dialect for all commands: ``epochs=3``, ``--epochs 3`` and ``--set epochs=3`` are the same everywhere.

The words of a command line are rewritten before argparse sees them. ``name=value`` becomes ``--name value`` where the
command has such an option, and a setting where it takes settings of a recipe; ``--key value`` becomes a setting where
the command has no such option and recipes have such a key.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence

SETTING = "--set"
_ASSIGNED = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def rewritten(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """The words as argparse takes them."""
    actions = parser._option_string_actions
    takes_settings = SETTING in actions
    found: list[str] = []
    moved: list[str] = []  # settings go to the end, where no option with several values takes them
    wanted, several, left = 0, False, list(words)  # values that the last option still takes
    while left:
        word = left.pop(0)
        if word == "--":
            found += [word, *left]
            break
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            key = flag.removeprefix("--").replace("-", "_")
            if takes_settings and _is_key(key) and (flag not in actions or actions[flag].dest.startswith("setting_")):
                if not equals and not left:
                    parser.error(f"argument {flag}: expected one argument")
                moved += [SETTING, f"{key}={value if equals else left.pop(0)}"]
                wanted, several = 0, False
                continue
            action = actions.get(flag)
            wanted, several = (0, False) if action is None or equals else _values(action)
            found.append(word)
            continue
        if word.startswith("-") and word in actions:
            wanted, several = _values(actions[word])
            found.append(word)
            continue
        assigned = _ASSIGNED.fullmatch(word)
        takes_pairs = several and "=" in str(actions.get(_last_flag(found), argparse.Action([], "")).metavar)
        if wanted or takes_pairs or not assigned or os.path.exists(word):
            wanted = max(0, wanted - 1)
            found.append(word)
            continue
        flag = "--" + assigned[1].replace("_", "-")
        action = actions.get(flag)
        if action is not None and not action.dest.startswith("setting_") and action.nargs != 0:
            moved += [flag, assigned[2]]
        elif takes_settings:
            moved += [SETTING, word]
        else:
            found.append(word)
    cut = found.index("--") if "--" in found else len(found)
    return [*found[:cut], *moved, *found[cut:]]


def _values(action: argparse.Action) -> tuple[int, bool]:
    """How many values an option certainly takes, and whether it may take more."""
    if action.nargs is None:
        return 1, False
    if isinstance(action.nargs, int):
        return action.nargs, False
    return (1 if action.nargs == "+" else 0), action.nargs in ("+", "*")


def _last_flag(words: Sequence[str]) -> str:
    return next((word for word in reversed(words) if word.startswith("--")), "")


def _is_key(key: str) -> bool:
    """Whether a recipe of some task has such a key."""
    from tokenmix.recipes.keys import find_key
    from tokenmix.tasks import all_tasks

    try:
        find_key(key, next(iter(all_tasks().values())))
    except ValueError:
        return False
    return "." in key or key not in ("data", "task", "source", "expect", "cost")
