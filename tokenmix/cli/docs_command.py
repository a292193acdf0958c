"""Print a page of the documentation, or list the pages: what messages point at, wherever this is installed."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

from tokenmix.cli.output import print_json
from tokenmix_runtime.names import unknown
from tokenmix_runtime.terminal import say

FOLDER = "share/doc/tokenmix"  # of an installation, see pyproject.toml


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tokenmix docs``."""
    parser.add_argument("page", nargs="?", help="such as security, or docs/security.md (default: list them)")
    parser.add_argument("--path", action="store_true", help="print where the page's file is, not what it says")
    parser.add_argument("--json", action="store_true", help="print the list as JSON: titles by page")


def run(args: argparse.Namespace) -> None:
    """Print the page, its place, or the list."""
    pages = find_pages()
    if not pages:
        raise ValueError("the documentation is not installed here: it is the folder docs of the source")
    if args.page is None:
        titles = {name: title(path) for name, path in pages.items()}
        if args.json:
            print_json(titles)
            return
        width = max(map(len, titles))
        say("\n".join(f"{name:<{width}}  {text}" for name, text in titles.items()))
        return
    name = args.page.removeprefix("docs/").removesuffix(".md")
    if name not in pages:
        raise ValueError(unknown("page of the documentation", name, pages))
    say(str(pages[name]) if args.path else pages[name].read_text(encoding="utf-8").rstrip())


def find_pages() -> dict[str, Path]:
    """The pages by name, of this source tree or of the installation."""
    beside = Path(__file__).resolve().parents[2] / "docs"
    if (beside / "recipes.md").is_file():
        files = sorted(beside.rglob("*.md"))
        return {path.relative_to(beside).with_suffix("").as_posix(): path for path in files}
    try:
        listed = metadata.files("tokenmix") or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for file in listed:
        _, here, name = file.as_posix().partition(f"{FOLDER}/")
        if here and name.endswith(".md"):
            found[name.removesuffix(".md")] = Path(str(file.locate())).resolve()
    return dict(sorted(found.items()))


def title(path: Path) -> str:
    """The heading of a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), path.stem)
