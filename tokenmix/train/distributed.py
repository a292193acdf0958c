"""Several processes that train one model: who we are, as ``torchrun`` tells it, and what is agreed between us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Group:
    """The processes of a run; alone, all of its methods do nothing.

    Args:
        rank: Which one this is, from 0; the first one writes and speaks.
        world: How many there are.
        device: Where this one trains.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """The values of all processes, added."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Give all the first one's buffers, such as the running statistics of norms."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are the mean over all."""
        return DistributedDataParallel(module) if self.world > 1 else module


def world_size() -> int:
    """How many processes ``torchrun`` started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def speaks() -> bool:
    """Whether this process is the first one of its run."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def processes(device: torch.device | str) -> Iterator[Group]:
    """The group that the environment describes, connected (nccl for GPUs, else gloo) and closed again at the end.

    A group that the caller has connected is used and left open. On a GPU each process takes the one with its
    ``LOCAL_RANK``, unless ``device`` has a number.

    Raises:
        ValueError: There is no such GPU.
    """
    device = torch.device(device)
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else world_size()
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {str(device)!r}: torch finds no CUDA GPU here; use device='cpu'")
        if world > 1 and device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if device.index >= torch.cuda.device_count():
                raise ValueError(f"{world} processes, but this machine has {torch.cuda.device_count()} GPUs")
    if world == 1:
        yield Group(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if ours:
            dist.destroy_process_group()
