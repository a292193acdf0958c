"""CAS-ViT: the same function as the official code, its keys, its two classifiers, what it promises as a backbone."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor, nn

from tests import goldens
from tests.mixer_cases import thorough
from tests.official_models import (
    assert_golden,
    assert_golden_float32,
    batch_norms,
    fused_model,
    official_model,
    shapes_of,
)
from tests.scramble import scramble
from tokenmix.backbones import casvit as family
from tokenmix.backbones.base import Backbone
from tokenmix.backbones.casvit import KEYS, casvit, checkpoint_filter_fn, recognise
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.heads.levels import Levels
from tokenmix.layers import DropPath
from tokenmix.mixers import MIXERS

NAMES = [*goldens.names("casvit", "classification"), *goldens.names("casvit", "features")]
every_golden = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ("casvit_t", "casvit_m_fork") else ()) for name in NAMES],
)
TINY = {"depths": (1, 1, 2, 1), "dims": (8, 12, 16, 20), "num_classes": 7}


def tiny(seed: int = 0, **kwargs) -> Backbone:
    return scramble(casvit(**{**TINY, "dtype": torch.float64, **kwargs}), seed).eval()


def image(height: int = 64, width: int = 64, *, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, 3, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


def official_shapes(variant: str, **kwargs) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official checkpoint, from our model without its weights."""
    return shapes_of(KEYS.to_official(timm.create_model(variant, device="meta", **kwargs).state_dict()))


@every_golden
def test_computes_what_the_official_code_computes(name: str) -> None:
    assert_golden(family, name)


@every_golden
def test_computes_it_in_float32(name: str) -> None:
    assert_golden_float32(family, name)


@every_golden
def test_fused_model_keeps_only_the_final_norms(name: str) -> None:
    fused = fused_model(family, name)
    levels = isinstance(fused, Levels)
    assert batch_norms(fused) == ([f"norms.{i}" for i in range(4)] if levels else ["final"])
    if not levels:
        assert isinstance(fused.head, nn.Module)
        assert fused.head.fc_dist is None


@pytest.mark.parametrize(
    ("variant", "params", "one_head"),
    [
        ("casvit_xs", 3_200_700, 2_979_700),
        ("casvit_s", 5_764_224, 5_507_224),
        ("casvit_m", 12_421_520, 12_036_520),
        ("casvit_t", 21_763_120, 21_250_120),
    ],
)
def test_parameters_are_the_published_ones(variant: str, params: int, one_head: int) -> None:
    for kwargs, expected in (({}, params), ({"distillation": False}, one_head)):
        model = timm.create_model(variant, device="meta", **kwargs)
        assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("variant", ["casvit_xs", "casvit_s", "casvit_m", "casvit_t"])
@pytest.mark.parametrize("distillation", [True, False])
def test_recognises_what_it_writes(variant: str, distillation: bool) -> None:
    found = recognise(official_shapes(variant, num_classes=21, in_chans=4, distillation=distillation))
    assert found is not None
    assert (found.variant, found.levels, found.level_norm) == (variant, None, None)
    assert found.model_args == {"in_chans": 4, "num_classes": 21, "distillation": distillation}


