"""The run-time's forecaster with small files that always answer the same: what it writes, and what it refuses."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tests.runtime_files import constant_file
from tests.series_files import write_waves
from tokenmix.cli import main as tokenmix
from tokenmix_runtime.forecaster import main

LOOK_BACK, HORIZON = 8, 2


def forecaster(path: Path, answer: np.ndarray | None = None, **changes: Any) -> Path:
    """An exported forecaster of two variables that answers ``(1, H, 2)``, whatever it is given."""
    content: dict[str, Any] = {
        "schema": "tokenmix.model/2",
        "model": "toy",
        "task": "forecasting",
        "labels": None,
        "input": {"name": "image", "shape": [1, LOOK_BACK, 2], "dtype": "float32"},
        "preprocess": {"look_back": LOOK_BACK, "mean": [20.0, 20.0], "std": [3.0, 3.0], "learnt": None, "season": None},
        "postprocess": {"kind": "forecast", "inside": False, "horizon": HORIZON},
    }
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    found = np.zeros((1, HORIZON, 2), np.float32) if answer is None else answer
    return constant_file(path, {"forecast": found}, content)


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    return write_waves(tmp_path / "waves.csv", rows=60)


def test_the_series_is_not_written_over(tmp_path: Path, waves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its name, through a linked folder, and by both programs."""
    model, before = forecaster(tmp_path / "model.onnx"), waves.read_bytes()
    (tmp_path / "linked").symlink_to(tmp_path)
    for out in (waves, tmp_path / "linked" / "waves.csv"):
        assert main([str(model), str(waves), "--out", str(out)]) == 2
        assert tokenmix(["forecast", f"{waves}:target=level", "--horizon", "3", "--out", str(out)]) == 2
        told = capsys.readouterr().err.splitlines()
        assert len(told) == 2
        assert all(f"--out {out} is the file that is read: give another name" in line for line in told)
    assert waves.read_bytes() == before
    assert not list(tmp_path.glob("*.svg"))


def test_a_picture_of_something_else_is_not_written_over(
    tmp_path: Path, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.svg").write_text("by hand")
    words = ["forecast", str(waves), "--horizon", "3", "--out"]
    assert tokenmix([*words, str(tmp_path / "map.csv")]) == 2
    assert "map.svg is in the way, and of no earlier forecast" in capsys.readouterr().err
    assert (tmp_path / "map.svg").read_text() == "by hand"
    for _ in range(2):  # an earlier forecast is replaced
        assert tokenmix([*words, str(tmp_path / "three.csv")]) == 0


def test_a_table_appears_whole_in_a_new_folder(tmp_path: Path, waves: Path) -> None:
    model, out = forecaster(tmp_path / "model.onnx"), tmp_path / "new" / "table.csv"
    assert main([str(model), str(waves), "--out", str(out)]) == 0
    assert out.read_text().startswith("date,level,")
    assert [path.name for path in out.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(("error", "code"), [(BrokenPipeError(), 141), (OSError(28, "No space left on device"), 2)])
def test_a_broken_output_ends_it_quietly(
    error: OSError, code: int, tmp_path: Path, waves: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            raise error

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(Broken()), "ascii"))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert main([str(forecaster(tmp_path / "model.onnx")), str(waves)]) == code


def test_names_that_a_console_lacks_are_escaped(tmp_path: Path, waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waves.write_text(waves.read_text().replace("level", "Größe λ"), encoding="utf-8")
    with open(tmp_path / "told", "w", encoding="ascii") as console:
        monkeypatch.setattr(sys, "stdout", console)
        assert main([str(forecaster(tmp_path / "model.onnx")), str(waves)]) == 0
    assert (tmp_path / "told").read_text().startswith(r"date,Gr\xf6\xdfe \u03bb")


def test_a_stop_is_no_traceback(waves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tokenmix_runtime.forecaster.read_series", stopped)
    assert main(["model.onnx", str(waves)]) == 130


@pytest.mark.parametrize("shape", [(1, HORIZON + 1, 2), (1, HORIZON, 1), (1, 2), (2, HORIZON, 2)])
def test_outputs_of_another_shape_are_refused(
    shape: tuple[int, ...], tmp_path: Path, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = forecaster(tmp_path / "model.onnx", np.zeros(shape, np.float32))
    assert main([str(model), str(waves)]) == 2
    assert f"not those of its manifest: {shape}, not (1, 2, 2)" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_no_forecast(
    value: float, tmp_path: Path, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = forecaster(tmp_path / "model.onnx", np.full((1, HORIZON, 2), value, np.float32))
    assert main([str(model), str(waves), "--json"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "tokenmix_runtime: error: toy computes no finite numbers for this series\n")
    assert tokenmix(["forecast", str(waves), "--model", str(model), "--out", str(tmp_path / "out.csv")]) == 2
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("learnt", [[5], [], 5, {"rows": 5}])
def test_a_wrong_manifest_is_one_line(
    learnt: Any, tmp_path: Path, waves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(forecaster(tmp_path / "model.onnx", preprocess={"learnt": learnt})), str(waves)]) == 2
    assert "the manifest inside" in capsys.readouterr().err
