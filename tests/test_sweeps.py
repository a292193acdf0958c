"""Families of runs: each is what `tokenmix train` makes, the table is right, and one failure stops nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.series_files import TOY, write_waves
from tests.small_photos import SETTINGS, make_photos
from tokenmix.cli import main
from tokenmix.sweeps import run_name, sweep
from tokenmix.train import FitResult


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("sweeps") / "photos")


def _silent(line: str) -> None:
    """Takes progress lines and drops them."""


def test_a_run_is_what_train_makes_and_the_table_its_mean(photos, tmp_path):
    out, lines = tmp_path / "sweep", []
    words = ["model_args.mixers=pool,identity", "seed=0,1,2"]
    found = sweep("mixernet_pico", words, out=out, settings=SETTINGS, data=photos, log=lines.append)
    assert json.loads((out / "sweep.json").read_text()) == found
    assert [run["folder"] for run in found["runs"]] == [
        f"mixers-{mixer}/seed-{seed}" for mixer in ("pool", "identity") for seed in (0, 1, 2)
    ]
    assert f"[6/6] {found['runs'][5]['folder']}" in lines

    alone = ["mixernet_pico", *SETTINGS, "model_args.mixers=identity", "seed=2", "--data", photos]
    assert main(["train", *alone, "--out", str(tmp_path / "alone")]) == 0
    run = out / "mixers-identity" / "seed-2"
    assert (run / "best.safetensors").read_bytes() == (tmp_path / "alone" / "best.safetensors").read_bytes()

    with (out / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    for row, mixer in zip(table, ("pool", "identity"), strict=True):
        scores = [r["result"]["val_top1"] for r in found["runs"] if r["values"]["model_args.mixers"] == mixer]
        assert row["model_args.mixers"] == mixer
        assert float(row["mean"]) == pytest.approx(np.mean(scores))
        assert float(row["spread"]) == pytest.approx(np.std(scores, ddof=1))
        assert (row["runs"], row["failed"]) == ("3", "0")
        assert max(scores) == next(r["result"]["val_top1"] for r in found["runs"] if r["folder"] == row["best"])

    stamp = (run / "outcome.json").read_bytes()
    words[1] = "seed=2,3"
    again = sweep("mixernet_pico", words, out=out, settings=SETTINGS, data=photos, log=_silent)
    assert (run / "outcome.json").read_bytes() == stamp  # its seconds too: it was not trained again
    assert [row["runs"] for row in again["table"]] == [2, 2]
    with pytest.raises(ValueError, match=r"another recipe: optimizer.lr .*--fresh"):
        sweep("mixernet_pico", words, out=out, settings=[*SETTINGS, "lr=0.1"], data=photos, log=_silent)
    code = (
        "import sys; from tokenmix.files import locked\nwith locked(sys.argv[1]): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code, run], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()  # it is at work there, as a cluster's job may be
        with pytest.raises(ValueError, match="another process is at work"):
            sweep("mixernet_pico", words, out=out, settings=SETTINGS, data=photos, log=_silent, fresh=True)
        other.communicate()
    assert (run / "outcome.json").read_bytes() == stamp


def test_a_failed_run_stands_in_the_table_and_the_others_go_on(photos, tmp_path, capsys):
    words = ["mixernet_pico", *SETTINGS, "model_args.mixers=identity", "max_bad_steps=1", "--data", photos]
    words += ["--over", "lr=1e30,1e-3", "--out", str(tmp_path)]
    assert main(["sweep", *words, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert [(row["runs"], row["failed"]) for row in found["table"]] == [(0, 1), (1, 0)]
    assert found["table"][0]["mean"] is None
    assert found["runs"][0]["error"].startswith("Diverged: the ")
    assert main(["sweep", *words]) == 2
    assert "lr-1e30 failed: Diverged" in capsys.readouterr().out


def test_what_is_varied_is_not_set_too(tmp_path):
    with pytest.raises(ValueError, match=r"'optimizer\.lr=1' sets for all runs what --over lr=\.\.\. varies"):
        sweep("digits", ["lr=1e-3,1e-4"], settings=["optimizer.lr=1"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_number_is_said_as_its_task_says_it(tmp_path):
    class Done:
        """Runs nothing."""

        def run(self, jobs, folder, log):
            yield from (FitResult({"val_mse": 0.0042}, [], 1.0, job.folder) for job in jobs)

    lines: list[str] = []
    waves = write_waves(tmp_path / "waves.csv")
    sweep("ffnet_forecast", ["seed=0"], settings=TOY[:5], data=waves, out=tmp_path / "out", on=Done(), log=lines.append)
    assert lines[-1] == "  seed-0: val_mse 0.0042"


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ([], "name what is varied"),
        (["seed"], "key=value,value"),
        (["seed=0,1,0"], "value 0 twice"),
        (["seed=0,,1"], "empty value"),
        (["seed=0,1", "seed=2"], "varied twice"),
        (["lr=1e-3", "optimizer.lr=1e-4"], "'lr' and 'optimizer.lr' are one key, varied twice"),
        (["data=digits"], "sets for all runs what --over data=... varies"),
        (["sede=0,1"], "did you mean 'seed'"),
        (["lr=1e-3,-1"], "'optimizer.lr' must be above 0"),
        (["model_args.mixers=pool,afff"], "did you mean 'aff'"),
        (["model_args.mixers=pool,'pool,aff'"], "2 mixers given for 4 stages"),
        (["model=mixernet_pico,mixernet_tinny"], "did you mean 'mixernet_tiny'"),
    ],
)
def test_mistakes_are_named_before_any_run(photos, tmp_path, over, message):
    with pytest.raises(ValueError, match=message):
        sweep("mixernet_pico", over, out=tmp_path / "out", data=photos, log=_silent)
    assert not list(tmp_path.rglob("job.json"))


def test_folders_tell_the_values():
    point = {"seed": "3", "model_args.mixers": "aff", "image_size": "32"}
    assert run_name(point) == "mixers-aff_image_size-32/seed-3"
    assert run_name({"seed": "0"}) == "seed-0"
    assert run_name({"lr": "1e-3"}) == "lr-1e-3"
    assert run_name({"model_args.mixers": "'aff,aff,pool,pool'"}) != run_name(
        {"model_args.mixers": "aff-aff-pool-pool"}
    )
