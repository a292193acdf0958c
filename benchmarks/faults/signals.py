"""Signals that ask a run to end: it saves first, and ends with a documented code."""

from __future__ import annotations

import signal
import time

from faults.jobs import trained_on
from faults.registry import fault
from faults.session import End, Session, require
from faults.trial import Trial

KIND = "Told to end"
SAVES = "saves, ends with code {}; the same command ends bit-identical"


def ends_with(end: End, code: int) -> None:
    """Require the exit code, and a word that it continues."""
    require(end.code == code, f"ended with code {end.code} instead of {code}: {end.text[-1000:]}")
    require("continues" in end.text, f"it does not say that it continues: {end.text[-1000:]}")


def told(session: Session, *numbers: int) -> End:
    """Send signals at a planned moment, then let it go on."""
    for number in numbers:
        session.send(number)
        time.sleep(0.1)
    session.go()
    return session.wait()


@fault(KIND, "SIGTERM before a random step", outcome=SAVES.format(143), times=3)
def sigterm(trial: Trial) -> None:
    number = trial.random.randint(1, trial.reference.steps - 1)
    ends_with(told(trial.reach("step", number), signal.SIGTERM), 143)
    trial.finish()
    steps = len(list(trained_on(trial.notes)))
    require(steps <= trial.reference.steps, f"it did not save when told: {steps - trial.reference.steps} steps again")


@fault(KIND, "Ctrl-C (SIGINT) before a random step", outcome=SAVES.format(130), times=2)
def sigint(trial: Trial) -> None:
    number = trial.random.randint(1, trial.reference.steps - 1)
    ends_with(told(trial.reach("step", number), signal.SIGINT), 130)
    trial.finish()


@fault(KIND, "SIGTERM twice", outcome=SAVES.format(143))
def sigterm_twice(trial: Trial) -> None:
    ends_with(told(trial.reach("step", trial.random.randint(1, 60)), signal.SIGTERM, signal.SIGTERM), 143)
    trial.finish()


@fault(KIND, "Ctrl-C twice: does not wait", outcome="ends with code 130; the same command ends bit-identical", times=2)
def sigint_twice(trial: Trial) -> None:
    end = told(trial.reach("step", trial.random.randint(20, 60)), signal.SIGINT, signal.SIGINT)
    ends_with(end, 130)
    trial.finish()


@fault(KIND, "Ctrl-C twice, in the middle of writing a checkpoint", outcome="ends with code 130; bit-identical")
def sigint_twice_while_saving(trial: Trial) -> None:
    ends_with(
        told(trial.reach("written", trial.random.randint(2, 4), file=".step-*"), signal.SIGINT, signal.SIGINT), 130
    )
    trial.finish()


@fault(KIND, "SIGTERM in the middle of writing a checkpoint", outcome=SAVES.format(143))
def sigterm_while_saving(trial: Trial) -> None:
    ends_with(told(trial.reach("written", trial.random.randint(1, 4), file=".step-*"), signal.SIGTERM), 143)
    trial.finish()


@fault(KIND, "SIGTERM in the validation", outcome=SAVES.format(143))
def sigterm_in_validation(trial: Trial) -> None:
    ends_with(told(trial.reach("validation", trial.random.randint(1, 20)), signal.SIGTERM), 143)
    trial.finish()


@fault(KIND, "SIGTERM at a random moment of the whole run, its start included", times=2)
def sigterm_any_moment(trial: Trial) -> None:
    session = trial.start()
    time.sleep(trial.random.uniform(0, trial.reference.seconds))
    session.send(signal.SIGTERM)
    code = session.wait().code
    require(code in (143, -signal.SIGTERM, 0), f"ended with code {code}")  # negative: Python was not up yet
    trial.finish()


@fault(KIND, "the terminal is closed (SIGHUP)")
def terminal_closed(trial: Trial) -> None:
    told(trial.reach("step", trial.random.randint(20, 60)), signal.SIGHUP)
    trial.finish()
