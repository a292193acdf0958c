"""``benchmarks/gpu.py`` without a GPU: everything but the time itself."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu


class Stopwatch:
    """Calls once and says how long the call would take by its number."""

    def __init__(self) -> None:
        self.calls: list[gpu.Call] = []

    def __call__(self, call: gpu.Call, repeats: int) -> float:
        call()
        self.calls.append(call)
        return 0.5


def test_without_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main([]) == 2
    message = capsys.readouterr().err.strip()
    assert "needs an NVIDIA GPU" in message
    assert "\n" not in message


def test_side_by_side() -> None:
    seen: list[str] = []
    lasts = {"short": 0.1, "long": 4.0}
    calls = {name: lambda name=name: seen.append(name) for name in lasts}
    spans: list[tuple[str, int]] = []

    def stopwatch(call: gpu.Call, repeats: int) -> float:
        call()
        spans.append((seen[-1], repeats))
        return lasts[seen[-1]]

    assert gpu.side_by_side(calls, stopwatch, rounds=9) == lasts
    measured = spans[4:]
    assert len(measured) == 18
    assert set(measured) == {("short", 20), ("long", 1)}
    assert all({measured[i][0], measured[i + 1][0]} == set(lasts) for i in range(0, 18, 2))
    assert [name for name, _ in measured] != ["short", "long"] * 9


def test_bandwidth_counts_both_directions() -> None:
    assert gpu.bandwidth(Stopwatch(), "cpu", size=4096) == pytest.approx(2 * 4096 / 0.5e-3)


@pytest.mark.parametrize(
    ("name", "dtype", "forward", "backward"),
    [
        ("frequency", torch.float32, 2 * 8 * 5 * 3, 3 * 8 * 5 * 3),
        ("ffnified3", torch.bfloat16, 2 * 2 * 5 * 5, 3 * 2 * 5 * 5),
        ("additive", torch.float32, 6 * 4 * 5 * 5, 13 * 4 * 5 * 5),
    ],
)
def test_bytes(name: str, dtype: torch.dtype, forward: int, backward: int) -> None:
    case = gpu.chain(name, 5, 32, dtype, "cpu", map_bytes=3 * 32 * 25 * dtype.itemsize)
    assert len(case["leaves"][0]) == 3
    assert case["bytes"] == {"forward": 3 * 32 * forward, "backward": 3 * 32 * backward}


def test_kernel_rows() -> None:
    rows = gpu.kernel_rows(Stopwatch(), lambda call: call, 1e9, device="cpu", shapes=[(5, 16)], map_bytes=0)
    assert [row["chain"] for row in rows] == ["frequency"] + ["ffnified3"] * 2 + ["ffnified7"] * 2 + ["additive"] * 2
    for row in rows:
        for part in ("forward", "backward"):
            assert row[part]["graph_ms"] == {"kernel": 0.5, "pytorch": 0.5}
            assert row[part]["times_faster"] == 1
            assert row[part]["share_of_bandwidth"] == pytest.approx(row[part]["bytes"] / 0.5e-3 / 1e9, abs=1e-4)
    assert gpu.kernel_rows(Stopwatch(), lambda call: call, 1e9, device="cpu", until=0) == []


def test_model_rows() -> None:
    rows = gpu.model_rows(Stopwatch(), device="cpu", models=["mixernet_pico"], batch=2, side=32, until=0)
    assert [row["train"] for row in rows] == [False, True]
    assert all(row["images_per_s"] == {"kernel": 4000.0, "pytorch": 4000.0, "reference": 4000.0} for row in rows)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(name: str, device: str, batch: int, side: int, train: bool, form: str) -> gpu.Call:
        def step() -> None:
            if batch > 32:
                raise torch.OutOfMemoryError

        return step

    monkeypatch.setattr(gpu, "model_calls", calls)
    rows = gpu.model_rows(Stopwatch(), device="cpu", models=["any"], batch=128)
    assert [row["batch"] for row in rows] == [32, 32]
    assert rows[0]["images_per_s"] == dict.fromkeys((*gpu.EAGER, "compile"), 64000.0)


def test_tests_are_counted(tmp_path: Path) -> None:
    body = """import pytest
def test_good(): pass
def test_bad(): assert False
@pytest.mark.skip
def test_left_out(): pass
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
"""
    (tmp_path / "test_four.py").write_text(body)
    found = gpu.run_tests(120, [str(tmp_path), "-n", "0"])
    assert (found["finished"], found["passed"], found["skipped"]) == (True, 1, 1)
    assert [name.rsplit("::")[-1] for name in found["failed"]] == ["test_bad", "test_error"]
    assert gpu.run_tests(0.01, [str(tmp_path)])["finished"] is False


def test_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole command with a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(gpu, "describe", dict)
    monkeypatch.setattr(gpu, "gpu_state", lambda: {"name": "NVIDIA H100 80GB HBM3"})
    monkeypatch.setattr(gpu, "bandwidth", lambda stopwatch, device: 3e12)
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)
    tests = {"finished": True, "passed": 5, "skipped": 0, "failed": [], "seconds": 1.0}
    monkeypatch.setattr(gpu, "run_tests", lambda seconds: tests)
    part = {"graph_ms": {"kernel": 0.25}, "times_faster": 2.5, "share_of_bandwidth": 0.71}
    kernel = {"chain": "additive", "side_px": 7, "channels": 64, "dtype": "bfloat16", "forward": part, "backward": part}
    monkeypatch.setattr(gpu, "kernel_rows", lambda *args, **options: [kernel])
    model = {"model": "casvit_s", "train": False, "images_per_s": {"kernel": 9000.0, "pytorch": 4000.0}}
    monkeypatch.setattr(gpu, "model_rows", lambda *args, **options: [model])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert gpu.main([]) == 0
    written = json.loads((tmp_path / "gpu-nvidia-h100-80gb-hbm3.json").read_text())
    assert written["bandwidth_gb_per_s"] == 3000
    assert written["tests"] == tests
    assert written["kernels"] == [kernel]
    printed = capsys.readouterr().out
    assert "additive 7x7x64 bfloat16: forward 0.250 ms, 2.50 x PyTorch, 71 % of the bandwidth" in printed
    assert "casvit_s inference: kernel 9000, pytorch 4000 images/s" in printed
    assert "tests: 5 passed, 0 failed, 0 skipped" in printed
    tests["failed"].append("tests.test_x::test_y")
    assert gpu.main(["--out", str(tmp_path / "other.json")]) == 1
    assert (tmp_path / "other.json").exists()


def test_nvidia_smi() -> None:
    answer = "580.65.06, 1755 MHz, 1980 MHz, 2619 MHz, 2619 MHz, 700.00 W, 41\n"
    assert gpu.smi_values(answer)["driver_version"] == "580.65.06"
    assert gpu.smi_values(answer)["temperature.gpu"] == "41"
