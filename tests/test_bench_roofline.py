"""The roofline: its arithmetic, and layers whose operations and bytes are counted by hand."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.scramble import scramble
from tokenmix.bench import cost
from tokenmix.bench.folded import fold_norms, inference_form
from tokenmix.bench.inference import limits
from tokenmix.bench.layers import count_layers, time_layers
from tokenmix.bench.roofline import Roofline, measure_roofline
from tokenmix.mixers import make_mixer


def test_the_larger_of_two_times_is_the_limit() -> None:
    machine = Roofline(gflops=100.0, gbytes_per_s=10.0)
    assert machine.seconds(flops=2e9, moved_bytes=1e8) == pytest.approx(0.02)
    assert machine.bound(2e9, 1e8) == "compute"
    assert machine.seconds(flops=1e8, moved_bytes=1e9) == pytest.approx(0.1)
    assert limits(machine, 1e8, 1e9, 0.4) == {
        "limit_ms": pytest.approx(100.0),
        "share": pytest.approx(0.25),
        "bound": "memory",
    }
    assert limits(machine.slowed(2.0), 1e8, 1e9, 0.4)["share"] == pytest.approx(0.5)  # at half the pace, twice as near


def test_rates_are_those_of_the_fastest_call() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    found = measure_roofline(seconds=1.0, sizes=(8, 16), clock=clock)
    assert found.gflops == pytest.approx(2 * 16**3 / 0.5 / 1e9)
    assert found.gbytes_per_s == pytest.approx(3 * 96e6 / 0.5 / 1e9)


class Toy(nn.Module):
    """A convolution, an activation in place, a norm, an attention without parameters, a view and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2, 2)
        self.act = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)
        self.mix = SelfAttention()
        self.flat = nn.Flatten()
        self.fc = nn.Linear(4 * 12, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flat(self.mix(self.norm(self.act(self.conv(x))))))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT
        return self.drop(F.scaled_dot_product_attention(tokens, tokens, tokens)).mT.reshape(x.shape).contiguous()


def test_layers_counted_by_hand() -> None:
    work = count_layers(Toy(), torch.randn(1, 3, 6, 8))
    layers = {layer.name: layer for layer in work.layers}
    assert list(layers) == ["conv", "norm", "mix", "fc"]  # what is done in place moves nothing, a view neither
    assert layers["conv"].flops == 2 * 12 * 4 * 3 * 4
    assert layers["conv"].weight_bytes == 4 * (4 * 3 * 4 + 4)
    assert layers["conv"].activation_bytes == 4 * (3 * 48 + 4 * 12)
    assert layers["norm"].flops == 0
    assert layers["norm"].activation_bytes == 4 * 2 * 48
    assert layers["mix"].flops == 2 * 2 * 12 * 12 * 4
    assert layers["mix"].activation_bytes == 4 * 2 * 48
    assert layers["fc"].weight_bytes == 4 * 5 * 48
    assert layers["fc"].bytes(3) == 4 * 5 * 48 + 3 * 4 * (48 + 5)
    assert work.flops == sum(layer.flops for layer in layers.values())
    weights = layers["conv"].weight_bytes + layers["fc"].weight_bytes
    moved = sum(layers[name].activation_bytes for name in ("conv", "mix", "fc"))
    assert work.bytes(7) == weights + 7 * moved


@pytest.mark.parametrize("name", ["mixernet_pico", "affnet_et", "casvit_xs", "dsm_ti", "ffnet_1", "edgenext_xx_small"])
def test_layers_add_up_to_what_cost_counts(name) -> None:
    model = timm.create_model(name).eval()
    counted = cost(model, 64)
    work = count_layers(model, torch.zeros(1, 3, 64, 64))
    assert work.flops == pytest.approx(2 * (counted.macs + counted.transform_macs), rel=1e-6)
    assert sum(layer.weight_bytes for layer in work.layers) <= 4 * counted.params


def test_a_mixer_is_one_layer() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), make_mixer("aff", 8), make_mixer("additive", 8))
    kinds = [layer.kind for layer in count_layers(model, torch.zeros(1, 3, 8, 8)).layers]
    assert kinds == ["Conv2d", "FrequencyFilter", "AdditiveAttention"]


def test_times_of_layers_and_of_what_is_between() -> None:
    class Waits(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: Tensor) -> Tensor:
            now[0] += self.seconds
            return x + 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Waits(2.0), Waits(3.0)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(self.first(x))
            now[0] += 0.5
            return self.second(x)

    now = [0.0]
    model, image = Net(), torch.zeros(1, 1, 2, 2)
    times, between = time_layers(model, image, count_layers(model, image), rounds=3, clock=lambda: now[0])
    assert times == {"first": 4.0, "second": 3.0}
    assert between == 0.5
    before = now[0]
    model(image)
    assert now[0] - before == 7.5
    assert not model.first._forward_hooks


def conv_norm() -> nn.Module:
    return scramble(nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())).eval()


def test_folding_keeps_the_function_and_drops_the_norms() -> None:
    model, image = conv_norm().double(), torch.randn(2, 3, 9, 8, dtype=torch.float64)
    folded = fold_norms(model, image[:1])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(folded(image), model(image), rtol=1e-12, atol=1e-12)


def test_folding_leaves_what_it_would_change() -> None:
    class Both(nn.Module):
        """Its convolution's output is used with and without the norm."""

        def __init__(self) -> None:
            super().__init__()
            self.body = conv_norm()

        def forward(self, x: Tensor) -> Tensor:
            x = self.body[0](x)
            return x + self.body[1](x)

    model = Both().eval()
    assert fold_norms(model, torch.randn(1, 3, 8, 8)) is model
    twice = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    twice = nn.Sequential(*twice, twice[0]).eval()
    assert fold_norms(twice, torch.randn(1, 4, 8, 8)) is twice


@pytest.mark.parametrize("name", ["repvit_m0_9", "mobilenetv4_conv_small"])
def test_inference_form_of_peers_has_no_norm_and_computes_the_same(name) -> None:
    torch.manual_seed(0)
    model = scramble(timm.create_model(name)).eval()
    image = torch.randn(1, 3, 64, 64)
    made = inference_form(model, image)
    with torch.inference_mode():
        expected, found = model(image), made(image)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in made.modules())
