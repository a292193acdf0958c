"""How commands end: exit codes, pipes, signals, options anywhere on the line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tokenmix.cli import main, mixers_command
from tokenmix.text_tables import table


@pytest.fixture
def taught(monkeypatch):
    """What `train` would train, and with which settings."""
    asked = []

    def note(name, settings):
        asked.extend([name, *settings])
        raise ValueError("enough")

    monkeypatch.setattr("tokenmix.planning.training.make_recipe", note)
    return asked


@pytest.mark.parametrize(
    "words",
    [
        ["mixernet_tiny", "--data", "photos", "epochs=3", "lr=1", "--out", "x"],
        ["mixernet_tiny", "epochs=3", "--out", "x", "lr=1", "--data", "photos"],
        ["--data", "photos", "mixernet_tiny", "epochs=3", "lr=1"],
    ],
)
def test_words_and_options_come_in_any_order(words, taught):
    assert main(["train", *words]) == 2
    assert taught == ["mixernet_tiny", "epochs=3", "lr=1", "data=photos"]


@pytest.mark.parametrize(
    "words",
    [
        ["train", "mixernet_pico", "--device", "gpu"],
        ["eval", "mixernet_pico", "--data", "digits", "--device", "cuda:99"],
        ["predict", "x.png", "--model", "mixernet_pico", "--device", "gpu"],
    ],
)
def test_a_missing_device_is_a_mistake(words, capsys):
    assert main(words) == 2
    assert "torch finds no such device" in capsys.readouterr().err


def test_export_names_its_mistakes_before_it_works(tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    assert main(["export", "mixernet_pico", "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", "mixernet_pico", "--out", str(tmp_path / "x.onnx")]) == 2
    assert "pip install" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("x"), RuntimeError("x"), AssertionError("x")])
def test_a_bug_is_not_taken_for_a_mistake(error, monkeypatch):
    def run(args):
        raise error

    monkeypatch.setattr(mixers_command, "run", run)
    with pytest.raises(type(error)):
        main(["mixers"])


def _python(code: str, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-u", "-c", code], text=True, stderr=subprocess.PIPE, **options)


def test_a_closed_pipe_ends_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    process = _python("import sys; from tokenmix.cli import main; sys.exit(main(['mixers']))", stdout=writer)
    os.close(writer)
    _, error = process.communicate()
    assert (process.returncode, error) == (141, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_outside_of_training(number, code):
    slow = "import sys, time; from tokenmix.cli import main, mixers_command\n"
    slow += "def run(args): print('begun', flush=True); time.sleep(60)\n"
    process = _python(slow + "mixers_command.run = run; sys.exit(main(['mixers']))", stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in error


def test_tables_break_between_words_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "28")
    lines = table(["name", "paper"], [["aff", "arXiv:2307.14008 of the year 2023"]]).splitlines()
    assert [line.split() for line in lines[2:]] == [["aff", "arXiv:2307.14008", "of"], ["the", "year", "2023"]]
    assert max(map(len, lines)) <= 28
