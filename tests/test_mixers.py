"""What every mixer promises, whatever it computes: a new entry of the dict is tested by being there."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.mixer_cases import CASES, DIM, SPECTRAL, VARIANTS, build, closeness, image, state_shapes, thorough
from tokenmix.mixers import MIXERS, make_mixer
from tokenmix.tasks.forecasting.mixers import SERIES_MIXERS

every_case = pytest.mark.parametrize("spec", [thorough(spec, quick=spec not in VARIANTS) for spec in CASES])
in_time = pytest.mark.parametrize("spec", [thorough(spec) for spec in CASES])
SIZES = [(1, 1), (1, 5), (6, 1), (2, 2), (7, 5), (11, 13), (8, 14)]


def test_every_entry_is_a_case() -> None:
    assert set(MIXERS) <= set(CASES)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_shape_and_dtype(spec: str, dtype: torch.dtype) -> None:
    mixer = build(spec, dtype=dtype)
    for size in SIZES:
        x = image(*size, dtype=dtype)
        y = mixer(x)
        assert y.shape == x.shape
        assert y.dtype == dtype
        assert y.isfinite().all(), size


@in_time
@given(batch=st.integers(1, 3), height=st.integers(1, 17), width=st.integers(1, 17))
@settings(max_examples=6, deadline=None)
def test_any_size_forward_and_backward(spec: str, batch: int, height: int, width: int) -> None:
    mixer = build(spec, training=batch * height * width > 1)
    x = image(height, width, batch=batch).requires_grad_()
    y = mixer(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    y.square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("spec", "dim"), [thorough(spec, dim, quick=dim < 6) for spec in sorted(MIXERS) for dim in (1, 2, 3, 6, 7, 220)]
)
def test_any_width_works(spec: str, dim: int) -> None:
    mixer = build(spec, dim)
    x = image(5, 4, dim=dim, batch=1)
    y = mixer(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


@every_case
def test_images_of_a_batch_do_not_meet(spec: str) -> None:
    mixer = build(spec)
    x = image(7, 6, batch=3)
    assert closeness(mixer(x), torch.cat([mixer(one) for one in x.split(1)])) < 1e-12


@every_case
def test_channels_last_equals_contiguous(spec: str) -> None:
    mixer = build(spec, training=True)
    x = image(6, 7)
    last = x.to(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    assert closeness(copy.deepcopy(mixer)(last), copy.deepcopy(mixer)(x)) < 1e-12
    strided = torch.cat([x, x], 1)[:, ::2]
    assert closeness(mixer.eval()(strided), mixer(strided.contiguous())) < 1e-12


@in_time
def test_leaves_its_input_alone(spec: str) -> None:
    x = image(5, 6)
    before = x.clone()
    build(spec, training=True)(x)
    assert torch.equal(x, before)


@every_case
def test_every_weight_moves_the_output(spec: str) -> None:
    mixer = build(spec, training=True)
    x = image(7, 6).requires_grad_()
    (mixer(x) * image(7, 6, seed=5)).sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        if parameter.ndim > 1:  # a bias may fall out, under a softmax or before a batch norm
            assert parameter.grad.abs().max() > 1e-12, name


@every_case
def test_state_is_free_of_the_image_size(spec: str) -> None:
    mixer = build(spec)
    fresh = state_shapes(mixer)
    for size in ((4, 5), (9, 8)):
        mixer(image(*size))
        assert state_shapes(mixer) == fresh
    again = build(spec, seed=1)
    again.load_state_dict(mixer.state_dict())
    assert torch.equal(again(image(6, 6)), mixer(image(6, 6)))


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_modules(spec: str, dtype: torch.dtype) -> None:
    mixer = build(spec, dtype=torch.float32).to(dtype)
    expected = copy.deepcopy(mixer).double()
    for size in ((7, 6), (1, 1), (8, 8)):
        x = image(*size, dtype=dtype)
        y = mixer(x)
        assert y.dtype == dtype
        assert y.isfinite().all()
        assert closeness(y.double(), expected(x.double())) < (0.08 if dtype == torch.bfloat16 else 0.01)


@in_time
def test_half_precision_trains(spec: str) -> None:
    mixer = build(spec, dtype=torch.bfloat16, training=True)
    x = image(7, 6, dtype=torch.bfloat16).requires_grad_()
    mixer(x).float().square().mean().backward()
    for tensor in (x, *mixer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.bfloat16
        assert tensor.grad.isfinite().all()


@in_time
@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_autocast(spec: str, training: bool) -> None:
    mixer = build(spec, dtype=torch.float32, training=training)
    x = image(7, 6, dtype=torch.float32).requires_grad_()
    expected = copy.deepcopy(mixer)(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = mixer(x)
    assert y.isfinite().all()
    assert closeness(y.float(), expected) < 0.08
    y.float().square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@in_time
def test_dtype_changes_leave_nothing_stale(spec: str) -> None:
    mixer = build(spec, dtype=torch.float32)
    x = image(7, 6)
    mixer(x.float())
    wide = copy.deepcopy(mixer).double()
    assert closeness(mixer.double()(x), wide(x)) == 0
    fresh = make_mixer(spec, DIM, dtype=torch.float64).eval()
    fresh.load_state_dict(mixer.state_dict())
    assert closeness(mixer(x), fresh(x)) < 1e-12


@every_case
def test_meta_device(spec: str) -> None:
    mixer = make_mixer(spec, DIM, device="meta", dtype=torch.bfloat16)
    for name, tensor in (*mixer.named_parameters(), *mixer.named_buffers()):
        assert tensor.is_meta, name
        assert tensor.dtype == torch.bfloat16 or not tensor.is_floating_point(), name
    y = mixer.eval()(torch.empty(2, DIM, 7, 6, device="meta", dtype=torch.bfloat16))
    assert y.is_meta
    assert y.shape == (2, DIM, 7, 6)
    assert y.dtype == torch.bfloat16


@in_time
def test_meta_then_real_weights(spec: str) -> None:
    real = build(spec)
    mixer = make_mixer(spec, DIM, device="meta", dtype=torch.float64).eval()
    mixer(torch.empty(1, DIM, 7, 6, device="meta", dtype=torch.float64))
    mixer.to_empty(device="cpu").load_state_dict(real.state_dict())
    assert torch.equal(mixer(image(7, 6)), real(image(7, 6)))


@in_time
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies(spec: str, duplicate) -> None:
    mixer = build(spec)
    x = image(7, 6)
    y = mixer(x)
    twin = duplicate(mixer)
    assert torch.equal(twin(x), y)
    assert torch.equal(twin(image(4, 9)), mixer(image(4, 9)))


@in_time
def test_training_after_inference_mode(spec: str) -> None:
    mixer = build(spec)
    for form in ("auto", "fft", "matmul") if spec in SPECTRAL else ("",):
        if form:
            mixer.form = form
        for size in ((20 + CASES.index(spec), 5), (7, 2)):  # the first: a size whose constants no other test has kept
            with torch.inference_mode():
                mixer.eval()(image(*size))
            x = image(*size).requires_grad_()
            mixer.train()(x).square().mean().backward()
            assert x.grad is not None


@in_time
def test_is_deterministic_and_keeps_no_state(spec: str) -> None:
    mixer = build(spec)
    x = image(7, 6)
    first = mixer(x)
    mixer(image(3, 8))
    assert torch.equal(mixer(x), first)


def test_no_mixer_is_a_container_of_surprises() -> None:
    for name in MIXERS:
        mixer = make_mixer(name, DIM)
        assert isinstance(mixer, nn.Module)
        assert not any(isinstance(m, nn.Dropout) for m in mixer.modules()), name


@pytest.mark.parametrize("threshold", [-0.01, float("nan")])
def test_a_threshold_that_shrinks_nothing_is_refused(threshold: float) -> None:
    for build_one in (MIXERS["aff"].build, MIXERS["afno"].build, SERIES_MIXERS["aff"].build):
        with pytest.raises(ValueError, match="must be 0 or more, not"):
            build_one(8, threshold=threshold)
