"""What jobs need that run on other machines: a folder that all machines see."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenmix.files import write_text
from tokenmix.jobs.job import Job, claim


def send(jobs: Sequence[Job], cpus: int | None) -> list[Job]:
    """The jobs as other machines find them, described in their folders.

    Args:
        jobs: As they were asked for.
        cpus: Processor threads for each; None leaves what this process would use.

    Raises:
        ValueError: One has a network that only this process knows, or its folder holds another job.
    """
    for job in jobs:
        if job.make is not None:
            raise ValueError(
                f"{job.recipe.model.args.get('mixers')} is an object of this process, and other machines need a name "
                "to import it by: write it as text, 'package.file:Class'"
            )
    sent = [replace(job, folder=job.folder.resolve(), threads=cpus or job.threads) for job in jobs]
    claim(sent)
    return sent


class Token:
    """A random text in a folder, by which another machine tells that it sees this very folder."""

    def __init__(self, folder: Path) -> None:
        self.file, self.text = folder.resolve() / "token", secrets.token_hex(8)
        write_text(self.file, self.text)

    def seen(self) -> bool:
        """Whether this machine sees it."""
        return self.file.is_file() and self.file.read_text(encoding="utf-8") == self.text
