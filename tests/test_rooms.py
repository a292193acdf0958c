"""The plan of the house: a module imports only from its own room and those above."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenmix
import tokenmix_runtime
from tokenmix.heads import HEADS
from tokenmix.mixers import MIXERS
from tokenmix.tasks import all_tasks

PACKAGE = Path(tokenmix.__file__).parent
# From top to bottom. Those up to "files" belong to no room and may be imported by all of them. Above them all is
# `tokenmix_runtime`, which imports none of them (tests/test_runtime_alone.py).
ROOMS = (
    "version",
    "runtime",
    "safety",
    "runtime_names",
    "callable_modules",
    "checked_values",
    "text_tables",
    "argument_types",
    "files",
    "ops",
    "layers",
    "mixers",
    "blocks",
    "backbones",
    "weight_files",
    "data",
    "heads",
    "metrics",
    "tasks",
    "checkpoints",
    "recipes",
    "pictures",
    "pages",
    "evaluate",
    "robustness",
    "domains",
    "sources",
    "exported",
    "train",
    "export",
    "bench",
    "compilation",
    "planning",
    "calls",
    "jobs",
    "sweeps",
    "comparison",
    "inspection",
    "web",
    "cli",
)
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
)


# What everybody asks is in `tokenmix.tasks` itself; the folders below it, and what they share, are the domains.
ASKED = (
    "tokenmix.tasks",
    "tokenmix.tasks.answer",
    "tokenmix.tasks.base",
    "tokenmix.tasks.draft",
    "tokenmix.tasks.judging",
    "tokenmix.tasks.objective",
    "tokenmix.tasks.options",
    "tokenmix.tasks.file_form",
    "tokenmix.tasks.section",
    "tokenmix.tasks.view",
)
KINDS = {"objects", "labels", "dense", "rcnn"}  # words for kinds of tasks that are no task's or head's name


def room(module: str) -> str:
    """``tokenmix.mixers.frequency`` is in ``mixers``, ``tokenmix.tasks.detection.task`` in ``domains``."""
    if module.startswith("tokenmix.tasks.") and module not in ASKED:
        return "domains"
    return module.split(".")[1]


def module_name(path: Path) -> str:
    parts = ["tokenmix", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports anywhere, also inside functions and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tokenmix")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the room"
            if node.module == "tokenmix":
                yield from (f"tokenmix.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("tokenmix."):
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_look_up_only(path: Path) -> None:
    here = room(module_name(path))
    assert here in ROOMS, f"{here} is no room of the house: give it a place in ROOMS"
    for name in imports(path):
        assert name != "tokenmix", f"{path.name}: import from the room itself, not from the package"
        there = "version" if name == "tokenmix.__version__" else room(name)
        assert there in ROOMS, f"{path.name} imports {name}, which is no room"
        assert ROOMS.index(there) <= ROOMS.index(here), f"{here} must not import from {there} ({name})"


def test_only_backbones_import_timms_registry() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if room(module_name(path)) != "backbones":
            assert "register_model" not in text, path
        assert "timm.layers" not in text, path
        assert "timm.models._" not in text, path


def test_no_module_has_the_name_of_a_public_function() -> None:
    """The first import of such a module would hide the function, unless the module is what is called."""
    modules = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    for name in modules & set(tokenmix.__all__):
        assert getattr(tokenmix, name) is importlib.import_module(f"tokenmix.{name}")
        assert callable(getattr(tokenmix, name))


@pytest.mark.parametrize("mixer", sorted(MIXERS))
def test_a_mixer_is_read_in_one_screen(mixer: str) -> None:
    path = inspect.getsourcefile(inspect.unwrap(MIXERS[mixer].build))
    assert path is not None
    assert 30 <= len(Path(path).read_text(encoding="utf-8").splitlines()) <= 90


def test_ops_and_mixers_need_torch_only() -> None:
    for path in FILES:
        if room(module_name(path)) not in ("ops", "layers", "mixers", "blocks"):
            continue
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
        allowed = {"torch", "tokenmix", "tokenmix_runtime"} | ({"triton"} if path.stem.endswith("_triton") else set())
        assert names - set(sys.stdlib_module_names) <= allowed, path


def test_each_mixer_has_a_file_of_its_own() -> None:
    assert len({info.build.__module__ for info in MIXERS.values()}) == len(MIXERS)


def test_kernels_are_imported_when_they_run() -> None:
    """Triton may be missing, and takes long to import."""
    for path in FILES:
        if not path.stem.endswith("_triton"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                assert "_triton" not in ast.unparse(node) or not isinstance(node, ast.Import | ast.ImportFrom), path


def test_no_condition_names_a_task_a_head_or_a_kind() -> None:
    """Outside of ``tasks/`` everything asks the task. A backbone may know its own official variants by name."""
    names = {*all_tasks(), *HEADS, *KINDS}
    runtime = Path(tokenmix_runtime.__file__).parent
    for path in [*PACKAGE.rglob("*.py"), *runtime.rglob("*.py")]:
        if path.is_relative_to(PACKAGE / "tasks") or path.is_relative_to(PACKAGE / "backbones"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            compared += [node.pattern] if isinstance(node, ast.match_case) else []
            for part in (part for side in compared for part in ast.walk(side)):
                named = isinstance(part, ast.Constant) and part.value in names
                assert not named, f"{path.name}: {ast.unparse(node)}"


def test_only_sources_ask_for_a_folder_of_a_task() -> None:
    """A domain is one folder: nobody outside of it knows it."""
    for path in FILES:
        if room(module_name(path)) != "domains":
            named = [name for name in imports(path) if room(name) == "domains"]
            assert named == [], f"{path.relative_to(PACKAGE)} imports {named}"
