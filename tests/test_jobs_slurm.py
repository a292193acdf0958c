"""An array job from submission to table, with stand-ins for Slurm's commands on the path."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_photos import SETTINGS, make_photos
from tokenmix.cli import main

pytestmark = pytest.mark.slow

# Accepts a script and remembers it; with --wait runs the array, and the element that is in `victim` twice: the first
# time it is killed as soon as it has a checkpoint, as if its machine were lost.
SBATCH = """#!{python}
import os, re, signal, subprocess, sys, time
from pathlib import Path
state, script = Path({state!r}), Path(sys.argv[-1])
text = script.read_text()
(state / "script").write_text(str(script))
(state / "queued").touch()
print("77;cluster", flush=True)
def start(i):
    log = (script.parent / f"77_{{i}}.log").open("a")
    environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(i), "SLURM_JOB_ID": str(100 + i)}}
    return subprocess.Popen(["bash", str(script)], env=environment, stdout=log, stderr=log, start_new_session=True)
if "--wait" in sys.argv:
    for i in range(int(re.search(r"--array=0-(\\d+)", text)[1]) + 1):
        process = start(i)
        if (state / "victim").is_file() and int((state / "victim").read_text()) == i:
            while not [*script.parent.parent.glob(f"seed-{{i}}/checkpoints/step-*")]:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = start(i)
        process.wait()
    (state / "queued").unlink()
"""
SQUEUE = """#!/bin/sh
[ -e {state}/queued ] && echo "77_0 tokenmix RUNNING" && exit 0
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
"""
SCONTROL = """#!/bin/sh
echo "$@" >> {state}/asked
"""


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Where the stand-ins keep what they know."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(python=sys.executable, state=str(folder)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def _words(photos: str, out: Path, *more: str) -> list[str]:
    settings = [setting for setting in SETTINGS if not setting.startswith("epochs")]
    words = ["sweep", "mixernet_pico", *settings, "epochs=8", "model_args.mixers=pool", "--data", photos]
    return [*words, "--over", "seed=0,1", "--out", str(out), *more]


def _weights(out: Path) -> list[bytes]:
    return [(out / f"seed-{seed}" / "best.safetensors").read_bytes() for seed in (0, 1)]


def _table(out: Path) -> list[dict]:
    return json.loads((out / "sweep.json").read_text())["table"]


def test_a_killed_element_is_requeued_and_the_results_are_the_local_ones(state, tmp_path):
    photos = make_photos(tmp_path / "photos")
    (state / "victim").write_text("1")
    assert main(_words(photos, tmp_path / "slurm out", "--on", "slurm", "--wait", "--at-once", "1")) == 0
    assert "continuing at epoch" in (tmp_path / "slurm out" / "jobs" / "77_1.log").read_text()
    assert main(_words(photos, tmp_path / "local")) == 0
    assert _weights(tmp_path / "slurm out") == _weights(tmp_path / "local")
    assert [row | {"best": None} for row in _table(tmp_path / "slurm out")] == [
        row | {"best": None} for row in _table(tmp_path / "local")
    ]


def test_submit_watch_time_limit_and_collect(state, tmp_path, capsys):
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "out"
    words = _words(photos, out, "--on", "slurm")

    assert main(words) == 75
    said = capsys.readouterr()
    assert "submitted 2 jobs as the array job 77" in said.out
    assert "2 of 2 jobs are unfinished (seed-0, seed-1)" in said.err
    assert "squeue --jobs 77" in said.err

    def element(number: int) -> subprocess.Popen:
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_ID": str(100 + number)}
        script = (state / "script").read_text()
        return subprocess.Popen(["bash", script], env=environment, stdout=subprocess.PIPE, text=True)

    with element(0) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if re.match(r"epoch 1/\d+  loss", line):  # its end; a slow machine tells of its steps too
                first.send_signal(signal.SIGUSR1)  # what Slurm sends before the time limit
    assert first.returncode == 143
    assert (state / "asked").read_text() == "requeue 100\n"
    assert main(words) == 75
    assert "the array job 77 is not done" in capsys.readouterr().err
    assert element(0).communicate()[0].count("continuing at epoch") == 1

    (state / "queued").unlink()  # element 1 is lost: neither in the queue nor at its end
    (state / "script").unlink()
    assert main([*words, "--json"]) == 75
    assert json.loads(capsys.readouterr().out) == {"queued": "77", "unfinished": [str(out / "seed-1")]}
    element(0).communicate()  # the only one that is submitted again
    (state / "queued").unlink()
    assert main(words) == 0
    assert _table(out)[0]["runs"] == 2


def test_failures_are_reported_and_then_tried_again(state, tmp_path, capsys):
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "out"
    words = ["sweep", "mixernet_pico", *SETTINGS, "model_args.mixers=pool", "max_bad_steps=1", "--data", photos]
    words += ["--over", "lr=1e-3,1e30", "--out", str(out), "--on", "slurm"]
    assert main([*words, "--wait"]) == 2
    assert "is not finite" in capsys.readouterr().out
    assert _table(out)[1]["failed"] == 1
    (state / "script").unlink()
    assert main(words) == 75
    assert json.loads((out / "jobs" / "jobs.json").read_text()) == [str(out / "lr-1e30")]


def test_a_comparison_is_the_local_one(state, tmp_path):
    pytest.importorskip("onnxruntime")
    photos = make_photos(tmp_path / "photos")
    words = ["compare", photos, "--mixers", "pool", "identity", "--seeds", "2", "--measure-seconds", "1"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    assert main([*words, "--batch-sizes", "1", "--out", str(tmp_path / "slurm"), "--on", "slurm", "--wait"]) == 0
    assert main([*words, "--batch-sizes", "1", "--out", str(tmp_path / "local")]) == 0
    found, expected = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("slurm", "local"))
    assert "--on slurm --wait" in found["command"]
    assert (tmp_path / "slurm" / "report.html").is_file()
    assert found["recipe"] == expected["recipe"]
    for name, entry in expected["mixers"].items():
        for key in ("test_top1_per_seed", "val_top1", "weights_sha256", "confusion", "samples", "onnx_max_error"):
            assert found["mixers"][name][key] == entry[key], (name, key)


def test_a_refusal_of_sbatch_is_passed_on(state, tmp_path, capsys):
    (state / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpux' >&2\nexit 1\n")
    words = _words(make_photos(tmp_path / "photos"), tmp_path / "out", "--on", "slurm", "--sbatch", "partition=gpux")
    assert main(words) == 2
    assert "invalid partition specified: gpux" in capsys.readouterr().err
    assert "#SBATCH --partition=gpux" in (tmp_path / "out" / "jobs" / "job.sh").read_text()
