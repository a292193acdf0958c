"""How many cores may be used, and whether PyTorch's threads help."""

from __future__ import annotations

import os

import pytest
import torch

from tests.test_train_resume import outcome, run, same
from tokenmix.train import recorder as watch
from tokenmix.train import threads
from tokenmix_runtime import cores
from tokenmix_runtime.launch import limit_threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A made machine with eight cores: ``machine(groups of the process, files)``."""

    def make(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return make


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),
        (
            "4:memory:/x\n2:cpu,cpuacct:/job\n",
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "500000\n", "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"},
            5,
        ),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("0::/\n", {"cpu.max": "nonsense\n"}, 8),
    ],
)
def test_usable_cores(machine, own, files, expected) -> None:
    machine(own, files)
    assert cores.usable_cores() == expected


def test_no_control_groups(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cores, "OWN", tmp_path / "nothing")
    assert cores.cpu_quota() == float("inf")
    assert cores.usable_cores() >= 1


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("given", "expected", "threads"), [(None, "1", 1), ("7", "7", 2)])
def test_commands_take_no_more_threads_than_the_quota_pays_for(
    machine, monkeypatch, two_threads, given, expected, threads
) -> None:
    machine("0::/\n", {"cpu.max": "100000 100000\n"})
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == expected
    assert torch.get_num_threads() == threads  # PyTorch is here already and does not read the variable


def test_the_look_at_the_threads_leaves_them(two_threads) -> None:
    state = torch.get_rng_state()
    assert threads.slowdown(rounds=1) > 0
    assert torch.get_num_threads() == 2
    assert torch.equal(state, torch.get_rng_state())
    torch.set_num_threads(1)
    assert threads.slowdown() == 1.0


def test_threads_in_each_others_way_are_named_with_the_remedy(two_threads, monkeypatch) -> None:
    monkeypatch.setattr(threads, "slowdown", lambda: 24.0)
    assert "2 threads are 24.0 times slower than one" in threads.crowded()
    assert "OMP_NUM_THREADS=1" in threads.crowded()
    monkeypatch.setattr(threads, "slowdown", lambda: 0.6)
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert "2 threads, but this process may use 1" in threads.crowded()
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert threads.crowded() == ""


def test_a_run_says_it_once_and_ends_with_the_same_bits(tmp_path, monkeypatch, two_threads) -> None:
    run(tmp_path / "plain", checkpoint_seconds=60.0)
    monkeypatch.setattr(watch, "PATIENCE_S", 1e-9)
    monkeypatch.setattr(watch, "WAITING", 2.0)
    monkeypatch.setattr(watch, "PROBING_S", 0.0)
    monkeypatch.setattr(watch, "crowded", lambda: f"slow: {threads.slowdown(1) > 0}")
    _, lines = run(tmp_path / "probed", checkpoint_seconds=60.0)
    assert lines.count("slow: True") == 1
    assert same(outcome(tmp_path / "probed"), outcome(tmp_path / "plain"))


def test_another_number_of_threads_is_named_when_a_run_is_resumed(tmp_path, monkeypatch, two_threads) -> None:
    from tests.test_train_saving import stop_after

    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    torch.set_num_threads(1)
    _, lines = run(tmp_path)
    assert any("computed with 2 threads until now and with 1 from here on" in line for line in lines)
