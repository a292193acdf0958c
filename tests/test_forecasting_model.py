"""The forecaster against the official code's outputs, its training against plain layers, and what can go wrong."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.forecasting_forms import PlainForecaster
from tests import goldens
from tests.counts import count
from tests.scramble import scramble
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.tasks.forecasting.convolution import band_matrices, depthwise, uses_products
from tokenmix.tasks.forecasting.dropout import product_dropout, product_gelu
from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS
from tokenmix.tasks.forecasting.model import Architecture, build_forecaster, ffnet_forecast, options_of
from tokenmix.tasks.forecasting.network import Forecaster, moving_average
from tokenmix.tasks.forecasting.official import (
    LoadedForecaster,
    is_unused,
    load_official,
    recognise,
    to_official,
    unused_shapes,
)

NAMES = ("ffnet_ts_etth1_96", "ffnet_ts_decomposition", "ffnet_ts_two_stage_affine")
SMALL = {"look_back": 24, "horizon": 12, "dims": (8,), "kernel_sizes": (9,), "small_sizes": (3,)}
every_golden = pytest.mark.parametrize("name", NAMES)


def load(name: str) -> tuple[dict, LoadedForecaster]:
    golden = goldens.load(f"forecasting/{name}")
    return golden, load_official(goldens.state_dict(golden))


def small(**options) -> nn.Module:
    return scramble(ffnet_forecast(3, dtype=torch.float64, **{**SMALL, **options})).eval()


def past(batch: int = 5, length: int = 24, variables: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, length, variables, generator=generator, dtype=torch.float64).cumsum(1).to(dtype)


def set_form(model: nn.Module, form: str) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "convolution"):
            module.convolution = form
    return model


@every_golden
@torch.no_grad()
def test_computes_what_the_official_code_computes(name: str) -> None:
    golden, loaded = load(name)
    x = goldens.inputs(golden)
    model = copy.deepcopy(loaded.model).double()
    for form in ("auto", "conv", "product"):
        goldens.assert_matches(set_form(model, form)(x.double()), golden["output"], torch.float64)
    goldens.assert_matches(loaded.model(x), golden["output"], torch.float32)
    goldens.assert_matches(reparameterize(set_form(model, "auto"))(x.double()), golden["output"], torch.float64)
    count("goldens", name)


@torch.no_grad()
def test_the_mixers_compute_what_the_official_ones_compute() -> None:
    golden, loaded = load(NAMES[0])
    model, found = loaded.model.double(), {}
    block = model.stages[0].blocks[0]
    for name in ("token_mixer", "channel_mixer"):
        getattr(block, name).register_forward_hook(lambda _, __, y, name=name: found.update({name: y}))
    model(goldens.inputs(golden).double())
    for name, y in found.items():
        expected = golden["intermediates"][f"model.stages.0.blocks.0.{name}"]
        goldens.assert_matches(y.permute(2, 0, 1, 3), expected, torch.float64)  # (M, D, B, N) -> (B, M, D, N)


@every_golden
def test_counts_what_the_official_code_counts(name: str) -> None:
    golden, loaded = load(name)
    used = sum(p.numel() for p in loaded.model.parameters())
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    unused = sum(tensor.numel() for key, tensor in loaded.unused.items() if not key.endswith(buffers))
    assert used + unused == golden["params"]
    set_form(loaded.model, "conv")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        loaded.model(torch.zeros(1, *golden["input_shape"][1:]))
    arch, networks = loaded.architecture, 2 if loaded.architecture.decomposition else 1
    sizes = zip(arch.depths, arch.dims, arch.small_sizes, arch.tokens, strict=True)
    branches = sum(depth * 7 * dim * small * tokens for depth, dim, small, tokens in sizes)
    # In evaluation a large kernel has its small branch in it, fused or not.
    assert counter.get_total_flops() // 2 + networks * branches == golden["macs"]


@every_golden
def test_official_keys_both_ways(name: str) -> None:
    golden, loaded = load(name)
    official = goldens.state_dict(golden)
    back = to_official(loaded.model, loaded.architecture, loaded.unused)
    assert set(back) == set(official)
    assert all(torch.equal(back[key], tensor) for key, tensor in official.items())
    neutral = to_official(loaded.model, loaded.architecture)
    assert {key: t.shape for key, t in neutral.items()} == {key: t.shape for key, t in official.items()}
    prefixes = {key.split(".")[0] + "." for key in official}
    names = [prefix + key for prefix in prefixes for key in unused_shapes(loaded.architecture)]
    assert set(names) == set(loaded.unused)


@pytest.mark.parametrize(
    "options",
    [
        {"num_variables": 21, "mlp_ratio": 12, "horizon": 720},
        {"num_variables": 2, "look_back": 100, "patch_size": 16, "patch_stride": 8, "horizon": 24},
        {"num_variables": 3, "depths": (1, 2), "dims": (8, 16), "kernel_sizes": (9, 7), "small_sizes": (5, 3)},
        {"num_variables": 3, "depths": (1, 1, 1), "dims": (8,) * 3, "kernel_sizes": (9,) * 3, "small_sizes": (5,) * 3,
         "downsample_ratio": 3},
        {"num_variables": 1, "small_sizes": (0,), "dims": (16,), "kernel_sizes": (25,)},
        {"num_variables": 4, "norm": "revin_affine", "decomposition": 25, "dims": (8,), "kernel_sizes": (9,)},
    ],
)  # fmt: skip
def test_recognises_what_it_writes(options: dict) -> None:
    arch = Architecture(**options)
    state = to_official(build_forecaster(arch), arch)
    found = recognise({key: tuple(tensor.shape) for key, tensor in state.items()})
    assert found is not None
    assert found.tokens[-1] == arch.tokens[-1]
    loaded = load_official({f"module.{key}": tensor for key, tensor in state.items()}, look_back=arch.look_back)
    assert loaded.architecture == arch


def test_what_no_key_tells_may_be_given() -> None:
    arch = Architecture(2, look_back=40, patch_size=8, patch_stride=8, center="last", norm="none", drop_rate=0.1)
    state = to_official(build_forecaster(arch), arch)
    known = {"look_back": 40, "patch_stride": 8, "center": "last", "norm": "none", "drop_rate": 0.1}
    assert load_official(state, **known).architecture == arch
    assert load_official(state, look_back=40).architecture.patch_stride in (7, 8)  # both make 5 tokens of 40 values
    assert load_official(state, patch_stride=4).architecture.look_back == 20
    with pytest.raises(ValueError, match="has 5 tokens"):
        load_official(state, look_back=1000)
    with pytest.raises(ValueError, match="no attribute 'lookback'"):
        load_official(state, lookback=40)


def test_foreign_incomplete_and_excessive_checkpoints() -> None:
    arch = Architecture(2, **{key: value for key, value in SMALL.items()})
    state = to_official(build_forecaster(arch), arch)
    assert recognise({}) is None
    with pytest.raises(ValueError, match="no checkpoint of the official forecasting code"):
        load_official({"stem.weight": torch.zeros(1)})
    for key in ("model.head.linear.bias", "model.stages.0.blocks.0.token_mixer.dw1.weight"):
        with pytest.raises(ValueError, match=r"does not fit|no checkpoint|dw1"):
            load_official({name: tensor for name, tensor in state.items() if name != key})
    with pytest.raises(ValueError, match=r"model\.extra\.weight"):
        load_official({**state, "model.extra.weight": torch.zeros(1)})
    without = {key: tensor for key, tensor in state.items() if not is_unused(key, 1)}
    assert load_official(without).unused == {}
    with pytest.raises(KeyError, match="no official name"):
        to_official(small(mixers="aff"), Architecture(3, **SMALL))


@pytest.mark.parametrize("form", ["product", "conv"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stages", [1, 2])
def test_trains_as_the_plain_layers_do(form: str, training: bool, stages: int) -> None:
    """Outputs, all gradients and the norms' statistics; the fast form never computes what the norms normalise."""
    options = {"depths": (2, 1)[:stages], "dims": (8, 6)[:stages], "kernel_sizes": (9, 5)[:stages]}
    model = small(drop_rate=0.0, mlp_ratio=3, small_sizes=(3, 3)[:stages], downsample_ratio=5, **options)
    for module in set_form(model.train(training), form).modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    plain, x = PlainForecaster(model), past().requires_grad_()
    y, expected = model(x), plain(x)
    assert torch.allclose(y, expected, rtol=1e-10, atol=1e-10)
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # The plain form has the same modules in another order.
    names, places = parameter_pairs(model, plain)
    got = torch.autograd.grad((y * upstream).sum(), [x, *model.parameters()])
    wanted = torch.autograd.grad((expected * upstream).sum(), [x, *places])
    for name, ours, theirs in zip(["x", *names], got, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-8), name
    buffers = dict(plain.named_buffers())
    for name, ours in model.named_buffers():
        assert torch.allclose(ours.double(), buffers[plain_name(name)].double(), rtol=1e-10, atol=1e-12), name


