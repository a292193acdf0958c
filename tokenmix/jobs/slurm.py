"""Jobs as an array job of Slurm: a script that is written, submitted, and collected by the same command later."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmix.files import write_json, write_text
from tokenmix.jobs.job import Job, Log, Outcomes, Queued, needs_trust, outcome_of
from tokenmix.jobs.shared import send
from tokenmix.train import FitResult
from tokenmix_runtime.untrusted import read_json

SAVE_S = 120  # how long before the time limit a job is told to save
OURS = ("array", "signal")  # sbatch options that the script itself decides

# USR1 comes from Slurm before the time limit, TERM from `scancel`: both let the job save, the first runs it again.
# A trap ends a `wait` early, hence the repeated ones.
BODY = """
{python} -m tokenmix job{trust} "${{folders[$SLURM_ARRAY_TASK_ID]}}" &
job=$! again=
trap 'again=yes; kill -TERM $job' USR1
trap 'kill -TERM $job' TERM
wait $job
while kill -0 $job 2>/dev/null; do wait $job; done
wait $job; code=$?
if [ -n "$again" ] && [ $code -eq 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $code
"""


@dataclass(frozen=True)
class Slurm:
    """A Slurm cluster whose machines have this Python environment and share the output folder under one path.

    Args:
        sbatch: Options for ``sbatch``, ``"partition=gpu"``, ``"gres=gpu:1"``, ``"time=4:00:00"``.
        cpus: For each job, which then computes with as many threads; None: as many as this process has.
        at_once: How many jobs may run at the same time; None leaves that to Slurm.
        wait: Wait until the array job has ended, and collect.

    Examples:
        >>> from tokenmix.jobs import Slurm
        >>> outcomes = Slurm(("partition=gpu", "gres=gpu:1"), cpus=8).run(jobs, Path("runs"), print)  # doctest: +SKIP
    """

    sbatch: tuple[str, ...] = ()
    cpus: int | None = None
    at_once: int | None = None
    wait: bool = False

    def run(self, jobs: Sequence[Job], out: Path, log: Log) -> Outcomes:
        """See `Local.run`.

        What has finished is taken as it is. The others are submitted, and so are those of an earlier submission that
        are neither in the queue nor came to an end. A failure is reported once and then tried again.
        """
        for option in self.sbatch:
            if option.partition("=")[0] in OURS or "\n" in option:
                raise ValueError(f"the sbatch option {option!r} cannot be set here: the array job decides it")
        jobs = send(jobs, self.cpus)
        folder = out.resolve() / "jobs"
        stamp = folder / "submitted.json"
        if stamp.is_file():
            id = read_json(stamp)["id"] or _by_hand(script := folder / "job.sh")
            left = [job for job in jobs if outcome_of(job) is None]
            if left and id is not None and _in_queue(id):
                raise _queued(f"the array job {id} is not done", id, left, len(jobs), folder)
            if id is None and shutil.which("squeue") is None and script.is_file():
                listed = read_json(folder / "jobs.json")
                if any(str(job.folder) in listed for job in left):
                    raise Queued(
                        f"{script} was to be submitted by hand, and may run: {_unfinished(left, len(jobs), folder)}\n"
                        "collect: the same command (without --fresh), once they are done; to have the script written "
                        f"anew instead, remove {stamp}",
                        "",
                        [job.folder for job in left],
                    )
        else:
            left = [job for job in jobs if not isinstance(outcome_of(job), FitResult)]
        if left:
            id = self._submit(left, folder, stamp, log)
            if left := [job for job in jobs if outcome_of(job) is None]:
                what = "has ended before its jobs" if self.wait else "is in the queue"
                raise _queued(f"the array job {id} {what}", id, left, len(jobs), folder)
        stamp.unlink(missing_ok=True)
        return (outcome for job in jobs if (outcome := outcome_of(job)))

    def _submit(self, jobs: Sequence[Job], folder: Path, stamp: Path, log: Log) -> str:
        """Write the script, hand it to Slurm, and return its name for the array job."""
        script = folder / "job.sh"
        for job in jobs:
            job.outcome_file.unlink(missing_ok=True)
        write_json(folder / "jobs.json", [str(job.folder) for job in jobs])
        write_text(script, self.script(jobs, folder))
        write_json(stamp, {"id": None})  # until Slurm has given it one, or for good if it is submitted by hand
        if shutil.which("sbatch") is None:
            raise ValueError(
                "there is no sbatch on this machine: give the same command on one that submits to Slurm, or submit "
                f"{script} by hand"
            )
        command = ["sbatch", "--parsable", *(["--wait"] if self.wait else []), str(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            id = process.stdout.readline().strip().partition(";")[0]
            if id:
                write_json(stamp, {"id": id})
                log(f"submitted {len(jobs)} jobs as the array job {id}")
            complaint = process.stderr.read().strip()
        if not id:
            raise ValueError(f"sbatch refuses {script}: {complaint or 'without a word'}")
        return id

    def script(self, jobs: Sequence[Job], folder: Path) -> str:
        """The array job as a shell script; its options stand in it, so that it can be submitted by hand."""
        words = [
            "job-name=tokenmix",
            f"array=0-{len(jobs) - 1}" + (f"%{self.at_once}" if self.at_once else ""),
            f"chdir={os.getcwd()}",
            f"output={str(folder).replace('%', '%%')}/%A_%a.log",
            "open-mode=append",
            "requeue",
            f"signal=B:USR1@{SAVE_S}",
            f"cpus-per-task={jobs[0].threads}",
            *self.sbatch,
        ]
        head = "".join(f"#SBATCH {shlex.quote(f'--{word}')}\n" for word in words)
        trust = " --trust" if any(map(needs_trust, jobs)) else ""
        folders = "".join(f"  {shlex.quote(str(job.folder))}\n" for job in jobs)
        return f"#!/bin/bash\n{head}folders=(\n{folders}){BODY.format(python=shlex.quote(sys.executable), trust=trust)}"


def _in_queue(id: str) -> bool:
    """Whether Slurm still has jobs of the array waiting or running.

    Raises:
        ValueError: Slurm cannot be asked.
    """
    try:
        asked = subprocess.run(["squeue", "--noheader", "--jobs", id], capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError(f"there is no squeue on this machine to ask whether the array job {id} still runs") from None
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise ValueError(f"squeue cannot tell whether the array job {id} still runs: {asked.stderr.strip()}")
    return bool(asked.stdout.strip())


def _by_hand(script: Path) -> str | None:
    """Slurm's name for a script that was submitted by hand; None: it is not in the queue, or there is no Slurm."""
    try:
        command = ["squeue", "--noheader", "--format=%F %o", "--user", getpass.getuser()]
        asked = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    if asked.returncode:
        raise ValueError(f"squeue cannot tell whether {script} was submitted by hand: {asked.stderr.strip()}")
    lines = (line.strip().partition(" ") for line in asked.stdout.splitlines())
    return next((id for id, _, command in lines if command == str(script)), None)


def _unfinished(left: Sequence[Job], count: int, folder: Path) -> str:
    names = ", ".join(str(job.folder.relative_to(folder.parent)) for job in left[:8])
    more = f" and {len(left) - 8} more" if len(left) > 8 else ""
    return f"{len(left)} of {count} jobs are unfinished ({names}{more})"


def _queued(what: str, id: str, left: Sequence[Job], count: int, folder: Path) -> Queued:
    message = (
        f"{what}: {_unfinished(left, count, folder)}\n"
        f"watch:   squeue --jobs {id}; what they say is in {folder / f'{id}_*.log'}\n"
        "collect: the same command (without --fresh), once they are done"
    )
    return Queued(message, id, [job.folder for job in left])
