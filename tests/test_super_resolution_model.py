"""FFNet-SR: the same function as the official code, its keys, and its trunk with every mixer of the house."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests import goldens
from tests.counts import count
from tests.mixer_cases import thorough
from tests.official_models import macs, shapes_of
from tests.scramble import scramble
from tokenmix.backbones.official import unwrap
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.mixers import MIXERS
from tokenmix.tasks.super_resolution.model import (
    KEYS,
    Upscaler,
    checkpoint_filter_fn,
    create_upscaler,
    per_block,
    recognise,
    upscaler,
)

SLOW = ("ffnet_sr_light_ln",)
NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
    for name in goldens.names(task="super_resolution")
]


def official(name: str) -> Upscaler:
    """The model of a golden file, built from what its checkpoint tells."""
    weights = goldens.state_dict(goldens.load(name))
    found = recognise(shapes_of(weights))
    assert found is not None
    model = create_upscaler(found.variant, **found.model_args).eval()
    model.load_state_dict(checkpoint_filter_fn(weights, model))
    return model


def tiny(seed: int = 0, **kwargs) -> Upscaler:
    model = upscaler(**{"dim": 8, "depth": 2, "dtype": torch.float64, **kwargs})
    scramble(model, seed)
    return model.eval()


def image(height: int = 9, width: int = 12, *, chans: int = 3) -> torch.Tensor:
    return torch.rand(2, chans, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_computes_what_the_official_code_computes(name: str) -> None:
    golden, model = goldens.load(name), official(name)
    x = goldens.inputs(golden)
    goldens.assert_matches(model(x), golden["output"], torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    assert macs(model, golden) == golden["macs"]
    weights = goldens.state_dict(golden)
    back = KEYS.to_official(model.state_dict())
    assert list(back) == list(weights)
    assert all(torch.equal(back[key], tensor) for key, tensor in weights.items())
    goldens.assert_matches(model.double()(x.double()), golden["output"], torch.float64)
    count("goldens", name)


def functional(model: Upscaler, x: torch.Tensor, ratio: float, norm: str) -> torch.Tensor:
    """The network written out plainly over its official checkpoint."""
    weights = KEYS.to_official(model.state_dict())

    def layer(name: str, y: torch.Tensor) -> torch.Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if f"{name}.running_mean" in weights:
            mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
            return nn.functional.batch_norm(y, mean, var, weight, bias)
        if weight.ndim == 1:
            y = (y - y.mean(1, keepdim=True)) / (y.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
            return y * weight[:, None, None] + bias[:, None, None]
        groups = y.shape[1] // weight.shape[1]
        return nn.functional.conv2d(y, weight, bias, padding=weight.shape[-1] // 2, groups=groups)

    y = layer("proj", x)
    orders = {"none": ((0, 1, "gelu", 3), (0, 1, "gelu", 3)), "layer": ((0, 1, 2, "gelu", 4),) * 2}
    orders["batch"] = orders["layer"]
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("body."))
    for block in range(depth):
        for name, order in zip(("token_mixer", "channel_mixer"), orders[norm], strict=True):
            z = y
            for step in order:
                z = nn.functional.gelu(z) if step == "gelu" else layer(f"body.{block}.{name}.{step}", z)
            y = y + z
    y = layer("conv_bef_up", y)
    scale = model.scale
    batch, chans, height, width = x.shape
    out = torch.zeros(batch, chans, height * scale, width * scale, dtype=x.dtype)
    for i in range(scale):
        for j in range(scale):
            out[:, :, i::scale, j::scale] = y[:, i * scale + j :: scale * scale] + x
    return out


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize(("scale", "ratio", "chans"), [(1, 1.5, 3), (2, 2.0, 1), (3, 2.7, 3), (4, 4.0, 4)])
def test_options_are_the_official_ones(norm: str, scale: int, ratio: float, chans: int) -> None:
    model = tiny(norm=norm, scale=scale, mlp_ratio=ratio, in_chans=chans, depth=3)
    x = image(7, 5, chans=chans)
    with torch.no_grad():
        assert torch.allclose(model(x), functional(model, x, ratio, norm), rtol=0, atol=1e-12)
    shapes = shapes_of(KEYS.to_official(model.state_dict()))
    found = recognise(shapes)
    assert found is not None
    again = create_upscaler(found.variant, **found.model_args, device="meta")
    assert shapes_of(again.state_dict()) == shapes_of(model.state_dict())
    assert again.scale == scale


def test_recognises_published_files_and_no_others() -> None:
    light = create_upscaler("ffnet_sr_light", scale=4, device="meta")
    found = recognise(shapes_of(KEYS.to_official(light.state_dict())))
    assert found is not None
    assert (found.variant, found.model_args) == ("ffnet_sr_light", {"scale": 4, "in_chans": 3})
    assert recognise({}) is None
    assert recognise({"proj.weight": (96, 3, 3, 3), "conv_bef_up.weight": (12, 96, 3, 3)}) is None


def test_filter_takes_off_basicsrs_wrapper_and_prefers_averaged_weights() -> None:
    model = tiny()
    weights = KEYS.to_official(model.state_dict())
    zeros = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
    found = checkpoint_filter_fn({"params": zeros, "params_ema": weights}, model)
    assert all(torch.equal(found[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(
        bool(tensor.any()) for tensor in unwrap({"params": zeros, "params_ema": weights}, ema=False).values()
    )
    own = model.state_dict()
    assert checkpoint_filter_fn(own, model).keys() == own.keys()


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_inference_form_is_equal(norm: str) -> None:
    model = tiny(norm=norm)
    fast = reparameterize(model)
    with torch.no_grad():
        assert torch.allclose(fast(image()), model(image()), rtol=0, atol=1e-11)
    norms = [part for part in fast.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms == []
    assert json.dumps(sorted(reparameterize(fast).state_dict())) == json.dumps(sorted(fast.state_dict()))


@pytest.mark.parametrize("mixer", [thorough(mixer) for mixer in sorted(MIXERS)])
def test_any_mixer_in_the_trunk(mixer: str) -> None:
    for norm in ("none", "batch"):
        model = tiny(mixers=mixer, norm=norm).train()
        y = model(image())
        assert y.shape == (2, 3, 18, 24)
        y.sum().backward()
        lost = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert lost == []
        model.eval()
        with torch.no_grad():
            difference = reparameterize(model)(image()) - model(image())
        assert float(difference.abs().max()) < 1e-9


def test_a_mixer_for_each_block() -> None:
    model = tiny(mixers="aff, pool", depth=4)
    kinds = [type(block.mixer.op).__name__ for block in model.blocks]
    assert kinds == ["FrequencyFilter", "Pooling"] * 2
    assert per_block(["aff", "dsm(gate='sigmoid')"], 2) == ["aff", "dsm(gate='sigmoid')"]
    with pytest.raises(ValueError, match="3 mixers given for 4 blocks"):
        upscaler(8, 4, mixers="aff,pool,aff")
    with pytest.raises(KeyError, match="no official name"):
        KEYS.to_official(tiny(mixers="attention").state_dict())


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ValueError, match="did you mean 'ffnet_sr_light'"):
        create_upscaler("ffnet_sr_lite")
    with pytest.raises(ValueError, match="unknown norm 'group'"):
        upscaler(8, 1, norm="group")
    with pytest.raises(ValueError, match="scale of an upscaler must be at least 1, not 0"):
        upscaler(8, 1, scale=0)
    with pytest.raises(ValueError, match="unknown query of ffnified 'biases'; did you mean 'bias'"):
        upscaler(8, 1, mixers="ffnified(query='biases')")


def test_starts_as_torch_does_and_learns_one_picture() -> None:
    torch.manual_seed(0)
    model, x = upscaler(16, 2), image().float()
    target = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = (model(x) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
