"""Fourier and cosine transforms against torch.fft, SciPy and the naive sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmix.ops import cosine, fourier, reference

SIZES = [(1, 1), (1, 2), (2, 1), (1, 7), (8, 1), (3, 3), (7, 5), (6, 4), (4, 9), (13, 11), (14, 14), (2, 17)]
FORMS = ["fft", "matmul", "auto"]
LENGTHS = st.integers(1, 13)
FEW = settings(max_examples=20, deadline=None)


def image(height: int, width: int, seed: int = 0, batch: int = 2, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)


def spectrum_of(height: int, width: int, seed: int = 1) -> torch.Tensor:
    """Any complex numbers, not the transform of a real image: the self-conjugate columns are put to the test."""
    half = width // 2 + 1
    return torch.complex(image(height, half, seed), image(height, half, seed + 1))


def planes_of(spectrum: torch.Tensor) -> torch.Tensor:
    """(..., H, V) complex -> (..., 2, H, V)."""
    return torch.stack([spectrum.real, spectrum.imag], -3)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert (actual - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("size", SIZES)
def test_naive_fourier_definitions_are_torchs(size: tuple[int, int]) -> None:
    x, spectrum = image(*size), spectrum_of(*size)
    close(reference.rfft2(x), torch.fft.rfft2(x, norm="ortho"))
    close(reference.irfft2(spectrum, size), torch.fft.irfft2(spectrum, s=size, norm="ortho"))


@pytest.mark.parametrize("size", SIZES)
def test_naive_cosine_definitions_are_scipys(size: tuple[int, int]) -> None:
    x = image(*size)
    close(reference.dct2(x), torch.from_numpy(scipy.fft.dctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho")))
    close(reference.idct2(x), torch.from_numpy(scipy.fft.idctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho")))


def test_naive_circular_convolution_wraps_around() -> None:
    x, kernel = image(3, 4), image(3, 4, 1)
    expected = torch.zeros_like(x)
    for h, w, p, q in np.ndindex(3, 4, 3, 4):
        expected[..., h, w] += kernel[..., p, q] * x[..., (h - p) % 3, (w - q) % 4]
    close(reference.circular_convolution(x, kernel), expected)


@pytest.mark.parametrize("size", SIZES)
def test_rfft2_is_torchs(size: tuple[int, int]) -> None:
    x = image(*size)
    close(fourier.rfft2(x), torch.fft.rfft2(x, norm="ortho"))
    close(fourier.rfft2(x), reference.rfft2(x))


@pytest.mark.parametrize("size", SIZES)
def test_irfft2_is_torchs_on_any_spectrum(size: tuple[int, int]) -> None:
    spectrum = spectrum_of(*size)
    close(fourier.irfft2(spectrum, size), torch.fft.irfft2(spectrum, s=size, norm="ortho"))
    close(fourier.irfft2(spectrum, size), reference.irfft2(spectrum, size))


@pytest.mark.parametrize("form", FORMS)
@given(height=LENGTHS, width=LENGTHS)
@FEW
def test_fourier_forms_equal_the_naive_one(form: str, height: int, width: int) -> None:
    x, spectrum = image(height, width), spectrum_of(height, width)
    planes = fourier.rfft2_planes(x, form)
    close(planes, planes_of(reference.rfft2(x)))
    close(fourier.irfft2_planes(planes_of(spectrum), height, width, form), reference.irfft2(spectrum, (height, width)))
    close(fourier.irfft2_planes(planes, height, width, form), x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (4, 5), (5, 6)])
def test_fourier_gradcheck(form: str, size: tuple[int, int]) -> None:
    x = image(*size, batch=1, channels=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: fourier.rfft2_planes(a, form), x)
    planes, mask = (image(size[0], size[1] // 2 + 1, seed, batch=1, channels=2).requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(lambda a: fourier.irfft2_planes(a, *size, form), planes)
    assert torch.autograd.gradcheck(lambda a, b: fourier.filter_planes(a, b, *size, form), (planes, mask))


@pytest.mark.parametrize("form", FORMS)
@given(height=LENGTHS, width=LENGTHS)
@FEW
def test_cosine_forms_equal_scipy_and_the_naive_one(form: str, height: int, width: int) -> None:
    x = image(height, width)
    expected = torch.from_numpy(scipy.fft.dctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho"))
    close(cosine.dct2(x, form), expected)
    close(cosine.dct2(x, form), reference.dct2(x))
    inverse = torch.from_numpy(scipy.fft.idctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho"))
    close(cosine.idct2(x, form), inverse)
    close(cosine.idct2(x, form), reference.idct2(x))
    close(cosine.idct2(cosine.dct2(x, form), form), x)


@pytest.mark.parametrize("size", [(56, 56), (64, 31), (97, 33)])
@pytest.mark.parametrize("form", FORMS)
def test_cosine_forms_at_real_sizes(form: str, size: tuple[int, int]) -> None:
    x = image(*size)
    close(cosine.dct2(x, form), torch.from_numpy(scipy.fft.dctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho")))
    close(cosine.idct2(x, form), torch.from_numpy(scipy.fft.idctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho")))


@pytest.mark.parametrize("size", [(56, 56), (64, 31), (97, 33)])
@pytest.mark.parametrize("form", FORMS)
def test_fourier_forms_at_real_sizes(form: str, size: tuple[int, int]) -> None:
    x = image(*size)
    planes = fourier.rfft2_planes(x, form)
    close(planes, planes_of(torch.fft.rfft2(x, norm="ortho")))
    close(fourier.irfft2_planes(planes, *size, form), x)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (4, 5)])
def test_cosine_gradcheck(form: str, size: tuple[int, int]) -> None:
    x = image(*size, batch=1, channels=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: cosine.dct2(a, form), x)
    assert torch.autograd.gradcheck(lambda a: cosine.idct2(a, form), x)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13, 64])
def test_dct_matrix(length: int) -> None:
    matrix = cosine.dct_matrix(length, dtype=torch.float64)
    close(matrix @ matrix.T, torch.eye(length, dtype=torch.float64))
    close(matrix, torch.from_numpy(scipy.fft.dct(np.eye(length), type=2, axis=0, norm="ortho")))
    first = torch.full((length,), 1 / math.sqrt(length), dtype=torch.float64)
    close(matrix[0], first)
    for u, n in np.ndindex(*matrix.shape):
        scale = math.sqrt((1 if u == 0 else 2) / length)
        assert math.isclose(matrix[u, n], scale * math.cos(math.pi * u * (2 * n + 1) / (2 * length)), abs_tol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (5, 12)])
def test_filter_planes_is_a_product_of_spectra(form: str, size: tuple[int, int]) -> None:
    spectrum, mask = spectrum_of(*size), spectrum_of(*size, seed=5)
    expected = reference.irfft2(spectrum * mask, size)
    close(fourier.filter_planes(planes_of(spectrum), planes_of(mask), *size, form), expected)
    close(fourier.multiply_planes(planes_of(spectrum), planes_of(mask)), planes_of(spectrum * mask))
    shared = planes_of(mask[:1])
    expected = reference.irfft2(spectrum * mask[:1], size)
    close(fourier.filter_planes(planes_of(spectrum), shared, *size, form), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (5, 12), (96, 128)])
def test_float32_transforms_stay_float32(form: str, size: tuple[int, int]) -> None:
    x = image(*size)
    single = x.float()
    planes = fourier.rfft2_planes(single, form)
    close(planes, planes_of(reference.rfft2(x)).float(), 2e-6)
    close(fourier.irfft2_planes(planes, *size, form), single, 2e-6)
    close(cosine.dct2(single, form), reference.dct2(x).float(), 2e-6)
    close(cosine.idct2(single, form), reference.idct2(x).float(), 2e-6)


@pytest.mark.parametrize("form", FORMS)
def test_transforms_take_channels_last(form: str) -> None:
    x = image(7, 6)
    last = x.to(memory_format=torch.channels_last)
    close(fourier.rfft2_planes(last, form), fourier.rfft2_planes(x, form))
    close(cosine.dct2(last, form), cosine.dct2(x, form))
    close(cosine.idct2(last, form), cosine.idct2(x, form))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_in_float32(form: str, dtype: torch.dtype) -> None:
    x = image(7, 6).to(dtype)
    planes = fourier.rfft2_planes(x, form)
    close(planes, fourier.rfft2_planes(x.float(), form), 0)
    close(fourier.rfft2(x), fourier.rfft2(x.float()), 0)
    with torch.autocast("cpu", torch.bfloat16):
        close(fourier.rfft2_planes(x.float(), form), planes, 0)
        close(fourier.irfft2_planes(planes, 7, 6, form), x.float(), 2e-6)
        close(cosine.dct2(x.float(), form), cosine.dct2(x, form), 0)
    close(cosine.idct2(cosine.dct2(x, form), form), x.float(), 2e-6)


@pytest.mark.parametrize("call", [fourier.rfft2_planes, cosine.dct2, cosine.idct2])
def test_an_unknown_form_is_named(call) -> None:
    with pytest.raises(ValueError, match=r"unknown form 'fast'.*auto, fft, matmul"):
        call(image(3, 3), "fast")
    with pytest.raises(ValueError, match="unknown form 'fast'"):
        fourier.irfft2_planes(image(3, 2), 3, 3, "fast")


def test_transforms_inside_function_transforms_leave_nothing_behind() -> None:
    """Constants made under torch.func must not be kept: sizes that no other test uses, so that nothing is cached."""

    def energy(x: torch.Tensor) -> torch.Tensor:
        planes = fourier.rfft2_planes(x, "matmul")
        return fourier.irfft2_planes(planes, 21, 6, "matmul").square().sum() + cosine.dct2(x, "matmul").square().sum()

    x = image(21, 6)
    close(torch.func.grad(energy)(x), 4 * x)
    close(torch.func.vmap(torch.func.grad(energy))(x), 4 * x)
    close(energy(x), 2 * x.square().sum())
    x.requires_grad_()
    close(torch.autograd.grad(energy(x), x)[0], 4 * x.detach())


@pytest.mark.parametrize("transform", [fourier.rfft2_planes, cosine.dct2])
def test_an_export_of_a_known_size_stores_its_matrices(transform) -> None:
    class Transform(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return transform(x, "matmul")

    x = torch.randn(2, 3, 19, 22)
    expected = transform(x, "matmul")
    program = torch.export.export(Transform(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert not [node for node in program.graph.nodes if "cos" in str(node.target)]
    torch.testing.assert_close(program.module()(x), expected)
    sizes = dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(Transform(), (x,), dynamic_shapes=(sizes,))
    other = torch.randn(2, 3, 12, 17)
    torch.testing.assert_close(program.module()(other), transform(other, "matmul"))
