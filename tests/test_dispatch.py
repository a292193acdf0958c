"""Every form of every operator computes its definition, read from the table; and the rule that chooses."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import tokenmix
from tests.backbone_cases import images, toy
from tests.operator_cases import CASES
from tokenmix.layers import ConvNorm
from tokenmix.mixers import make_mixer
from tokenmix.ops.dispatch import OPERATORS, Form, definitions, operator, situation

PACKAGE = Path(tokenmix.__file__).parent
TABLE = {name.removeprefix("tokenmix."): operator for name, operator in OPERATORS.items() if operator.forms}
ON_CPU = [(name, form) for name, entry in TABLE.items() for form in entry.forms if form.name != "kernel"]
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5}
OURS = ("ops", "layers", "blocks", "mixers", "backbones", "heads")


def test_every_operator_has_examples() -> None:
    assert set(CASES) == set(TABLE)


def first_tensor(args: Sequence[Any]) -> Tensor:
    return next(arg for arg in args if isinstance(arg, Tensor))


def differentiate(compute: Callable[..., Any], args: Sequence[Any]) -> list[Tensor]:
    """Outputs, gradients of all tensors and parameters, and buffers after it."""
    args = [copy.deepcopy(arg) if isinstance(arg, nn.Module) else arg for arg in args]
    modules = [arg for arg in args if isinstance(arg, nn.Module)]
    if not torch.is_grad_enabled():
        return outputs(compute(*args))
    args = [arg.detach().requires_grad_() if isinstance(arg, Tensor) else arg for arg in args]
    found = outputs(compute(*args))
    if any(output.requires_grad for output in found):
        sum((output.abs() * torch.arange(output.numel()).view(output.shape).cos()).sum() for output in found).backward()
    leaves = [*(arg for arg in args if isinstance(arg, Tensor)), *(p for m in modules for p in m.parameters())]
    return [
        *found,
        *(leaf.grad for leaf in leaves if leaf.grad is not None),
        *(b for m in modules for b in m.buffers()),
    ]


def outputs(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Each within a share of its largest value, or of 1 % of the largest of all: some are 0 but for rounding."""
    assert [(tensor.shape, tensor.dtype) for tensor in found] == [(tensor.shape, tensor.dtype) for tensor in expected]
    most = 0.01 * max(float(tensor.detach().abs().max()) for tensor in expected)
    for ours, theirs in zip(found, expected, strict=True):
        error = float((ours.detach() - theirs.detach()).abs().max())
        assert error <= tolerance * max(float(theirs.detach().abs().max()), most)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(("name", "form"), ON_CPU, ids=[f"{name}-{form.name}" for name, form in ON_CPU])
def test_a_form_computes_the_definition(name: str, form: Form, training: bool) -> None:
    reached = 0
    for dtype, tolerance in TOLERANCES.items():
        for args in CASES[name](dtype):
            with torch.set_grad_enabled(training):
                if not form.fits(situation(first_tensor(args)), *args):
                    continue
                reached += 1
                found = differentiate(form.compute, args)
                with definitions():
                    expected = differentiate(TABLE[name].definition, args)
            close(found, expected, tolerance)
    if not reached:
        with torch.set_grad_enabled(not training):
            cases = [args for dtype in TOLERANCES for args in CASES[name](dtype)]
            assert any(form.fits(situation(first_tensor(args)), *args) for args in cases), "no example reaches it"


def modes() -> dict[str, str]:
    """What `situation` says wherever somebody looks."""
    from torch.utils.flop_counter import FlopCounterMode

    x, seen = torch.ones(2, 3, 4, 5), {}

    def look(name: str, x: Tensor) -> Tensor:
        seen[name] = situation(x).mode
        return x + 1

    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return look("module", x)

    look("training", x)
    with torch.no_grad():
        look("inference", x)
    with torch.inference_mode():
        look("inference mode", x)
    with definitions():
        look("definitions", x)
    with FlopCounterMode(display=False):
        look("counted", x)
    torch.func.vmap(lambda x: look("vmap", x))(x)
    torch.func.grad(lambda x: look("grad", x).sum())(x)
    torch.jit.trace(lambda x: look("traced", x), x, check_trace=False)
    torch.fx.symbolic_trace(Looks())
    seen["fx"] = seen["module"]
    torch.export.export(Looks(), (x,))
    seen["exported"] = seen["module"]
    return seen


def test_what_happens_is_seen() -> None:
    assert modes() == {
        "training": "training",
        "inference": "inference",
        "inference mode": "inference",
        "definitions": "observed",
        "counted": "observed",
        "vmap": "observed",
        "grad": "observed",
        "traced": "tracing",
        "module": "exporting",
        "fx": "tracing",
        "exported": "exporting",
    }
    compiled = torch.compile(lambda x: x + len(situation(x).mode), backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)).item() == len("compiling")


