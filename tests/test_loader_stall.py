"""A loader that stops feeding is noticed, and whoever waits for it obeys a signal."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
import torch

from tests.test_data_loader import glyphs, make, same
from tests.test_train_resume import outcome, run
from tests.test_train_resume import same as same_outcome
from tests.train_toys import checkpoint
from tokenmix.data import loader as loading
from tokenmix.tasks.classification.images import ImageSet
from tokenmix.tasks.classification.loader import Loader
from tokenmix.train import Terminated
from tokenmix.train.distributed import Group
from tokenmix.train.saving import Writer
from tokenmix.train.signals import held_signals


class Hanging(ImageSet):
    """Its pictures never come."""

    def load(self, index):
        time.sleep(60)
        raise AssertionError


class Many(torch.utils.data.Dataset):
    """Batches of as many small tensors as a large detection batch has."""

    def __getitem__(self, key):
        return {"index": torch.tensor(key.indices), "target": [torch.full((3,), float(i)) for i in range(300)]}


@pytest.fixture
def few_files():
    """Room for about 60 more open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


linux = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")


@linux
def test_a_batch_of_many_tensors_needs_few_files(few_files) -> None:
    loader = loading.BatchLoader(glyphs(), Many(), batch_size=4, shape=(16, 16), train=False, workers=2)
    batches = list(loader.batches())
    assert [len(batch["target"]) for batch in batches] == [300] * 6
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [*range(21)]


class NoFiles(Many):
    """Takes all files that its process may open."""

    def __getitem__(self, key):
        resource.setrlimit(resource.RLIMIT_NOFILE, (5, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return super().__getitem__(key)


@linux
def test_a_batch_that_cannot_be_sent_is_an_error_of_the_one_who_waits() -> None:
    loader = loading.BatchLoader(glyphs(), NoFiles(), batch_size=4, shape=(16, 16), train=False, workers=1)
    with pytest.raises(OSError, match=r"could not send a batch of 0\.0 MB: .*ulimit -n"):
        list(loader.batches())


def test_a_stalled_wait_ends_with_the_reason(monkeypatch) -> None:
    monkeypatch.setattr(loading, "_SLICE_S", 0.2)
    monkeypatch.setattr(loading, "STALL_S", 0.5)
    loader = make(Hanging([0] * 6, [str(i) for i in range(6)]), train=False, workers=1)
    with pytest.raises(TimeoutError, match=r"no images have come for 1 seconds, though the 1 processes.*--workers"):
        next(loader.batches())
    (worker,) = loader._ahead._iterator._workers
    with contextlib.suppress(RuntimeError):  # torch tells of its death wherever the program is
        worker.kill()
        worker.join()
    loader._ahead._iterator._shutdown_workers()


class Slow(ImageSet):
    """Slower than a slice of the wait."""

    def load(self, index):
        time.sleep(0.15)
        return glyphs().load(index)


def test_slow_is_not_stalled(monkeypatch) -> None:
    monkeypatch.setattr(loading, "_SLICE_S", 0.1)
    images = Slow([0] * 6, [str(i) for i in range(6)])
    assert same(
        list(make(images, train=False, workers=1).batches()), list(make(images, train=False, workers=0).batches())
    )


def test_whoever_gave_an_iteration_up_gets_other_workers() -> None:
    helped = make(glyphs(), workers=1)
    assert len(list(helped.batches(0))) == 5
    first = helped._ahead
    batches = helped.batches(1)
    for _ in range(5):  # as the trainer does it: the last batch, and no look beyond it
        next(batches)
    assert same(list(helped.batches(2)), list(make(glyphs()).batches(2)))
    assert helped._ahead is first
    next(helped.batches(3))
    assert same(list(helped.batches(4)), list(make(glyphs()).batches(4)))
    assert helped._ahead is not first


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_ends_the_wait_for_images(tmp_path, monkeypatch, part, number, error) -> None:
    """It comes while the fourth batch is awaited, which would take a minute."""
    inner = Loader.batches
    timers: list[threading.Timer] = []

    def stuck(self, *where):
        for count, batch in enumerate(inner(self, *where)):
            if self.train == (part == "train") and count == 1:
                timers.append(threading.Timer(0.2, os.kill, (os.getpid(), number)))
                timers[-1].start()
                time.sleep(60)
            yield batch

    monkeypatch.setattr(Loader, "batches", stuck)
    begin = time.monotonic()
    children = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(error):
        run(tmp_path / "stopped", checkpoint_seconds=60.0)
    assert time.monotonic() - begin < 20
    assert signal.getsignal(signal.SIGCHLD) == children
    state = checkpoint(tmp_path / "stopped")["state"]
    assert (state["epoch"], state["step"]) == ((0, 1) if part == "train" else (0, 6))
    monkeypatch.undo()
    run(tmp_path / "stopped")
    run(tmp_path / "plain")
    assert same_outcome(outcome(tmp_path / "stopped"), outcome(tmp_path / "plain"))


def test_of_several_processes_the_wait_lasts_a_little_longer() -> None:
    begin = time.monotonic()

    def wait_twice() -> None:
        with held_signals() as signals:
            signals.patience = 0.3
            signal.raise_signal(signal.SIGTERM)
            with signals.obeyed():
                time.sleep(0.05)  # what comes in time is taken
            with signals.obeyed():
                time.sleep(30)

    with pytest.raises(Terminated):
        wait_twice()
    assert 0.2 < time.monotonic() - begin < 10
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_barrier_can_be_left(monkeypatch) -> None:
    class Never:
        def is_completed(self):
            return False

    monkeypatch.setattr("torch.distributed.barrier", lambda async_op: Never())
    with held_signals() as signals:
        signals.patience = 0.2
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Terminated):
            Group(1, 2, torch.device("cpu"), obeyed=signals.obeyed).wait()
        signals.came.clear()


def test_children_that_die_after_a_signal_disturb_nothing() -> None:
    """A signal to the whole job also ends the workers, whose death PyTorch would raise in the midst of a step."""

    def complain(*_):
        raise RuntimeError("a DataLoader worker is killed")

    before = signal.signal(signal.SIGCHLD, complain)
    try:
        with held_signals() as signals:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGCHLD)
            signals.came.clear()
        assert signal.getsignal(signal.SIGCHLD) is complain
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_without_a_thread_the_writer_writes_at_once(monkeypatch) -> None:
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    lines: list[str] = []
    done: list[int] = []
    with Writer(Group(0, 1, torch.device("cpu")), lines.append) as writer:
        for number in range(2):
            writer.start(lambda number=number: done.append(number))
            assert done[-1] == number
            writer.wait()
        writer.start(lambda: [][0])
        with pytest.raises(IndexError):
            writer.wait()
    assert lines == ["checkpoints are written while the training waits: can't start new thread (see ulimit -u)"]
    assert np.array_equal(done, [0, 1])


def test_too_few_files_for_the_pipes_are_told_before_a_process_starts(monkeypatch) -> None:
    before = len(os.listdir("/dev/fd"))
    left, pipe = [3], os.pipe

    def scarce() -> tuple[int, int]:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return pipe()

    monkeypatch.setattr(os, "pipe", scarce)
    with pytest.raises(OSError, match=r"could not start: Too many open files; .*ulimit -n"):
        loading._check_room(2)
    assert len(os.listdir("/dev/fd")) == before
    left[0] = 100
    loading._check_room(2)
    assert len(os.listdir("/dev/fd")) == before
