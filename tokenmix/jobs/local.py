"""Jobs in this process, one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmix.jobs.job import Job, Log, Outcomes, attempt, claim


@dataclass(frozen=True)
class Local:
    """Runs a job when its outcome is asked for.

    Examples:
        >>> from tokenmix.jobs import Local
        >>> for outcome in Local().run(jobs, Path("runs"), print):  # doctest: +SKIP
        ...     print(outcome if isinstance(outcome, Exception) else outcome.best["epoch"])
    """

    def run(self, jobs: Sequence[Job], out: Path, log: Log) -> Outcomes:
        """The outcomes in the order of the jobs; the same for every place that runs jobs.

        Args:
            jobs: In folders below ``out``.
            out: For files about all of them.
            log: Takes plain lines.

        Raises:
            ValueError: A folder holds another job, or the place cannot be reached.
            Queued: The jobs go on without this process.
        """
        claim(jobs)
        for job in jobs:
            yield attempt(job, log)
