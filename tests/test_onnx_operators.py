"""Where ONNX Runtime spends its time: operators of a small graph, with their arithmetic counted by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from benchmarks.onnx_operators import asked_gflops, by_kind, profiled, shares

SIDE = 6
PIXELS = SIDE * SIDE
COUNTED = {
    "convolution 1 x 1, dense": 2 * 8 * 3 * PIXELS,
    "convolution 3 x 3, depthwise": 2 * 8 * 9 * PIXELS,
    "convolution 3 x 3, groups of 4 to 6": 2 * 12 * 4 * 9 * PIXELS,
    "product": 2 * 12 * 12 * PIXELS,
}


class Toy(nn.Module):
    """One convolution of each kind, and a product of the channels with each other."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.grouped(torch.sigmoid(self.depthwise(self.dense(x)))).flatten(2)
        return rows @ rows.mT


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path, image = tmp_path_factory.mktemp("toy") / "toy.onnx", torch.randn(1, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(Toy().eval(), (image,), path, dynamo=True, verbose=False, input_names=["image"])
    return path, image.numpy()


def test_kinds_and_arithmetic_of_the_graph(toy: tuple[Path, np.ndarray]) -> None:
    graph, events = profiled(*toy, runs=2)
    rows = by_kind(graph, events, rate=100.0)
    assert asked_gflops(toy[0]) == pytest.approx(sum(COUNTED.values()) / 1e9)
    for kind, flops in COUNTED.items():
        row = rows[kind]
        assert row["operators"] == 1
        added = row["mflops"] * 1e6 / flops  # where vectors have 16 numbers, 8 channels become 16
        assert added == pytest.approx(1.0) or ("groups" not in kind and added == pytest.approx(2.0))
        assert row["of_rate"] == pytest.approx(row["mflops"] / row["ms"] / 100.0)
    assert sum(row["of_time"] for row in rows.values()) == pytest.approx(1.0)


def test_the_whole_file_has_a_share_in_each_runtime(toy: tuple[Path, np.ndarray]) -> None:
    found = shares(*toy, gflops=1e-4, runs=2)
    assert "onnxruntime" in found
    assert all(np.isfinite(list(row.values())).all() and min(row.values()) > 0 for row in found.values())
