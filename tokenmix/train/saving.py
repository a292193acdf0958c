"""Writing beside the training: the state is copied at once, a thread brings the copy to the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from tokenmix.train.distributed import Group


class Writer:
    """A thread of the first process that does one piece of work at a time; a context, which ends when that is done.

    All processes call all methods.

    Args:
        group: The processes of the run.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._thread = ThreadPoolExecutor(1, "tokenmix-writer")
        self._work: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def start(self, work: Callable[[], None]) -> None:
        """Begin ``work``; what was begun before must have been waited for."""
        assert self._work is None
        if self.group.first:
            self._work = self._thread.submit(work)

    def wait(self) -> None:
        """Until the work is done; raises what it raised, in all processes."""
        self.group.once(self._finish)

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
