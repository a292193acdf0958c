"""Trackers: TensorBoard, Weights & Biases and trackio follow a run, each once, whatever happens to it.

A tracker is given only what a checkpoint holds already, and ``trackers.json`` in the run's folder keeps who has been
given what. So a resumed run continues each tracker's own run, without steps that come twice.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenmix.files import write_json
from tokenmix_runtime.names import unknown
from tokenmix_runtime.untrusted import read_json

PROJECT = "tokenmix"  # at wandb, which has WANDB_PROJECT, and at trackio
MARKS = "trackers.json"
Values = Mapping[str, float]


class Tracker(ABC):
    """Someone else's record of a run."""

    @abstractmethod
    def log(self, step: int, values: Values) -> None:
        """Note finite values at a step; the steps rise."""

    def flush(self) -> None:  # noqa: B027 - most write at once
        """Make what was logged visible."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """The session ends, because the run has ended or stopped."""


class _TensorBoard(Tracker):
    """Event files in ``<out>/tensorboard``."""

    def __init__(self, out: Path, mark: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # what a session that died had written beyond the mark comes again: readers drop the first copy
        self.writer = SummaryWriter(str(out / "tensorboard"), purge_step=mark["step"] + 1)
        if not mark["step"]:
            self.writer.add_text("recipe", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, step: int, values: Values) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self, failed: bool) -> None:
        self.writer.close()


class _Wandb(Tracker):
    """A run at wandb, or with ``WANDB_MODE=offline`` in ``<out>/wandb``."""

    def __init__(self, out: Path, mark: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=mark["id"],
            name=out.name,
            dir=str(out),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )

    def log(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class _Trackio(Tracker):
    """A run of the local project ``tokenmix``, which ``trackio show`` shows."""

    def __init__(self, out: Path, mark: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        import trackio

        self.run = trackio.init(
            project=PROJECT,
            name=f"{out.name}-{mark['id']}",
            config=dict(config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Values) -> None:
        self.run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        self.run.finish()


TRACKERS: dict[str, Callable[..., Tracker]] = {"tensorboard": _TensorBoard, "trackio": _Trackio, "wandb": _Wandb}


def check_trackers(names: Sequence[str]) -> None:
    """Make sure, before any work, that the trackers exist and are installed.

    Raises:
        ValueError: There is no such tracker.
        ImportError: Its package is missing; the message gives the command that installs it.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(unknown("tracker", name, TRACKERS))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise ImportError(
                f"the tracker {name!r} needs its package, which is not installed: pip install 'tokenmix[{name}]'",
                name=name,
            ) from error


class Tracking:
    """The trackers of a run.

    Args:
        names: In ``TRACKERS``.
        out: The run's folder.
        config: What describes the run.
        say: Takes warnings.

    Raises:
        ValueError: A tracker cannot start.
    """

    def __init__(self, names: Sequence[str], out: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.path, self.say = out / MARKS, say
        self.marks: dict[str, dict[str, Any]] = {}
        if names and self.path.is_file():
            self.marks = read_json(self.path)
        self.trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(names):
            mark = self.marks.setdefault(name, {"id": uuid.uuid4().hex[:8], "step": 0})
            try:
                with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
                    self.trackers[name] = TRACKERS[name](out, mark, config)
            except Exception as error:  # each package raises its own
                raise ValueError(
                    f"the tracker {name!r} does not start: {error}; see `tokenmix docs watching`"
                ) from error
        if names:
            write_json(self.path, self.marks)

    def send(self, values: Mapping[int, Mapping[str, float | None]]) -> None:
        """Give each tracker what it has not had; one that fails is left out from then on, and that is said.

        Args:
            values: What there is by step, rising or not; None is left out.
        """
        for name, tracker in list(self.trackers.items()):
            mark = self.marks[name]
            steps = sorted(step for step in values if step > mark["step"])
            if not steps:
                continue
            try:
                for step in steps:
                    tracker.log(step, {key: value for key, value in values[step].items() if value is not None})
                tracker.flush()
            except Exception as error:
                del self.trackers[name]
                self.say(f"the tracker {name!r} failed: {error}; the training goes on without it")
                continue
            mark["step"] = steps[-1]
            write_json(self.path, self.marks)

    def close(self, failed: bool) -> None:
        """End the session."""
        for name, tracker in self.trackers.items():
            try:
                with contextlib.redirect_stdout(sys.stderr):
                    tracker.close(failed)
            except Exception as error:
                self.say(f"the tracker {name!r} did not end well: {error}")
        self.trackers.clear()
