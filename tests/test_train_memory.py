"""Memory that training keeps."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from tokenmix.train import memory
from tokenmix.train.memory import kept_memory


def fetched(rounds: int = 20) -> int:
    """Pages that the system had to hand out while blocks of 40 MB were made and freed again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(memory._library() is None, reason="the C library is not glibc")
def test_freed_memory_is_used_again_within_and_goes_back_afterwards():
    outside = fetched()
    with kept_memory():
        inside = fetched()
    assert inside < outside / 4
    assert fetched() > inside * 2


def test_another_c_library_changes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with kept_memory():
        assert torch.ones(3).sum() == 3
