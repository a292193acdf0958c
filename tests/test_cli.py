"""The command line: every command on real input, messages, exit codes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from PIL import Image

import tokenmix
from tokenmix.cli import COMMANDS, main
from tokenmix.recipes import RECIPES, Recipe, make_recipe


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A model trained for one epoch by the command line."""
    pytest.importorskip("sklearn")
    out = tmp_path_factory.mktemp("train") / "run"
    words = [
        "mixernet_pico",
        "epochs=1",
        "warmup_epochs=0",
        "image_size=16",
        "batch_size=128",
        "model_args.mixers=pool",
    ]
    assert main(["train", *words, "--data", "digits", "--out", str(out)]) == 0
    return out


def test_no_command_and_help_list_all(capsys):
    assert main([]) == 2
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "New here? `tokenmix docs tutorial`" in text
    assert "Exit codes" in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tokenmix {tokenmix.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"usage: tokenmix {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compre"], "did you mean 'compare'"),
        (["list"], "did you mean 'models'"),
        (["help"], "did you mean '--help'"),
        (["--hepl"], "did you mean '--help'"),
        (["train", "--hepl"], "did you mean '--help'"),
        (["demo"], "demo (detect or forecast or "),
        (["data"], "action (check or pack)"),
        (["compare", "--mixer", "aff"], "did you mean '--mixers'"),
        (["compare", "digits", "--mixers", "afff", "pool"], "did you mean 'aff'"),
        (["compare", "no-such-folder"], "no-such-folder"),
        (["train", "mixernet_pic"], "did you mean 'mixernet_pico'"),
        (["train", "mixernet_pico", "epochz=3"], "did you mean 'epochs'"),
        (["train", "mixernet_pico", "epochs=many"], "epochs"),
        (["eval", "nothing-there", "--data", "digits"], "nothing-there"),
        (["eval"], "required"),
        (["predict", "x.png", "--model", "mixernet_picco"], "mixernet_pico"),
        (["export", "affnet_ett"], "affnet_et"),
        (["convert", "missing.pth", "out.safetensors"], "missing.pth: no such file"),
        (["models", "afnet"], "affnet"),
    ],
)
def test_mistakes_get_one_clear_line_and_code_2(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_eval_predict_export(run_folder, tmp_path, capsys):
    assert main(["eval", str(run_folder), "--data", "digits", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["images"] == 450
    assert 0 <= numbers["top1"] <= numbers["top5"] <= 100

    Image.new("L", (40, 30), 128).save(tmp_path / "grey.png")
    assert main(["predict", str(tmp_path / "grey.png"), "--model", str(run_folder), "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all("%" in line for line in lines[1:])

    pytest.importorskip("onnxruntime")
    target = tmp_path / "model.onnx"
    assert main(["export", str(run_folder), "--out", str(target), "--images", str(tmp_path / "grey.png")]) == 0
    assert target.is_file()
    assert "verified on 1 files: largest difference" in capsys.readouterr().out


def test_eval_says_which_data_a_run_learnt_from(run_folder, capsys):
    assert main(["eval", str(run_folder)]) == 2
    assert "add --data digits, which it learnt from" in capsys.readouterr().err
    assert main(["eval", "mixernet_pico"]) == 2
    assert "required: add --data DATA" in capsys.readouterr().err


def test_predict_names_a_broken_picture_and_answers_the_others(run_folder, tmp_path, capsys):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    words = [str(tmp_path / "bad.png"), str(tmp_path / "good.png")]
    assert main(["predict", *words, "--model", str(run_folder), "--json"]) == 2
    captured = capsys.readouterr()
    bad, good = json.loads(captured.out)
    assert [bad["image"], good["image"]] == words
    assert set(bad) == {"image", "error"}
    assert bad["error"] in captured.err
    assert "bad.png: not a picture" in bad["error"]
    assert set(good) == {"image", "top"}
    table = str(tmp_path / "answers.csv")
    assert main(["predict", *words, "--model", str(run_folder), "--csv", table, "--top", "2"]) == 2
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [words[0], words[1], words[1]]
    assert "not a picture" in rows[0]["error"]
    assert [(row["rank"], row["class"], row["error"]) for row in rows[1:]] == [
        (str(rank), name, "") for rank, (name, _) in enumerate(good["top"][:2], start=1)
    ]
    assert float(rows[1]["probability"]) == pytest.approx(good["top"][0][1])
    assert main(["predict", *words, "--model", str(run_folder), "--csv", "answers.txt"]) == 2
    assert "must end in .csv" in capsys.readouterr().err


def test_predict_says_what_it_leaves_out(run_folder, tmp_path, capsys):
    Image.new("L", (20, 20), 90).save(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.xyz"):
        (tmp_path / name).write_bytes(b"nothing that is read")
    assert main(["predict", str(tmp_path), "--model", str(run_folder)]) == 0
    told = capsys.readouterr()
    assert "a.png" in told.out
    assert "2 files skipped, photograph in HEIC" in told.err
    assert "1 file skipped, file that is no picture" in told.err
    assert main(["predict", str(tmp_path / "b.heic"), "--model", str(run_folder)]) == 2
    assert "pillow-heif" in capsys.readouterr().err


def test_eval_refuses_other_classes(run_folder, tmp_path, capsys):
    for label in ("cat", "dog"):
        for i in range(8):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.new("RGB", (20, 20), (i * 20, 0, 0)).save(tmp_path / label / f"{i}.png")
    assert main(["eval", str(run_folder), "--data", str(tmp_path)]) == 2
    assert "other classes" in capsys.readouterr().err


def test_recipes_are_listed_and_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["recipes"]) == 0
    told = capsys.readouterr().out
    assert "affnet_et" in told
    assert "0.42 EMACs" in told
    assert main(["recipes", "casvit_xs", "epochs=3", "--json"]) == 0
    assert Recipe.from_json(capsys.readouterr().out) == make_recipe("casvit_xs", ["epochs=3"])
    assert main(["recipes", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(RECIPES)
    assert main(["recipes", "casvit_xx"]) == 2
    assert "did you mean 'casvit_xs'" in capsys.readouterr().err


def test_mixers_table(capsys):
    assert main(["mixers", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert list(table)[:4] == ["aff", "ffnified", "additive", "dsm"]
    assert all(set(row) >= {"paper", "query", "key", "act", "value", "complexity"} for row in table.values())
    assert main(["mixers"]) == 0
    assert "gcd" in capsys.readouterr().out


def test_models_table(capsys):
    assert main(["models", "casvit_xs", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["params"] for row in rows} == {3_200_700}


def test_installed_command_runs():
    done = subprocess.run([sys.executable, "-m", "tokenmix", "mixerz"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'mixers'" in done.stderr
