"""What a mixer says fills its slots is what it computes: the pieces, put together again, are its output."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.mixer_cases import CASES, DIM, build, closeness, image
from tokenmix.mixers import MIXERS
from tokenmix.mixers.bands import band_matrix, carried_by_band

NAMES = {"query", "key", "act", "value"}
SIZES = [(7, 5), (8, 6)]


def pieces(spec: str, size: tuple[int, int], **options: Any) -> tuple[Any, torch.Tensor, dict[str, torch.Tensor]]:
    """The mixer, an image and what fills its slots for it."""
    mixer: Any = build(spec, **options)
    x = image(*size)
    with torch.no_grad():
        return mixer, x, {name: slot.value for name, slot in mixer.slots(x).items()}


@pytest.mark.parametrize("spec", CASES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@torch.no_grad()
def test_the_value_is_what_the_mixer_returns(spec: str, size: tuple[int, int]) -> None:
    mixer: Any = build(spec)
    x = image(*size)
    slots = mixer.slots(x)
    assert closeness(slots["value"].value, mixer(x)) < 1e-12
    height, width = size
    tokens = height * width
    for name, (tensor, kind) in slots.items():
        shape = tuple(tensor.shape)
        half = (height, width // 2 + 1)
        ends = {"fourier": half, "filter": half, "attention": (tokens, tokens)}.get(kind, (height, width))
        assert kind == "gates" or shape[-2:] == ends, (name, kind, shape)
        assert len(shape) == (3 if kind == "gates" else 4), (name, shape)
        assert tensor.is_complex() == (kind in ("fourier", "filter"))
        assert torch.isfinite(torch.view_as_real(tensor) if tensor.is_complex() else tensor).all()


@pytest.mark.parametrize("name", MIXERS)
def test_a_slot_is_left_out_exactly_where_it_does_nothing(name: str) -> None:
    """By the table of the mixers; of a matrix between the pixels the key would be the same once more."""
    _, _, slots = pieces(name, SIZES[0])
    info = MIXERS[name]
    silent = {slot for slot in ("query", "key", "act") if getattr(info, slot) == "identity"}
    given = NAMES & set(slots)
    extra = {"random": {"key"}, "selective_scan": {"key"}}.get(name, set())
    assert given == NAMES - silent - extra


def test_filter_is_mask_times_spectrum() -> None:
    _, x, slots = pieces("aff", SIZES[0])
    assert closeness(torch.view_as_real(slots["query"]), torch.view_as_real(torch.fft.rfft2(x, norm="ortho"))) < 1e-12
    shrunk = torch.complex(F.softshrink(slots["key"].real, 0.01), F.softshrink(slots["key"].imag, 0.01))
    assert torch.equal(slots["act"], shrunk)
    back = torch.fft.irfft2(slots["act"] * slots["query"], s=SIZES[0], norm="ortho")
    assert closeness(back, slots["value"]) < 1e-12


@pytest.mark.parametrize("spec", ["attention(head_dim=4,qkv_bias=True)", "window(window=3,shift=1,head_dim=4)"])
@torch.no_grad()
def test_attention_maps_weigh_the_values(spec: str) -> None:
    mixer, x, slots = pieces(spec, SIZES[0])
    weights = slots["act"]
    assert torch.allclose(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    values = mixer.qkv(x)[:, 2 * DIM :].flatten(2).unflatten(1, (mixer.heads, -1))
    mixed = (values @ weights.transpose(-1, -2)).reshape(x.shape)
    assert closeness(mixer.proj(mixed), slots["value"]) < 1e-12


@torch.no_grad()
def test_scans_are_one_matrix_between_the_pixels() -> None:
    """Changing one pixel of u changes the sum of the scans by that column of the matrix."""
    mixer, _, slots = pieces("selective_scan(state=3,head_dim=4)", SIZES[0])
    act = slots["act"]
    assert act.shape[1] == mixer.heads
    assert (act.diagonal(dim1=-2, dim2=-1).abs() > 0).all()


@torch.no_grad()
def test_bands_of_dsm_are_the_mask() -> None:
    mixer, x, slots = pieces("dsm", SIZES[1])
    height, width = SIZES[1]
    rows, columns = (band_matrix(n, mixer.nodes, dtype=x.dtype) for n in (height, width))
    gates = slots["act"].unflatten(1, (mixer.nodes, mixer.nodes))  # (B, k, l, C)
    mask = torch.einsum("hk,wl,bklc->bchw", rows, columns, gates)
    assert closeness(mask, slots["mask"]) < 1e-12
    v = mixer.value(x)
    y = carried_by_band(slots["query"], slots["act"], mixer.nodes).sum(1) + mixer.local(v)
    assert closeness(mixer.out(y), slots["value"]) < 1e-12


@torch.no_grad()
def test_static_interactions_are_the_parts_themselves() -> None:
    mixer, x, slots = pieces("ffnified", SIZES[0])
    assert torch.equal(slots["query"], mixer.query(x))
    assert closeness(mixer.value.op(F.gelu(mixer.key.op(slots["query"]))), slots["value"]) < 1e-12


@torch.no_grad()
def test_both_gates_of_additive_attention_make_the_key() -> None:
    mixer, x, slots = pieces("additive", SIZES[0])
    query_key = mixer.qkv(x)[:, : 2 * DIM].unflatten(1, (2, DIM))
    spatial, channel = slots["spatial_gate"][:, :, None], slots["channel_gate"][..., None, None]
    key = (query_key * spatial * channel).sum(1)
    assert closeness(key, slots["key"]) < 1e-12
    value = mixer.qkv(x)[:, 2 * DIM :]
    assert closeness(mixer.proj(mixer.dwc(key) * value), slots["value"]) < 1e-12


def test_without_a_batch_norm_of_one_pixel() -> None:
    for spec in ("aff", "dsm", "attention", "additive", "window"):
        mixer: Any = build(spec)
        with torch.no_grad():
            assert closeness(mixer.slots(image(1, 1))["value"].value, mixer(image(1, 1))) < 1e-12
