"""Sparse operators: a dense convolution at the occupied voxels, forward and gradients, on clouds of every kind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenmix.ops.sparse import Voxels, average, convolve, convolve_dense, pool, unpool

KINDS = ("random", "clustered", "single", "duplicates", "line", "several clouds")


def cloud(kind: str, seed: int) -> tuple[Tensor, Tensor, int]:
    """Cells (P, 3), the cloud of each (P,), and how many clouds there are; negative cells and doubles among them."""
    draw = torch.Generator().manual_seed(seed)

    def cells(count: int, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (count, 3), generator=draw)

    if kind == "single":
        points = cells(1, -9, 9)
    elif kind == "duplicates":
        points = cells(6, -3, 3)[torch.randint(0, 6, (40,), generator=draw)]
    elif kind == "clustered":
        points = cells(3, -8, 8)[torch.randint(0, 3, (40,), generator=draw)] + cells(40, -1, 2)
    elif kind == "line":
        points = cells(1, -4, 4) + torch.arange(7)[:, None] * torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]])[seed % 3]
    else:
        points = cells(60, -4, 5)
    clouds = 3 if kind == "several clouds" else 1
    # The middle one of three clouds is empty.
    which = 2 * torch.randint(0, 2, (len(points),), generator=draw) if clouds == 3 else torch.zeros(len(points)).long()
    return points, which, clouds


def case(kind: str, seed: int, shape: tuple[int, ...]) -> tuple[Voxels, list[Tensor]]:
    """Voxels, and features, weight and bias in float64 with gradients."""
    voxels, _ = Voxels.of(*cloud(kind, seed))
    draw = torch.Generator().manual_seed(seed + 1)
    shapes = ((len(voxels), shape[-1] if len(shape) == 5 else shape[0]), shape, shape[:1])
    return voxels, [torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("shape", [(4, 3, 3, 3, 3), (2, 5, 5, 5, 3), (3, 1, 1, 1, 2), (3, 3, 3, 3), (2, 5, 5, 5)])
@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_a_submanifold_convolution_is_a_dense_one_at_the_voxels(shape, kind, seed):
    voxels, tensors = case(kind, seed, shape)
    ours = convolve(*tensors, voxels.neighbours(shape[1]))
    dense = convolve_dense(*tensors, voxels)
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-10)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed), dtype=ours.dtype)
    pairs = zip(torch.autograd.grad(ours, tensors, grad), torch.autograd.grad(dense, tensors, grad), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)
    with torch.no_grad():  # which takes another way
        assert torch.equal(convolve(*tensors, voxels.neighbours(shape[1])), ours)


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_every_point_is_in_the_voxel_of_its_cell(kind, seed):
    points, which, clouds = cloud(kind, seed)
    voxels, grouping = Voxels.of(points, which, clouds)
    assert torch.equal(voxels.coords[grouping.group], points)
    assert torch.equal(voxels.cloud[grouping.group], which)
    cells = {(*place, c) for place, c in zip(map(tuple, points.tolist()), which.tolist(), strict=True)}
    assert len(voxels) == len(cells)
    assert int(grouping.lengths.sum()) == len(points)
    coarse, cells_of = voxels.coarser()
    assert torch.equal(coarse.coords[cells_of.group], voxels.coords >> 1)


@pytest.mark.parametrize("how", ["max", "mean", "sum"])
@settings(max_examples=15, deadline=None)
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**31))
def test_pooling_is_that_of_the_dense_grid(how, kind, seed):
    voxels, [x, *_] = case(kind, seed, (3, 1, 1, 1))
    coarse, grouping = voxels.coarser()
    ours = pool(x, grouping, how)
    for row, (place, which) in enumerate(zip(coarse.coords, coarse.cloud, strict=True)):
        inside = ((voxels.coords >> 1) == place).all(1) & (voxels.cloud == which)
        expected = getattr(x[inside], {"max": "amax"}.get(how, how))(0)
        torch.testing.assert_close(ours[row], expected, rtol=0, atol=1e-12)
    back = unpool(ours, grouping)
    assert torch.equal(back[0], ours[grouping.group[0]])
    assert torch.autograd.gradcheck(lambda x: unpool(pool(x, grouping, how), grouping), x)


def test_the_average_counts_occupied_voxels_only():
    voxels, _ = Voxels.of(torch.tensor([[0, 0, 0], [0, 0, 1], [5, 5, 5]]), torch.zeros(3).long(), 1)
    x = torch.tensor([[1.0], [3.0], [7.0]])
    assert average(x, voxels.neighbours(3)).tolist() == [[2.0], [2.0], [7.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_computes_in_the_type_of_its_input_and_adds_up_in_float32(dtype):
    voxels, tensors = case("random", 0, (4, 3, 3, 3, 3))
    neighbours = voxels.neighbours(3)
    narrow = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    out = convolve(*narrow, neighbours)
    assert out.dtype == dtype
    wide = convolve(*(tensor.double() for tensor in narrow), neighbours)
    torch.testing.assert_close(out.double(), wide, rtol=4 * torch.finfo(dtype).eps, atol=30 * torch.finfo(dtype).eps)
    out.sum().backward()
    assert all(tensor.grad.dtype == dtype and tensor.grad.isfinite().all() for tensor in narrow)


def test_under_autocast_the_products_are_in_half_precision():
    voxels, tensors = case("random", 0, (4, 3, 3, 3, 3))
    x, weight, bias = (tensor.detach().float().requires_grad_() for tensor in tensors)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, weight, bias, voxels.neighbours(3))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == bias.grad.dtype == torch.float32


def test_the_number_of_threads_and_the_blocks_change_no_bit(monkeypatch):
    points = torch.randint(0, 24, (3000, 3), generator=torch.Generator().manual_seed(0))
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(8, 3, 3, 3, 8, generator=torch.Generator().manual_seed(2))

    def run(threads: int, block: int) -> list[Tensor]:
        monkeypatch.setattr("tokenmix.ops.sparse.BLOCK_ROWS", block)
        torch.set_num_threads(threads)
        try:
            voxels, grouping = Voxels.of(points, torch.zeros(3000).long(), 1)
            a = pool(x, grouping, "mean").requires_grad_()
            b = weight.clone().requires_grad_()
            coarse = voxels.coarser()[1]
            out = unpool(pool(convolve(a, b, None, voxels.neighbours(3)), coarse), coarse)
            return [out, *torch.autograd.grad(out.square().sum(), (a, b))]
        finally:
            torch.set_num_threads(1)

    first = run(1, 2**20)
    assert all(torch.equal(a, b) for a, b in zip(first, run(1, 2**20), strict=True))
    for other in (run(2, 2**20), run(1, 300), run(2, 300)):
        for mine, theirs in zip(other, first, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_wrong_shapes_and_grids_without_measure_are_errors():
    here = torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"shape \(N, 3\)"):
        Voxels.of(torch.zeros(2, 2), here, 1)
    with pytest.raises(ValueError, match="larger voxels"):
        Voxels.of(torch.tensor([[0, 0, 0], [2**40, 2**40, 2**40]]), here, 1)
    voxels, _ = Voxels.of(torch.zeros(2, 3), here, 1)
    with pytest.raises(ValueError, match="must be odd"):
        voxels.neighbours(2)
    with pytest.raises(ValueError, match="the neighbours are those of"):
        convolve(torch.zeros(1, 2), torch.zeros(2, 3, 3, 3, 2), None, voxels.neighbours(5))


def test_rows_without_a_cloud_and_clouds_without_a_row():
    voxels, grouping = Voxels.of(torch.zeros(0, 3), torch.zeros(0), 2)
    assert (len(voxels), voxels.clouds) == (0, 2)
    out = convolve(torch.zeros(0, 2), torch.zeros(4, 3, 3, 3, 2), None, voxels.neighbours(3))
    assert out.shape == (0, 4)
    assert pool(torch.zeros(0, 2), grouping).shape == (0, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_is_the_same_and_without_chance():
    voxels, tensors = case("several clouds", 3, (4, 3, 3, 3, 3))
    there = [tensor.detach().cuda().requires_grad_() for tensor in tensors]
    neighbours = voxels.to("cuda").neighbours(3)
    out = convolve(*there, neighbours)
    torch.testing.assert_close(out.cpu(), convolve(*tensors, voxels.neighbours(3)), rtol=0, atol=1e-10)
    assert torch.equal(out, convolve(*there, neighbours))
    grads = torch.autograd.grad(out.square().sum(), there)
    again = torch.autograd.grad(convolve(*there, neighbours).square().sum(), there)
    assert all(torch.equal(a, b) for a, b in zip(grads, again, strict=True))
