"""Judging a model: every image once, whatever the number of processes; and the tables that come of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.train_toys import Exact, toy_data
from tokenmix.bench.main import _place as bench_place
from tokenmix.checkpoints import open_model
from tokenmix.cli import main
from tokenmix.evaluate import evaluate, find_device, judge
from tokenmix.metrics import Answers, Calibration, GatheredAnswers
from tokenmix.sources import load_data
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.tasks.classification.results import COLUMNS, add_result, class_rows, write_predictions

ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, sys
from tests.test_evaluate import judged
from tokenmix.train.distributed import processes

with processes("cpu") as group:
    numbers = judged(group.rank, group.world)
if group.first:
    print(json.dumps(numbers))
"""


def judged(rank: int = 0, world: int = 1) -> dict:
    """An untrained float64 model on 19 images in batches of 6."""
    torch.manual_seed(3)
    data = toy_data(val=19)
    shape = {"batch_size": 6, "image_size": 8, "mean": data.mean, "std": data.std, "train": False}
    loader = Loader(data.val, rank=rank, world=world, **shape)
    answers, calibration = Answers(), Calibration()
    task = ClassificationObjective(Exact(), num_classes=3)
    numbers = evaluate(task, loader, "cpu", (answers, calibration)) | calibration.compute()
    found = answers.gather()
    return numbers | {field.name: getattr(found, field.name).tolist() for field in dataclasses.fields(found)}


def test_two_processes_count_every_image_once(tmp_path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py")]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    told = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    together, alone = json.loads(told[0]), judged()
    assert together["index"] == list(range(19))
    assert list(together) == list(alone)
    for name, value in alone.items():
        assert together[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def answered() -> GatheredAnswers:
    """Five images of three classes, the last one lost."""
    columns = [[0, 1, 2, 3, 4], [0, 0, 1, 1, 1], [0, 2, 1, 2, -1]]
    index, label, prediction = (torch.tensor(column) for column in columns)
    return GatheredAnswers(
        index, label, prediction, torch.linspace(0.5, 0.9, 5).double(), torch.linspace(0, 0.4, 5).double()
    )


def test_rows_of_classes() -> None:
    assert class_rows(answered(), ["cat", "dog", "eel"]) == [
        {"class": "cat", "images": 2, "top1": 50.0, "confused_with": "eel", "confused": 1},
        {"class": "dog", "images": 3, "top1": pytest.approx(100 / 3), "confused_with": "not a number", "confused": 1},
    ]


def test_predictions_of_every_image(tmp_path) -> None:
    names = ["a.jpg", 'a "b", c.jpg', "c", "d", "e"]
    write_predictions(tmp_path / "p.csv", answered(), names, ["cat", "dog", "eel"])
    rows = table(tmp_path / "p.csv")
    assert [row["image"] for row in rows] == names
    assert [row["prediction"] for row in rows] == ["cat", "eel", "dog", "eel", ""]
    assert [row["correct"] for row in rows] == ["1", "0", "1", "0", "0"]
    assert rows[1]["confidence"] == "0.600000"
    assert rows[1]["label_confidence"] == "0.100000"


def test_results_hold_a_row_per_model(tmp_path) -> None:
    path = tmp_path / "results.csv"
    kind = {"crop_pct": 256 / 288, "interpolation": "bicubic"}
    add_result(path, "one", {"top1": 70.0, "top5": 90.0}, 1_234_567, (224, 224), kind)
    add_result(path, "two", {"top1": 75.5, "top5": 95.0}, 2_000_000, (224, 320), kind)
    add_result(path, "one", {"top1": 71.25, "top5": 91.0}, 1_234_567, (224, 224), kind)
    lines = path.read_text().splitlines()
    assert lines[0] == "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation"
    assert lines[1:] == [
        "two,75.500,24.500,95.000,5.000,2.00,224x320,0.8889,bicubic",
        "one,71.250,28.750,91.000,9.000,1.23,224,0.8889,bicubic",
    ]
    assert ",".join(COLUMNS) == lines[0]
    path.write_text("name,top1\n")
    with pytest.raises(ValueError, match=r"results\.csv is another table: its columns must be model,top1,"):
        add_result(path, "one", {"top1": 1.0, "top5": 2.0}, 1, (8, 8), kind)
    assert path.read_text() == "name,top1\n"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model trained on a fifth of an epoch of the digits."""
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("train") / "run"
    words = ["mixernet_pico", "epochs=0.3", "warmup_epochs=0", "image_size=16", "batch_size=128", "lr=0.003"]
    assert main(["train", *words, "model_args.mixers=pool", "--data", "digits", "--out", str(out), "--json"]) == 0
    return out


def test_the_command_writes_its_tables(run_folder, tmp_path, capsys) -> None:
    capsys.readouterr()
    tables = ["--results", str(tmp_path / "r.csv"), "--predictions", str(tmp_path / "p.csv")]
    assert main(["eval", str(run_folder), "--data", "digits", "--json", *tables]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = table(tmp_path / "p.csv")
    assert len(rows) == told["images"] == sum(row["images"] for row in told["classes"]) == 450
    right = 100 * sum(row["correct"] == "1" for row in rows) / 450
    assert told["top1"] == pytest.approx(right)
    assert sum(row["images"] * row["top1"] for row in told["classes"]) / 450 == pytest.approx(right)
    (row,) = table(tmp_path / "r.csv")
    assert (row["model"], row["img_size"], float(row["top1"])) == (str(run_folder), "16", round(right, 3))
    assert main(["eval", str(run_folder), "--data", "digits"]) == 0
    shown = capsys.readouterr().out
    assert f"ece {told['ece']:.2f} %  brier {told['brier']:.4f}" in shown
    assert "most often taken for" in shown


def test_wrong_tables_are_told_before_the_work(run_folder, tmp_path, capsys, monkeypatch) -> None:
    import tokenmix.cli.eval_command as command

    monkeypatch.setattr(command, "judge", lambda *_, **__: pytest.fail("it evaluated"))
    assert main(["eval", str(run_folder), "--data", "digits", "--results", str(tmp_path / "r.txt")]) == 2
    assert "must end in .csv" in capsys.readouterr().err
    (tmp_path / "r.csv").write_text("a,b\n")
    assert main(["eval", str(run_folder), "--data", "digits", "--results", str(tmp_path / "r.csv")]) == 2
    assert "is another table" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_under_torchrun(run_folder, tmp_path, capsys) -> None:
    words = ["eval", str(run_folder), "--data", "digits", "--batch-size", "31", "--json"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tokenmix"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert main(words) == 0
    together, alone = json.loads(done.stdout), json.loads(capsys.readouterr().out)
    for name, value in alone.items():
        wanted = value if name == "classes" or isinstance(value, str) else pytest.approx(value, abs=1e-4)
        assert together[name] == wanted, name


def test_auto_is_a_device_everywhere(run_folder) -> None:
    data = load_data("digits", log=lambda line: None)
    loaded = open_model(run_folder)
    one, other = (judge(loaded, data.val, data.facts, device=name).numbers for name in ("auto", "cpu"))
    assert one["top1"] == other["top1"]
    assert bench_place("auto").type in ("cpu", "cuda")


def test_all_of_a_set_in_parts_is_refused(run_folder, capsys) -> None:
    assert main(["eval", str(run_folder), "--data", "digits", "--split", "all"]) == 2
    assert "digits is in parts: --split all is for folders" in capsys.readouterr().err


def test_a_device_is_found_or_named() -> None:
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "nonsense", "xpu:0"):
        with pytest.raises(ValueError, match=f"device '{name}': torch finds no such device here"):
            find_device(name)
