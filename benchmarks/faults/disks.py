"""Disks without room: a small tmpfs where it may be mounted, else a limit on the size of files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.registry import fault
from faults.trial import End, Trial, Unavailable, require

KIND = "Disk"
STOPS = "stops with code {} and says why; with room again bit-identical"


@contextmanager
def small_disk(trial: Trial, megabytes: int = 16) -> Iterator[Path]:
    """Let the run's folder lie on a tmpfs."""
    mounted = trial.folder / "disk"
    mounted.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mounted)]
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"mounting a tmpfs needs root: {getattr(error, 'stderr', error)}") from None
    trial.out = mounted / "run"
    try:
        yield mounted
    finally:
        for session in trial.sessions:
            session.kill()
        subprocess.run(["umount", str(mounted)], check=True)


def fill(disk: Path, room: int) -> Path:
    """Leave ``room`` bytes free; returns the file that takes the rest."""
    ballast, free = disk / "ballast", os.statvfs(disk)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - room)
    return ballast


def full(end: End) -> None:
    """Require a clear end for want of room."""
    require(end.code == 2, f"ended with code {end.code}: {end.text[-1500:]}")
    require("Traceback" not in end.text, f"a traceback instead of a message: {end.text[-1500:]}")


def full_disk(name: str, sentence: str, share: float) -> None:
    """Register: the disk fills up when that share of a checkpoint is written."""

    def run(trial: Trial) -> None:
        with small_disk(trial) as disk:
            session = trial.reach("save", trial.random.randint(1, 4))
            ballast = fill(disk, int(share * trial.reference.checkpoint_bytes))
            session.go()
            full(session.wait())
            full(trial.start().wait())  # there is still no room
            ballast.unlink()
            trial.finish()

    fault(KIND, sentence, name=name, outcome=STOPS.format(2), times=2)(run)


full_disk("disk-full-first-write", "full at a checkpoint's first byte", 0.0)
full_disk("disk-full-mid-write", "full in the middle of a checkpoint", 0.5)
full_disk("disk-full-last-write", "full at a checkpoint's last bytes", 0.99)


@fault(KIND, "full when the best weights are written, after the checkpoint", outcome=STOPS.format(2))
def disk_full_best(trial: Trial) -> None:
    with small_disk(trial) as disk:
        session = trial.reach("replace", trial.random.randint(2, 4), file="history.jsonl")
        ballast = fill(disk, 0)
        session.go()
        full(session.wait())
        ballast.unlink()
        trial.finish()


@fault(KIND, "full before the start", outcome=STOPS.format(2))
def disk_full_at_start(trial: Trial) -> None:
    with small_disk(trial) as disk:
        ballast = fill(disk, 0)
        full(trial.start().wait())
        ballast.unlink()
        trial.finish()


@fault(KIND, "a limit on the size of files (RLIMIT_FSIZE) is hit in a checkpoint", outcome=STOPS.format(2), times=2)
def file_size_limit(trial: Trial) -> None:
    full(trial.start(quota=int(trial.random.uniform(0.3, 0.95) * trial.reference.checkpoint_bytes)).wait())
    trial.finish()


@fault(KIND, "the file system turns read-only", outcome="stops with code 2 and says why; writable again bit-identical")
def read_only(trial: Trial) -> None:
    with small_disk(trial) as disk:
        session = trial.reach("step", trial.random.randint(20, 60))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        session.go()
        full(session.wait())
        full(trial.start().wait())
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        trial.finish()
