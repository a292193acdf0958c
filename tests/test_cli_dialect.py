"""One dialect: the same words mean the same in every command, and suggestions lead to what was meant."""

from __future__ import annotations

import pytest

from tokenmix.cli import COMMANDS, command_module, main, make_parser
from tokenmix_runtime.names import unknown


def parsed(command: str, *words: str):
    """What a command makes of its words."""
    return make_parser(command, command_module(command)).parse(list(words))


@pytest.mark.parametrize("command", ["train", "compare", "sweep", "recipes"])
def test_settings_in_every_spelling(command: str) -> None:
    first = ["digits"]
    wanted = ["epochs=3", "image_size=64", "model_args.mixers=aff,aff", "lr=1e-3"]
    spellings = [
        [*first, *wanted],
        [*first, "--epochs", "3", "--image-size=64", "model_args.mixers=aff,aff", "--lr", "1e-3"],
        [*first, *(word for setting in wanted for word in ("--set", setting))],
        ["epochs=3", *first, "--set", "image_size=64", "model_args.mixers=aff,aff", "--lr=1e-3"],
    ]
    for words in spellings:
        assert sorted(parsed(command, *words).set) == sorted(wanted), words


def test_options_can_be_written_as_settings() -> None:
    args = parsed("train", "basic", "data=photos", "out=runs/x", "workers=2", "epochs=3")
    assert (args.data, args.out, args.workers, args.set) == ("photos", "runs/x", 2, ["epochs=3"])
    args = parsed("eval", "run", "data=photos", "image_size=64", "--batch-size", "8")
    assert (args.data, args.image_size, args.batch_size) == ("photos", (64, 64), 8)
    assert parsed("bench", "mixernet_pico", "image_size=64,96").image_size == (64, 96)
    assert parsed("export", "run", "--image-size", "64x96").image_size == (64, 96)


def test_options_with_several_values_take_no_settings() -> None:
    args = parsed("compare", "photos", "--mixers", "aff", "pool", "image_size=64", "--batch-sizes", "1", "8")
    assert (args.mixers, args.set, args.batch_sizes) == (["aff", "pool"], ["image_size=64"], [1, 8])
    args = parsed("compare", "--mixers", "aff(groups=4)", "pool", "--data", "photos")
    assert (args.mixers, args.data_option) == (["aff(groups=4)", "pool"], "photos")
    args = parsed("sweep", "basic", "--over", "seed=0,1", "--on", "slurm", "--sbatch", "partition=gpu", "time=1:00:00")
    assert (args.over, args.sbatch, args.set) == (["seed=0,1"], ["partition=gpu", "time=1:00:00"], [])


def test_a_file_with_an_equals_sign_is_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert parsed("compare", "a=b").data == "a=b"


@pytest.mark.parametrize("command", COMMANDS)
def test_shared_options_are_explained_alike(command: str) -> None:
    parser = make_parser(command, command_module(command))
    for flag, kind in (("--workers", "processes that load"), ("--download", "allow named data sets")):
        if flag in parser._option_string_actions:
            assert str(parser._option_string_actions[flag].help).startswith(kind)


def test_suggestions() -> None:
    assert "did you mean 'ffnified'" in unknown("mixer", "ffn", ["aff", "ffnified", "attention"])
    assert "did you mean 'aff'" in unknown("mixer", "afff", ["aff", "ffnified"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", "digits", "--mixers", "ffn"], "did you mean 'ffnified'"),
        (["compare", "digits", "--mixers", "own.py:Shift"], "named by its module: own:Shift"),
        (["compare", "digits", "--mixers", "lib/own.py:Shift"], "own:Shift, from the folder lib"),
        (["sweep", "photos", "--over", "seed=0,1"], "so no recipe"),
        (["docs", "recipe"], "did you mean 'recipes'"),
    ],
)
def test_mistakes_lead_to_what_was_meant(words, message, capsys, tmp_path, monkeypatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_documentation_is_at_hand(capsys) -> None:
    assert main(["docs"]) == 0
    assert "security" in capsys.readouterr().out
    assert main(["docs", "docs/recipes.md"]) == 0
    assert capsys.readouterr().out.startswith("# ")


def test_recipes_fit_a_terminal_and_are_explained(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["recipes"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100
    assert main(["recipes", "basic", "epochs=7"]) == 0
    told = capsys.readouterr().out
    assert "  epochs=7  (set here)\n      Passes over the training samples; a fraction stops within one." in told
    assert "label_smoothing=0.1" in told
    assert max(map(len, told.splitlines())) <= 100
