"""The model of scale: known numbers, limits, and the bytes that local processes really send."""

from __future__ import annotations

import json
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling import sent_per_step
from tokenmix.bench.scale import (
    Cluster,
    Work,
    all_reduce_bytes,
    ddp_bytes,
    fsdp_bytes,
    gather_bytes,
    padded_bytes,
    predict,
    ring_seconds,
)
from tokenmix.bench.sockets import sent_bytes

WORK = Work({256: 60e6, 100: 40e6}, 1e5, 20, images_per_s=1000.0, shortest_step_s=0.01, checkpoint_bytes=500e6)
READY = Cluster(images_per_core_s=1e9, write_bytes_per_s=1e18)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counters of connections are Linux's")


def ring(size: int, world: int) -> list[int]:
    """Bytes that each of ``world`` processes sends in a ring all-reduce of ``size`` bytes, message by message."""
    chunks = [size // world + (rank < size % world) for rank in range(world)]
    sent = [0] * world
    for step in range(2 * (world - 1)):  # the first half adds, the second passes on
        for rank in range(world):
            sent[rank] += chunks[(rank - step) % world]
    return sent


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_bytes_of_a_ring(size, world) -> None:
    assert sum(ring(size, world)) / world == pytest.approx(all_reduce_bytes(size, world))
    assert all_reduce_bytes(size, world) == pytest.approx(2 * gather_bytes(size, world))


def test_bytes_of_a_step() -> None:
    assert ddp_bytes(4000, 100, 4) == 2 * 3 / 4 * 4008 + 3 / 4 * 100
    assert fsdp_bytes(4000, 4) == 3 * 3 / 4 * 4000
    assert fsdp_bytes(4000, 4, kept_bytes=400) == 3 / 4 * (3600 + 4000 + 4000)
    assert fsdp_bytes(4000, 4, scatter_by_all_reduce=True) == 4 * 3 / 4 * 4000
    assert padded_bytes({8: 800, 6: 600}, 4) == 800 + 800
    assert padded_bytes({2: 200}, 8) == 800
    assert ddp_bytes(4000, 100, 1) == fsdp_bytes(4000, 1) == 0


def test_seconds_of_a_ring() -> None:
    cluster = Cluster(link_latency_s=1e-6, network_latency_s=1e-3, reached=0.5)
    assert ring_seconds(450e9, 1, cluster, 8) == pytest.approx(2.0 + 14e-6)
    assert ring_seconds(50e9, 2, cluster, 32) == pytest.approx(2.0 + 2 * (14e-6 + 4e-3))


def test_one_gpu_alone_loses_nothing() -> None:
    found = predict(WORK, READY, 1, 100)
    assert (found.step_s, found.images_per_s, found.efficiency) == pytest.approx((0.1, 1000.0, 1.0))
    assert (found.sent_bytes, found.exposed_s) == (0, 0)


def test_what_limits_is_named() -> None:
    def limit(images: float = 100, world: int = 64, **changes) -> str:
        return predict(WORK, replace(READY, **changes), world, images).limit

    assert limit(network_bytes_per_s=1e8) == "network"
    assert limit(images_per_core_s=10.0) == "data"
    assert limit(images=1) == "few images"
    assert limit(write_bytes_per_s=1e7) == "checkpoints"


def test_waiting_for_data_and_checkpoints() -> None:
    slow = predict(WORK, replace(READY, images_per_core_s=25.0, cores_per_gpu=4), 1, 100)
    assert slow.images_per_s == pytest.approx(100.0)
    assert slow.cores_per_gpu == pytest.approx(40.0)
    writing = predict(WORK, replace(READY, write_bytes_per_s=500e6 / 20, checkpoint_every_s=60), 1, 100)
    assert (writing.checkpoint_share, writing.efficiency) == pytest.approx((0.25, 0.75))


@given(st.integers(0, 9), st.floats(1, 500), st.sampled_from(["ddp", "fsdp"]))
def test_more_gpus_never_gain_efficiency(power, images, parallel) -> None:
    few, many = (predict(WORK, READY, 2**n, images, parallel=parallel).efficiency for n in (power, power + 1))
    assert many <= few * (1 + 1e-9) <= 1 + 1e-8


@linux
def test_sent_bytes_are_those_of_this_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        other, _ = server.accept()
        with other:
            before = sent_bytes()
            reader = threading.Thread(target=lambda: other.makefile("rb").read(300_000))
            reader.start()
            client.sendall(bytes(300_000))
            reader.join()
            assert sent_bytes() - before == 300_000


@linux
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_bytes_of_a_step_are_those_that_processes_send(world) -> None:
    """The trainer's step, and one of FSDP2, between local processes; headers, barriers and repetitions come on top."""
    rows = sent_per_step(("mixernet_pico",), world)
    assert [row["parallel"] for row in rows] == ["ddp", "fsdp"]
    for row in rows:
        assert row["counted"] == pytest.approx(row["predicted"], rel=0.03)


def test_the_page_is_not_stale() -> None:
    from tests.test_docs import ROOT, generator

    generate = generator()
    found = json.loads((ROOT / "benchmarks" / "results" / "scaling-cpu.json").read_text(encoding="utf-8"))
    text = Path(ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert generate.between(text, "scaling", generate.scaling(found)) == text, "run `make docs`"
