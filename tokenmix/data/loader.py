"""Batches whose every number is a function of (seed, epoch, index), so that a run that continues repeats nothing."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tokenmix.data.dataset import Samples
from tokenmix.data.packing import Parcel, is_shortage, shortage
from tokenmix.data.random_numbers import hashes
from tokenmix_runtime.limits import check_number

Batch = dict[str, Any]
STALL_S = 600.0  # without a batch from any process that loads: long enough to fetch a shard from afar
_SLICE_S = 20.0  # after which it is looked whether these processes live
_SHAPES = 1  # key of draws beside the ones for order and augmentation


class Step(NamedTuple):
    """A batch of all processes together: the shape of its samples, and its place in the epoch's order."""

    shape: tuple[int, ...]
    begin: int
    end: int


class Key(NamedTuple):
    """What one process loads for a step; the indices from ``real`` on are padding."""

    epoch: int
    shape: tuple[int, ...]
    indices: list[int]
    real: int


class BatchLoader:
    """Which samples make up each batch of an epoch, for this process; what a batch is made of, its maker says.

    Args:
        samples: What they are made of.
        maker: ``maker[key]`` is the batch of a `Key`, the same in any process.
        batch_size: Samples per batch, of all processes together.
        shape: What the maker brings them to, such as (height, width) in pixels; () where each has its own.
        train: Shuffle, and drop the last partial batch (unless it is the only one).
        seed: Of the order.
        workers: Processes that load ahead; 0 loads in this one. They stay alive between epochs.
        shapes: Others, one of them drawn for each batch when training. A batch of smaller samples has more of them, so
            that it holds about as much; never fewer.
        rank: Which of the processes this is, from 0: it loads its part of every batch. When evaluating, parts are
            padded to one length with samples whose ``mask`` is False.
        world: How many processes there are.

    Raises:
        ValueError: An empty set, or an argument out of range.

    Examples:
        >>> class Indices(Dataset):
        ...     def __getitem__(self, key):
        ...         return {"index": key.indices}
        >>> loader = BatchLoader(Samples("abcde"), Indices(), batch_size=2, train=False)
        >>> [batch["index"] for batch in loader.batches()]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self,
        samples: Samples,
        maker: Dataset,
        *,
        batch_size: int,
        shape: Sequence[int] = (),
        train: bool,
        seed: int = 0,
        workers: int = 0,
        shapes: Sequence[Sequence[int]] = (),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not len(samples):
            raise ValueError("the set of samples is empty")
        if batch_size < 1 or workers < 0:
            raise ValueError(f"batch_size must be 1 or more and workers 0 or more, not {batch_size} and {workers}")
        check_number("workers", workers)
        if not 0 <= rank < world:
            raise ValueError(f"rank must be within 0 and {world - 1} for a world of {world}, not {rank}")
        if train:
            check_shares(min(batch_size, len(samples)), world)
        self.samples = samples
        self.batch_size = batch_size
        self.train = train
        self.seed = seed
        self.workers = workers
        self.rank, self.world = rank, world
        self.shape = tuple(shape)
        self.shapes = [tuple(one) for one in shapes] if train else []
        self.rows = np.arange(len(samples))  # of evaluation, in order
        self._maker = maker
        self._plan = _Plan()
        self._ahead: DataLoader | None = None
        self._idle = True  # whether its processes have nothing to do any more
        self._turn = 0

    def __len__(self) -> int:
        """Batches per epoch; with several shapes, of the first epoch."""
        return len(self.steps(0))

    def steps(self, epoch: int) -> list[Step]:
        """The batches of an epoch; with several shapes their number depends on (seed, epoch)."""
        count, batch = len(self.rows), self.batch_size
        if not self.train:
            return [Step(self.shape, begin, min(begin + batch, count)) for begin in range(0, count, batch)]
        most = max(1, count // batch)
        drawn = [self.shape] * most
        if self.shapes:
            draws = hashes(self.seed, epoch, np.arange(most), _SHAPES) % np.uint64(len(self.shapes))
            drawn = [self.shapes[draw] for draw in draws.tolist()]
        steps: list[Step] = []
        begin = 0
        for shape in drawn:
            volume = math.prod(shape)
            end = begin + batch * max(math.prod(self.shape), volume) // volume
            if end > count:
                break
            steps.append(Step(shape, begin, end))
            begin = end
        return steps or [Step(drawn[0], 0, count)]

    def order(self, epoch: int) -> np.ndarray:
        """The order in which an epoch of training goes through the samples, (N,)."""
        return self.samples.order(self.seed, epoch)

    def thin(self, most: int) -> None:
        """Judge at most so many samples from now on, evenly spread over the set."""
        count = len(self.samples)
        self.rows = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches ``start``, ``start + 1``, ... of an epoch; the ones before are not loaded.

        A batch is a dict that the maker has filled: always with ``mask`` (B,) bool, False for padding, and ``index``
        (B,) int64, the place in the set; besides with what the task reads.

        Raises:
            ValueError: ``start`` is outside 0 .. the number of batches; or a sample cannot be read, of the kind that
                its task raises, such as ``ImageError``.
            ChildProcessError: A worker has died.
            OSError: A worker could not send a batch, for want of open files, shared memory or threads.
            TimeoutError: The workers have not sent anything for ten minutes.
            RuntimeError: With workers, when a newer call of `batches` has taken them over.
        """
        steps = self.steps(epoch)
        if not 0 <= start <= len(steps):
            raise ValueError(f"start must be within 0 and {len(steps)}, the number of batches, not {start}")
        return self._iterate(epoch, steps[start:])

    def _iterate(self, epoch: int, steps: list[Step]) -> Iterator[Batch]:
        order = self.order(epoch) if self.train else self.rows
        plan = [self._part(epoch, step, order) for step in steps]
        if not self.workers:
            for key in plan:
                yield self._maker[key]
            return
        self._turn += 1
        turn = self._turn
        self._plan.keys = plan
        if self._ahead is None or not self._idle:  # who still works for an iteration that was given up is let go
            self._ahead = DataLoader(
                _Ahead(self._maker),
                batch_size=None,
                sampler=self._plan,
                num_workers=self.workers,
                persistent_workers=True,
                timeout=_SLICE_S,
                worker_init_fn=_leave_interrupts,
                generator=torch.Generator(),  # else it would draw from the global one
            )
        self._idle = not plan
        for count, batch in enumerate(_fed(self._ahead), start=1):
            if isinstance(batch, Exception):
                raise batch
            self._idle = count == len(plan)
            yield batch
            if turn != self._turn:
                raise RuntimeError("with workers, only one iteration over a Loader can be under way")

    def _part(self, epoch: int, step: Step, order: np.ndarray) -> Key:
        """What this process loads of a step."""
        indices = order[step.begin + self.rank : step.end : self.world].tolist()
        length = len(indices) if self.train else -(-(step.end - step.begin) // self.world)
        padding = [int(order[step.begin])] * (length - len(indices))
        return Key(epoch, step.shape, indices + padding, len(indices))


class _Plan(Sampler):
    """The batches that the workers make next."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


@contextlib.contextmanager
def named_deaths() -> Iterator[None]:
    """Say clearly that a worker has died; torch tells it by a signal, whose handler raises wherever the program is.

    Raises:
        ChildProcessError: That happened inside.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ChildProcessError(
            "a process that loads images has died, perhaps for want of memory; the same command continues, "
            "with fewer workers (--workers) in less memory"
        ) from error


def check_shares(batch_size: int, world: int) -> None:
    """Raise where a batch has no sample for some of the processes.

    Raises:
        ValueError: That is so.
    """
    if batch_size < world:
        raise ValueError(f"{world} processes need batches of {world} or more, not {batch_size}")


def _check_room(workers: int) -> None:
    """Raise where the pipes to so many processes do not fit: a `DataLoader` half started leaves a traceback.

    Raises:
        OSError: The system lets this process open too few files; the message has the remedy.
    """
    opened: list[int] = []
    try:
        for _ in range(2 * workers + 4):
            opened += os.pipe()
    except OSError as error:
        raise shortage(error, "start") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _fed(loader: DataLoader) -> Iterator[Any]:
    """What the workers make, or a clear error when one of them dies, or none of them sends anything for long."""
    batches, waited = None, 0.0
    _check_room(loader.num_workers)
    with named_deaths():
        while True:
            try:
                batches = iter(loader) if batches is None else batches
                batch = next(batches)
            except StopIteration:
                return
            except (ConnectionError, EOFError) as error:
                if str(error).startswith("Caught "):  # raised in a worker that lives
                    raise
                time.sleep(0.2)  # the signal comes now, if it has not come yet
                raise RuntimeError("a DataLoader worker left its batch half sent") from error
            except (OSError, RuntimeError) as error:
                if str(error).startswith("DataLoader timed out"):
                    waited += _SLICE_S
                    if batches is not None and waited < STALL_S:
                        continue
                    raise TimeoutError(
                        f"no images have come for {waited:.0f} seconds, though the {loader.num_workers} processes that "
                        "load them live: the disk or the network of the images does not answer, or they lack memory; "
                        "the same command continues, perhaps with fewer workers (--workers)"
                    ) from error
                if str(error).startswith("Caught ") or not is_shortage(error):
                    raise
                raise shortage(error, "start or answer") from error
            waited = 0.0
            yield batch


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes of a terminal; what follows from it is decided by the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Ahead(Dataset):
    """The batches, made and packed in a worker; what a user can mend comes back as the error it is.

    Raised in a worker, its message would become a traceback. That is what every task says of a file it cannot use (a
    ValueError of some kind), and what the system says (an OSError).
    """

    def __init__(self, maker: Dataset) -> None:
        self.maker = maker

    def __getitem__(self, key: Key) -> Parcel | Exception:
        try:
            return Parcel(self.maker[key])
        except (ValueError, OSError) as error:
            return _portable(error)


def _portable(error: Exception) -> Exception:
    """The error, or one of its message where its own kind cannot be sent to another process."""
    try:
        same = pickle.loads(pickle.dumps(error))
    except Exception:  # a class may refuse in any way
        same = None
    kind = OSError if isinstance(error, OSError) else ValueError
    return error if type(same) is type(error) and str(same) == str(error) else kind(str(error))
