"""Jobs on an existing Ray cluster: a task each; Ray runs the task of a lost worker again, and the run continues."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenmix.export.extras import require
from tokenmix.jobs.job import Job, Log, Outcome, Outcomes, needs_trust, outcome_of, pack, perform, unpack
from tokenmix.jobs.shared import Token, send
from tokenmix.train import FitResult

GRACE_S = 120.0  # for jobs that are cancelled to save what they have reached


@dataclass(frozen=True)
class Ray:
    """A Ray cluster whose machines have tokenmix and share the output folder under one path.

    Args:
        address: Of the cluster; None takes ``RAY_ADDRESS`` from the environment, else the cluster of this machine.
        cpus: For each job, which then computes with as many threads; None: as many as this process has.
        gpus: For each job; None: one if it trains on CUDA.
        retries: How often a job is run again whose worker or machine was lost.

    Examples:
        >>> from tokenmix.jobs import Ray
        >>> outcomes = Ray("10.0.0.1:6379", gpus=1).run(jobs, Path("runs"), print)  # doctest: +SKIP
    """

    address: str | None = None
    cpus: int | None = None
    gpus: float | None = None
    retries: int = 3

    def run(self, jobs: Sequence[Job], out: Path, log: Log) -> Outcomes:
        """See `Local.run`; if it is left early, the jobs that still run save and stop."""
        ray = require("ray", "ray")
        jobs = send(jobs, self.cpus)
        with self._connected(ray):
            token = Token(out / "jobs")
            outcomes: dict[int, Outcome] = {
                n: found for n, job in enumerate(jobs) if isinstance(found := outcome_of(job), FitResult)
            }
            logs = [_Tail(job, out.resolve()) for job in jobs]
            start = self._starter(ray, jobs[0], log)
            tasks = {
                start.remote(str(job.folder), token, os.getcwd(), needs_trust(job)): n
                for n, job in enumerate(jobs)
                if n not in outcomes
            }
            running = list(tasks)
            try:
                for number in range(len(jobs)):
                    while number not in outcomes:
                        ended, running = ray.wait(running, timeout=1.0)
                        for task in ended:
                            outcomes[tasks[task]] = _outcome(ray, task, jobs[tasks[task]])
                        for tail in logs:
                            tail.show(log)
                    yield outcomes[number]
            finally:
                if running:
                    log("stopping the jobs on the cluster; they save what they have reached")
                    for task in running:
                        ray.cancel(task)
                    ray.wait(running, num_returns=len(running), timeout=GRACE_S)

    @contextlib.contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        """Connected to the cluster; a connection that the program made itself is used and stays."""
        if ray.is_initialized():
            yield
            return
        address = self.address or os.environ.get("RAY_ADDRESS") or "auto"
        try:
            if match := re.fullmatch(r"([^/]+):(\d+)", address):  # Ray itself would try for minutes
                socket.create_connection((match[1], int(match[2])), timeout=10).close()
            ray.init(address=address, log_to_driver=False)
        except (OSError, RuntimeError, ValueError) as error:
            where = "on this machine" if address == "auto" else f"at {address}"
            raise ValueError(
                f"no Ray cluster found {where} ({str(error).splitlines()[0]}): start one with `ray start --head`, "
                "or name it with --address or RAY_ADDRESS"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()

    def _starter(self, ray: Any, job: Job, log: Log) -> Any:
        """Starts tasks for jobs like this one."""
        gpus = self.gpus if self.gpus is not None else float(job.device.startswith("cuda"))
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(one.get("CPU", 0) >= job.threads and one.get("GPU", 0) >= gpus for one in machines):
            log(
                f"no machine of the cluster has {job.threads} CPUs and {gpus:g} GPUs now; "
                "waiting for one (--cpus and --gpus ask for less)"
            )
        return ray.remote(_work).options(
            name="tokenmix job", num_cpus=job.threads, num_gpus=gpus, max_retries=self.retries
        )


def _work(folder: str, token: Token, home: str, trust: bool) -> dict[str, Any]:
    """What a worker does."""
    if not token.seen():
        return pack(
            ValueError(
                f"the worker on {socket.gethostname()} does not see {token.file}: choose --out in a folder that all "
                "machines of the cluster share under one path"
            )
        )
    with contextlib.suppress(OSError):
        os.chdir(home)  # where relative paths of data and weights begin

    def log(line: str) -> None:
        with _log(folder).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    log(f"process {os.getpid()} on {socket.gethostname()}")
    return pack(perform(folder, log, trust=trust))


def _log(folder: str | Path) -> Path:
    return Path(folder) / "log.txt"


def _outcome(ray: Any, task: Any, job: Job) -> Outcome:
    """What came of a task that ended."""
    try:
        return unpack(ray.get(task), job)
    except ray.exceptions.RayError as error:
        return RuntimeError(f"the job in {job.folder} was lost: {error}")


class _Tail:
    """The lines that a worker adds to its job's log from now on."""

    def __init__(self, job: Job, out: Path) -> None:
        self.file, self.name = _log(job.folder), job.folder.relative_to(out)
        self.place = self.file.stat().st_size if self.file.is_file() else 0

    def show(self, log: Log) -> None:
        """Pass on the whole lines that are new."""
        if not self.file.is_file():
            return
        with self.file.open("rb") as file:
            file.seek(self.place)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.place += len(line)
                log(f"{self.name}: {line.decode('utf-8').rstrip()}")