def test_foreign_truncated_and_headless_checkpoints() -> None:
    shapes = official_shapes("casvit_xs")
    assert recognise({}) is None
    assert recognise({"patch_embed.0.c.weight": (64, 3, 3, 3)}) is None
    assert recognise({"patch_embed.0.weight": (64, 3, 3, 3), "network.0.0.attn.qkv.weight": (9, 3, 1, 1)}) is None
    assert recognise(dict(list(shapes.items())[: len(shapes) // 2])) is None
    found = recognise({key: shape for key, shape in shapes.items() if "head" not in key})
    assert found is not None
    assert found.model_args == {"in_chans": 3, "num_classes": 0}


def test_gates_of_query_and_key_are_one_gate_of_double_width() -> None:
    model = tiny()
    official = KEYS.to_official(model.state_dict())
    ours = model.stages[2].blocks[1].mixer.op.channel_score.weight
    query, key = (official[f"network.4.1.attn.oper_{part}.1.block.1.weight"] for part in "qk")
    assert torch.equal(ours, torch.cat([query, key]))
    assert KEYS.names("stages.1.downsample.norm.weight") == ["network.1.norm.weight"]


@pytest.mark.parametrize(
    ("name", "size", "crop_pct", "crop_mode"),
    [
        *((f"casvit_{v}", 224, 0.875, "center") for v in "smt"),
        ("casvit_xs.in1k", 224, 0.875, "center"),
        *((f"casvit_{v}.ft_in1k_384", 384, 1.0, "squash") for v in ("xs", "s", "m", "t")),
    ],
)
def test_preprocessing(name: str, size: int, crop_pct: float, crop_mode: str) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.input_size == (3, size, size)
    assert (cfg.crop_pct, cfg.crop_mode, cfg.interpolation) == (crop_pct, crop_mode, "bicubic")
    assert (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not cfg.has_weights
    data = timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict())
    assert (data["crop_pct"], data["crop_mode"]) == (crop_pct, crop_mode)


def test_distillation_gives_the_mean_or_in_training_the_pair() -> None:
    model, x = tiny(), image()
    features = model.forward_features(x).mean((2, 3))
    one, two = model.head.fc(features), model.head.fc_dist(features)
    assert torch.allclose(model(x), (one + two) / 2)
    assert isinstance(model.train()(x), Tensor)
    model.set_distilled_training(True)
    pair = model(x)
    assert [y.shape for y in pair] == [(2, 7), (2, 7)]
    assert not torch.equal(*pair)
    assert isinstance(model.eval()(x), Tensor)
    model.train().set_distilled_training(False)
    assert isinstance(model(x), Tensor)
    fused = reparameterize(model.eval())
    assert torch.allclose(fused(x), model(x))
    assert isinstance(fused.get_classifier(), nn.Linear)
    with pytest.raises(ValueError, match="distillation=True"):
        tiny(distillation=False).set_distilled_training()


def test_timm_distils_with_it() -> None:
    from timm.task import TokenDistillationTask

    student = timm.create_model("casvit_xs", **TINY)
    teacher = timm.create_model("mixernet_pico", depths=(1,) * 4, dims=(8,) * 4, num_classes=7)
    task = TokenDistillationTask(student, teacher, nn.CrossEntropyLoss(), verbose=False)
    loss = task(image(dtype=torch.float32), torch.tensor([0, 1]))["loss"]
    loss.backward()
    assert all(c.weight.grad is not None and c.weight.grad.any() for c in student.get_classifier())


def test_classifiers_are_replaced_together() -> None:
    model = tiny()
    model.reset_classifier(3)
    assert [layer.out_features for layer in model.get_classifier()] == [3, 3]
    assert model(image()).shape == (2, 3)
    model.reset_classifier(0)
    assert model(image()).shape == (2, 20)
    assert timm.create_model("casvit_xs", distillation=False, device="meta").head.fc_dist is None


def test_timm_loads_an_official_file(tmp_path) -> None:
    weights = goldens.state_dict(goldens.load("casvit_xs"))
    torch.save({"model": weights}, tmp_path / "casvit.pth")
    overlay = {"file": str(tmp_path / "casvit.pth")}
    reference = official_model(family, "casvit_xs")

    def load(**kwargs) -> nn.Module:
        return timm.create_model("casvit_xs", pretrained=True, pretrained_cfg_overlay=overlay, **kwargs).double().eval()

    x = image()
    with torch.no_grad():
        assert torch.equal(load()(x), reference(x))
        # One classifier instead of two: their mean, the same function.
        assert torch.allclose(load(distillation=False)(x), reference(x), rtol=1e-5, atol=1e-5)
        assert torch.equal(load(num_classes=0)(x), reference.forward_head(reference.forward_features(x), True))
        assert load(num_classes=5)(x).shape == (2, 5)
        grey = load(in_chans=1)(x[:, :1])
        assert torch.allclose(grey, reference(x[:, :1].expand(-1, 3, -1, -1)), rtol=1e-5, atol=1e-5)
        maps = load(features_only=True)(x)
        expected = reference.forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(maps, expected, strict=True))


def test_filter_passes_our_own_keys() -> None:
    model = tiny()
    own = model.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in checkpoint_filter_fn(own, model).items())
    single = checkpoint_filter_fn(own, tiny(distillation=False))
    assert torch.allclose(single["head.fc.weight"], (own["head.fc.weight"] + own["head.fc_dist.weight"]) / 2)
    assert "head.fc_dist.weight" not in single


def test_initial_weights_have_the_official_distribution() -> None:
    torch.manual_seed(0)
    model = timm.create_model("casvit_s")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert abs(float(module.weight.detach().std()) / 0.02 - 1) < 0.05, name
            assert not module.bias.any(), name
        elif isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            # torch's default: uniform within 1 / sqrt(fan in)
            expected = (3 * module.weight[0].numel()) ** -0.5
            assert abs(float(module.weight.detach().std()) / expected - 1) < 0.05, name


def test_drop_path_rises_linearly_and_spares_the_local_branch() -> None:
    model = tiny(drop_path_rate=0.4)
    rates = [
        [getattr(block[i].drop_path, "rate", 0.0) for i in range(3)] for stage in model.stages for block in stage.blocks
    ]
    assert rates == [[0.0, pytest.approx(i / 10), pytest.approx(i / 10)] for i in range(5)]
    assert not any(isinstance(module, DropPath) for module in tiny().modules())


@pytest.mark.parametrize("mixer", [thorough(mixer) for mixer in MIXERS])
@torch.no_grad()
def test_any_mixer_fits_also_fused(mixer: str) -> None:
    model, x = tiny(mixers=mixer), image(64, 96)
    y = model(x)
    assert y.shape == (2, 7)
    fused = reparameterize(model)
    assert float((fused(x) - y).abs().max() / y.abs().max()) < 1e-10
    again = reparameterize(fused)
    assert all(torch.equal(tensor, fused.state_dict()[key]) for key, tensor in again.state_dict().items())


@torch.no_grad()
def test_the_registered_variant_takes_other_mixers() -> None:
    model = scramble(timm.create_model("casvit_xs", mixers="aff", num_classes=3)).eval()
    assert model(image(64, 64, dtype=torch.float32)).shape == (2, 3)


@pytest.mark.parametrize("name", ["casvit_xs", "casvit_xs_fork"])
def test_a_training_step_reaches_every_parameter(name: str) -> None:
    model = copy.deepcopy(official_model(family, name)).train()
    y = model(image(96, 96))
    loss = sum(part.square().mean() for part in y) if isinstance(y, list) else y.square().mean()
    loss.backward()
    assert bool(torch.isfinite(loss))
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool(parameter.grad.any()), key


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (70, 64)])
@torch.no_grad()
def test_any_size_and_every_way_through(size: tuple[int, int]) -> None:
    model, x = tiny(), image(*size)
    last, maps = model.forward_intermediates(x)
    assert [m.shape[1] for m in maps] == [8, 12, 16, 20]
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    assert maps[2].shape[2:] == tuple(-(-side // 16) for side in size)
    assert torch.equal(model.forward_head(last), model(x))
    normed = model.forward_intermediates(x, 1, norm=True, intermediates_only=True)
    assert torch.equal(normed[0], last)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="same length"):
        casvit((1, 1), (8, 16, 32))
    with pytest.raises(ValueError, match="did you mean 'additive'"):
        casvit(**{**TINY, "mixers": "additiv"})
    with pytest.raises(TypeError, match="layer_scale"):
        timm.create_model("casvit_xs", layer_scale=1.0)
