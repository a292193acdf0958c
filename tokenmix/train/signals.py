"""SIGINT and SIGTERM, held back to a moment at which a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(SystemExit):
    """The run got SIGTERM and has saved its state; uncaught, the process ends with the code 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Signals:
    """Which signals have come; ``stop`` is the exception for the first, or None."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a second SIGINT does not wait."""
        self.came.append(number)
        if len(self.came) > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt

    @property
    def stop(self) -> BaseException | None:
        """What to raise once the state is saved."""
        if not self.came:
            return None
        return Terminated() if self.came[0] == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def held_signals() -> Iterator[Signals]:
    """Hold SIGINT and SIGTERM back inside the block; one that nobody asked about takes effect after it.

    Only in the main thread, the only one that Python lets handle signals; elsewhere they stay as they are.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals.came:
        signal.raise_signal(signals.came[0])
