"""The Triton kernels on a GPU, in every precision, forward and backward, against the PyTorch forms in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.kernel_cases import CHAINS, chain_error, differentiate, inputs, ran
from tests.mixer_cases import build, closeness, image
from tokenmix.layers import fused
from tokenmix.ops.kernels.rule import kernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_chain = pytest.mark.parametrize("name", CHAINS)
TOLERANCES = {torch.float16: 5e-3, torch.bfloat16: 4e-2, torch.float32: 1e-4}
SPECS = ("aff", "ffnified(key_size=3,value_size=3)", "additive")


@pytest.fixture(autouse=True)
def _full_float32_by_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with kernels():
        yield


@every_chain
@pytest.mark.parametrize("side", [1, 7, 14, 15, 56])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_chain(name: str, side: int, dtype: torch.dtype) -> None:
    took, error = chain_error(name, (3, 20, side, side, 3), dtype, "cuda")
    assert took
    assert error < TOLERANCES[dtype]


@every_chain
def test_more_tiles_than_programs(name: str) -> None:
    took, error = chain_error(name, (64, 24, 33, 31, 3), torch.float32, "cuda")
    assert took
    assert error < TOLERANCES[torch.float32]


@pytest.mark.parametrize("size", [5, 7, 9])
def test_large_kernels(size: int) -> None:
    took, error = chain_error("ffnified", (2, 20, 14, 14, size), torch.bfloat16, "cuda")
    assert took
    assert error < TOLERANCES[torch.bfloat16]


@every_chain
def test_repeats_itself(name: str) -> None:
    leaves = [tensor.float().cuda().requires_grad_() for tensor in inputs(name, 8, 24, 28, 28)]
    first, second = (differentiate(CHAINS[name][0], leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def pair(spec: str, size: int, dtype: torch.dtype, *, fuse: bool) -> tuple[nn.Module, torch.Tensor]:
    mixer = build(spec, 24, dtype=torch.float32, training=not fuse)
    return (fused(mixer) if fuse else mixer).cuda().to(dtype), image(size, size, dim=24, dtype=dtype).cuda()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", [7, 14, 56])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fuse", [False, True])
def test_autocast_equals_pytorch(spec: str, size: int, dtype: torch.dtype, fuse: bool) -> None:
    mixer, x = pair(spec, size, torch.float32, fuse=fuse)
    with torch.autocast("cuda", dtype), torch.set_grad_enabled(not fuse):
        output = mixer(x)
        with kernels(False):
            expected = mixer(x)
    assert fuse or ran(output)
    assert not ran(expected)
    assert output.dtype == expected.dtype
    assert closeness(output.double(), expected.double()) < 2 * TOLERANCES[dtype]


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex:UserWarning")
@pytest.mark.parametrize("spec", SPECS)
def test_channels_last_and_compiled(spec: str) -> None:
    mixer, x = pair(spec, 14, torch.float32, fuse=True)
    with torch.no_grad():
        expected = mixer(x)
        assert closeness(mixer(x.to(memory_format=torch.channels_last)), expected) < 1e-3
        assert closeness(torch.compile(mixer, fullgraph=True)(x), expected) < 1e-3


@pytest.mark.parametrize("spec", SPECS)
def test_in_a_cuda_graph(spec: str) -> None:
    mixer, x = pair(spec, 14, torch.bfloat16, fuse=True)
    with torch.no_grad():
        expected = mixer(x)  # compiles
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            mixer(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = mixer(x)
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(output, expected)
