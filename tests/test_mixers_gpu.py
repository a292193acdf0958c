"""Every mixer on a GPU in the half precisions, forward and backward, against float64 on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.mixer_cases import CASES, SPECTRAL, build, closeness, image

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
every_case = pytest.mark.parametrize("spec", CASES)
every_size = pytest.mark.parametrize("size", [(7, 7), (14, 14), (56, 56), (15, 9)], ids=lambda s: f"{s[0]}x{s[1]}")
WIDTH = 24
# Gradients are compared by their Euclidean lengths: near a ReLU's kink rounding turns single elements over, a share of
# about the precision, hence its square root. Some (of a bias under a softmax) are zero but for rounding: they are
# measured against the longest one.
FORWARD = {torch.float16: 0.01, torch.bfloat16: 0.08, torch.float32: 1e-3}
BACKWARD = {torch.float16: 0.08, torch.bfloat16: 0.2, torch.float32: 1e-3}


@pytest.fixture(autouse=True)
def _full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def gradients(mixer, x, upstream):
    y = mixer(x)
    return y, torch.autograd.grad((y * upstream.to(y)).sum(), [x, *mixer.parameters()])


def skip_what_fills_the_memory(spec: str, size: tuple[int, int]) -> None:
    if spec.startswith("selective_scan") and size == (56, 56):
        pytest.skip("the scan is quadratic in the number of tokens: tens of gigabytes in float64 here")


def check(spec: str, size: tuple[int, int], dtype: torch.dtype, *, autocast: bool, training: bool) -> None:
    skip_what_fills_the_memory(spec, size)
    mixer = build(spec, WIDTH, dtype=torch.float32, training=training)
    x, upstream = image(*size, dim=WIDTH), image(*size, dim=WIDTH, seed=1)
    kept = torch.float32 if autocast else dtype
    mixer, x = mixer.to(kept), x.to(kept)
    truth = copy.deepcopy(mixer).double()
    expected, wanted = gradients(truth, x.double().requires_grad_(), upstream)
    mixer, x = mixer.cuda(), x.cuda().requires_grad_()
    with torch.autocast("cuda", dtype, enabled=autocast):
        y, got = gradients(mixer, x, upstream.cuda())
    assert y.isfinite().all()
    assert autocast or y.dtype == dtype
    assert closeness(y.double().cpu(), expected) < FORWARD[dtype]
    longest = max(float(g.norm()) for g in wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.isfinite().all()
        error = float((ours.double().cpu() - theirs).norm())
        assert error < BACKWARD[dtype] * max(float(theirs.norm()), 0.05 * longest)


@every_case
@every_size
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(spec: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    check(spec, size, dtype, autocast=True, training=True)


@every_case
@every_size
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_modules(spec: str, size: tuple[int, int], dtype: torch.dtype) -> None:
    check(spec, size, dtype, autocast=False, training=False)


@every_case
@every_size
def test_float32(spec: str, size: tuple[int, int]) -> None:
    check(spec, size, torch.float32, autocast=False, training=True)


@every_case
@every_size
def test_float64_equals_the_cpu(spec: str, size: tuple[int, int]) -> None:
    skip_what_fills_the_memory(spec, size)
    mixer = build(spec, WIDTH)
    x = image(*size, dim=WIDTH)
    expected = mixer(x)
    mixer.cuda()
    assert closeness(mixer(x.cuda()).cpu(), expected) < 1e-9
    assert closeness(mixer(x.cuda().to(memory_format=torch.channels_last)).cpu(), expected) < 1e-9
    assert closeness(mixer.cpu()(x), expected) == 0


@pytest.mark.parametrize("spec", SPECTRAL)
@every_size
def test_matrix_form_equals_fft(spec: str, size: tuple[int, int]) -> None:
    mixer = build(spec, WIDTH).cuda()
    x = image(*size, dim=WIDTH).cuda()
    mixer.form = "fft"
    expected = mixer(x)
    mixer.form = "matmul"
    assert closeness(mixer(x), expected) < 1e-10
