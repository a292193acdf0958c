"""Every command with its words and options, as its own parser knows them: the text of ``docs/commands.md``."""

from __future__ import annotations

import argparse
import re

from tokenmix.cli import COMMANDS, command_module, make_parser

ANGLES = re.compile(r"[<>|]")


def commands() -> str:
    """A section for each command: what it does, how it is called, its words and options."""
    return "\n\n".join(command(name) for name in COMMANDS)


def command(name: str) -> str:
    """One command's section."""
    parser = make_parser(name, command_module(name))
    words = " ".join(_word(action) for action in parser._get_positional_actions())
    call = " ".join(["tokenmix", name, *([words] if words else []), "[options]"])
    parts = [f"## {name}", f"```text\n{call}\n```", _told(parser.description or "")]
    for group in parser._action_groups:
        rows = [row for action in group._group_actions if (row := _row(action, parser))]
        if rows:
            title = {"positional arguments": "words", "options": "options"}.get(group.title or "", group.title or "")
            about = f" {_told(group.description)}" if group.description else ""
            parts.append(f"**{title[0].upper()}{title[1:]}**{'.' if about else ''}{about}")
            parts.append("\n".join([f"| {'word' if title == 'words' else 'option'} | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _row(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """A line of the table; nothing of what is hidden, and of ``--help``."""
    if action.help in (None, argparse.SUPPRESS) or isinstance(action, argparse._HelpAction):
        return ""
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {_word(action)}"
        name = ", ".join(f"`{flag}{value}`" for flag in action.option_strings)
    else:
        name = f"`{_word(action)}`"
    told = parser.formatter_class("")._expand_help(action) if "%" in (action.help or "") else action.help or ""
    return f"| {name} | {_cell(told)} |"


def _word(action: argparse.Action) -> str:
    """How the value of an option, or a word, is written: ``LIMIT [LIMIT ...]``."""
    if action.metavar is not None:
        name = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar)
    else:
        name = action.dest.upper()
    several = {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}
    return several.get(str(action.nargs), name)


def _cell(text: str) -> str:
    """A text in a table's cell: names in angles and bars would be markup."""
    return ANGLES.sub(lambda found: {"<": "&lt;", ">": "&gt;", "|": "\\|"}[found[0]], " ".join(text.split()))


def _told(text: str) -> str:
    """A module's docstring as paragraphs; its code in double quotes is Markdown's in single ones."""
    return text.strip().replace("``", "`")
