"""The Triton kernels compiled for two generations of GPUs, which needs none: what the interpreter does not find out.

The interpreter knows neither the types nor the registers of a GPU. Here every launch of the kernels is recorded instead
of run, and what was launched is compiled to machine code.
"""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernel_cases import CHAINS, inputs

triton = pytest.importorskip("triton", reason="triton is not installed")

pytestmark = pytest.mark.slow
TYPES = {torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.float32: "*fp32", int: "i32", float: "fp32"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


class Recorder:
    """Stands for a kernel: ``recorder[grid](*args, **options)`` only writes down what was asked."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, tuple, dict[str, int]]]) -> None:
        self.kernel = getattr(kernel, "fn", kernel) if type(kernel).__name__ == "Autotuner" else kernel
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]):
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def record(name: str, sizes: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> list:
    """Every launch of a chain, forward and backward."""
    module = importlib.import_module(f"tokenmix.ops.kernels.{name}_triton")
    launches: list[tuple[Any, tuple, dict[str, int]]] = []
    for attribute in ("_forward", "_backward", "_mean", "_add_gradient_of_mean"):
        if hasattr(module, attribute):
            monkeypatch.setattr(module, attribute, Recorder(getattr(module, attribute), launches))
    given = [tensor.to(dtype) for tensor in inputs(name, *sizes)]
    threshold: tuple[float, ...] = ()
    if name == "frequency":
        given[0] = torch.view_as_complex(given[0].float())
        threshold = (0.1,)
    leaves = [tensor.requires_grad_() for tensor in given]
    chain = importlib.import_module(f"tokenmix.ops.kernels.{name}")._Chain.apply
    output = chain(*leaves, *threshold)
    torch.autograd.grad(output, leaves, torch.ones_like(output))
    return launches


def compiled(kernel: Any, args: tuple, options: dict[str, int], architecture: int) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    launch = {key: options[key] for key in ("num_warps", "num_stages") if key in options}
    constants = {key: value for key, value in options.items() if key not in launch}
    signature = {name: TYPES[value.dtype if isinstance(value, torch.Tensor) else type(value)]
                 for name, value in zip(kernel.arg_names, args, strict=False)}  # fmt: skip
    aligned = {(i,): [["tt.divisibility", 16]] for i, value in enumerate(args) if isinstance(value, torch.Tensor)}
    source = ASTSource(kernel, signature | dict.fromkeys(constants, "constexpr"), constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=launch)


@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize(
    ("name", "sizes", "dtype"),
    [
        ("frequency", (2, 16, 14, 8, 8), torch.float32),
        ("frequency", (2, 32, 7, 4, 8), torch.bfloat16),
        ("ffnified", (2, 24, 56, 56, 3), torch.bfloat16),
        ("ffnified", (2, 24, 7, 7, 7), torch.float16),
        ("additive", (2, 24, 56, 56, 3), torch.bfloat16),
        ("additive", (2, 24, 7, 7, 3), torch.float16),
    ],
    ids=str,
)
def test_compiles_without_spilling_registers(
    name: str,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    architecture: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert name in CHAINS
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    launches = record(name, sizes, dtype, monkeypatch)
    assert len(launches) == (4 if name == "additive" else 2)
    for kernel, args, options in launches:
        program = compiled(kernel, args, options, architecture)
        assert program.metadata.shared <= 64 * 1024  # of 99 KB that the smallest of these GPUs have
        if not CUOBJDUMP.exists():
            continue
        (tmp_path / "kernel.cubin").write_bytes(program.asm["cubin"])
        usage = subprocess.run(
            [CUOBJDUMP, "-res-usage", tmp_path / "kernel.cubin"], capture_output=True, text=True, check=True
        )
        stack = re.search(r"STACK:(\d+)", usage.stdout)
        assert stack is not None
        assert int(stack[1]) <= 32, f"{kernel.__name__}: {stack[1]} bytes of each thread are spilt"
