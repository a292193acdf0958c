"""The tutorial as a newcomer does it: its Python, then its commands in their order, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tokenmix.cli import main

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FOREVER = "--open"  # a server that waits for its visitors


def photographs() -> None:
    """The folder that the tutorial makes of two photographs."""
    (code,) = re.findall(r"(?<!-->\n)```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(code, "tutorial.md", "exec"), {})


def commands() -> list[list[str]]:
    """The words of each command of ours, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("tokenmix ")]
    found = [shlex.split(line, comments=True)[1:] for line in lines]
    return [words for words in found if FOREVER not in words]


def test_the_tutorial_has_every_step():
    assert [words[0] for words in commands()] == [
        "env",
        "data",
        "train",
        "eval",
        "predict",
        "compare",
        "export",
        "predict",
        "web",
    ]


def test_its_photographs_can_be_used(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="the photographs come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    photographs()
    assert len(list(Path("photos").rglob("*.jpg"))) == 180
    assert main(["data", "check", "photos"]) == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_its_commands_work(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="the photographs come with scikit-learn")
    pytest.importorskip("onnxscript", reason="pip install 'tokenmix[onnx]'")
    monkeypatch.chdir(tmp_path)
    photographs()
    for words in commands():
        assert main(words) == 0, f"tokenmix {shlex.join(words)}: {capsys.readouterr().err}"
    from tokenmix_runtime.__main__ import main as answer

    capsys.readouterr()
    assert answer(["photos.onnx", "photos/test/china/0.jpg"]) == 0
    assert "china" in capsys.readouterr().out
    for path in ("runs/photos/report.html", "runs/mixers/report.html", "page/index.html"):
        assert Path(path).is_file(), path
