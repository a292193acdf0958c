"""README and documentation: their Python is run, their links lead somewhere, their generated parts are fresh."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import markdown
import pytest
from PIL import Image

from tests import browser, looks

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(<!-- not run[^>]*-->\n)?```python\n(.*?)```", re.DOTALL)


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=_name)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    """All blocks of a page in order, in one namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENMIX_DATA", str(tmp_path / "cache"))
    names: dict = {"__name__": "documentation"}
    blocks = [code for skipped, code in BLOCK.findall(page.read_text(encoding="utf-8")) if not skipped]
    assert blocks or page.name == "compare.md"
    for code in blocks:
        exec(compile(code, str(page), "exec"), names)


@functools.cache
def _anchors(page: Path) -> set[str]:
    """What may stand behind ``#`` in a link to a page, as the site's builder names its headings."""
    parser = markdown.Markdown(extensions=["toc", "fenced_code"])
    return set(re.findall(r'\sid="([^"]+)"', parser.convert(page.read_text(encoding="utf-8"))))


def _lost(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of a page of ours."""
    found = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?", page.read_text(encoding="utf-8")):
        path = (page.parent / target if target else page).resolve()
        if target.startswith(("http://", "https://")):
            continue
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in _anchors(path)):
            found.append(f"{target}#{anchor}" if anchor else target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    assert _lost(page) == []


def test_lost_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# One\n\n## Twice `x`\n\n## Twice x\n\n```sh\n# no heading\n```\n")
    good = "[a](other.md) [b](other.md#one) [c](other.md#twice-x_1) [d](#here) [e](https://example.org/#any)"
    lost = "[f](gone.md) [g](other.md#no-heading) [h](#there)"
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n{good}\n\n{lost}\n")
    assert _lost(page) == ["gone.md", "other.md#no-heading", "#there"]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_of_a_page_exist(page):
    """With all of their options."""
    from tokenmix.cli import COMMANDS, command_module, make_parser

    for block in re.findall(r"```(?:sh|text)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for name, rest in re.findall(r"^(?:\S*/)?tokenmix (\S+)(.*)", block.replace("\\\n", " "), re.MULTILINE):
            assert name in COMMANDS, f"{page.name}: tokenmix {name}"
            parser = make_parser(name, command_module(name))
            for option in re.findall(r" (--[a-z][a-z0-9-]*)", rest.split(" # ")[0]):
                assert option in {"--help", *parser._option_string_actions}, f"{page.name}: tokenmix {name} {option}"


def script(name: str):
    """The module ``docs/{name}.py``."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def generator():
    """The module ``docs/generate.py``."""
    return script("generate")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("mixers/README.md", "mixer"),
        ("recipes.md", "recipe"),
        ("dense.md", "head"),
        ("dense.md", "size"),
        ("deploy.md", "export"),
        ("inspect.md", "corruption"),
        ("shootout.md", "shootout"),
        ("tasks/forecasting.md", "forecaster"),
        ("tasks/forecasting.md", "forecast"),
    ],
)
def test_tables_are_not_stale(page, name):
    generate = generator()
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = getattr(generate, f"{name}_table")()
    assert generate.between(text, f"{name}s", table) == text, "run `make docs`"


def test_commands_are_not_stale():
    generate = generator()
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert generate.between(text, "commands", generate.commands()) == text, "run `make docs`"


@pytest.mark.parametrize(("page", "name"), [("rooms.md", "rooms"), ("runtime.md", "runtime")])
def test_names_of_the_reference_are_not_stale(page, name):
    generate = generator()
    text = (ROOT / "docs" / "api" / page).read_text(encoding="utf-8")
    new = generate.rooms() if name == "rooms" else generate.api("tokenmix_runtime")
    assert generate.between(text, name, new) == text, "run `make docs`"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "papers").glob("*.md")), ids=_name)
