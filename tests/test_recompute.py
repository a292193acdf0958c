"""What training makes anew instead of keeping it: the same numbers as PyTorch's own operations, from fewer bytes."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from tests.scramble import scramble
from tokenmix.blocks import InvertedResidual, Mlp, Residual
from tokenmix.layers import GELU, Chain, ConvNorm, fused
from tokenmix.mixers import make_mixer
from tokenmix.ops import recompute
from tokenmix.ops.dispatch import definitions
from tokenmix.ops.gates import gate_sum
from tokenmix.ops.recompute import in_turn

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
ACTS = {"gelu": F.gelu, "silu": F.silu, "relu": F.relu, "": lambda x: x}


def residual(op: nn.Module) -> nn.Module:
    return Residual(8, op, norm=nn.BatchNorm2d(8))


def local() -> nn.Module:
    return Chain(ConvNorm(8, 8, bias=True), nn.Conv2d(8, 8, 3, padding=1, groups=8), GELU(), nn.Conv2d(8, 8, 1))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "conv_norm": lambda: ConvNorm(8, 8, 3, act=nn.SiLU),
    "inverted": lambda: InvertedResidual(8, 8),
    "inverted_prelu": lambda: InvertedResidual(8, 8, act=nn.PReLU),
    "mlp": lambda: residual(Mlp(8, 16)),
    "mlp_front": lambda: residual(Mlp(8, 16, conv=ConvNorm(8, 8, 3, groups=8))),
    "local": lambda: residual(local()),
    "additive": lambda: residual(make_mixer("additive", 8)),
    "aff": lambda: residual(make_mixer("aff(groups=2)", 8)),
    "aff_fused": lambda: residual(fused(make_mixer("aff(groups=2)", 8))),
    "ffnified": lambda: residual(make_mixer("ffnified(key_size=3, value_size=3)", 8)),
}


def module_and_input(name: str, layout: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor]:
    module = scramble(MODULES[name]()).to(dtype=dtype, memory_format=LAYOUTS[layout])
    x = torch.randn(3, 8, 6, 5, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return module, x.contiguous(memory_format=LAYOUTS[layout])


def learn(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients and running statistics after one backward pass."""
    x = x.detach().requires_grad_()
    y = module(x)
    (y.double() * torch.arange(y.numel()).view(y.shape).cos()).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in module.parameters() if p.grad is not None), *module.buffers()]


def kept(module: nn.Module, x: Tensor) -> int:
    """Bytes that the forward pass leaves behind, its output left out: PyTorch's own count of its memory."""
    x.requires_grad_()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        alive = module(x)
    assert alive.requires_grad
    return sum(event.self_cpu_memory_usage for event in profiler.key_averages()) - alive.untyped_storage().nbytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MODULES)
def test_modules_learn_as_in_pytorch(name: str, training: bool, layout: str) -> None:
    module, x = module_and_input(name, layout)
    other = copy.deepcopy(module.train(training))
    found = learn(module, x)
    with definitions():
        expected = learn(other, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    if layout == "channels_last":  # where processors without AVX-512 sum a product of another shape in another order
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-13)
    else:
        assert torch.equal(found[0], expected[0]) or "aff" in name or "additive" in name
    assert {key: value.shape for key, value in module.state_dict().items()} == {
        key: value.shape for key, value in other.state_dict().items()
    }


