"""Disks without room: a small tmpfs where it may be mounted, else a limit on the size of files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.registry import fault
from faults.session import End, Unavailable, require
from faults.trial import Trial

KIND = "Disk"
WAITS = "stops with code 75 and says how much is missing; with room again bit-identical"


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


def stops(end: End, code: int, word: str) -> None:
    """Require an end with that code and a message with that word."""
    require(end.code == code, f"ended with code {end.code}: {end.text[-1500:]}")
    require(word in end.text and "Traceback" not in end.text, f"no clear message: {end.text[-1500:]}")


def full_disk(name: str, sentence: str, share: float) -> None:
    """Register: there is room for that share of a checkpoint, and no older one that could go."""

    def run(trial: Trial) -> None:
        with small_disk(trial) as disk:
            session = trial.reach("save", trial.random.randint(1, 4), "--keep", "1")
            ballast = fill(disk, int(share * trial.reference.checkpoint_bytes))
            session.go()
            stops(session.wait(), 75, "the disk is full")
            stops(trial.start("--keep", "1").wait(), 75, "the disk is full")  # there is still no room
            ballast.unlink()
            trial.finish()

    fault(KIND, sentence, name=name, outcome=WAITS)(run)


full_disk("disk-full-first-write", "full at a checkpoint's first byte", 0.0)
full_disk("disk-full-mid-write", "full in the middle of a checkpoint", 0.5)
full_disk("disk-full-last-write", "full at a checkpoint's last bytes", 0.98)


@fault(KIND, "full, but older checkpoints can go", outcome="removes them and goes on; bit-identical")
def disk_full_older_go(trial: Trial) -> None:
    with small_disk(trial) as disk:
        trial.half_way()
        session = trial.reach("save", trial.random.randint(1, 3))
        fill(disk, trial.reference.checkpoint_bytes // 2)
        session.go()
        end = session.wait()
        require(end.code == 0, f"ended with code {end.code}: {end.text[-1500:]}")
        trial.judge()


@fault(KIND, "full after a checkpoint, when the best weights are written", outcome=WAITS)
def disk_full_best(trial: Trial) -> None:
    with small_disk(trial) as disk:
        session = trial.reach("replace", trial.random.randint(2, 4), "--keep", "1", file="history.jsonl")
        ballast = fill(disk, 0)
        session.go()
        stops(session.wait(), 75, "the disk is full")
        ballast.unlink()
        trial.finish()


@fault(KIND, "full before the start", outcome=WAITS)
def disk_full_at_start(trial: Trial) -> None:
    with small_disk(trial) as disk:
        ballast = fill(disk, 0)
        stops(trial.start().wait(), 75, "the disk is full")
        ballast.unlink()
        trial.finish()


@fault(
    KIND,
    "no file may be as large as a checkpoint (RLIMIT_FSIZE)",
    outcome="stops with code 2 and says why; without the limit bit-identical",
)
def file_size_limit(trial: Trial) -> None:
    limit = int(trial.random.uniform(0.3, 0.95) * trial.reference.checkpoint_bytes)
    stops(trial.start(quota=limit).wait(), 2, "File too large")
    trial.finish()


@fault(
    KIND, "read-only when the run is started again", outcome="stops with code 2 and says why; writable bit-identical"
)
def read_only(trial: Trial) -> None:
    with small_disk(trial) as disk:
        trial.half_way()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        stops(trial.start().wait(), 2, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        trial.finish()
