"""DSM, the reconstruction: its documented counts, options and initial weights, and what it promises as a backbone."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests import goldens
from tests.mixer_cases import thorough
from tests.scramble import scramble
from tokenmix.backbones import dsm as family
from tokenmix.backbones.base import Backbone
from tokenmix.backbones.dsm import dsm
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.mixers import MIXERS
from tokenmix.mixers.spectrum import SpectrumMixer

PARAMS = {"dsm_ti": 13_036_616, "dsm_t": 27_642_040, "dsm_s": 46_876_600, "dsm_b": 82_807_720}
GMACS = {"dsm_ti": (1.96, 0.13), "dsm_t": (4.14, 0.20), "dsm_s": (7.69, 0.25), "dsm_b": (13.53, 0.33)}
TINY = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "num_classes": 7}


def tiny(seed: int = 0, **kwargs) -> Backbone:
    return scramble(dsm(**{**TINY, "dtype": torch.float64, **kwargs}), seed).eval()


def image(height: int, width: int, *, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def transform_macs(model: nn.Module, size: int) -> float:
    """Multiply-adds of all cosine transforms of one image, from the sizes of the four stages."""
    return sum(
        module.transform_macs(size // stride, size // stride)
        for stage, stride in zip(model.stages, (4, 8, 16, 32), strict=True)
        for module in stage.modules()
        if isinstance(module, SpectrumMixer)
    )


@pytest.mark.parametrize("variant", sorted(PARAMS))
def test_counts_are_the_documented_ones(variant: str) -> None:
    model = timm.create_model(variant, device="meta").eval()
    assert sum(p.numel() for p in model.parameters()) == PARAMS[variant]
    total, share = GMACS[variant]
    transforms = transform_macs(model, 224) / 1e9
    assert transforms == pytest.approx(share, abs=6e-3)
    assert goldens.macs(model, (1, 3, 224, 224)) / 1e9 + transforms == pytest.approx(total, abs=6e-3)


@pytest.mark.parametrize(("layer_scale", "more"), [(None, 0), (1e-5, 2 * 64)])
def test_parameters_of_a_block(layer_scale: float | None, more: int) -> None:
    block = dsm(**{**TINY, "dims": (8, 16, 64, 32)}, device="meta", layer_scale=layer_scale).stages[2].blocks[0]
    assert sum(p.numel() for p in block.parameters()) == 10.75 * 64**2 + 42.25 * 64 + more


def test_says_that_it_is_a_reconstruction() -> None:
    for text in (family.__doc__, dsm.__doc__, *(getattr(family, name).__doc__ for name in PARAMS)):
        assert "econstruction" in text
    for variant in PARAMS:
        cfg = timm.models.get_pretrained_cfg(variant)
        assert "reconstructed" in cfg.paper_name
        assert not cfg.has_weights
        assert (cfg.input_size, cfg.crop_pct, cfg.interpolation) == ((3, 224, 224), 0.9, "bicubic")


@torch.no_grad()
def test_is_the_documented_network() -> None:
    model, x = tiny(layer_scale=0.3), image(64, 96)

    def norm(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        x = x.movedim(1, -1)
        return nn.functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, 1e-6).movedim(-1, 1)

    y = norm(model.stem[1], nn.functional.conv2d(x, model.stem[0].weight, model.stem[0].bias, 4, 3))
    for i, stage in enumerate(model.stages):
        if i:
            conv, after = stage.downsample
            y = norm(after, nn.functional.conv2d(y, conv.weight, conv.bias, 2, 1))
        for block in stage.blocks:
            mixer, mlp = block
            y = y + mixer.scale[:, None, None] * mixer.op(norm(mixer.norm, y))
            hidden = nn.functional.gelu(mlp.op.fc1(norm(mlp.norm, y)))
            y = y + mlp.scale[:, None, None] * mlp.op.fc2(hidden)
    expected = model.head.fc(norm(model.head.norm, y.mean((2, 3))))
    torch.testing.assert_close(model(x), expected, rtol=1e-11, atol=1e-11)


def test_options() -> None:
    def names(**kwargs) -> set[str]:
        return {name for name, _ in dsm(**TINY, **kwargs, device="meta").named_parameters()}

    full, static, plain = names(), names(dynamic=False), names(local=False)
    assert static < full
    assert all(".mixer.op.generator." in name for name in full - static)
    assert not any("generator" in name for name in static)
    assert full - plain == {name for name in full if ".mixer.op.local." in name} != set()
    assert names(gate="sigmoid") == full
    wide = dsm(**TINY, nodes=3, reduction=2, device="meta").stages[3].blocks[0].mixer.op
    assert wide.embedding.shape == (9, 32)
    assert wide.generator.fc1.weight.shape[0] == 16


@torch.no_grad()
def test_options_change_the_function() -> None:
    x, base = image(64, 64), tiny()
    sigmoid = tiny(gate="sigmoid")
    sigmoid.load_state_dict(base.state_dict())
    assert not torch.allclose(sigmoid(x), base(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"gate": "softmx"}, "softmax"), ({"depths": (1, 2)}, "same length"), ({"mixers": "dms"}, "did you mean 'dsm'")],
)
def test_mistakes_are_named(option: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dsm(**{**TINY, **option}, device="meta")


@given(height=st.integers(1, 75), width=st.integers(1, 75))
@settings(max_examples=6, deadline=None)
def test_any_size(height: int, width: int) -> None:
    with torch.no_grad():
        levels = tiny().forward_intermediates(image(height, width), intermediates_only=True)
    rows, columns = (height - 1) // 4 + 1, (width - 1) // 4 + 1
    for level in levels:
        assert level.shape[2:] == (rows, columns)
        assert level.isfinite().all()
        rows, columns = (rows - 1) // 2 + 1, (columns - 1) // 2 + 1


@pytest.mark.parametrize("options", [{}, {"layer_scale": 0.2}, {"dynamic": False, "local": False}])
@torch.no_grad()
def test_inference_form_is_equal(options: dict) -> None:
    model, x = tiny(**options), image(64, 96)
    before = copy.deepcopy(model.state_dict())
    expected = model(x)
    for fold in (False, True):
        fast = reparameterize(model, fold_layer_scale=fold)
        assert ((fast(x) - expected).abs().max() / expected.abs().max()).item() < 1e-10
        assert any(name.endswith(".scale") for name in fast.state_dict()) == ("layer_scale" in options and not fold)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", [thorough(name) for name in sorted(MIXERS)])
@torch.no_grad()
def test_takes_any_mixer(name: str) -> None:
    assert tiny(mixers=name)(image(48, 64)).isfinite().all()


def test_only_the_default_mixer_gets_the_options() -> None:
    model = dsm(**TINY, mixers="dsm,dsm(nodes=5),pool,aff", nodes=2, device="meta")
    first, second = (model.stages[i].blocks[0].mixer.op for i in (0, 1))
    assert (first.embedding.shape[0], second.embedding.shape[0]) == (4, 25)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = timm.create_model("dsm_ti")
    for name, parameter in model.named_parameters():
        tensor = parameter.detach()
        if name.endswith("embedding"):
            assert tensor.std().item() == pytest.approx(0.5, rel=0.05), name
        elif tensor.ndim == 1:
            is_norm = name.endswith("weight")
            assert (tensor == (1 if is_norm else 0)).all(), name
        elif tensor.numel() >= 2000:
            assert tensor.std().item() == pytest.approx(0.02, rel=0.05), name
    scaled = timm.create_model("dsm_s", depths=(1, 1, 1, 1), dims=TINY["dims"])
    assert all((p == 1e-5).all() for n, p in scaled.named_parameters() if n.endswith(".scale"))


def test_a_training_step_reaches_every_parameter() -> None:
    model = tiny(layer_scale=0.3, num_classes=10).train()
    loss = nn.functional.cross_entropy(model(image(64, 64)), torch.tensor([3, 7]))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