def plain_name(name: str) -> str:
    """The name of a parameter or buffer in the plain form."""
    return name.replace(".token_mixer.", ".token.").replace(".channel_mixer.", ".channel.")


def parameter_pairs(model: nn.Module, plain: nn.Module) -> tuple[list[str], list[nn.Parameter]]:
    theirs = dict(plain.named_parameters())
    names = [name for name, _ in model.named_parameters()]
    return names, [theirs[plain_name(name)] for name in names]


@pytest.mark.parametrize("mixer", ["ffnet", "aff"])
def test_trains_under_autocast_as_without(mixer: str) -> None:
    x, losses, grads = past(batch=16, dtype=torch.float32), [], []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = scramble(ffnet_forecast(3, mixers=mixer, **SMALL)).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            forecast = model(x)
        loss = (forecast.float() - x[:, :12]).square().mean()
        loss.backward()
        losses.append(loss.item())
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        assert all(torch.isfinite(buffer).all() for buffer in model.buffers())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert F.cosine_similarity(*grads, dim=0) > 0.99


def test_a_step_of_one_value_is_refused() -> None:
    model = ffnet_forecast(1, 2, 1, patch_size=2, dims=(4,), kernel_sizes=(1,), small_sizes=(1,))
    set_form(model, "product")
    with pytest.raises(ValueError, match="more than one value"):
        model.stages[0].blocks[0].channel_mixer.depthwise(torch.randn(1, 4, 1, 1))


