"""Every mixer against its naive float64 definition: outputs and all gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.mixer_cases import CASES, SPECTRAL, build, closeness, image, thorough
from tests.mixer_references import reference_of
from tests.scramble import scramble
from tokenmix.layers import fold_input_norm
from tokenmix.mixers import make_mixer
from tokenmix.mixers.attention_frame import attention_frame
from tokenmix.mixers.metamixer import MetaMixer
from tokenmix.ops import reference

every_case = pytest.mark.parametrize("spec", [thorough(spec) for spec in CASES])
SIZES = [(1, 1), (1, 5), (6, 1), (7, 5), (8, 6), (5, 11)]


def compare(spec: str, size: tuple[int, int], *, dim: int = 12, training: bool = False) -> None:
    mixer = build(spec, dim, training=training)
    x, upstream = image(*size, dim=dim).requires_grad_(), image(*size, dim=dim, seed=1)
    inputs = [x, *mixer.parameters()]
    names = ["input", *(name for name, _ in mixer.named_parameters())]
    expected = reference_of(spec, mixer, x, training=training)
    wanted = torch.autograd.grad((expected * upstream).sum(), inputs, allow_unused=True)
    y = mixer(x)
    got = torch.autograd.grad((y * upstream).sum(), inputs)
    assert closeness(y, expected) < 1e-9
    # A gradient that is zero but for rounding (the shift of a softmax) is measured against the others.
    floor = 1e-3 * max(float(g.abs().max()) for g in wanted if g is not None)
    for name, ours, theirs in zip(names, got, wanted, strict=True):
        assert theirs is not None, f"the reference does not use {name}"
        error = float((ours - theirs).abs().max())
        assert error <= 1e-9 * max(float(theirs.abs().max()), floor), name


@pytest.mark.parametrize(
    ("spec", "size", "training"),
    [
        thorough(spec, size, training, quick=training and size == (7, 5))
        for spec in CASES
        for size in SIZES
        for training in (False, True)
    ],
    ids=str,
)
def test_outputs_and_all_gradients(spec: str, size: tuple[int, int], training: bool) -> None:
    compare(spec, size, training=training)


@pytest.mark.parametrize(
    ("spec", "dim"),  # three groups need not divide
    [thorough(spec, dim) for spec in CASES if "groups=" not in spec for dim in (1, 7, 20)],
)
def test_other_widths(spec: str, dim: int) -> None:
    compare(spec, (4, 5), dim=dim, training=True)


@every_case
@pytest.mark.parametrize("size", [(3, 2), (1, 4)])
def test_gradcheck(spec: str, size: tuple[int, int]) -> None:
    dim = 3 if "groups=3" in spec else 4
    mixer = build(spec, dim, training=True)
    names = [name for name, _ in mixer.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(mixer, dict(zip(names, weights, strict=True)), (x,))

    weights = [p.detach().clone().requires_grad_() for p in mixer.parameters()]
    x = image(*size, dim=dim).requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=True)


@pytest.mark.parametrize("spec", [thorough(spec) for spec in SPECTRAL])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 5), (8, 6), (14, 14), (17, 13)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_matrix_form_equals_fft(spec: str, size: tuple[int, int]) -> None:
    mixer = build(spec)
    results = {}
    for form in ("fft", "matmul", "auto"):
        mixer.form = form
        x = image(*size).requires_grad_()
        y = mixer(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *mixer.parameters()])
        results[form] = [y, *gradients]
    for form in ("matmul", "auto"):
        for ours, theirs in zip(results[form], results["fft"], strict=True):
            assert closeness(ours, theirs) < 1e-10 or (ours - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("form", ["fft", "matmul", "auto"])
@pytest.mark.parametrize("size", [(7, 5), (6, 8), (5, 6), (1, 4), (3, 1)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_aff_is_a_circular_convolution(size: tuple[int, int], form: str) -> None:
    """The convolution theorem: a mask of the spectrum is a kernel of the image's own size, chosen by the image."""
    mixer = build("aff")
    mixer.form = form
    x = image(*size)
    mask = mixer.slots(x)["act"].value
    assert mask.shape == (2, 12, size[0], size[1] // 2 + 1)
    kernel = reference.irfft2(mask, size) / math.sqrt(size[0] * size[1])  # norm="backward"
    assert closeness(kernel, torch.fft.irfft2(mask, s=size, norm="backward")) < 1e-12
    assert closeness(mixer(x), reference.circular_convolution(x, kernel)) < 1e-10


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (4, 8)])
def test_attention_in_the_frame(size: tuple[int, int]) -> None:
    """scaled_dot_product_attention = value(softmax(key(query(x), x)), x)."""
    mixer = build("attention(head_dim=4,qkv_bias=True)")
    frame = attention_frame(mixer)
    assert isinstance(frame, MetaMixer)
    x, y = image(*size).requires_grad_(), image(*size).requires_grad_()
    ours, theirs = mixer(x), frame(y)
    assert closeness(ours, theirs) < 1e-12
    ours.square().sum().backward()
    theirs.square().sum().backward()
    assert closeness(x.grad, y.grad) < 1e-11


def test_the_running_statistics_follow_the_batch() -> None:
    for spec in ("ffnified", "additive"):
        mixer = build(spec, training=True)
        before = {k: v.clone() for k, v in mixer.state_dict().items() if "running" in k}
        assert before, spec
        mixer(image(7, 5))
        after = mixer.state_dict()
        assert all(not torch.equal(before[k], after[k]) for k in before), spec
        mixer.eval()(image(7, 5))
        assert all(torch.equal(after[k], mixer.state_dict()[k]) for k in before), spec


def test_a_static_filter_does_not_see_the_image() -> None:
    static = ("global_filter", "depthwise", "dsm(dynamic=False)", "pool", "identity")
    for spec in (*static, "inception", "partial", "shift", "random"):
        mixer = make_mixer(spec, 12, dtype=torch.float64).eval()
        x, y = image(6, 5), image(6, 5, seed=3)
        zero = mixer(torch.zeros_like(x))
        assert closeness(mixer(x + y) - zero, mixer(x) + mixer(y) - 2 * zero) < 1e-10, spec


@pytest.mark.parametrize("spec", [spec for spec in CASES if hasattr(make_mixer(spec, 12), "fuse")])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 8)])
def test_the_fused_form_equals_the_definition(spec: str, size: tuple[int, int]) -> None:
    mixer = build(spec)
    before = {key: value.clone() for key, value in mixer.state_dict().items()}
    fused = mixer.fuse()
    assert fused is not mixer
    assert closeness(fused(image(*size)), reference_of(spec, mixer, image(*size))) < 1e-10
    assert all(torch.equal(before[key], value) for key, value in mixer.state_dict().items())
    again = fused.fuse() if hasattr(fused, "fuse") else fused
    assert closeness(again(image(*size)), fused(image(*size))) < 1e-12


FOLDS = [
    thorough(spec, quick=True)
    for spec in CASES
    if any(hasattr(make_mixer(spec, 12), name) for name in ("input_layers", "fold_input_norm"))
]


@pytest.mark.parametrize("spec", FOLDS)
def test_folding_a_norm_before_the_mixer(spec: str) -> None:
    mixer = build(spec)
    norm = scramble(nn.BatchNorm2d(12, dtype=torch.float64)).eval()
    folded = mixer.fuse() if hasattr(mixer, "fuse") else build(spec)
    assert fold_input_norm(folded, norm)
    x = image(7, 5)
    assert closeness(folded(x), mixer(norm(x))) < 1e-10
