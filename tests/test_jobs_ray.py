"""Jobs on a Ray cluster of one machine: the local results, also when a worker is killed; a cancelled job saves."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from tests.small_photos import SETTINGS, make_photos
from tokenmix.jobs import Ray
from tokenmix.sweeps import sweep

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
ADDRESS = "127.0.0.2"  # the loopback interface; Ray replaces 127.0.0.1 by the address that other machines see


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    started = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "num_gpus": 0,
            "node_ip_address": ADDRESS,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
        },
    )
    yield started.address
    started.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("ray") / "photos")


def _sweep(photos: str, out: Path, epochs: int, over: list[str], **options) -> dict:
    settings = [*SETTINGS, f"epochs={epochs}", "max_bad_steps=1"]
    return sweep("mixernet_pico", over, out=out, settings=settings, data=photos, **options)


def _silent(line: str) -> None:
    """Takes progress lines and drops them."""


def _weights(out: Path, results: dict) -> list[bytes]:
    return [(out / run["folder"] / "best.safetensors").read_bytes() for run in results["runs"] if run["result"]]


def test_same_results_as_locally_though_a_worker_is_killed(cluster, photos, tmp_path):
    over = ["model_args.mixers=pool,identity", "seed=0,1"]
    killed: list[int] = []
    processes: dict[str, int] = {}
    lines: list[str] = []

    def kill_one(line: str) -> None:
        lines.append(line)
        if match := re.fullmatch(r"(.+): process (\d+) on .*", line):
            processes[match[1]] = int(match[2])
        elif not killed and (match := re.match(r"(.+): epoch 3/12", line)):
            killed.append(processes[match[1]])
            os.kill(killed[0], signal.SIGKILL)

    found = _sweep(photos, tmp_path / "ray", 12, over, on=Ray(address=cluster), log=kill_one)
    assert killed
    assert any("continuing at epoch" in line for line in lines)
    expected = _sweep(photos, tmp_path / "local", 12, over, log=_silent)
    assert _weights(tmp_path / "ray", found) == _weights(tmp_path / "local", expected)
    assert len(_weights(tmp_path / "ray", found)) == 4
    assert found["table"] == expected["table"]
    again = _sweep(photos, tmp_path / "ray", 12, over, on=Ray(address=cluster), log=_silent)
    assert again == found


def test_mistakes_arrive_with_their_words(cluster, photos, tmp_path):
    local = _sweep(photos, tmp_path / "local", 2, ["lr=1e-3,1e30"], log=_silent)
    found = _sweep(photos, tmp_path / "ray", 2, ["lr=1e-3,1e30"], on=Ray(address=cluster), log=_silent)
    assert found["runs"][1]["error"].removeprefix("ValueError") == local["runs"][1]["error"].removeprefix("Diverged")
    assert found["runs"][0]["result"]["weights_sha256"] == local["runs"][0]["result"]["weights_sha256"]


def test_a_cancelled_job_saves(cluster, photos, tmp_path):
    """What Ctrl-C does: the log raises where the driver waits."""
    began = threading.Event()

    def stop(line: str) -> None:
        if "epoch 2/" in line and not began.is_set():
            began.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _sweep(photos, tmp_path, 2000, ["seed=0"], on=Ray(address=cluster), log=stop)
    said = (tmp_path / "seed-0" / "log.txt").read_text()
    assert "the same command continues" in said
    assert not (tmp_path / "seed-0" / "outcome.json").exists()