@pytest.mark.parametrize("tokens", [1, 3, 10, 40])
@pytest.mark.parametrize("size", [1, 5, 21])
def test_products_are_convolutions(tokens: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, kernel = torch.randn(2, 3, 4, tokens, generator=generator), torch.randn(6, 1, size, generator=generator)
    x, kernel = x.double(), kernel.double()
    expected = F.conv1d(x.flatten(0, 1).transpose(0, 1), kernel, padding=size // 2, groups=6).transpose(0, 1)
    for form in ("product", "conv"):
        assert torch.allclose(depthwise(x, kernel, None, form).flatten(0, 1), expected)
    assert band_matrices(kernel, tokens).shape == (6, tokens, tokens)


def test_long_inputs_and_many_channels_are_convolved() -> None:
    assert uses_products(448, 512, 48)
    assert not uses_products(448, 512, 720)
    assert not uses_products(862 * 64, 128, 48)
    assert not uses_products(448, 1, 48)
    with pytest.raises(ValueError, match="unknown form 'fast'"):
        uses_products(1, 1, 1, "fast")


@pytest.mark.parametrize("act", [True, False])
def test_dropout_has_its_rate_its_seed_and_its_gradient(act: bool) -> None:
    a, b = torch.ones(4, 96, 1), torch.ones(4, 1, 5000)
    bias = torch.zeros(4, 96, 1)
    run = product_gelu if act else product_dropout

    def draw(seed: int, rate: float = 0.7) -> Tensor:
        torch.manual_seed(seed)
        return run(a, b, bias, rate)

    y = draw(0)
    dropped, share = y == 0, float((y == 0).float().mean())
    assert abs(share - 0.7) < 5 * math.sqrt(0.7 * 0.3 / y.numel())
    value = torch.tensor(1 / 0.3)
    assert torch.allclose(y[~dropped], F.gelu(value) if act else value)
    assert torch.equal(y, draw(0))
    assert not torch.equal(y, draw(1))
    assert abs(float((dropped == (draw(1) == 0)).float().mean()) - (0.7**2 + 0.3**2)) < 0.005  # independent
    assert not bool((draw(0, 0.0) == 0).any())
    leaf = a.clone().requires_grad_()
    torch.manual_seed(0)
    run(leaf, b, bias, 0.7).sum().backward()
    slope = torch.func.grad(lambda v: F.gelu(v) if act else v)(value) / 0.3
    assert torch.allclose(leaf.grad[..., 0], (~dropped).sum(-1) * slope, rtol=1e-4)


def test_products_with_dropout_pass_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 4, 2), (3, 2, 5), (3, 4, 1)
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]

    def run(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        torch.manual_seed(3)
        y = product_gelu(a, b, bias, 0.4, (3, 2, 2, 5), (1, 2, 0, 3))
        return torch.cat([y.flatten(), product_dropout(a, b, bias, 0.4).flatten()])

    assert torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("mixer", [*SERIES_MIXERS, "ffnet", "depthwise(kernel_size=5)"])
@pytest.mark.parametrize("stages", [1, 2])
def test_any_mixer_forecasts_and_trains(mixer: str, stages: int) -> None:
    options = {
        "depths": (1,) * stages,
        "dims": (8,) * stages,
        "kernel_sizes": (9,) * stages,
        "small_sizes": (3,) * stages,
    }
    model = small(mixers=mixer, **options)
    with torch.no_grad():
        y = model(past())
        assert y.shape == (5, 12, 3)
        assert torch.allclose(reparameterize(model)(past()), y, rtol=1e-9, atol=1e-9)
    model.train()(past()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A norm takes away what is added before it.
        assert bool(parameter.grad.any()) or name == "stages.0.embed.conv.bias", name


def test_one_mixer_for_each_stage() -> None:
    two = {"depths": (1, 1), "dims": (8, 8), "kernel_sizes": (9, 9), "small_sizes": (3, 3)}
    model = small(mixers="ffnet,attention", **two)
    cores = [type(stage.blocks[0].token_mixer.core).__name__ for stage in model.stages]
    assert cores == ["KeyValue", "SharedMixer"]
    with pytest.raises(ValueError, match="3 mixers given for 2 stages"):
        small(mixers="ffnet,aff,aff", **two)


@pytest.mark.parametrize("options", [{}, {"center": "last"}, {"norm": "revin_affine"}])
@torch.no_grad()
def test_a_window_of_other_units_has_the_same_forecast_in_those_units(options: dict) -> None:
    model, x = small(**options), past()
    scale, shift = torch.tensor([10.0, 0.1, 3.0]).double(), torch.tensor([5.0, -7.0, 100.0]).double()
    if options.get("norm") == "revin_affine":
        model.norm.bias.zero_()
    assert torch.allclose(model(x * scale + shift), model(x) * scale + shift, rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_normalisation_is_undone() -> None:
    for norm, center in (("revin", "mean"), ("revin", "last"), ("revin_affine", "mean")):
        layer = small(norm=norm, center=center).norm
        x, middle, scale = layer.normalize(past())
        assert torch.allclose(layer.restore(x, middle, scale), past(), atol=1e-6)
        if norm == "revin":
            reference = past()[:, -1:] if center == "last" else past().mean(1, keepdim=True)
            assert torch.equal(middle, reference)
    without = small(norm="none")
    assert without.norm is None
    assert without(past()).shape == (5, 12, 3)


def test_the_moving_average_repeats_both_ends() -> None:
    x = torch.tensor([0.0, 3.0, 6.0, 9.0])[None, :, None]
    assert moving_average(x, 3).flatten().tolist() == [1.0, 3.0, 6.0, 8.0]


@torch.no_grad()
def test_marks_of_time_are_ignored() -> None:
    model = small()
    assert torch.equal(model(past(), torch.randn(5, 24, 4)), model(past()))


def test_options_survive_json() -> None:
    arch = Architecture(3, mixers="aff", depths=(1, 2), dims=(8, 8), kernel_sizes=(9, 9), small_sizes=(3, 3))
    options = options_of(arch)
    assert options["depths"] == [1, 2]
    model = ffnet_forecast(**options)
    assert isinstance(model, Forecaster)
    assert len(model.stages[1].blocks) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon of a forecaster must be a whole number from 1 on"),
        ({"patch_stride": 5}, "skips values"),
        ({"dims": (8, 8)}, "dims needs one value for each of the 1 stages"),
        ({"kernel_sizes": (4,)}, "must be odd"),
        ({"small_sizes": (11,)}, "small one not the larger"),
        ({"norm": "revine"}, "did you mean 'revin'"),
        ({"center": "first"}, "unknown center"),
        ({"look_back": 1}, "not one token"),
        ({"decomposition": 4}, "must be odd"),
        ({"depths": (0,)}, "at least 1"),
        ({"mixers": "afff"}, "did you mean 'aff'"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_shapes_that_a_strangers_file_makes_up_cost_no_memory() -> None:
    state = to_official(small(), Architecture(3, **SMALL))
    kernel = next(key for key in state if key.endswith("token_mixer.dw1.weight"))
    with pytest.raises(ValueError, match="another shape than the rest of it says"):
        load_official({**state, kernel: torch.empty(0, 1, 10**9 + 1)})
    assert recognise({key: tuple(value.shape) if key != kernel else (3,) for key, value in state.items()}) is None
    counts = {key: value for key, value in state.items() if not value.is_floating_point()}
    assert counts, "whole numbers may come first: safetensors sorts by name"
    assert load_official({**counts, **state}).model.training is False


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(TypeError, match="did you mean 'mlp_ratio'"):
        ffnet_forecast(3, mlp_ration=2)
