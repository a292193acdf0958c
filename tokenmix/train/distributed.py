"""Several processes that train one model: who we are, as ``torchrun`` or Slurm tells it, and what is agreed between us.

There is no launcher here: ``torchrun`` or ``srun`` starts the processes, on one machine or many, and restarts them.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from tokenmix.tasks import Objective
from tokenmix.train.model import layers_of
from tokenmix_runtime.limits import check_number
from tokenmix_runtime.names import unknown

PARALLEL = ("ddp", "fsdp")
TIMEOUT_S = 300.0
LOST = re.compile(r"gloo|nccl|Connection (closed|reset|refused)|Broken pipe|timed out|TCPStore|socket", re.IGNORECASE)
T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a run; alone, all of its methods do nothing.

    Args:
        rank: Which one this is, from 0; the first one writes and speaks.
        world: How many there are.
        device: Where this one trains.
        mesh: The processes as FSDP2 wants them, if each holds only its share of the weights.
        obeyed: Makes a context in which a signal may end a wait.
    """

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh | None = None
    obeyed: Callable[[], AbstractContextManager[None]] = nullcontext

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here, or a signal ends the wait."""
        if self.world == 1:
            return
        with self.obeyed():
            work = dist.barrier(async_op=True)
            while not work.is_completed():
                time.sleep(0.002)  # in PyTorch's own wait, Python sees no signal
            work.wait()

    def sum(self, values: Tensor) -> Tensor:
        """The values of all processes, added."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def collect(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        found: list[Any] = [value] * self.world
        if self.world > 1:
            dist.all_gather_object(found, value)
        return found

    def by_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, done by the first one alone; if it fails, it fails in all."""
        if self.world == 1:
            return work()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = work()
            except Exception as error:
                outcome[1] = error
        self.wait()  # it may take long
        dist.broadcast_object_list(outcome, 0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def share_buffers(self, module: nn.Module) -> None:
        """Give all the first one's buffers, such as the running statistics of norms."""
        if self.world > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def shard(self, objective: Objective) -> None:
        """Leave this process its share of every parameter, if they are to be shared out; layer by layer, then the rest.

        A layer's parameters come together while it works, so that never more than a few of them are whole.
        """
        if self.mesh is not None:
            for layer in layers_of(objective.model):
                fully_shard(layer, mesh=self.mesh)
            fully_shard(objective, mesh=self.mesh)
            register_fsdp_forward_method(objective, "predict")

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are the mean over all."""
        return DistributedDataParallel(module) if self.world > 1 and self.mesh is None else module

    def accumulate(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Inside, a backward pass through what ``wrap`` returned only adds to the gradients, unless it is the last."""
        if self.mesh is not None:
            wrapped.set_requires_gradient_sync(last)  # type: ignore[operator]
        elif self.world > 1 and not last:
            return wrapped.no_sync()  # type: ignore[operator]
        return nullcontext()

    def gather(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies of a state dict's values on the CPU, those of all processes put together; the others get nothing."""
        found = {}
        for name, value in state.items():
            value = value.full_tensor() if isinstance(value, DTensor) else value
            if self.first:
                found[name] = value.cpu().clone()
        return found


def laid_out(value: Tensor, like: Tensor | None) -> Tensor:
    """A value that every process has whole, shared out as ``like`` is."""
    if not isinstance(like, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def local(value: Tensor) -> Tensor:
    """What this process has of a value."""
    return value.to_local() if isinstance(value, DTensor) else value


@dataclass(frozen=True)
class Place:
    """What the environment says: ``rank`` of ``world`` processes, ``local`` of its machine, who meet at ``address``."""

    rank: int = 0
    world: int = 1
    local: int = 0
    address: str = "env://"


def place() -> Place:
    """Where ``torchrun``, or Slurm's ``srun`` without it, has put this process; alone without either."""
    get = os.environ.get
    if "WORLD_SIZE" in os.environ:
        return Place(int(get("RANK", "0")), int(get("WORLD_SIZE", "1")), int(get("LOCAL_RANK", "0")))
    # A batch script's own process has SLURM_PROCID and the job's SLURM_NTASKS too: only srun's are tasks of a step.
    tasks = int(get("SLURM_STEP_NUM_TASKS") or "1")
    if "SLURM_PROCID" not in os.environ or tasks == 1:
        return Place()
    nodes = get("SLURM_STEP_NODELIST") or get("SLURM_JOB_NODELIST") or "localhost"
    host = get("MASTER_ADDR") or first_host(nodes)
    port = get("MASTER_PORT") or str(20000 + int(get("SLURM_JOB_ID") or "0") % 10000)
    return Place(int(get("SLURM_PROCID", "0")), tasks, int(get("SLURM_LOCALID", "0")), f"tcp://{host}:{port}")


def first_host(nodes: str) -> str:
    """The first of Slurm's list of hosts: ``"gpu[003-007,12],login"`` -> ``"gpu003"``."""
    host = nodes.strip()
    while found := re.match(r"([^,\[]*)\[(\w+)[^\]]*\]", host):
        host = found[1] + found[2] + host[found.end() :]
    return host.partition(",")[0]


def speaks() -> bool:
    """Whether this process is the first one of its run."""
    return place().rank == 0


def fresh_store(rank: int, world: int, limit: timedelta) -> dist.Store:
    """The store of ``torchrun``'s agent without what earlier lives of these processes left in it.

    The agent keeps one store over all restarts, where a process may find the address of one that is dead (PyTorch's
    issue 135712). So every process asks under a name that is new, and the first one answers all with a new prefix.

    Raises:
        ConnectionError: A process did not come in time.
    """
    store: Any = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=limit)
    name = uuid.uuid4().hex
    if rank:
        store.set(f"tokenmix/asks/{rank}", name)
        prefix = store.get(f"tokenmix/answer/{name}").decode()
        store.set(f"{prefix}/{rank}", "here")
        return dist.PrefixStore(prefix, store)
    missing, deadline = list(range(1, world)), time.monotonic() + limit.total_seconds()
    while missing := [other for other in missing if not store.check([f"{name}/{other}"])]:
        if time.monotonic() > deadline:
            raise ConnectionError(
                f"{len(missing)} of {world} processes did not come, the first of them {missing[0]}; "
                "the same command continues from the last checkpoint"
            )
        for key in filter(lambda key: store.check([key]), [f"tokenmix/asks/{other}" for other in missing]):
            store.set(f"tokenmix/answer/{store.get(key).decode()}", name)
        time.sleep(0.01)
    return dist.PrefixStore(name, store)


@contextmanager
def processes(device: torch.device | str, *, parallel: str = "ddp", timeout: float = TIMEOUT_S) -> Iterator[Group]:
    """The group that the environment describes, connected (nccl for GPUs, else gloo) and closed again at the end.

    A group that the caller has connected is used and left open. On a GPU each process takes the one with its local
    number, unless ``device`` has a number.

    Args:
        device: Where to train.
        parallel: ``ddp``, every process holds all weights, or ``fsdp``, its share of them.
        timeout: Seconds after which a process that does not answer counts as lost. gloo notices one that died at once.

    Raises:
        ValueError: There is no such GPU or no such ``parallel``, or ``timeout`` is not positive.
        ConnectionError: Another process was lost.
    """
    if parallel not in PARALLEL:
        raise ValueError(unknown("value of parallel:", parallel, PARALLEL))
    if timeout <= 0:
        raise ValueError(f"timeout must be above 0 seconds, got {timeout:g}")
    check_number("timeout", timeout)
    device, here = torch.device(device), place()
    connected = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size() if connected else here.world
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {str(device)!r}: torch finds no CUDA GPU here; use device='cpu'")
        if world > 1 and device.index is None:
            count = torch.cuda.device_count()
            own = 0 if "SLURM_PROCID" in os.environ and count == 1 else here.local  # Slurm may show each task its own
            if own >= count:
                raise ValueError(f"process {own} of this machine has no GPU of its own: there are {count}")
            device = torch.device("cuda", own)
    if world == 1:
        yield Group(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rank = dist.get_rank() if connected else here.rank
    try:
        if not connected:
            backend = "nccl" if device.type == "cuda" else "gloo"
            limit = timedelta(seconds=timeout)
            meeting: dict[str, Any] = {"init_method": here.address}
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                meeting = {"store": fresh_store(rank, world, limit)}
            dist.init_process_group(backend, timeout=limit, rank=rank, world_size=world, **meeting)
        yield Group(rank, world, device, init_device_mesh(device.type, (world,)) if parallel == "fsdp" else None)
    except (RuntimeError, CheckpointException) as error:
        if not LOST.search(str(error)):
            raise
        reason = re.sub(r"\[\S+:\d+\] ", "", str(error).splitlines()[0]).partition(". ")[0]  # not where in gloo's code
        raise ConnectionError(
            f"process {rank} of {world} has lost another one ({reason:.200}); "
            "the same command continues from the last checkpoint"
        ) from error
    finally:
        if not connected and dist.is_initialized():
            dist.destroy_process_group()
