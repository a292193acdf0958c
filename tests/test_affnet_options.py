"""AFFNet's options and forms: each does what it says, and the fused form computes the same."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.mixer_cases import thorough
from tests.scramble import scramble
from tokenmix.backbones.affnet import NORMS, PixelNorm, affnet
from tokenmix.backbones.base import Backbone
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.mixers import MIXERS
from tokenmix.mixers.frequency import FrequencyFilter

TINY = {"depths": (1, 2, 1, 2, 1), "dims": (8, 16, 16, 24, 32), "num_classes": 7}


def tiny(seed: int = 0, **kwargs) -> Backbone:
    return scramble(affnet(**{**TINY, "dtype": torch.float64, **kwargs}), seed).eval()


def image(height: int, width: int, *, chans: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, chans, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("norm", "act"), [*itertools.product(NORMS, ["silu"]), ("batch", "prelu")])
@torch.no_grad()
def test_fused_form_is_equal(norm: str, act: str) -> None:
    model, x = tiny(norm=norm, act=act), image(64, 96)
    before = copy.deepcopy(model.state_dict())
    fast = reparameterize(model)
    expected = model(x)
    assert ((fast(x) - expected).abs().max() / expected.abs().max()).item() < 1e-10
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    left = [name for name, module in fast.named_modules() if isinstance(module, nn.BatchNorm2d)]
    # What a mixing layer's norm returns is read twice, by an operation and by its skip.
    assert all(name.endswith((".norm1", ".norm2")) for name in left)
    assert len(left) == (2 * sum(TINY["depths"][2:]) if norm == "batch" else 0)
    again = reparameterize(fast)
    assert again.state_dict().keys() == fast.state_dict().keys()
    assert torch.equal(again(x), fast(x))


@given(height=st.integers(1, 75), width=st.integers(1, 75))
@settings(max_examples=6, deadline=None)
def test_any_size(height: int, width: int) -> None:
    with torch.no_grad():
        levels = tiny().forward_intermediates(image(height, width), intermediates_only=True)
    for level, stride in zip(levels, (2, 4, 8, 16, 32), strict=True):
        assert level.shape[2:] == (-(-height // stride), -(-width // stride))
        assert level.isfinite().all()


@pytest.mark.parametrize(("output_stride", "last", "dilations"), [(32, 2, (1, 1)), (16, 4, (1, 1)), (8, 8, (1, 2))])
@torch.no_grad()
def test_output_stride(output_stride: int, last: int, dilations: tuple[int, int]) -> None:
    model = tiny(output_stride=output_stride)
    assert model.forward_features(image(64, 64)).shape == (2, 128, last, last)
    assert model.feature_info[-1]["reduction"] == output_stride
    convs = [stage.downsample.depthwise.conv for stage in model.stages[3:]]
    assert [conv.dilation[0] for conv in convs] == list(dilations)
    assert [conv.stride[0] for conv in convs] == [2 if output_stride > 8 else 1, 2 if output_stride > 16 else 1]


@pytest.mark.parametrize("name", [thorough(name) for name in sorted(MIXERS)])
@torch.no_grad()
def test_takes_any_mixer(name: str) -> None:
    model = tiny(mixers=name)
    assert model(image(48, 64)).isfinite().all()
    assert type(model.stages[4].blocks[0].chain[0].mixer) is type(
        tiny(mixers=[name] * 3).stages[2].blocks[0].chain[0].mixer
    )


def test_only_the_default_mixer_follows_the_network() -> None:
    model = tiny(mixers="aff,aff(threshold=0.3),pool", act="prelu", threshold=0.2)
    first, second = (model.stages[i].blocks[0].chain[0].mixer for i in (2, 3))
    assert isinstance(first, FrequencyFilter)
    assert (first.threshold, second.threshold) == (0.2, 0.3)
    assert {n for n, _ in first.named_parameters()} - {n for n, _ in second.named_parameters()} == {
        "act.weight",
        "act2.weight",
    }


@torch.no_grad()
def test_options_change_the_function() -> None:
    x, base = image(64, 64), tiny()
    for option in ({"norm": "layer"}, {"act": "relu"}, {"threshold": 0.5}):
        other = tiny(**option)
        other.load_state_dict(base.state_dict())
        assert not torch.allclose(other(x), base(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"norm": "grup"}, "did you mean 'group'"),
        ({"act": "slu"}, "did you mean 'silu'"),
        ({"output_stride": 4}, "8, 16 or 32"),
        ({"depths": (1, 2, 3)}, "five entries"),
        ({"depths": (1, 2, 0, 1, 1)}, "at least 1"),
        ({"fusion": (True,)}, "three entries"),
        ({"mixers": "aff,aff"}, "3 stages"),
    ],
)
def test_mistakes_are_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        affnet(**{**TINY, **option}, device="meta")


def test_pixel_norm_adds_eps_to_the_deviation() -> None:
    norm = scramble(PixelNorm(5, dtype=torch.float64))
    x = image(3, 4, chans=5)
    x[0, :, 0, 0] = 0.7  # no deviation at all
    x.requires_grad_()
    y = norm(x)
    for b, i, j in itertools.product(range(2), range(3), range(4)):
        pixel = x[b, :, i, j]
        centred = pixel - pixel.mean()
        expected = centred / (centred.square().mean().sqrt() + 1e-5) * norm.weight + norm.bias
        torch.testing.assert_close(y[b, :, i, j], expected, rtol=1e-12, atol=1e-12)
    y.square().sum().backward()
    assert x.grad.isfinite().all()


def test_drop_path_acts_in_training_only() -> None:
    model, x = tiny(drop_path_rate=0.5), image(64, 64)
    assert torch.equal(model(x), tiny()(x))
    block = model.stages[4].blocks[0].chain[0].train()
    batch = image(4, 4, chans=32).repeat(8, 1, 1, 1)
    dropped = (block(batch) - batch).flatten(1).abs().amax(1) == 0
    assert 0 < int(dropped.sum()) < len(batch)
