"""A batch arrives in another process as what it was, in few files; what the system refuses is said in one line."""

from __future__ import annotations

import pickle

import pytest
import torch

from tokenmix.data import packing
from tokenmix.data.packing import Parcel, shortage


def send(value):
    """What arrives of a value; pickled here as the queue of a worker would."""
    return pickle.loads(pickle.dumps(Parcel(value)))


def alike(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and (a.dtype, a.shape, a.stride()) == (b.dtype, b.shape, b.stride())
            and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(alike, a, b))
    return a == b


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64]
)
def test_values_types_shapes_and_strides_stay(dtype) -> None:
    numbers = torch.arange(3 * 5 * 7 * 2).reshape(2, 3, 5, 7).to(dtype)
    batch = {
        "one": torch.ones((), dtype=dtype),
        "none": [torch.zeros(0, 4, dtype=dtype), torch.zeros(3, 0, dtype=dtype)],
        "deep": [{"dense": numbers, "nhwc": numbers.contiguous(memory_format=torch.channels_last)}, ("text", 3)],
        "part": numbers[:, 1:, ::2, 1::3],
        "large": torch.ones(40_000, dtype=dtype),
    }
    assert alike(send(batch), batch)


def test_an_expanded_tensor_is_written_out() -> None:
    arrived = send(torch.arange(3.0).expand(4, 3))
    assert torch.equal(arrived, torch.arange(3.0).expand(4, 3))
    assert arrived.is_contiguous()


def test_a_batch_without_tensors() -> None:
    assert send({"names": ["a", "b"]}) == {"names": ["a", "b"]}


def test_a_small_tensor_does_not_keep_the_batch() -> None:
    arrived = send({"image": torch.zeros(2, 3, 64, 64), "mask": torch.zeros(1, 100, 100), "label": torch.zeros(2)})
    block = arrived["image"].untyped_storage().data_ptr()
    assert arrived["mask"].untyped_storage().data_ptr() == block  # no copy of what is large
    assert arrived["label"].untyped_storage().nbytes() == 8


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(24, "Too many open files"), "ulimit -n"),
        (RuntimeError("received 0 items of ancdata"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (
            RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
            "--shm",
        ),
    ],
)
def test_the_reason_and_the_remedy_are_in_one_line(monkeypatch, error, remedy) -> None:
    def refuse(*_):
        raise error

    monkeypatch.setattr(packing.ForkingPickler, "dumps", refuse)
    with pytest.raises(OSError, match=r"could not send a batch of 0\.1 MB: .*; .*--workers") as caught:
        Parcel(torch.zeros(25_000))
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(shortage(error, "x")).startswith("the processes that load images could not x: ")


def test_what_cannot_arrive_is_named(monkeypatch) -> None:
    sent = pickle.dumps(Parcel(torch.zeros(3)))

    def refuse(*_):
        raise RuntimeError("unable to mmap 64 bytes from file </torch_1>: Cannot allocate memory (12)")

    monkeypatch.setattr(packing, "_restored", refuse)
    with pytest.raises(RuntimeError):  # only what the system refuses is translated
        pickle.loads(sent)
    monkeypatch.undo()
    monkeypatch.setattr(packing.pickle, "loads", refuse)
    with pytest.raises(OSError, match=r"could not receive a batch: unable to mmap.*shm-size"):
        packing._arrived(b"")