def test_code_beside_the_equations_is_that_of_the_source(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- code " in text
    assert generator().with_sources(text) == text, "run `make docs`"


def test_every_public_name_has_its_place_in_the_reference():
    import tokenmix

    text = (ROOT / "docs" / "api" / "README.md").read_text(encoding="utf-8")
    for name in tokenmix.__all__:
        assert name == "__version__" or f"tokenmix.{name}\n" in text, name


def test_the_picture_of_receptive_fields_is_told_as_measured():
    fields = script("receptive_fields")
    energies = fields.fields()
    widths = {fields.width_of(energy) for energy in energies.values()}
    reach = {mixer: f"{100 * fields.reach_of(energy):.0f} %" for mixer, energy in energies.items()}
    assert reach == {"aff": "100 %", "dsm": "100 %", "ffnified": "18 %"}
    told = " ".join((ROOT / "docs" / "inspect.md").read_text(encoding="utf-8").split())
    assert f"within {widths.pop()} pixels for all three" in told
    assert not widths
    assert f"{reach['aff']} of the pixels for `aff` and {reach['dsm']} for `dsm`" in told
    assert f"55 x 55 for `ffnified`, {reach['ffnified']}." in told
    with Image.open(fields.FILE) as kept:
        assert fields.drawn(energies).size == kept.size
    assert fields.FILE.stat().st_size < 60_000


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody(tmp_path):
    """Nothing that a page of the site loads lies elsewhere; links that a reader follows may."""
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="pip install 'tokenmix[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\s\">]+)", text)
        for tag in re.findall(r"<link[^>]+>", text):
            if re.search(r"\brel=\"?(stylesheet|icon|preload|preconnect)", tag):
                loaded += re.findall(r"\bhref=\"?([^\s\">]+)", tag)
        assert loaded
        assert not [address for address in loaded if address.startswith(("http:", "https:", "//"))], page.name
    if browser.missing() is None:
        with browser.chromium() as driver:
            for name, width, dark in itertools.product(("index", "tutorial", "inspect"), (360, 1440), (False, True)):
                browser.screen(driver, width, 900, dark)
                driver.get((tmp_path / f"{name}.html").as_uri())
                assert looks.width(driver) <= width, name
                assert [text for text in looks.texts(driver) if text.contrast < text.needed] == [], name


@pytest.mark.parametrize("name", ["forms", "peers", "growth", "gpu"])
def test_measurements_are_not_stale(name):
    generate = generator()
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert generate.between(text, name, generate.measured(name)) == text, "run `make docs`"


def test_export_table_shows_sizes_errors_and_reasons():
    empty = {"max_error": None, "relative_error": None, "megabytes": None, "reason": None}
    rows = [
        {"model": "a", "head": None, "format": "onnx", "status": "ok", "max_error": 1e-5, "relative_error": 2.4e-6}
        | {"megabytes": 4.21, "reason": None},
        empty
        | {"model": "a", "head": None, "format": "coreml", "status": "unverified", "megabytes": 2.0}
        | {"reason": "macOS only"},
        empty | {"model": "b", "head": "ssdlite", "format": "coreml", "status": "failed", "reason": "no operator X"},
    ]
    assert generator().export_matrix(rows).splitlines()[2:] == [
        "| model | onnx | coreml |",
        "|---|---:|---:|",
        "| `a` | 4.2 MB, 2e-06 | 2.0 MB (1) |",
        "| `b` + ssdlite |  | failed (2) |",
        "",
        "1. coreml: macOS only",
        "2. coreml: no operator X",
    ]


def test_the_gallery_is_small_and_complete_in_itself():
    pages = sorted((ROOT / "docs" / "gallery").glob("*.html"))
    assert {"bench", "inspect", "train"} <= {page.stem for page in pages}
    assert sum(page.stat().st_size for page in pages) < 6_000_000
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|img|iframe|link)[^>]*\b(?:src|href)=\"?https?:", text), page.name
        assert not re.findall(r"/(?:tmp|home|root|work)/", text), page.name


def test_readme_is_short_and_shows_pictures():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert all(command in text for command in ("make demo", "make test"))
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)
