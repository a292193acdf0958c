"""Measuring: counts with known answers, memory of known size, the machine."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenmix.bench import cost, describe, peak_memory_mb
from tokenmix.bench.cost import Cost
from tokenmix.mixers import make_mixer


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        return F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape_as(x)


class Cosine(nn.Module):
    """A transform whose two forms cost differently by count."""

    def __init__(self) -> None:
        super().__init__()
        self.form = "auto"

    def transform_macs(self, height: int, width: int) -> float:
        return 100.0 * height + width

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x).real if self.form == "fft" else x @ torch.ones(x.shape[-1], x.shape[-1])


class Outer(Cosine):
    """A spectral module around another one: it speaks for both."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Cosine()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def test_cost_of_a_convolutional_network():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Flatten())
    model.append(nn.Linear(8 * 6 * 4, 5))
    model[1].weight.requires_grad_(False)
    convs = 24 * (8 * 3 * 9 + 8 * 9)
    params = (8 * 3 * 9 + 8) + 8 + (8 * 9 + 8) + (192 * 5 + 5)
    assert cost(model, (12, 8)) == Cost(params, convs + 192 * 5, 0.0)
    assert model.training


@pytest.mark.parametrize("heads", [1, 4])
def test_cost_counts_attention(heads):
    tokens, dim = 6 * 5, 16
    assert cost(Attention(dim, heads), (6, 5), in_chans=dim).macs == tokens * dim * 3 * dim + 2 * tokens**2 * dim


def test_cost_separates_transforms_whatever_the_form():
    model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), Cosine(), nn.Sequential(Outer(), nn.Conv2d(4, 4, 1)))
    for form in ("auto", "matmul", "fft"):
        model[1].form = form
        counted = cost(model, (8, 12))
        assert counted.macs == 24 * (4 * 3 * 4 + 4 * 4)
        assert counted.transform_macs == 2 * (100.0 * 4 + 6)
        assert model[1].form == form
    assert cost(model.double(), (8, 12)) == counted


@pytest.mark.parametrize("mixer", ["aff", "dsm", "global_filter"])
def test_cost_of_spectral_mixers_does_not_depend_on_the_form(mixer):
    dim, height, width = 16, 12, 10
    made = make_mixer(mixer, dim)
    counted = cost(made, (height, width), in_chans=dim)
    assert counted.transform_macs == pytest.approx(made.transform_macs(height, width))
    if mixer != "dsm":
        assert counted.transform_macs == pytest.approx(2 * 1.25 * height * width * math.log2(height * width) * dim)
    made.form = "matmul"
    assert cost(made, (height, width), in_chans=dim) == counted
    assert made.form == "matmul"


def test_cost_of_global_filter_is_its_transforms():
    assert cost(make_mixer("global_filter", 8), 16, in_chans=8).macs == 0


def test_cost_matches_published_count():
    counted = cost(timm.create_model("resnet18"), 224)
    assert counted.params == 11_689_512
    assert counted.macs == 1_814_073_344


@pytest.mark.slow
def test_memory_is_weights_and_activations():
    weights = 4 * 11_689_512 / 1e6
    small = peak_memory_mb("resnet18", image_size=32, threads=1)
    large = peak_memory_mb("resnet18", image_size=64, batch_size=32, threads=1, runs=1)
    assert weights < small < 2.5 * weights
    # The widest moment holds at least two maps of 64 channels, 32 x 32 pixels and 32 images.
    assert large - small > 4 * 64 * 32 * 32 * 32 / 1e6


def test_memory_of_a_model_that_cannot_be_built():
    with pytest.raises(ValueError, match=r"peak memory of resnot could not be measured: .*Unknown model"):
        peak_memory_mb("resnot", image_size=32)


def test_machine_description_is_plain_and_anonymous(monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: pytest.fail("the host's name is nobody's business"))
    machine = describe()
    text = json.dumps(machine, allow_nan=False)
    assert str(Path.home()) not in text or Path.home() == Path("/")
    assert torch.__version__.startswith(machine["versions"]["torch"])
    assert machine["cores"] >= 1
    assert machine["threads"] == torch.get_num_threads()
