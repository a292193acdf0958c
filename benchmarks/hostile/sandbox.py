"""A command in a process of its own that is watched: what it prints, takes, runs and opens, and whether it ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenmix.cli

SECONDS = 10.0  # a command that has said nothing final by then hangs
MEGABYTES = 4096.0
# What a string in a file must never bring about; the harness itself starts nothing.
_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
CANARY = "tokenmix_canary"  # every hostile string carries it: as a module, a file to be made, a host


@dataclass(frozen=True)
class End:
    """How a watched command ended.

    Args:
        code: Its exit code; negative: the signal that killed it.
        text: All that it printed to both streams.
        seconds: How long it ran.
        megabytes: The most memory it had.
        acts: What it ran or opened of the things that a file must not decide.
    """

    code: int
    text: str
    seconds: float
    megabytes: float
    acts: tuple[str, ...]

    def fault(self) -> str:
        """What no command may do whatever it is given; ``""`` if it did nothing of it."""
        if self.acts:
            return f"it did what a file said: {self.acts[0]}"
        if "Traceback (most recent call last)" in self.text:
            return "a traceback"
        if self.code < 0:
            return f"killed by signal {-self.code}" + (" (it hung)" if self.seconds >= SECONDS else "")
        return f"{self.megabytes:.0f} MB" if self.megabytes > MEGABYTES else ""


def watch(
    words: Sequence[str] | Callable[[], Any],
    folder: Path,
    *,
    condition: Callable[[], Any] = lambda: None,
    seconds: float = SECONDS,
    disturb: Callable[[int], Any] = lambda pid: None,
) -> End:
    """Run ``tokenmix`` with these words, or a function, in a fork of this process.

    Args:
        words: Of the command line; or what to call, whose exit code is 0 unless it raises.
        folder: Where it runs.
        condition: Done in the fork first, such as closing a stream.
        seconds: When it is killed.
        disturb: Told the process number once it runs, in this process.
    """
    said = folder / ".said"
    acts = folder / ".acts"
    begin = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(words, folder, said, acts, condition))
    disturb(pid)
    killed = False
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if not killed and time.monotonic() - begin > seconds:
            killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # what it has left running
    text = said.read_text(errors="replace") if said.exists() else ""
    done = tuple(acts.read_text(errors="replace").splitlines()) if acts.exists() else ()
    made = tuple(f"made {path}" for path in folder.rglob(f"{CANARY}_made*"))
    for path in (said, acts):
        path.unlink(missing_ok=True)
    return End(
        os.waitstatus_to_exitcode(status), text, time.monotonic() - begin, usage.ru_maxrss / 1024, (*done, *made)
    )


def _child(
    words: Sequence[str] | Callable[[], Any], folder: Path, said: Path, acts: Path, condition: Callable[[], Any]
) -> int:
    """The fork: leads a group, writes to files, notes what it does; returns the exit code."""
    os.setsid()
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
    notes = os.open(acts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        watched = event in _NETWORK or (event in _EVENTS and CANARY in repr(arguments))
        if watched or (event == "import" and arguments[0].startswith(CANARY)):
            os.write(notes, f"{event} {arguments!r}"[:300].replace("\n", " ").encode() + b"\n")

    sys.addaudithook(note)
    try:
        condition()
        if callable(words):
            words()
            return 0
        return tokenmix.cli.main(list(words)) or 0
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
