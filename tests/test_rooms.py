"""The plan of the house: a module imports only from its own room and those above."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenmix

PACKAGE = Path(tokenmix.__file__).parent
# From top to bottom. Those up to "files" belong to no room and may be imported by all of them.
ROOMS = (
    "version",
    "names",
    "safety",
    "terminal",
    "cores",
    "limits",
    "shortage",
    "console",
    "files",
    "ops",
    "layers",
    "mixers",
    "blocks",
    "backbones",
    "runtime",
    "data",
    "heads",
    "metrics",
    "tasks",
    "checkpoints",
    "report",
    "recipes",
    "evaluate",
    "train",
    "export",
    "bench",
    "inspection",
    "jobs",
    "sweeps",
    "comparison",
    "web",
    "cli",
)
ALONE = "runtime"
LIGHT = ("names", "safety", "terminal", "cores", "limits", "shortage", "console")  # the standard library alone
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
)


def room(module: str) -> str:
    """``tokenmix.mixers.frequency`` is in ``mixers``."""
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
    if here == ALONE:  # it is installed without the libraries that the others need
        outside = [name for name in imports(path) if name == "tokenmix" or room(name) not in (ALONE, *LIGHT)]
        assert outside == [], f"the run-time part stands alone, but {path.name} imports {outside}"
        return
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
    """The first import of such a module would hide the function."""
    modules = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert modules & set(tokenmix.__all__) == set()


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
        allowed = {"torch", "tokenmix", "triton"} if path.stem.endswith("_triton") else {"torch", "tokenmix"}
        assert names - set(sys.stdlib_module_names) <= allowed, path


def test_kernels_are_imported_when_they_run() -> None:
    """Triton may be missing, and takes long to import."""
    for path in FILES:
        if not path.stem.endswith("_triton"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                assert "_triton" not in ast.unparse(node) or not isinstance(node, ast.Import | ast.ImportFrom), path
