"""Randomness without a state: every draw is a function of its keys, the same on every machine, now and later.

Generators of NumPy and torch may change their streams between versions, and their order of draws depends on what ran
before. Here a draw is a hash of (seed, epoch, index, ...): splitmix64's finaliser (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014), exact integer arithmetic.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hashes(*keys: int | ArrayLike) -> NDArray[np.uint64]:
    """One 64-bit hash per row of the keys, (N,); a key is an integer or an array of N integers."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        values = np.array([key % 2**64], np.uint64) if isinstance(key, int) else np.asarray(key).astype(np.uint64)
        state = _mix(state * np.uint64(_GOLDEN) + values + np.uint64(_GOLDEN))
    return state


def uniforms(count: int, *keys: int | ArrayLike) -> NDArray[np.float64]:
    """Draws from [0, 1), (N, count), one row per row of the keys."""
    rows = hashes(*keys)
    columns = [hashes(rows, column) for column in range(count)]
    return np.stack(columns, axis=1).astype(np.float64) / 2.0**64 * (1 - 2.0**-53)


def permutation(size: int, *keys: int) -> NDArray[np.int64]:
    """The numbers 0 .. size-1 in an order that is a function of the keys, (size,)."""
    return np.argsort(hashes(*keys, np.arange(size)), kind="stable")


def name_keys(names: Sequence[str]) -> NDArray[np.uint64]:
    """A number for each name, (N,), the same for all ways to write the same letters in Unicode."""
    digests = (hashlib.blake2b(_bytes_of(name), digest_size=8).digest() for name in names)
    return np.frombuffer(b"".join(digests), np.uint64)


def _bytes_of(name: str) -> bytes:
    return unicodedata.normalize("NFC", name).encode("utf-8", "surrogateescape")


def stratified(
    labels: Sequence[int], fractions: Sequence[float], seed: int, names: Sequence[str] | None = None
) -> tuple[list[list[int]], list[int]]:
    """Split indices into parts so that every class is spread alike.

    The pictures of a class are ranked by (seed, name), so that one more of them moves at most one other per part.

    A class with at least one image per part plus one for the rest gives every part at least one; a smaller class stays
    in the rest.

    Args:
        labels: The class of each image.
        fractions: The share of each part; what remains is the last list returned.
        seed: Which images go where.
        names: Of the images; None ranks them by their places.

    Returns:
        The sorted indices of each part and then of the rest, and the classes that were too small to split.
    """
    classes = np.asarray(labels, np.int64)
    ranks = None if names is None else hashes(seed, name_keys(names))
    parts: list[list[int]] = [[] for _ in range(len(fractions) + 1)]
    small = []
    for label in np.unique(classes).tolist():
        members = np.flatnonzero(classes == label)
        order = permutation(len(members), seed, label) if ranks is None else np.argsort(ranks[members], kind="stable")
        members = members[order]
        begin = 0
        if len(members) <= len(fractions):
            small.append(label)
        else:
            for part, fraction in enumerate(fractions):
                room = len(members) - begin - (len(fractions) - part)  # leaves one for every later part and the rest
                end = begin + min(max(1, round(fraction * len(members))), room)
                parts[part] += members[begin:end].tolist()
                begin = end
        parts[-1] += members[begin:].tolist()
    return [sorted(part) for part in parts], small


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """The states of the global random generators of torch, NumPy and Python are afterwards what they were before."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        random.setstate(states[2])


def seed_generators(seed: int) -> None:
    """Seed the global generators of torch (on the CPU), NumPy and Python, for libraries that draw from them."""
    torch.default_generator.manual_seed(seed % 2**63)  # torch.manual_seed would also reseed the GPUs
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