def seen(x: Tensor) -> tuple[Any, ...]:
    """All that `situation` says."""
    now = situation(x)
    return now.mode, now.eager, now.device, now.dtype, now.channels_last, now.autocast, now.checkpointed


def test_layout_and_autocast_are_seen() -> None:
    x = torch.ones(2, 3, 4, 5)
    assert seen(x) == ("training", True, "cpu", torch.float32, False, False, False)
    last = x.to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert seen(last) == ("inference", True, "cpu", torch.float32, True, True, False)
        with definitions():
            assert seen(last) == ("observed", False, "cpu", torch.float32, True, True, False)
    assert not situation(torch.ones(2, 1, 4, 5).to(memory_format=torch.channels_last)).channels_last  # it is both
    assert situation(torch.ones(3, device="meta")).device == "meta"
    found = []

    def look(x: Tensor) -> Tensor:
        found.append(seen(x))
        return x.sin()

    checkpoint(look, x.requires_grad_(), use_reentrant=False).sum().backward()
    assert found == [("training", True, "cpu", torch.float32, False, False, True)] * 2


def test_the_first_form_that_fits_computes() -> None:
    larger = Form("larger", lambda x, by=1: x * 100, lambda now, x, by=1: by > 2)
    never = Form("never", lambda x, by=1: x * 0, lambda now, x, by=1: False)

    @operator(never, larger)
    def scale(x: Tensor, by: int = 1) -> Tensor:
        """Documented."""
        return x * by

    try:
        x = torch.ones(1)
        assert [scale(x).item(), scale(x, 2).item(), scale(x, by=3).item()] == [1, 2, 100]
        assert scale.__doc__ == "Documented."
    finally:
        OPERATORS.popitem()


def hooked(model: nn.Module) -> dict[str, list[int]]:
    """How many images each module has seen, by its name, from now on."""
    seen: dict[str, list[int]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda module, args, output, name=name: seen.setdefault(name, []).append(len(args[0]))
        )
    return seen


@pytest.mark.parametrize("name", ["affnet_et", "casvit_xs", "ffnet_1", "ffnet_3"])
@pytest.mark.parametrize("kind", ["training", "inference", "re-parameterised"])
def test_hooks_change_nothing(name: str, kind: str) -> None:
    model = toy(name).to(memory_format=torch.channels_last).train(kind == "training")
    if kind == "re-parameterised":
        model = tokenmix.reparameterize(model)
    watched, plain = copy.deepcopy(model), copy.deepcopy(model)
    calls = {"watched": hooked(watched), "plain": hooked(plain)}
    x = images(64, 64).to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(kind == "training"):
        with definitions():
            plain(x)
        seen = copy.deepcopy(calls)
        results = [differentiate(lambda one, x: one(x), (one, x)) for one in (watched, model)]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    if "aff" not in name:  # whose activations are called once more to be differentiated, and not at all on rows
        assert calls["watched"] == seen["plain"]


def test_another_module_in_a_layers_place_is_called() -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    layer, x = ConvNorm(8, 8, act=nn.GELU).double(), torch.randn(2, 8, 3, 3, dtype=torch.float64)
    plain = layer.act(layer.norm(2 * layer.conv(x)))
    other = Doubled(8, 8, 1, bias=False).double()
    other.load_state_dict(layer.conv.state_dict())
    layer.conv = other
    torch.testing.assert_close(layer(x), plain)
    attention = make_mixer("additive", 4).double()
    attention.dwc.forward = lambda x: 0 * x  # type: ignore[method-assign]
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert torch.equal(attention(x), attention.proj(torch.zeros_like(x)))


def test_one_place_asks_what_happens() -> None:
    """Elsewhere nobody looks at hooks, modes and tracers, nor uses a private name of PyTorch."""
    questions = {"is_scripting", "is_tracing", "is_compiling", "is_exporting", "is_dynamo_compiling", "is_grad_enabled"}
    questions |= {"is_autocast_enabled", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "jit"}
    places: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE)
        if inside.parts[0].removesuffix(".py") not in OURS or path.stem.endswith("_triton"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                words = ast.unparse(node).split(".")
                private = any(word.startswith("_") and not word.startswith("__") for word in words[1:])
                if node.attr in questions or (words[0] == "torch" and private):
                    places.setdefault(node.attr, set()).add(str(inside))
    asked = {place for word in questions & set(places) for place in places[word]}
    assert asked == {"ops/dispatch.py"}
    assert set().union(*(files for word, files in places.items() if word not in questions)) == {"ops/internals.py"}
