"""A batch as one block of shared memory, so that a process that loads sends it whole or says why it cannot.

PyTorch sends every tensor of a batch as a file of its own, from a thread that loses the batch when it may open no more
files: whoever waits for it waits for ever. Here all tensors lie in one block, which is made and announced before the
batch is handed to that thread; what fails is raised where the batch is made.
"""

from __future__ import annotations

import errno
import pickle
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch import Tensor

_ALIGNED = 64  # bytes; any type of number may begin there
_SMALL = 16384  # bytes; a tensor up to this size is copied out, or who keeps a label would keep the whole batch
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EAGAIN)


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in the block."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    begin: int  # bytes
    end: int


class Parcel:
    """A batch on its way to another process, where it arrives as what it was made of.

    Its tensors keep their values, types, shapes and strides; all of them lie on the CPU.

    Args:
        batch: Nested dicts, lists and tuples of tensors, and what pickle takes.

    Raises:
        OSError: There is no room, or no file or thread may be opened for it; the message has the remedy.
    """

    def __init__(self, batch: Any) -> None:
        tensors: list[tuple[Tensor, _Place]] = []
        layout = _laid_out(batch, tensors)
        size = tensors[-1][1].end if tensors else 0
        try:
            storage = torch.UntypedStorage._new_shared(max(1, size), device="cpu")  # share_memory_() would copy it
            block = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._content = bytes(ForkingPickler.dumps((block, layout)))
        except (OSError, RuntimeError) as error:
            raise shortage(error, f"send a batch of {size / 1e6:.1f} MB") from error
        for tensor, place in tensors:
            _at(block, place).copy_(tensor)

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self._content,)


def shortage(error: Exception, what: str) -> OSError:
    """What a process that loads images could not do, for want of what, and what helps."""
    reason = (getattr(error, "strerror", None) or str(error)).partition("\n")[0].partition(". ")[0]
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or "open files" in reason or "ancdata" in reason:
        remedy = "let it open more files (ulimit -n 4096) or give fewer workers (--workers)"
    elif "thread" in reason or getattr(error, "errno", None) == errno.EAGAIN:
        remedy = "let it start more threads (ulimit -u) or give fewer workers (--workers)"
    else:
        remedy = (
            "give it more shared memory (of a container: --shm-size=2g), fewer workers (--workers) or a smaller batch "
            "(batch_size)"
        )
    return OSError(f"the processes that load images could not {what}: {reason}; {remedy}")


def is_shortage(error: Exception) -> bool:
    """Whether an error says that the system has no more of something."""
    if isinstance(error, OSError):
        return error.errno in _SHORT
    return any(word in str(error) for word in ("Too many open files", "ancdata", "shared memory", "new thread", "mmap"))


def _arrived(content: bytes) -> Any:
    try:
        block, layout = pickle.loads(content)
    except (OSError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise shortage(error, "receive a batch") from error
    return _restored(block, layout)


def _laid_out(value: Any, tensors: list[tuple[Tensor, _Place]]) -> Any:
    """The value with places instead of its tensors, which are noted."""
    if isinstance(value, Tensor):
        if any(step == 0 and side > 1 for step, side in zip(value.stride(), value.shape, strict=True)):
            value = value.contiguous()  # an expanded tensor: its elements share their memory
        begin = -(-tensors[-1][1].end // _ALIGNED) * _ALIGNED if tensors else 0
        reach = sum((side - 1) * step for side, step in zip(value.shape, value.stride(), strict=True)) + 1
        end = begin + (reach if value.numel() else 0) * value.element_size()
        place = _Place(value.dtype, tuple(value.shape), value.stride(), begin, end)
        tensors.append((value, place))
        return place
    if isinstance(value, dict):
        return {key: _laid_out(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_laid_out(part, tensors) for part in value)
    return value


def _restored(block: Tensor, layout: Any) -> Any:
    if isinstance(layout, _Place):
        return _at(block, layout, copy=layout.end - layout.begin <= _SMALL)
    if isinstance(layout, dict):
        return {key: _restored(block, part) for key, part in layout.items()}
    if isinstance(layout, list | tuple):
        return type(layout)(_restored(block, part) for part in layout)
    return layout


def _at(block: Tensor, place: _Place, *, copy: bool = False) -> Tensor:
    """The tensor that lies at a place of the block, as a view or a copy."""
    part = block[place.begin : place.end]
    return (part.clone() if copy else part).view(place.dtype).as_strided(place.shape, place.stride)
