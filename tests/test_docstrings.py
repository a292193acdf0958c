"""The public names explain themselves: whole sentences, what they take, return and refuse, and examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from types import FunctionType

import pytest

import tokenmix
import tokenmix_runtime


def explained(room: str) -> dict[str, type | FunctionType]:
    """The classes and functions of a room by name."""
    module = importlib.import_module(f"tokenmix.{room}")
    found = {name: getattr(module, name) for name in module.__all__}
    return {name: thing for name, thing in found.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


FACE = {f"tokenmix.{name}": getattr(tokenmix, name) for name in tokenmix.__all__ if name != "__version__"}
FACE |= {f"tokenmix_runtime.{name}": getattr(tokenmix_runtime, name) for name in tokenmix_runtime.__all__}
HELD = {  # rooms whose names are held to what those of the face are
    "backbones",
    "bench",
    "checkpoints",
    "comparison",
    "compilation",
    "data",
    "export",
    "heads",
    "inspection",
    "jobs",
    "metrics",
    "mixers",
    "planning",
    "recipes",
    "tasks",
    "train",
    "web",
}
FACE |= {f"tokenmix.{room}.{name}": thing for room in sorted(HELD) for name, thing in explained(room).items()}
FOREIGN = ("tokenmix.create_model",)  # timm's own
OURS = [name for name in FACE if name not in FOREIGN]
SENTENCE = re.compile(r"[.?!:][`)\"']*$")
ROOMS = (
    "mixers",
    "backbones",
    "heads",
    "recipes",
    "tasks",
    "data",
    "metrics",
    "train",
    "export",
    "inspection",
    "compilation",
    "jobs",
    "planning",
)


def documented(name: str):
    """The function or class that a public name stands for."""
    thing = FACE[name]
    if inspect.ismodule(thing):
        from tokenmix.callable_modules import function_of

        return function_of(thing.__name__)
    return thing


@pytest.mark.parametrize("name", OURS)
def test_a_public_name_is_explained(name):
    thing = documented(name)
    text = inspect.getdoc(thing)
    assert text
    first = text.split("\n\n")[0]
    assert SENTENCE.search(first), first
    assert "\nExamples:\n" in text
    if inspect.isfunction(thing):
        arguments = [p for p in inspect.signature(thing).parameters]
        part = text.split("\nArgs:\n")[1] if arguments else ""
        for argument in arguments:
            assert re.search(rf"^    \*{{0,2}}{argument}: [A-Z`(\"]", part, re.MULTILINE), f"{name}: {argument}"


@pytest.mark.parametrize("name", OURS)
def test_examples_run(name):
    thing = documented(name)
    module = importlib.import_module(thing.__module__)
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    found = finder.find(thing, name, module=module, globs=vars(module).copy())
    assert any(test.examples for test in found)
    for test in found:
        assert runner.run(test).failed == 0, name


@pytest.mark.parametrize("room", ROOMS)
def test_names_of_a_room_begin_with_a_sentence(room):
    for name, thing in explained(room).items():
        text = inspect.getdoc(thing)
        assert text, f"{room}.{name}"
        assert SENTENCE.search(text.split("\n\n")[0].rstrip()), f"{room}.{name}: {text}"
        assert "Likewise." not in text, f"{room}.{name}"
