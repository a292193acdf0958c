"""Exported files are judged and asked like models, and folders, patterns and lists name pictures."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from tests.folders_of_people import classes, picture
from tokenmix.cli import main
from tokenmix.data import identity
from tokenmix.exported import expanded
from tokenmix.recipes import make_recipe
from tokenmix.sources import load_data
from tokenmix.train import fit


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_says_what_its_model_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = classes(tmp_path / "photos", ("cat", "dog"), 12)
    settings = ["model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=1", "warmup_epochs=0", f"data={root}"]
    quiet: dict[str, Any] = {"progress": False, "log": lambda line: None}
    fit(make_recipe("basic", settings), load_data(root, log=lambda line: None), tmp_path / "run", **quiet)
    file = str(tmp_path / "model.onnx")
    assert main(["export", str(tmp_path / "run"), "--out", file]) == 0
    words = ["--data", str(root), "--split", "all", "--json"]
    model, exported = (told(capsys, "eval", source, *words) for source in (str(tmp_path / "run"), file))
    assert exported["images"] == model["images"] == 24
    assert exported["top1"] == pytest.approx(model["top1"])
    assert exported["loss"] == pytest.approx(model["loss"], rel=1e-3)
    pictures = [str(root / "cat" / "0.jpg"), str(root / "dog"), str(root / "cat" / "1*.jpg")]
    answers = told(capsys, "predict", *pictures, "--model", file, "--json")
    assert len(answers) == 1 + 12 + 3
    ours = told(capsys, "predict", *pictures, "--model", str(tmp_path / "run"), "--json")
    for one, other in zip(answers, ours, strict=True):
        assert one["top"][0][1] == pytest.approx(other["top"][0][1], abs=1e-4)
    flat = tmp_path / "flat"
    shutil.copytree(root, flat)
    capsys.readouterr()
    assert main(["eval", file, "--data", str(flat)]) == 0
    assert "does not say which samples it has learnt from: all 24 are judged" in capsys.readouterr().out
    for wrong in (["--image-size", "48"], ["--mirror"]):
        assert main(["eval", file, "--data", str(root), *wrong]) == 2
        assert f"{wrong[0]}: an exported file answers as it was exported" in capsys.readouterr().err
    (tmp_path / "notes.json").write_text("{}")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "notes.onnx")]) == 2
    assert "notes.json is there and no manifest of an export" in capsys.readouterr().err
    assert not (tmp_path / "notes.onnx").exists()
    tables = []
    for source in (file, str(tmp_path / "run")):
        assert main(["predict", *pictures, "--model", source, "--csv", str(tmp_path / "answers.csv")]) == 0
        with open(tmp_path / "answers.csv", encoding="utf-8", newline="") as table:
            tables.append([[row["image"], row["rank"], row["class"]] for row in csv.DictReader(table)])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2 * len(answers)


@pytest.mark.slow
def test_a_file_of_eight_bits_is_judged_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = classes(tmp_path / "photos", ("cat", "dog"), 12)
    settings = ["model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=3", "warmup_epochs=0", f"data={root}"]
    quiet: dict[str, Any] = {"progress": False, "log": lambda line: None}
    fit(make_recipe("basic", settings), load_data(root, log=lambda line: None), tmp_path / "run", **quiet)
    file = str(tmp_path / "model.onnx")
    words = ["--precision", "int8", "--calibration", str(root), "--tolerance", "10", "--out", file]
    assert main(["export", str(tmp_path / "run"), *words]) == 0
    judged = told(capsys, "eval", file, "--data", str(root), "--split", "all", "--json")
    assert judged["images"] == 24
    answers = told(capsys, "predict", str(root), "--model", file, "--json")
    right = sum(answer["top"][0][0] == Path(answer["image"]).parent.name for answer in answers)
    assert judged["top1"] == pytest.approx(100 * right / 24)


def test_folders_patterns_and_lists(tmp_path: Path) -> None:
    root = tmp_path / "some"
    names = [str(picture(root / name)) for name in ("a.jpg", "b/c.jpg")]
    listed = tmp_path / "mine.list"
    listed.write_text("\n".join(names) + "\n\n")
    assert expanded([str(root)]) == names
    assert expanded([str(listed)]) == names
    assert expanded([str(root / "*.jpg")]) == names[:1]
    (root / "beside.txt").write_text("a.jpg\n\nb/c.jpg\n")  # paths from the list's own folder
    assert expanded([str(root / "beside.txt")]) == names
    (root / "cloud.txt").write_text("0.1 0.2 0.3\n")
    assert expanded([str(root / "cloud.txt")]) == [str(root / "cloud.txt")]
    assert expanded([str(tmp_path / "missing.jpg")]) == [str(tmp_path / "missing.jpg")]
    (tmp_path / "empty").mkdir()
    for nothing in (str(tmp_path / "empty"), str(root / "*.png")):
        with pytest.raises(ValueError, match="no file"):
            expanded([nothing])
    (root / "none.list").write_text("\n\n")
    (root / "none.txt").write_text("")  # a cloud or a series without rows
    with pytest.raises(ValueError, match=r"none\.list: the list names no file"):
        expanded([str(root / "none.list")])
    assert expanded([str(root / "none.txt")]) == [str(root / "none.txt")]


def test_a_runs_folder_knows_more_of_its_data_than_its_weights(tmp_path: Path, monkeypatch, capsys) -> None:
    """Where there are too many samples to be stored with the weights, ``data.json`` tells which were learnt from."""
    monkeypatch.setattr(identity, "MOST_WITH_WEIGHTS", 10)
    root = classes(tmp_path / "photos", ("cat", "dog"), 12)
    settings = ["model=mixernet_pico", "image_size=32", "batch_size=8", "epochs=1", "warmup_epochs=0", f"data={root}"]
    quiet: dict[str, Any] = {"progress": False, "log": lambda line: None}
    fit(make_recipe("basic", settings), load_data(root, log=lambda line: None), tmp_path / "run", **quiet)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(tmp_path / "run" / "best.safetensors", alone)
    for source, words in (
        (tmp_path / "run", "the model's own data"),
        (tmp_path / "run" / "best.safetensors", "the model's own data"),
        (alone, "all 24"),
    ):
        assert main(["eval", str(source), "--data", str(root)]) == 0
        assert words in capsys.readouterr().out
