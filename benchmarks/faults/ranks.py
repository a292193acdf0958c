"""Two processes under ``torchrun``, and what happens when one of them, both, or the launcher dies."""

from __future__ import annotations

import os
import signal
import time

from faults.damage import FALLS_BACK, flip, in_data
from faults.jobs import PAIR, SHARED
from faults.registry import fault
from faults.session import PATIENCE_S, Session, require
from faults.trial import Trial

KIND = "Two processes (torchrun)"
RESTARTS = "`--max-restarts` continues from the checkpoint; bit-identical"


def survives(trial: Trial, session: Session) -> None:
    """Require that the session ends well by itself."""
    end = session.wait()
    require(end.code == 0, f"ended with code {end.code}: {end.text[-3000:]}")
    require("continuing at" in end.text, "it started again instead of continuing")
    trial.judge()


def rank_killed(
    name: str, sentence: str, rank: int, at: str, numbers: tuple[int, int], times: int = 1, file: str = "*"
) -> None:
    """Register: one of the two is killed at a moment."""

    def run(trial: Trial) -> None:
        session = trial.reach(at, trial.random.randint(*numbers), rank=rank, file=file)
        os.kill(session.pid(rank), signal.SIGKILL)
        survives(trial, session)

    fault(KIND, sentence, name=name, outcome=RESTARTS, job=PAIR, times=times)(run)


rank_killed("rank-0-killed", "the first is killed before a random step", 0, "step", (18, 60))
rank_killed("rank-1-killed", "the second is killed before a random step", 1, "step", (18, 60), times=2)
rank_killed(
    "rank-0-killed-saving", "the first is killed in the middle of a checkpoint", 0, "half", (2, 5), file=".step-*"
)
rank_killed("rank-1-killed-validating", "the second is killed in the validation", 1, "validation", (6, 20))


@fault(KIND, "both are killed", outcome=RESTARTS, job=PAIR)
def both_ranks_killed(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(18, 60))
    for rank in (1, 0):
        os.kill(session.pid(rank), signal.SIGKILL)
    survives(trial, session)


@fault(KIND, "the second hangs (SIGSTOP)", outcome="noticed after `--timeout`; " + RESTARTS, job=PAIR)
def rank_hangs(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(18, 60), rank=1)
    os.kill(session.pid(1), signal.SIGSTOP)
    survives(trial, session)


@fault(KIND, "everything is killed, torchrun too", job=PAIR)
def all_killed(trial: Trial) -> None:
    trial.half_way()
    trial.finish()


@fault(KIND, "only torchrun is killed", job=PAIR, outcome="refused while its processes live; then bit-identical")
def launcher_killed(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(18, 60))
    session.send(signal.SIGKILL)
    session.go()
    deadline = time.monotonic() + PATIENCE_S
    while (end := trial.start().wait()).code and time.monotonic() < deadline:
        require("another process is at work" in end.text, f"ended with code {end.code}: {end.text[-1500:]}")
    trial.judge()


@fault(KIND, "SIGTERM to torchrun", job=PAIR, outcome="all save once and end; the same command ends bit-identical")
def launcher_terminated(trial: Trial) -> None:
    session = trial.start()
    session.until(lambda: "epoch 2" in session.text, "the second epoch")
    session.send(signal.SIGTERM)
    end = session.wait()
    require(end.code, "it did not end")
    trial.finish()


@fault(
    KIND, "SIGTERM to one of the two", job=PAIR, outcome="both save and end, torchrun starts them again; bit-identical"
)
def rank_terminated(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(18, 60), rank=1)
    os.kill(session.pid(1), signal.SIGTERM)
    session.go()
    survives(trial, session)


@fault(
    KIND,
    "everything is killed, and a bit flips in the newest checkpoint",
    job=PAIR,
    outcome="both fall back; bit-identical",
)
def pair_falls_back(trial: Trial) -> None:
    newest, *_ = trial.half_way()
    in_data(newest, trial.random)
    require("broken" in trial.finish(), "it does not say that the newest is broken")


@fault(KIND, "one is killed while both write a shared-out checkpoint (`--parallel fsdp`)", outcome=RESTARTS, job=SHARED)
def sharing_rank_killed(trial: Trial) -> None:
    session = trial.reach("save", trial.random.randint(3, 6))  # the first writes the part that is not shared out
    os.kill(session.pid(), signal.SIGKILL)
    survives(trial, session)


@fault(KIND, "a bit of a shared-out checkpoint is flipped (`--parallel fsdp`)", outcome=FALLS_BACK, job=SHARED)
def sharing_falls_back(trial: Trial) -> None:
    newest, *_ = trial.half_way()
    path = trial.random.choice(sorted(newest.glob("*.safetensors")))
    flip(path, trial.random.randrange(path.stat().st_size))
    require("broken" in trial.finish(), "it does not say that the newest is broken")
