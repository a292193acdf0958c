"""Every mixer through TorchScript, fx, export and compile: the same numbers as in eager mode."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

from tests.mixer_cases import CASES, SPECTRAL, build, closeness, image, thorough
from tokenmix.mixers import MIXERS

every_case = pytest.mark.parametrize("spec", [thorough(spec) for spec in CASES])
names_first = pytest.mark.parametrize(
    "spec", [thorough(s) if s in MIXERS else pytest.param(s, marks=pytest.mark.slow) for s in CASES]
)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler (g++ or clang++)"
)
FIRST_INDUCTOR = ("aff", "ffnified")


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@every_case
def test_torchscript(spec: str) -> None:
    mixer = build(spec)
    scripted = torch.jit.script(copy.deepcopy(mixer))
    for size in ((7, 6), (8, 5), (1, 1)):
        assert closeness(scripted(image(*size)), mixer(image(*size))) < 1e-12
    x = image(7, 6, batch=1).requires_grad_()
    scripted(x).square().mean().backward()
    assert x.grad is not None


@pytest.mark.parametrize("spec", CASES)
def test_fx(spec: str) -> None:
    mixer = build(spec)
    traced = torch.fx.symbolic_trace(mixer)
    for size in ((7, 6), (8, 5), (1, 1)):
        assert closeness(traced(image(*size)), mixer(image(*size))) < 1e-12


def export(mixer: nn.Module) -> nn.Module:
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(mixer, (image(10, 12, batch=3),), dynamic_shapes=({0: free, 2: free, 3: free},))
    return program.module()


@names_first
def test_export_with_dynamic_sizes(spec: str) -> None:
    mixer = build(spec)
    exported = export(mixer)
    sizes = ((2, 7, 5), (4, 8, 16), (3, 10, 12))
    for batch, height, width in sizes[spec == "window" :]:  # its program refuses maps of a single window
        x = image(height, width, batch=batch)
        assert closeness(exported(x), mixer(x)) < 1e-12


@pytest.mark.parametrize("spec", [thorough(s) for s in SPECTRAL if s in MIXERS])
def test_export_of_the_matrix_form(spec: str) -> None:
    mixer = build(spec)
    expected = copy.deepcopy(mixer)
    mixer.form, expected.form = "matmul", "fft"
    exported = export(mixer)
    for size in ((7, 5), (8, 16)):
        assert closeness(exported(image(*size)), expected(image(*size))) < 1e-10


@names_first
def test_compile_fullgraph(spec: str) -> None:
    mixer = build(spec, training=True)
    eager = copy.deepcopy(mixer)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    x, y = (image(7, 6).requires_grad_() for _ in range(2))
    out, expected = compiled(x), eager(y)
    assert closeness(out, expected) < 1e-12
    out.square().mean().backward()
    expected.square().mean().backward()
    assert closeness(x.grad, y.grad) < 1e-11
    for (name, ours), theirs in zip(mixer.named_parameters(), eager.parameters(), strict=True):
        assert closeness(ours.grad, theirs.grad) < 1e-9 or theirs.grad.abs().max() < 1e-12, name


@needs_compiler
@pytest.mark.parametrize("spec", [s if s in FIRST_INDUCTOR else pytest.param(s, marks=pytest.mark.slow) for s in CASES])
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
def test_inductor(spec: str) -> None:
    mixer = build(spec, dtype=torch.float32)
    compiled = torch.compile(copy.deepcopy(mixer), fullgraph=True)
    x = image(14, 14, dtype=torch.float32)
    assert closeness(compiled(x), mixer(x)) < 1e-5


@pytest.mark.slow
@every_case
def test_compile_with_dynamic_sizes(spec: str) -> None:
    mixer = build(spec)
    compiled = torch.compile(copy.deepcopy(mixer), fullgraph=True, backend="aot_eager", dynamic=True)
    for size in ((7, 6), (8, 5), (12, 14)):
        assert closeness(compiled(image(*size)), mixer(image(*size))) < 1e-12
