"""One trial: a folder of its own, the sessions started in it, and the judgement at the end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.jobs import Job, checkpoints, differences, make_photos, outcome, sample_order

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path(__file__).with_name("driver.py")
PATIENCE_S = 240.0  # a session that takes longer hangs


class Lost(Exception):
    """Something was lost, or the run behaved in another way than documented."""


class Unavailable(Exception):
    """This machine does not let us cause the fault; says why."""


@dataclass(frozen=True)
class End:
    """How a session ended: its exit code (negative: the signal that killed it) and all that it printed."""

    code: int
    text: str


class Session:
    """A started command.

    Args:
        command: Its words.
        cwd: Where it runs.
        notes: An empty folder for what it tells, see `faults.driver`.
    """

    def __init__(self, command: list[str], cwd: Path, notes: Path) -> None:
        self.notes = notes
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (notes / "output").open("w") as output:
            self.process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def text(self) -> str:
        """What it has printed up to now."""
        return (self.notes / "output").read_text(errors="replace")

    def pid(self, rank: int = 0) -> int:
        """The process number of a rank, once it has started."""
        path = self.notes / f"pid-{rank}"
        self.until(lambda: path.exists() and path.read_text().isdigit(), f"rank {rank} to start")
        return int(path.read_text())

    def until(self, true: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> None:
        """Wait until ``true()``.

        Raises:
            Lost: The session ended before that, or it took too long.
        """
        deadline = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None and not true():
                raise Lost(f"ended with code {self.process.returncode}, waiting for {what}: {self.text[-2000:]}")
            if time.monotonic() > deadline:
                raise Lost(f"no end of waiting for {what}: {self.text[-2000:]}")
            time.sleep(0.005)

    def reached(self) -> None:
        """Wait until it is at the planned moment, where it stays until `go`."""
        self.until((self.notes / "reached").exists, "the planned moment")

    def go(self) -> None:
        """Let it go on from the planned moment."""
        (self.notes / "go").touch()

    def send(self, number: int) -> None:
        """Send a signal to the command's process, as a user or a scheduler would."""
        self.process.send_signal(number)

    def wait(self) -> End:
        """Wait for its end.

        Raises:
            Lost: It hangs.
        """
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Lost(f"hangs: {self.text[-2000:]}") from None
        return End(code, self.text)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        for path in self.notes.glob("pid-*"):
            number = int(path.read_text() or 0)
            with contextlib.suppress(OSError):  # torchrun gives its processes groups of their own
                if str(self.notes) in Path(f"/proc/{number}/cmdline").read_text():  # else it has ended
                    os.killpg(number, signal.SIGKILL)
        self.process.wait()


class Trial:
    """A folder in which a job is disturbed and then ends as if nothing had happened.

    Args:
        job: The command.
        folder: Made here; the job runs in it.
        seed: Of ``random``, which draws the moments.
    """

    def __init__(self, job: Job, folder: Path, seed: str = "") -> None:
        self.job, self.folder, self.random = job, folder, random.Random(seed)
        self.out = folder / "run"
        self.sessions: list[Session] = []
        self.notes: list[Path] = []  # of all sessions, an inherited one's too
        folder.mkdir(parents=True)
        if job.photos:
            make_photos(self.photos)

    @property
    def photos(self) -> Path:
        """The images of a job that needs some."""
        return self.folder / "photos"

    @functools.cached_property
    def reference(self) -> Reference:
        """The same job, undisturbed."""
        return reference(self.job, self.folder.parent)

    def start(self, *options: str, **plan: Any) -> Session:
        """Start the job's command; ``plan`` is for `faults.driver`."""
        notes = self._notes()
        notes.mkdir()
        launcher = [sys.executable]
        if self.job.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.job.processes}"]
            launcher += ["--max-restarts=3"]
        words = [*launcher, str(DRIVER), str(notes), json.dumps(plan)]
        words += ["train", *self.job.words, "--out", str(self.out), *options]
        self.sessions.append(Session(words, self.folder, notes))
        return self.sessions[-1]

    def reach(self, at: str, number: int = 1, **plan: Any) -> Session:
        """Start the command; it now waits at that moment."""
        session = self.start(at=at, number=number, **plan)
        session.reached()
        return session

    def half_way(self) -> list[Path]:
        """Begin with what the job leaves when it is killed in its middle; its checkpoints, the newest first."""
        killed = half_way(self.job, self.folder.parent)
        shutil.copytree(killed.out, self.out)
        shutil.copytree(killed.notes[0], self._notes())
        return checkpoints(self.out)

    def _notes(self) -> Path:
        self.notes.append(self.folder / f"notes-{len(self.notes)}")
        return self.notes[-1]

    def finish(self, *options: str) -> str:
        """Give the same command again, to its end; returns what it said.

        Raises:
            Lost: It does not end well, or with another outcome than the undisturbed run.
        """
        end = self.start(*options).wait()
        if end.code:
            raise Lost(f"the same command ends with code {end.code}: {end.text[-2000:]}")
        self.judge()
        return end.text

    def judge(self) -> None:
        """Compare the outcome and the order of the samples with the undisturbed run's.

        Raises:
            Lost: Something differs.
        """
        try:
            found, order = outcome(self.out), sample_order(self.notes)
        except (OSError, ValueError) as error:
            raise Lost(str(error)) from None
        if differing := differences(self.reference.outcome, found):
            raise Lost(f"other than undisturbed: {', '.join(differing)}")
        if order != self.reference.order:
            raise Lost("other samples than undisturbed")

    def close(self) -> None:
        """End what still runs, remove the folder."""
        for session in self.sessions:
            session.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: how it ended, on which samples, in how many steps and seconds, its checkpoint's bytes."""

    outcome: dict[str, Any]
    order: dict[tuple[int, int, int], list[int]]
    steps: int
    seconds: float
    checkpoint_bytes: int


def once(make: Callable[[Job, Path], Any]) -> Callable[[Job, Path], Any]:
    """``make``, called once per job and folder, by one thread at a time."""
    lock, cached = threading.Lock(), functools.cache(make)

    @functools.wraps(make)
    def locked(job: Job, folder: Path) -> Any:
        with lock:
            return cached(job, folder)

    return locked


@once
def reference(job: Job, folder: Path) -> Reference:
    """The job's undisturbed run."""
    trial = Trial(job, folder / f"undisturbed {job.name}")
    started = time.monotonic()
    end = trial.start().wait()
    seconds = time.monotonic() - started
    if end.code:
        raise RuntimeError(f"the undisturbed run of {job.name} ended with code {end.code}: {end.text}")
    order = sample_order(trial.notes)
    steps = sum(rank == 0 for rank, *_ in order)
    found = Reference(outcome(trial.out), order, steps, seconds, checkpoints(trial.out)[0].stat().st_size)
    trial.close()
    return found


@once
def half_way(job: Job, folder: Path) -> Trial:
    """The job, killed after two thirds of its steps."""
    trial = Trial(job, folder / f"killed {job.name}")
    trial.reach("step", reference(job, folder).steps * 2 // 3).kill()
    assert len(checkpoints(trial.out)) >= 2, "too early to have two checkpoints"
    return trial


def require(true: Any, what: str) -> None:
    """Raise ``Lost`` with ``what`` unless ``true``."""
    if not true:
        raise Lost(what)