@pytest.mark.parametrize("name", ["conv_norm", "inverted", "mlp", "local", "additive", "aff", "ffnified"])
def test_modules_keep_less(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    less = kept(module, x)
    with definitions():
        assert less < 0.9 * kept(module, x)


@pytest.mark.parametrize(("name", "maps"), [("conv_norm", 1), ("mlp", 2), ("local", 2)])
def test_only_what_convolutions_make_is_kept(name: str, maps: int) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    assert kept(module, x) < (maps + 0.5) * x.nbytes


@pytest.mark.parametrize("name", ["inverted", "local", "additive", "aff"])
def test_a_graph_goes_with_its_output(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    gc.collect()
    gc.disable()  # nothing waits for the collector
    try:
        output = module(x.requires_grad_())
        assert output.requires_grad
        del output
        assert not [each for each in gc.get_objects() if type(each) is recompute._Kept]
    finally:
        gc.enable()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", ["batch", "running", "none"])
@pytest.mark.parametrize("act", ACTS)
def test_gradients_of_first_and_second_order(act: str, norm: str, layout: str) -> None:
    torch.manual_seed(0)
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64)  # noqa: E731
    x = draw(2, 2, 3, 2).contiguous(memory_format=LAYOUTS[layout])
    leaves = [x, draw(2), draw(2), draw(3, 2, 1, 1), draw(3), draw(2, 1, 3, 3)]
    mean, var = draw(2), draw(2).exp()

    def steps(weight: Tensor, bias: Tensor, *convs: Tensor) -> tuple[Callable[[Tensor], Any], ...]:
        def normed(x: Tensor) -> Tensor:
            return F.batch_norm(x, mean.clone(), var.clone(), weight, bias, norm == "batch")

        def convolved(x: Tensor) -> tuple[Tensor, Tensor]:
            return F.conv2d(x, convs[0], convs[1]), F.conv2d(x, convs[2], None, 2, 1, 1, 2)

        return (lambda x: x if norm == "none" else normed(x), ACTS[act], convolved)

    def chain(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        return in_turn(x, *steps(*others))

    def plain(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        for step in steps(*others):
            x = step(x)
        return x  # type: ignore[return-value]

    used = leaves if norm != "none" else [leaves[0], *leaves[3:]]
    for leaf in used:
        leaf.requires_grad_()
    assert all(torch.equal(a, b) for a, b in zip(chain(*leaves), plain(*leaves), strict=True))
    assert gradcheck(chain, leaves)
    if act != "relu":  # whose second derivative is 0 everywhere, but not across 0, where differences may look
        assert gradgradcheck(chain, leaves)


def test_gates_have_exact_gradients() -> None:
    torch.manual_seed(0)
    draw = lambda *shape: torch.randn(shape, dtype=torch.float64, requires_grad=True)  # noqa: E731
    given = (draw(2, 6, 2, 2), draw(2, 2, 2, 2), draw(6, 3, 1, 1))
    assert gradcheck(gate_sum, given)
    assert gradgradcheck(gate_sum, given)


@pytest.mark.parametrize("name", ["inverted", "mlp_front", "local", "additive", "aff"])
def test_autocast_changes_the_same_types(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    other = copy.deepcopy(module)
    exact = learn(copy.deepcopy(module).double(), x.double())
    with torch.autocast("cpu", torch.bfloat16):  # the backward pass too, which must not change its types
        found = learn(module, x)
        with definitions():
            expected = learn(other, x)
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    for ours, theirs, truth in zip(found, expected, exact, strict=True):
        error, allowed = ((value.double() - truth).abs().max() for value in (ours, theirs))
        assert error <= 2 * allowed + 1e-2 * truth.abs().max() + 1e-3


@pytest.mark.parametrize("name", ["inverted", "local", "additive", "aff"])
def test_checkpointing_still_keeps_the_input_alone(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    other = copy.deepcopy(module)

    class Checkpointed(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.inner, x, use_reentrant=False, preserve_rng_state=False)

    assert kept(Checkpointed(copy.deepcopy(module)), x) <= x.nbytes
    found = learn(Checkpointed(module), x)
    with definitions():
        expected = learn(Checkpointed(other), x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_seed_gives_the_same_bits_twice() -> None:
    results = [learn(*module_and_input("local", "channels_last", torch.float32)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_frozen_parameters_get_no_gradient() -> None:
    module, x = module_and_input("inverted", "channels_last")
    other = copy.deepcopy(module)
    for network in (module, other):
        for parameter in [*network.expand.norm.parameters(), network.depthwise.conv.weight]:  # type: ignore[union-attr]
            parameter.requires_grad_(False)
    found = learn(module, x)
    with definitions():
        expected = learn(other, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_one_value_per_channel_is_the_norms_own_error() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ConvNorm(3, 4, act=nn.ReLU)(torch.randn(1, 3, 1, 1))


@pytest.mark.parametrize("name", ["inverted", "additive", "aff"])
def test_programs_see_the_modules_themselves(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.float32)
    module.eval()
    expected = module(x)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    traced = torch.jit.trace(module, (x,))
    scripted = torch.jit.script(module)
    for form in (compiled, traced, scripted):
        torch.testing.assert_close(form(x), expected, rtol=1e-4, atol=1e-5)
    gradient = torch.func.grad(lambda x: torch.func.functional_call(module, dict(module.named_parameters()), x).sum())
    torch.testing.assert_close(gradient(x), torch.autograd.grad(module(y := x.clone().requires_grad_()).sum(), y)[0])


@pytest.mark.parametrize("name", ["inverted", "mlp", "additive", "aff"])
def test_models_in_half_precision_learn_too(name: str) -> None:
    module, x = module_and_input(name, "channels_last", torch.bfloat16)
    found = learn(module, x)
    assert all(value.isfinite().all() for value in found)
    with definitions():
        expected = learn(module_and_input(name, "channels_last", torch.bfloat16)[0], x)
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    torch.testing.assert_close(found[0], expected[0], rtol=0.05, atol=0.05)
