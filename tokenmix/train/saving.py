"""Writing beside the training: the state is copied at once, a thread brings the copy to the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from tokenmix.train.distributed import Group


class Writer:
    """A thread of the first process that does one piece of work at a time; a context, which ends when that is done.

    All processes call all methods. Where the system has no thread left, the work is done at once, and it is said.

    Args:
        group: The processes of the run.
        log: Takes plain lines.
    """

    def __init__(self, group: Group, log: Callable[[str], None] = print) -> None:
        self.group, self.log = group, log
        self._work: Future[None] | None = None
        self._said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; what was begun before must have been waited for."""
        assert self._work is None
        if not self.group.first:
            return
        self._work = Future()
        thread = Thread(target=_do, args=(work, self._work), name="tokenmix-writer")
        try:
            thread.start()
        except RuntimeError as error:  # can't start new thread
            if not self._said:
                self.log(f"checkpoints are written while the training waits: {error} (see ulimit -u)")
            self._said = True
            _do(work, self._work)

    def wait(self) -> None:
        """Until the work is done; raises what it raised, in all processes."""
        self.group.by_first(self._finish)

    def settle(self) -> None:
        """Until the work is done, however it ended; alone, for when the others may be lost."""
        if self._work is not None:
            self._work.exception()
            self._work = None

    def _finish(self) -> None:
        work = self._work
        self.settle()
        if work is not None:
            work.result()


def _do(work: Callable[[], None], outcome: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        outcome.set_exception(error)
    else:
        outcome.set_result(None)


def snapshot(value: Any, device: torch.device) -> Any:
    """Nested dicts, lists and tuples with copies on the CPU of their tensors, which lie there or on ``device``."""
    copy = _copied(value)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return copy


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        if value.is_cuda:  # pinned memory takes copies without a wait for each; PyTorch keeps it for the next ones
            return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(part) for part in value)
    return value
