"""The naive layers against PyTorch's own, so that the mixers' truth is itself checked."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tokenmix.ops import reference
from tokenmix.ops.reference import Branch, Norm


def tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (reference.sigmoid, torch.sigmoid),
        (reference.silu, functional.silu),
        (reference.relu, functional.relu),
        (reference.gelu, functional.gelu),
        (lambda x: reference.softshrink(x, 0.3), lambda x: functional.softshrink(x, 0.3)),
        (lambda x: reference.softmax(100 * x, 1), lambda x: torch.softmax(100 * x, 1)),
    ],
    ids=["sigmoid", "silu", "relu", "gelu", "softshrink", "softmax"],
)
def test_functions(ours, theirs) -> None:
    x = tensor(4, 9)
    close(ours(x), theirs(x))


@pytest.mark.parametrize("kernel", [(3, 3), (7, 7), (1, 9), (9, 1), (5, 5)])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 6)])
def test_depthwise(kernel: tuple[int, int], size: tuple[int, int]) -> None:
    x, weight, bias = tensor(2, 3, *size), tensor(3, 1, *kernel, seed=1), tensor(3, seed=2)
    padding = (kernel[0] // 2, kernel[1] // 2)
    close(reference.depthwise(x, weight, bias), functional.conv2d(x, weight, bias, padding=padding, groups=3))


def test_pointwise_takes_both_weight_shapes() -> None:
    x, weight, bias = tensor(2, 3, 4, 5), tensor(6, 3, 1, 1, seed=1), tensor(6, seed=2)
    close(reference.pointwise(x, weight, bias), functional.conv2d(x, weight, bias))
    close(reference.pointwise(x, weight[..., 0, 0]), functional.conv2d(x, weight))


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm(training: bool) -> None:
    x, weight, bias, mean = tensor(3, 4, 5, 2), tensor(4, seed=1), tensor(4, seed=2), tensor(4, seed=3)
    norm = Norm(weight, bias, mean, tensor(4, seed=4).abs() + 0.5)
    expected = functional.batch_norm(x, mean.clone(), norm.variance.clone(), weight, bias, training=training)
    close(reference.batch_norm(x, norm, training=training), expected)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(14, 8), (7, 4), (1, 1), (3, 40), (30, 2)])
def test_resize_bilinear(size: tuple[int, int], align_corners: bool) -> None:
    x = tensor(3, 14, 8)
    expected = functional.interpolate(x[None], size, mode="bilinear", align_corners=align_corners)[0]
    close(reference.resize_bilinear(x, size, align_corners=align_corners), expected)


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 4), (2, 2)])
def test_pool(size: tuple[int, int]) -> None:
    x = tensor(2, 3, *size)
    close(reference.pool(x), functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x)


def test_attention_is_torchs() -> None:
    x = tensor(2, 6, 3, 4)
    query, key, value, output = (Branch(tensor(6, 6, seed=s), tensor(6, seed=s + 10)) for s in range(1, 5))
    split = [reference.pointwise(x, *part[:2]).reshape(2, 3, 2, 12).transpose(-1, -2) for part in (query, key, value)]
    mixed = functional.scaled_dot_product_attention(*split).transpose(-1, -2).reshape(x.shape)
    expected = functional.conv2d(mixed, output.weight[..., None, None], output.bias)
    close(reference.attention(x, query, key, value, output, heads=3), expected)


def test_bands_are_shares_and_low_frequencies_are_the_first() -> None:
    for length in (1, 2, 7, 14, 61):
        bands = reference.dsm_bands(length, 4, tensor(1))
        close(bands.sum(1), torch.ones(length, dtype=torch.float64))
        close(bands[0], torch.tensor([1.0, 0, 0, 0], dtype=torch.float64))


def test_dsm_with_equal_gates_is_linear() -> None:
    x, weight, bias = tensor(2, 3, 6, 5), tensor(3, 3, seed=1), tensor(3, seed=2)
    logits = torch.full((16, 3), 0.7, dtype=torch.float64)
    value, output = Branch(weight, bias), Branch(torch.eye(3, dtype=torch.float64))
    close(reference.dsm(x, value, logits, output), reference.pointwise(x, weight, bias))


def test_identity_and_first_aff_equation() -> None:
    x = tensor(1, 2, 3, 4)
    assert reference.identity(x) is x
    zero = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    b2 = torch.zeros(2, 1, 2, dtype=torch.float64)
    b2[0] = 1.01  # a mask of 1 - 0 j everywhere lets the image through
    close(reference.aff(x, zero, torch.zeros_like(b2), zero, b2, groups=1, threshold=0.01), x)
