"""Pictures of 16 bits and of floats: what is learnt from them is what is learnt from the documented 8 bits."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.folders_of_people import BOX, HEIGHT, WIDTH, yolo_line
from tokenmix.cli import main
from tokenmix.sources import load_data
from tokenmix_runtime.__main__ import main as runtime_main

DEPTHS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    # From shares of white to what is stored, and from that to 8 bits as docs/data.md has it.
    "16 bits": (
        lambda share: np.rint(share * 65535).astype(np.uint16),
        lambda stored: np.rint(stored / 257).astype(np.uint8),
    ),
    "floats up to 1": (
        lambda share: share.astype(np.float32),
        lambda stored: np.rint(stored.astype(np.float64) * 255).astype(np.uint8),
    ),
    "floats up to 65535": (
        lambda share: np.float32(1000) + (share * 60000).astype(np.float32),
        lambda stored: np.rint(stored.astype(np.float64) / 257).astype(np.uint8),
    ),
    "signed integers": (
        lambda share: np.rint(share * 2000 - 1000).astype(np.int32),
        lambda stored: np.rint((stored - stored.min()) * (255 / (float(stored.max()) - stored.min()))).astype(np.uint8),
    ),
}


def shares(label: int, seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH) of 0..1: noise, on it a rectangle that is bright or dark."""
    values = np.random.default_rng([label, seed]).uniform(0.3, 0.5, (HEIGHT, WIDTH))
    left, top, width, height = BOX
    values[top : top + height, left : left + width] = 0.9 if label else 0.05
    return values


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, "TIFF")


def twins(root: Path, kind: str, write: Callable[[Path, Callable[[np.ndarray], np.ndarray]], None]) -> list[Path]:
    """Two folders: of a depth, and of the 8 bits that it should become, in files of the same names."""
    store, eight = DEPTHS[kind]
    write(root / "deep" / "set", store)
    write(root / "plain" / "set", lambda share: eight(store(share)))
    return [root / "deep" / "set", root / "plain" / "set"]


def classes(root: Path, form: Callable[[np.ndarray], np.ndarray]) -> None:
    for part, count in (("train", 8), ("val", 4), ("test", 4)):
        for label, name in enumerate(("dark", "light")):
            for number in range(count):
                save(root / part / name / f"{number}.tif", form(shares(label, number + 100 * len(part))))


def objects(root: Path, form: Callable[[np.ndarray], np.ndarray]) -> None:
    for part, count in (("train", 8), ("val", 4)):
        for number in range(count):
            save(root / "images" / part / f"{part}{number}.tif", form(shares(number % 2, number + 100 * len(part))))
            (root / "labels" / part).mkdir(parents=True, exist_ok=True)
            (root / "labels" / part / f"{part}{number}.txt").write_text(yolo_line(number % 2))
    (root / "classes.txt").write_text("dark\nlight\n")


def masks(root: Path, form: Callable[[np.ndarray], np.ndarray]) -> None:
    for part, count in (("train", 8), ("val", 4)):
        for number in range(count):
            save(root / part / "images" / f"{part}{number}.tif", form(shares(1, number + 100 * len(part))))
            (root / part / "masks").mkdir(parents=True, exist_ok=True)
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            label[BOX[1] : BOX[1] + BOX[3], BOX[0] : BOX[0] + BOX[2]] = 1
            Image.fromarray(label).save(root / part / "masks" / f"{part}{number}.png")


WRITERS = {"classification": classes, "detection": objects, "segmentation": masks}


@pytest.mark.parametrize("task", WRITERS)
@pytest.mark.parametrize("kind", DEPTHS)
def test_every_task_sees_the_documented_eight_bits(tmp_path: Path, kind: str, task: str) -> None:
    deep, plain = (
        load_data(folder, task=task, log=lambda line: None) for folder in twins(tmp_path, kind, WRITERS[task])
    )
    assert len(deep.train) == len(plain.train) > 0
    for row in range(len(deep.train)):
        assert deep.train.load(row).mode == "RGB"
        assert np.array_equal(np.asarray(deep.train.load(row)), np.asarray(plain.train.load(row)))
    assert plain.warnings == []
    assert len(deep.warnings) == (kind == "signed integers")


