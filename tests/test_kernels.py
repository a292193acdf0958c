"""The Triton kernels in Triton's interpreter, on the CPU, against the PyTorch forms in float64."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import kernel_cases
from tests.kernel_cases import CHAINS
from tests.mixer_cases import build, image
from tokenmix.ops.dispatch import situation
from tokenmix.ops.kernels import rule


def missing() -> str:
    """Why Triton's interpreter cannot run here, or nothing."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    return "the interpreter of triton before 3.8 fails with NumPy 2.4" if triton < (3, 8) and numpy >= (2, 4) else ""


needs_triton = pytest.mark.skipif(bool(missing()), reason=missing())
every_chain = pytest.mark.parametrize("name", CHAINS)
TOLERANCE = 1e-5
Interpreter = Callable[..., object]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    """Calls functions in a process of its own: triton must be imported anew with its interpreter switched on."""
    with contextlib.ExitStack() as stack:
        with mock.patch.dict(os.environ, {"TRITON_INTERPRET": "1", "TOKENMIX_KERNELS": "1", "OMP_NUM_THREADS": "1"}):
            pool = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            pool.submit(os.getpid).result()
        yield lambda function, *args, **options: pool.submit(function, *args, **options).result()


# Batch, channels, height, width, and kernel size or groups. Channels and positions that fill their blocks and that do
# not, one pixel, one row, and planes of more than one tile.
SIZES = [(1, 3, 7, 7, 3), (2, 5, 1, 1, 1), (1, 2, 1, 9, 5), (2, 1, 8, 15, 3), (1, 17, 4, 4, 1)]


@needs_triton
@every_chain
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_chain(interpreter: Interpreter, name: str, sizes: tuple[int, ...]) -> None:
    ran, error = interpreter(kernel_cases.chain_error, name, sizes)
    assert ran
    assert error < TOLERANCE


@needs_triton
@every_chain
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    option=st.sampled_from([1, 3, 5]),
)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chain_of_any_size(interpreter: Interpreter, name: str, **sizes: int) -> None:
    ran, error = interpreter(kernel_cases.chain_error, name, tuple(sizes.values()))
    assert ran
    assert error < TOLERANCE


@needs_triton
@pytest.mark.slow
@every_chain
@pytest.mark.parametrize("sizes", [(2, 3, 56, 56, 3), (1, 40, 14, 14, 3), (2, 9, 31, 33, 7), (1, 32, 8, 5, 2)], ids=str)
def test_large_chain(interpreter: Interpreter, name: str, sizes: tuple[int, ...]) -> None:
    if name != "frequency" and sizes[-1] % 2 == 0:
        sizes = (*sizes[:-1], sizes[-1] + 1)
    ran, error = interpreter(kernel_cases.chain_error, name, sizes)
    assert ran == (name != "frequency" or sizes[1] <= 32)
    assert error < TOLERANCE


@needs_triton
@every_chain
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=str)
def test_half_precision(interpreter: Interpreter, name: str, dtype: torch.dtype, tolerance: float) -> None:
    ran, error = interpreter(kernel_cases.chain_error, name, (2, 3, 7, 6, 3), dtype)
    assert ran
    assert error < tolerance


@needs_triton
@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        ("aff", {"training": True}, True),
        ("aff", {"fuse": True}, False),  # with gradients
        ("aff(act='prelu')", {}, False),
        ("aff(groups=1)", {"dim": 33}, False),  # too wide a group
        ("ffnified(key_size=3,value_size=3)", {"training": True}, True),
        ("ffnified", {"fuse": True}, True),
        ("ffnified", {"training": True}, False),  # branches with batch norms
        ("additive", {"training": True}, True),
        ("additive", {"fuse": True}, True),
        ("attention", {}, False),
    ],
    ids=str,
)
def test_mixers_choose(interpreter: Interpreter, spec: str, options: dict[str, int], expected: bool) -> None:
    ran, error = interpreter(kernel_cases.mixer_error, spec, (5, 6), **options)
    assert ran is expected
    assert error < 5 * TOLERANCE


@needs_triton
def test_fused_filter_in_inference(interpreter: Interpreter) -> None:
    calls, error = interpreter(kernel_cases.inference_error, (5, 6))
    assert calls == 1
    assert error < TOLERANCE


@needs_triton
def test_what_the_rule_takes(interpreter: Interpreter) -> None:
    found = interpreter(kernel_cases.choices)
    assert isinstance(found, dict)
    taken = {"plain", "torch.float16", "torch.bfloat16", "switched on again"}
    assert {name for name, takes in found.items() if takes} == taken


@pytest.mark.parametrize("spec", ["aff", "ffnified(key_size=3,value_size=3)", "additive"])
@pytest.mark.parametrize("on", [False, True])
def test_the_cpu_is_left_alone(spec: str, on: bool) -> None:
    with rule.kernels(on):
        output = build(spec, dtype=torch.float32)(image(7, 6, dtype=torch.float32))
    assert output.requires_grad
    assert not kernel_cases.ran(output)


def test_same_precision() -> None:
    x, half = torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    assert rule.same_precision(situation(x), x, x)
    assert not rule.same_precision(situation(half), half, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert rule.same_precision(situation(half), half, x)
        assert not rule.same_precision(situation(x), x, x)


def _double(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 2 * x * y


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return 2 * x * y

    @staticmethod
    def backward(ctx, upstream):
        x, y = ctx.saved_tensors
        return 2 * upstream * y, 1.9 * upstream * x


def _broken(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no C compiler")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (_double, None),
        (lambda x, y: 2.1 * x * y, "differs from PyTorch by 0.05"),
        (lambda x, y: 2 * x * y / (x > 0), "differs from PyTorch by inf"),
        (_WrongGradient.apply, "differs from PyTorch by 0.05"),
        (_broken, "RuntimeError: no C compiler"),
    ],
    ids=["good", "wrong", "infinite", "wrong gradient", "broken"],
)
def test_a_kernel_proves_itself_once(monkeypatch: pytest.MonkeyPatch, kernel, message: str | None) -> None:
    monkeypatch.setattr(rule, "_verdicts", {})
    case = ("double", kernel, _double, lambda: [torch.linspace(-1, 1, 8), torch.ones(8)], torch.device("cpu"))
    expectation = contextlib.nullcontext() if message is None else pytest.warns(UserWarning, match=message)
    with expectation, torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert rule.proved(*case) is (message is None)
    assert rule.proved(*case) is (message is None)  # asked again it neither runs nor warns
