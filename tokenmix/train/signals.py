"""SIGINT and SIGTERM, held back to a moment at which a checkpoint can be written; whoever only waits obeys at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """The run got SIGTERM and has saved its state; uncaught, the process ends with the code 143.

    Examples:
        >>> from tokenmix.train import Terminated
        >>> Terminated().code
        143
    """

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Signals:
    """Which signals have come; ``stop`` is the exception for the first, or None.

    Attributes:
        patience: Seconds that a wait may still last after the first signal. Alone 0; of several processes others may
            need this one to save, and what it waits for may come.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        self.patience = 0.0
        self._waiting = False
        self._replaced: dict[int, Any] = {}  # handlers, from the first signal on

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the signal; a second SIGINT does not wait."""
        self.came.append(number)
        if len(self.came) > 1:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        if hasattr(signal, "SIGCHLD"):
            # The same signal may have ended the processes that load images. The step and the checkpoint need them no
            # more, but PyTorch's handler would raise in the midst of both.
            self._replace(signal.SIGCHLD, signal.SIG_DFL)
        if not self.patience:
            self._break_off()
        elif hasattr(signal, "setitimer"):
            self._replace(signal.SIGALRM, self._break_off)
            signal.setitimer(signal.ITIMER_REAL, self.patience, 1.0)

    @property
    def stop(self) -> BaseException | None:
        """What to raise once the state is saved."""
        if not self.came:
            return None
        return Terminated() if self.came[0] == signal.SIGTERM else KeyboardInterrupt()

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Inside, where nothing is done but to wait, the first signal raises ``stop``, when ``patience`` is over."""
        if not self.patience and (stop := self.stop):
            raise stop
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def restore(self) -> None:
        """Put back the handlers that the first signal replaced."""
        if self.patience and self._replaced and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self._replaced.items():
            signal.signal(number, handler)
        self._replaced.clear()

    def _replace(self, number: int, handler: Any) -> None:
        before = signal.signal(number, handler)
        self._replaced[number] = signal.SIG_DFL if before is None else before  # None: not one of Python's

    def _break_off(self, *_: Any) -> None:
        if self._waiting and (stop := self.stop):
            self._waiting = False
            raise stop


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
        signals.restore()
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals.came:
        signal.raise_signal(signals.came[0])