@pytest.mark.parametrize("task", WRITERS)
def test_scales_that_differ_and_black_pictures_are_told_before_training(tmp_path: Path, task: str) -> None:
    """One picture brighter than white makes all of them another scale; twelve bits in sixteen are nearly black."""
    told: list[str] = []
    peak = iter([3.0])
    WRITERS[task](tmp_path / "mixed", lambda share: (share * next(peak, 1.0)).astype(np.float32))
    load_data(tmp_path / "mixed", task=task, log=told.append)
    (line,) = [line for line in told if "different ways" in line]
    assert "1 by 255 as white, such as " in line
    assert " by 1 as white, such as " in line
    WRITERS[task](tmp_path / "dark", lambda share: np.rint(share * 4095).astype(np.uint16))
    data: Any = load_data(tmp_path / "dark", task=task, log=told.append)
    assert [" as 12-bit cameras write them" in line for line in data.warnings] == [True]
    assert any("12-bit" in line for line in told)


def printed(command: Callable[[list[str]], int], *words: str) -> Any:
    """What a command that is right prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert command([*words, "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["16 bits", "floats up to 1"])
def test_a_classifier_from_training_to_the_runtime(tmp_path: Path, kind: str) -> None:
    """Trained, judged, exported and asked, by the command line and without torch: as with the 8 bits."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    answers = []
    words = "basic model=mixernet_pico image_size=32 batch_size=8 epochs=3 warmup_epochs=0 augment=none --device cpu"
    for folder in twins(tmp_path, kind, classes):
        run, file, table = (str(folder.parent / name) for name in ("run", "model.onnx", "answers.csv"))
        assert main(["train", *words.split(), "--data", str(folder), "--out", run]) == 0
        judged = printed(main, "eval", run, "--data", str(folder), "--predictions", table)
        assert main(["export", run, "--out", file, "--images", str(folder / "test")]) == 0
        photos = [str(folder / "test" / label / "0.tif") for label in ("dark", "light")]
        asked = [
            printed(main, "predict", *photos, "--model", run),
            printed(main, "predict", *photos, "--model", file),
            printed(runtime_main, file, *photos),
        ]
        rows = list(csv.reader(Path(table).read_text(encoding="utf-8").splitlines()))
        answers.append((judged, rows, [[one["top"] for one in answer] for answer in asked]))
    (deep, deep_rows, deep_asked), (plain, plain_rows, plain_asked) = answers
    assert deep["top1"] == plain["top1"]
    assert deep["loss"] == plain["loss"]
    assert deep_rows == plain_rows
    assert deep_asked == plain_asked
    for ours, theirs, alone in zip(*deep_asked, strict=True):
        assert ours[0][0] == theirs[0][0] == alone[0][0]
        assert ours[0][1] == pytest.approx(theirs[0][1], abs=1e-4)
        assert theirs[0][1] == pytest.approx(alone[0][1], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "head"), [("segmentation", "semantic_fpn"), ("detection", "retinanet")])
def test_dense_models_from_training_to_the_runtime(tmp_path: Path, task: str, head: str) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    answers = []
    words = f"basic model=mixernet_pico head={head} task={task} image_size=64 batch_size=4 epochs=1 warmup_epochs=0"
    words += " label_smoothing=0 --device cpu"
    for folder in twins(tmp_path, "16 bits", WRITERS[task]):
        run, file = str(folder.parent / "run"), str(folder.parent / "model.onnx")
        assert main(["train", *words.split(), "--data", str(folder), "--out", run]) == 0
        judged = printed(main, "eval", run, "--data", str(folder))
        assert main(["export", run, "--out", file]) == 0
        photo = str(next(folder.rglob("val0.tif")))
        asked = printed(runtime_main, file, photo)
        answers.append(({key: value for key, value in judged.items() if "second" not in key}, asked[0]))
    (deep, seen), (plain, other) = answers
    for key, value in deep.items():
        if isinstance(value, float):
            assert plain[key] == value or value != value
    assert {**seen, "image": ""} == {**other, "image": ""}
