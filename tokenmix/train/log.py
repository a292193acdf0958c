"""What a run says while it works: one moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tokenmix.data.loader import BatchLoader
from tokenmix.tasks import Batch
from tokenmix_runtime.terminal import shown

REDRAW_S = 0.2  # between two updates of the moving line
REPEAT_S = 30.0  # between two plain lines within an epoch


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def pace(row: Mapping[str, Any], noun: str = "images") -> str:
    """What a row of the history says about speed: samples per second, the share of waiting, and peak memory."""
    if "images_per_second" not in row:
        return f"peak {row['memory_mb']:,.0f} MB"
    return (
        f"{row['images_per_second']:,.0f} {noun}/s  data wait {row['data_wait']:.0f} %  peak {row['memory_mb']:,.0f} MB"
    )


class Progress:
    """The state of a run in one line with its rate and the time left.

    Args:
        total: Steps in the whole run.
        done: Steps done before this session.
        batch_size: Samples per step.
        log: Takes plain lines.
        show: False says nothing.
        label: Stands before each line.
        noun: What the samples are called, in the plural.
    """

    def __init__(
        self,
        total: int,
        done: int,
        batch_size: int,
        log: Callable[[str], None],
        *,
        show: bool,
        label: str,
        noun: str = "images",
    ) -> None:
        self.noun = noun
        self.total, self.first, self.batch_size = total, done, batch_size
        self.log, self.show, self.label = log, show, f"{label}  " if label else ""
        self.live = show and sys.stderr is not None and sys.stderr.isatty()
        self.started = self.drawn = time.monotonic()
        self.width = 0

    def step(self, done: int, describe: Callable[[], str]) -> None:
        """Called after every step; draws only now and then.

        Args:
            done: Steps done in the whole run.
            describe: What to say about them; called only if it is said.
        """
        now = time.monotonic()
        if self.show and now - self.drawn >= (REDRAW_S if self.live else REPEAT_S):
            self.drawn = now
            self._draw(f"{describe()}  {self.rate(done)}")

    def epoch(self, done: int, text: str) -> None:
        """Called after every epoch with what came of it."""
        if self.show:
            self.drawn = time.monotonic()
            self._draw(f"{text}  {self.left(done)}")

    def say(self, text: str) -> None:
        """A plain line that stays, whatever ``show`` says."""
        self.clear()
        self.log(f"{self.label}{text}")

    def rate(self, done: int) -> str:
        """The rate of this session, validation included, and the time left at that rate."""
        rate = (done - self.first) / max(time.monotonic() - self.started, 1e-9)
        return f"{rate:.3g} steps/s  {rate * self.batch_size:,.0f} {self.noun}/s  {self.left(done)}"

    def left(self, done: int) -> str:
        """The time left at the rate of this session; nothing before its first step."""
        steps = done - self.first
        if not steps:
            return ""
        return f"{clock((self.total - done) * (time.monotonic() - self.started) / steps)} left"

    def clear(self) -> None:
        """Remove the moving line."""
        if self.width:
            sys.stderr.write("\r" + " " * self.width + "\r")
            sys.stderr.flush()
            self.width = 0

    def _draw(self, text: str) -> None:
        line = f"{self.label}{text}".rstrip()
        if not self.live:
            self.log(line)
            return
        line = shown(line)
        sys.stderr.write("\r" + line.ljust(self.width))
        sys.stderr.flush()
        self.width = len(line)


class Shown:
    """A loader that says how far it is while it is read.

    Args:
        loader: A ``tokenmix.data.Loader`` or ``DenseLoader``.
        log: Takes plain lines.
        label: What is done with its samples.
        noun: What they are called, in the plural.
    """

    def __init__(self, loader: BatchLoader, log: Callable[[str], None], label: str, noun: str = "images") -> None:
        self.loader, self.log, self.label, self.noun = loader, log, label, noun

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The loader's own batches."""
        total, size = len(self.loader), min(self.loader.batch_size, len(self.loader.samples))
        progress = Progress(total, start, size, self.log, show=True, label=self.label, noun=self.noun)
        for done, batch in enumerate(self.loader.batches(epoch, start), start + 1):
            yield batch
            progress.step(done, functools.partial("batch {} of {}".format, done, total))
        progress.clear()
