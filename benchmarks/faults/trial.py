"""One trial: a folder of its own, the sessions started in it, and the judgement at the end."""

from __future__ import annotations

import functools
import json
import random
import shutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.jobs import Job, differences, make_photos, outcome, sample_order
from faults.session import Lost, Session, begin, launch
from tokenmix.train.checkpoint import Checkpoints

DRIVER = Path(__file__).with_name("driver.py")


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
        notes, words = self._notes(), ["train", *self.job.words, "--out", str(self.out), *options]
        if self.job.processes == 1:
            session = begin(self.folder, notes, plan, words)
        else:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=3"]
            command += [f"--nproc-per-node={self.job.processes}", str(DRIVER), str(notes), json.dumps(plan), *words]
            session = launch(self.folder, notes, command)
        self.sessions.append(session)
        return session

    def reach(self, at: str, number: int = 1, *options: str, **plan: Any) -> Session:
        """Start the command; it now waits at that moment."""
        session = self.start(*options, at=at, number=number, **plan)
        session.reached()
        return session

    def half_way(self) -> list[Path]:
        """Begin with what the job leaves when it is killed in its middle; its checkpoints, the newest first."""
        killed = half_way(self.job, self.folder.parent)
        shutil.copytree(killed.out, self.out)
        shutil.copytree(killed.notes[0], self._notes())
        return Checkpoints(self.out).all()

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
    """``make``, called once per job and folder, however many threads ask."""
    locks: dict[Job, threading.Lock] = defaultdict(threading.Lock)
    cached = functools.cache(make)

    @functools.wraps(make)
    def locked(job: Job, folder: Path) -> Any:
        with locks[job]:
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
    found = Reference(outcome(trial.out), order, steps, seconds, room(Checkpoints(trial.out).all()[0]))
    trial.close()
    return found


@once
def half_way(job: Job, folder: Path) -> Trial:
    """The job, killed after two thirds of its steps."""
    trial = Trial(job, folder / f"killed {job.name}")
    trial.reach("step", reference(job, folder).steps * 2 // 3).kill()
    assert len(Checkpoints(trial.out).all()) >= 2, "too early to have two checkpoints"
    return trial


def room(path: Path) -> int:
    """The bytes of a file, or of a folder's files."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
