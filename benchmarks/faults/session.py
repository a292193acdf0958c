"""A started command: planned moments, signals, its end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import driver

BENCHMARKS = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # the processes share the cores
    "PYTHONUNBUFFERED": "1",  # we read along
    "PYTHONPATH": os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)]),
}
PATIENCE_S = 240.0  # a session that takes longer hangs
_forks = multiprocessing.get_context("forkserver")


class Lost(Exception):
    """Something was lost, or the run behaved in another way than documented."""


class Unavailable(Exception):
    """This machine does not let us cause the fault; says why."""


@dataclass(frozen=True)
class End:
    """How a session ended: its exit code (negative: the signal that killed it) and all that it printed."""

    code: int
    text: str


class Forked:
    """``tokenmix`` in a process forked from one that has imported it, with the part of Popen's face that we need.

    It is what ``python -m tokenmix`` does, four seconds of imports later.
    """

    def __init__(self, cwd: Path, notes: Path, plan: dict[str, Any], words: list[str]) -> None:
        self.process = _forks.Process(target=driver.forked, args=(str(cwd), str(notes), plan, words))
        self.process.start()
        self.pid: int = self.process.pid  # type: ignore[assignment]

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        self.process.join(timeout)
        if (code := self.process.exitcode) is None:
            raise subprocess.TimeoutExpired("tokenmix", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Session:
    """A started command.

    Args:
        process: Its process, which leads a group.
        notes: The folder for what it tells, see `faults.driver`.
    """

    def __init__(self, process: Forked | subprocess.Popen[bytes], notes: Path) -> None:
        self.process, self.notes = process, notes

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
                raise Lost(f"ended with code {self.process.poll()}, waiting for {what}: {self.text[-2000:]}")
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
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):  # it does not lead its group yet
                    kill(self.process.pid, signal.SIGKILL)
        for path in self.notes.glob("pid-*"):
            number = int(path.read_text() or 0)
            with contextlib.suppress(OSError):  # torchrun gives its processes groups of their own
                if str(self.notes) in Path(f"/proc/{number}/cmdline").read_text():  # else it has ended
                    os.killpg(number, signal.SIGKILL)
        self.process.wait()


def begin(cwd: Path, notes: Path, plan: dict[str, Any], words: list[str]) -> Session:
    """Start ``tokenmix`` with these words.

    Args:
        cwd: Where it runs.
        notes: A folder, made here.
        plan: For `faults.driver`.
        words: The command's.
    """
    notes.mkdir()
    (notes / "output").touch()
    return Session(Forked(cwd, notes, plan, words), notes)


def launch(cwd: Path, notes: Path, command: list[str]) -> Session:
    """Start another command that ends in ``driver.py NOTES ...``, such as torchrun's."""
    notes.mkdir()
    with (notes / "output").open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=os.environ | ENVIRONMENT, stdout=output, stderr=output, start_new_session=True
        )
    return Session(process, notes)


def require(true: Any, what: str) -> None:
    """Raise ``Lost`` with ``what`` unless ``true``."""
    if not true:
        raise Lost(what)


def warm_up() -> None:
    """Start the process that the others are forked from, and let it import what they need."""
    os.environ |= ENVIRONMENT
    _forks.set_forkserver_preload(["faults.driver", "tokenmix.cli.train_command", "sklearn.datasets"])
    first = _forks.Process(target=os.getpid)
    first.start()
    first.join()
