"""Processes that train together end where one process alone would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_train_resume import outcome, same
from tests.train_toys import Exact, checkpoint, toy_data, toy_recipe
from tokenmix.train import fit
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.train.distributed import Group, Place, first_host, place, processes, speaks

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, os, signal, sys
from tests.train_toys import Exact, toy_data, toy_model, toy_recipe
from tokenmix.train import fit
from tokenmix.train.loop import _Run

out, kind, options, changes = sys.argv[1:]
inner, victim = _Run.step, os.environ.get("DIE", "").split()  # in its first life, that rank dies before that step

def step(self, batch, images):
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if victim == [str(self.group.rank), str(self.state.steps)] and not again:
        self.writer.settle()  # the tests count on the checkpoint of the step before
        os.kill(os.getpid(), signal.SIGKILL)
    inner(self, batch, images)

_Run.step = step
model = {"exact": Exact, "toy": toy_model, "named": None}[kind]
fit(toy_recipe(**json.loads(changes)), toy_data(val=19), out, model=model, **json.loads(options))
print("done", flush=True)
"""
CHANGES = {"epochs": 20 / 6, "clip_grad": 0.5, "layer_decay": 0.8, "augment": "standard"}  # 20 steps
ALWAYS = {"checkpoint_seconds": 0.0}


def command(out: Path, kind: str = "exact", options: dict | None = None, **changes) -> list[str]:
    """What starts the script that trains into ``out``."""
    script = out.parent / "script.py"
    script.write_text(SCRIPT)
    return [str(script), str(out), kind, json.dumps(options or {}), json.dumps(changes)]


def environment(die: str = "") -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DIE": die}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def launch(out: Path, world: int, die: str = "", **options) -> list[subprocess.Popen]:
    """Processes with what torchrun puts into the environment."""
    words, port, found = [sys.executable, *command(out, **options)], free_port(), []
    for rank in range(world):
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
        place |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        found.append(subprocess.Popen(words, cwd=ROOT, env=environment(die) | place, **pipes))
    return found


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    told = [process.communicate(timeout=240) for process in started]
    return [(process.returncode, *words) for process, words in zip(started, told, strict=True)]


def trained(out: Path, world: int, **options) -> list[str]:
    """Train to the end; what each process printed."""
    ends = finish(launch(out, world, **options))
    assert [code for code, *_ in ends] == [0] * world, ends[0][2]
    return [words for _, words, _ in ends]


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_equal_one(tmp_path, accumulate) -> None:
    lines: list[str] = []
    fit(toy_recipe(**CHANGES), toy_data(val=19), tmp_path / "one", model=Exact, log=lines.append)
    first, second = trained(tmp_path / "two", 2, **CHANGES, accumulate=accumulate)
    one, two = (checkpoint(tmp_path / name) for name in ("one", "two"))
    assert one["state"]["steps"] == two["state"]["steps"] == 20
    for part in ("task", "average"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=0, atol=1e-6)
            assert value.dtype == torch.float64
    for a, b in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert a["val_top1"] == b["val_top1"]  # 19 images: the padding of the last batch is not counted
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-9)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-9)
    alone, together = (content["watch"]["evidence"] for content in (one, two))
    assert together["images"] == 19
    assert together["cells"] == alone["cells"]
    assert [each["index"] for each in together["mistakes"]] == [each["index"] for each in alone["mistakes"]]
    assert len(first.splitlines()) == len("\n".join(lines).splitlines()) + 1
    assert second == "done\n"  # only the first one speaks


