"""``tokenmix``, made to wait at one planned moment: ``python driver.py NOTES PLAN train ...``.

Without a plan (``{}``) this is ``python -m tokenmix`` that also notes its process number and the order of its samples.
A plan names a moment by ``at``; there the process writes ``NOTES/reached`` and waits for ``NOTES/go``. Whoever reads
that may kill it, fill its disk or take its files away, at a moment that no clock could hit:

* ``step``, ``validation``: the ``number``-th batch of that kind is about to be used;
* ``save``: the ``number``-th checkpoint is about to be written;
* ``written``: the ``number``-th temporary file that matches ``file`` has its bytes, not yet synced; ``half``: half of
  them, and it is not to go on;
* ``replace``, ``replaced``: the ``number``-th file that matches ``file`` is about to be renamed into place, or was;
* ``unlink``: such a file is about to be removed.

``rank`` says which process of several; after a restart by ``torchrun`` the plan is over. ``nan`` = [first, last] makes
training batches NaN, ``quota`` is how many bytes no file may exceed, ``slow`` adds seconds to every training step.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from tokenmix.cli import main
from tokenmix.tasks.classification.loader import Loader


class Driver:
    """Counts the moments of this process and waits at the planned one."""

    def __init__(self, notes: Path, plan: dict[str, Any]) -> None:
        self.notes, self.plan = notes, plan
        self.rank = int(os.environ.get("RANK", "0"))
        restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        mine = not restarted and self.rank == plan.get("rank", 0)
        self.at = plan.get("at") if mine else None
        self.left = plan.get("number", 1)
        self.batches = 0

    def moment(self, name: str, file: str | os.PathLike[str] = "") -> None:
        """Wait here if this is the planned moment."""
        if name != self.at or not self.matches(file):
            return
        self.left -= 1
        if self.left:
            return
        (self.notes / "reached").touch()
        while not (self.notes / "go").exists():
            time.sleep(0.005)

    def matches(self, file: str | os.PathLike[str]) -> bool:
        """Whether the plan means this file."""
        return fnmatch.fnmatch(Path(file).name, self.plan.get("file", "*"))

    def install(self) -> None:
        """Wrap what a run calls when it saves and loads."""
        if "quota" in self.plan:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.plan["quota"], resource.RLIM_INFINITY))
        torch.save = self.around(torch.save, "save", "saved", None)
        os.fsync = self.around_fsync(os.fsync)
        os.replace = self.around(os.replace, "replace", "replaced", 1)
        os.unlink = self.around(os.unlink, "unlink", "unlinked", 0)
        Loader.batches = self.around_batches(Loader.batches)  # type: ignore[method-assign]

    def around(self, inner: Any, before: str, after: str, which: int | None) -> Any:
        """A function with a moment before and after it; argument ``which`` is the file."""

        @functools.wraps(inner)
        def wrapped(*args: Any, **options: Any) -> None:
            file = "" if which is None else args[which]
            self.moment(before, file)
            inner(*args, **options)
            self.moment(after, file)

        return wrapped

    def around_fsync(self, inner: Any) -> Any:
        """``os.fsync`` with the moments before it."""

        @functools.wraps(inner)
        def wrapped(handle: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_file():
                if self.at == "half" and self.left == 1 and self.matches(path):
                    os.truncate(path, path.stat().st_size // 2)
                self.moment("written", path)
                self.moment("half", path)
            inner(handle)

        return wrapped

    def around_batches(self, inner: Any) -> Any:
        """``Loader.batches`` that notes [epoch, place in it, indices] of what is trained on."""
        path = self.notes / f"order-{self.rank}-{os.getpid()}.jsonl"
        first, last = self.plan.get("nan", (0, 0))

        @functools.wraps(inner)
        def wrapped(loader: Loader, epoch: int = 0, start: int = 0) -> Any:
            for place, batch in enumerate(inner(loader, epoch, start), start):
                if not loader.train:
                    self.moment("validation")
                    yield batch
                    continue
                self.batches += 1
                if first <= self.batches <= last:
                    batch["image"].fill_(torch.nan)
                self.moment("step")  # a signal here is obeyed at once: the batch is not trained on
                time.sleep(self.plan.get("slow", 0))
                with path.open("a") as file:
                    file.write(json.dumps([epoch, place, batch["index"].tolist()]) + "\n")
                yield batch

        return wrapped


class Exact(nn.Module):
    """A network without batch norm, in float64: any number of processes gives the same weights but for rounding."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.GELU(), nn.Conv2d(16, 32, 5, 2), nn.GELU()).double()
        self.classifier = nn.Linear(32, num_classes).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) of any float type -> (B, num_classes) float64."""
        return self.classifier(self.features(x.double()).mean((2, 3)))


@timm.models.register_model
def exact_toy(pretrained: bool = False, num_classes: int = 10, **_: Any) -> nn.Module:
    """``exact_toy`` as a name for ``timm.create_model``."""
    return Exact(num_classes)


def run(notes: str, plan: dict[str, Any], words: list[str]) -> int:
    """The command with the plan; returns the exit code."""
    driver = Driver(Path(notes), plan)
    (driver.notes / f"pid-{driver.rank}").write_text(str(os.getpid()))
    driver.install()
    return main(words)


def forked(cwd: str, notes: str, plan: dict[str, Any], words: list[str]) -> None:
    """`run` in a fresh fork of a process that has imported everything: as if it had been started by a shell."""
    os.setsid()
    os.chdir(cwd)
    output = os.open(Path(notes) / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.exit(run(notes, plan, words))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]))
