"""SIGKILL: what a power cut, the out-of-memory killer or a scheduler out of patience does."""

from __future__ import annotations

import os
import signal
import time

from faults.jobs import WORKER
from faults.registry import fault
from faults.session import require
from faults.trial import Trial

KIND = "Killed (SIGKILL)"


@fault(KIND, "at a random moment of the whole run, its start included", times=5)
def kill_any_moment(trial: Trial) -> None:
    session = trial.start()
    time.sleep(trial.random.uniform(0, trial.reference.seconds))
    session.kill()
    trial.finish()


@fault(KIND, "before a random training step", times=3)
def kill_any_step(trial: Trial) -> None:
    trial.reach("step", trial.random.randint(2, trial.reference.steps)).kill()
    trial.finish()


@fault(KIND, "four times in a row, each a few random steps after the start")
def kill_four_times(trial: Trial) -> None:
    for _ in range(4):
        trial.reach("step", trial.random.randint(4, trial.reference.steps // 4)).kill()
    trial.finish()


@fault(KIND, "before the first checkpoint", outcome="starts again; bit-identical")
def kill_before_first_checkpoint(trial: Trial) -> None:
    trial.reach("save").kill()
    trial.finish()


def at_moment(name: str, sentence: str, at: str, file: str = "*", last: int = 4, times: int = 1) -> None:
    """Register: killed at one of the first ``last`` moments ``at`` of that kind, see `faults.driver`."""

    def run(trial: Trial) -> None:
        trial.reach(at, trial.random.randint(min(2, last), last), file=file).kill()
        trial.finish()

    fault(KIND, sentence, name=name, times=times)(run)


at_moment("kill-writing-recipe", "before the recipe is in its place", "replace", "recipe.json", last=1)
at_moment("kill-in-validation", "in the validation after an epoch", "validation")
at_moment("kill-mid-write", "half of a checkpoint's bytes written", "half", ".step-*", times=2)
at_moment("kill-before-rename", "checkpoint written, not yet renamed", "replace", "step-*")
at_moment("kill-after-rename", "checkpoint just renamed", "replaced", "step-*")
at_moment("kill-before-removal", "before an old checkpoint is removed", "unlink", "step-*")
at_moment("kill-writing-best", "before `best.safetensors` is in its place", "replace", "best.safetensors")
at_moment("kill-between-best", "between `best.safetensors` and `best.json`", "replaced", "best.safetensors")
at_moment("kill-writing-history", "before `history.jsonl` is in its place", "replace", "history.jsonl")


@fault(KIND, "while it continues after an earlier kill")
def kill_while_continuing(trial: Trial) -> None:
    trial.half_way()
    trial.reach("replace", trial.random.randint(1, 3)).kill()
    trial.finish()


@fault(KIND, "after the last checkpoint, before the best weights are out")
def kill_after_last_checkpoint(trial: Trial) -> None:
    trial.reach("replaced", 4, file="history.jsonl").kill()
    trial.finish()


@fault(KIND, "right after the end", outcome="the same command returns at once; bit-identical")
def kill_after_the_end(trial: Trial) -> None:
    session = trial.start()
    session.until(lambda: "best:" in session.text, "its last lines")
    session.kill()
    text = trial.finish()
    require("epoch" not in text.split("best:")[0], "it trained again")


@fault(
    KIND,
    "the process that loads images",
    job=WORKER,
    outcome="stops with code 75 and says so; the same command ends bit-identical",
)
def kill_image_loader(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(2, 20))
    main = session.pid()
    with open(f"/proc/{main}/task/{main}/children") as file:
        workers = [int(word) for word in file.read().split()]
    require(workers, "found no worker")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    session.go()
    end = session.wait()
    require(end.code == 75 and "a process that loads images has died" in end.text, f"{end.code}: {end.text[-500:]}")
    trial.finish()


@fault("Others", "a second run is started in the same folder", outcome="the second is refused, the first bit-identical")
def second_run(trial: Trial) -> None:
    first = trial.reach("step", trial.random.randint(2, 60))
    second = trial.start().wait()
    require(second.code == 2 and "another process is at work" in second.text, f"{second.code}: {second.text}")
    first.go()
    require(first.wait().code == 0, "the first run failed")
    trial.judge()


@fault("Others", "frozen and woken again (SIGSTOP, SIGCONT), as by a closed lid", outcome="goes on; bit-identical")
def frozen_and_woken(trial: Trial) -> None:
    session = trial.reach("step", trial.random.randint(2, 60))
    session.go()
    session.send(signal.SIGSTOP)
    time.sleep(2)
    session.send(signal.SIGCONT)
    require(session.wait().code == 0, "it failed")
    trial.judge()