@pytest.mark.slow
def test_norms_and_dropout_of_several_processes(tmp_path) -> None:
    changes = {"precision": "float16", "mixup": 0.5, "accumulate": 2, "batch_size": 12}
    trained(tmp_path / "one", 3, kind="toy", **changes)
    trained(tmp_path / "two", 3, kind="toy", **changes)
    assert same(outcome(tmp_path / "one"), outcome(tmp_path / "two"))
    weights = load_file(tmp_path / "one" / "best.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.slow
def test_killed_and_resumed(tmp_path) -> None:
    changes = {"epochs": 12}
    trained(tmp_path / "whole", 2, kind="toy", **changes)
    out = tmp_path / "killed"
    (code, _, errors), (killed, *_) = finish(launch(out, 2, die="1 9", kind="toy", options=ALWAYS, **changes))
    assert (code, killed) == (1, -signal.SIGKILL)
    assert "ConnectionError: process 0 of 2 has lost another one" in errors
    assert Checkpoints(out).newest().name == "step-00000009-epoch-0001.pt"
    trained(out, 2, kind="toy", **changes)
    assert same(outcome(out), outcome(tmp_path / "whole"))


def test_a_signal_to_one_stops_all_of_them_after_a_checkpoint(tmp_path) -> None:
    started = launch(tmp_path / "run", 2, kind="toy", options=ALWAYS, epochs=400)
    wait_for(tmp_path / "run")
    started[1].send_signal(signal.SIGTERM)
    ends = finish(started)
    assert [code for code, *_ in ends] == [143, 143], ends[0][2]
    state = checkpoint(tmp_path / "run")["state"]
    assert 0 < state["steps"] < 400 * 6


def wait_for(out: Path) -> None:
    """Until there is a checkpoint."""
    deadline = time.monotonic() + 120
    while Checkpoints(out).newest() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Checkpoints(out).newest() is not None


def test_alone(tmp_path) -> None:
    with processes("cpu") as group:
        assert group == Group(0, 1, torch.device("cpu"))
        assert group.first
        values = torch.ones(2)
        assert group.sum(values) is values
        layer = torch.nn.Linear(1, 1)
        assert group.wrap(layer) is layer
        group.wait()
        group.share_buffers(layer)


@pytest.mark.slow
def test_torchrun_and_the_command_line(tmp_path) -> None:
    words = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "-m", "tokenmix"]
    words += ["train", "digits", "epochs=1", "warmup_epochs=0", "--out", str(tmp_path), "--json"]
    told = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["best"]["epoch"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_torchrun_restarts_what_lost_a_process(tmp_path, parallel) -> None:
    options = ALWAYS | {"parallel": parallel}
    trained(tmp_path / "whole", 2, kind="toy", options=options)
    words = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    words += command(tmp_path / "killed", kind="toy", options=options)
    told = subprocess.run(words, cwd=ROOT, env=environment("1 9"), capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stderr
    assert "continuing at epoch 2, step 4" in told.stdout
    assert same(outcome(tmp_path / "killed"), outcome(tmp_path / "whole"))


@pytest.mark.slow
def test_a_machine_that_vanishes_leaves_the_rest_to_continue(tmp_path) -> None:
    changes = CHANGES | {"epochs": 20}
    fit(toy_recipe(**changes), toy_data(val=19), tmp_path / "one", model=Exact, log=lambda line: None)
    words = [*TORCHRUN, "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d"]
    words += [f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=run", "--rdzv-conf=last_call_timeout=5"]
    words += command(tmp_path / "run", options=ALWAYS, **changes)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    agents = [subprocess.Popen(words, cwd=ROOT, env=environment(), **pipes)]
    time.sleep(2)  # so that the meeting point is on the first machine
    agents.append(subprocess.Popen(words, cwd=ROOT, env=environment(), **pipes))
    wait_for(tmp_path / "run")
    children = subprocess.run(["pgrep", "-P", str(agents[1].pid)], capture_output=True, text=True, check=True).stdout
    for pid in (agents[1].pid, *map(int, children.split())):
        os.kill(pid, signal.SIGKILL)
    agents[1].communicate()
    said, errors = agents[0].communicate(timeout=240)
    assert agents[0].returncode == 0, errors
    assert "continuing at epoch" in said
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "run")
    for name, value in one["task"].items():
        torch.testing.assert_close(other["task"][name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_process_that_falls_silent_is_lost(tmp_path) -> None:
    options = ALWAYS | {"timeout": 40.0}
    first, second = launch(tmp_path / "run", 2, kind="toy", options=options, epochs=400)
    wait_for(tmp_path / "run")
    second.send_signal(signal.SIGSTOP)
    ((code, _, errors),) = finish([first])
    second.kill()
    finish([second])
    assert code == 1
    assert "ConnectionError: process 0 of 2 has lost another one (" in errors


def test_the_place_that_the_environment_gives(monkeypatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM", "MASTER")) or "RANK" in name]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert place() == Place(0, 1, 0)
    slurm = {"SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[003-004]", "SLURM_JOB_ID": "1234567"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(0, 1, 0)  # inside an allocation, but not started by srun
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert place() == Place(0, 1, 0)  # a batch script's own process
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    assert place() == Place(5, 8, 1, "tcp://gpu003:24567")
    assert not speaks()
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "16")
    assert place() == Place(5, 16, 1, "tcp://10.0.0.1:29500")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert place() == Place(0, 1, 0)
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(3, 4, 2)  # torchrun, started by srun


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("localhost", "localhost"), ("a,b", "a"), ("gpu[003-007,12],login", "gpu003"), ("r[1-2]n[08-09]-x", "r1n08-x")],
)
def test_the_first_host(nodes, first) -> None:
    assert first_host(nodes) == first


@pytest.mark.slow
def test_slurm_without_torchrun(tmp_path) -> None:
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": str(free_port())}
    words = [sys.executable, *command(tmp_path / "run", epochs=1)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen(
            words, cwd=ROOT, env=environment() | slurm | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}, **pipes
        )
        for rank in ("0", "1")
    ]
    (code, said, errors), (other, silent, _) = finish(started)
    assert (code, other) == (0, 0), errors
    assert said.startswith("epoch 1/1")
    assert silent == "done\n"


def test_a_timeout_takes_time() -> None:
    with pytest.raises(ValueError, match="timeout must be above 0 seconds, got 0"), processes("cpu", timeout=0.0):
        pass


@pytest.mark.slow
def test_synchronised_norms_need_gpus(tmp_path) -> None:
    ends = finish(launch(tmp_path / "run", 2, kind="toy", sync_batchnorm=True))
    assert all("torch synchronises batch norm on GPUs only" in words for *_, words in ends)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_synchronised_norms_equal_one_process(tmp_path) -> None:
    changes = {"sync_batchnorm": True, "drop_rate": 0.0, "model": "mixernet_pico", "image_size": 32, "epochs": 1}
    changes |= {"ema_decay": None, "optimizer": "sgd", "lr": 1e-3}
    for world in (1, 2):
        trained(tmp_path / str(world), world, kind="named", options={"device": "cuda"}, **changes)
    one, two = (checkpoint(tmp_path / str(world))["task"] for world in (1, 2))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_too_small_batches_are_named(tmp_path) -> None:
    ends = finish(launch(tmp_path / "run", 2, batch_size=1))
    assert all("2 processes need batches of 2 or more, not 1" in words for *_, words in ends)
