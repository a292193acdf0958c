"""``tokenmix``, made to wait at one planned moment: ``python driver.py NOTES PLAN train ...``.

Without a plan (``{}``) this is ``python -m tokenmix`` that also notes its process number and the order of its samples.
A plan names a moment by ``at``; there the process writes ``NOTES/reached`` and waits for ``NOTES/go``. Whoever reads
that may kill it, fill its disk or take its files away, at a moment that no clock could hit:

* ``step``, ``validation``: the ``number``-th batch of that kind is about to be used;
* ``save``: the ``number``-th ``torch.save`` is about to write; ``half``: it has written half of its bytes;
* ``replace``, ``replaced``: a file that matches ``file`` is about to be renamed into place, or just was;
* ``unlink``: a file that matches ``file`` is about to be removed.

``rank`` says which process of several; after a restart by ``torchrun`` the plan is over. ``nan`` = [first, last] makes
training batches NaN, ``quota`` is how many bytes no file may exceed, ``slow`` adds seconds to every training step.
"""

from __future__ import annotations

import fnmatch
import functools
import io
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
from tokenmix.data import Loader


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
        if name != self.at or not fnmatch.fnmatch(Path(file).name, self.plan.get("file", "*")):
            return
        self.left -= 1
        if self.left:
            return
        (self.notes / "reached").touch()
        while not (self.notes / "go").exists():
            time.sleep(0.005)

    def install(self) -> None:
        """Wrap what a run calls when it saves and loads."""
        if "quota" in self.plan:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.plan["quota"], resource.RLIM_INFINITY))
        if self.at in ("save", "half"):
            torch.save = self.around_save(torch.save)
        os.replace = self.around(os.replace, "replace", "replaced", -1)
        os.unlink = self.around(os.unlink, "unlink", "unlinked", 0)
        Loader.batches = self.around_batches(Loader.batches)  # type: ignore[method-assign]

    def around(self, inner: Any, before: str, after: str, which: int) -> Any:
        """A function on files with a moment before and after it; argument ``which`` is the file."""

        @functools.wraps(inner)
        def wrapped(*files: Any, **options: Any) -> None:
            self.moment(before, files[which])
            inner(*files, **options)
            self.moment(after, files[which])

        return wrapped

    def around_save(self, inner: Any) -> Any:
        """``torch.save`` with a moment before it and one in its middle."""

        @functools.wraps(inner)
        def wrapped(content: Any, path: Path, **options: Any) -> None:
            self.moment("save", path)
            if self.at != "half":
                inner(content, path, **options)
                return
            whole = io.BytesIO()
            inner(content, whole, **options)
            data = whole.getvalue()
            with open(path, "wb", buffering=0) as file:
                file.write(data[: len(data) // 2])
                self.moment("half", path)
                file.write(data[len(data) // 2 :])

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
                with path.open("a") as file:
                    file.write(json.dumps([epoch, place, batch["index"].tolist()]) + "\n")
                self.moment("step")
                time.sleep(self.plan.get("slow", 0))
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


if __name__ == "__main__":
    notes, plan, *words = sys.argv[1:]
    driver = Driver(Path(notes), json.loads(plan))
    (driver.notes / f"pid-{driver.rank}").write_text(str(os.getpid()))
    driver.install()
    sys.exit(main(words))
