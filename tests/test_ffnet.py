"""FFNet: the same function as the official code, its keys and addresses, and what it promises as a backbone."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import timm
import torch
from torch import nn

from tests import goldens
from tests.mixer_cases import thorough
from tests.official_models import (
    assert_golden,
    assert_golden_float32,
    batch_norms,
    fused_model,
    macs,
    official_model,
    run,
    shapes_of,
)
from tests.scramble import scramble
from tokenmix.backbones import ffnet as family
from tokenmix.backbones.base import Backbone
from tokenmix.backbones.ffnet import KEYS, checkpoint_filter_fn, ffnet, recognise, strip_ffnet
from tokenmix.backbones.reparameterize import reparameterize
from tokenmix.blocks import Residual
from tokenmix.heads.levels import Levels
from tokenmix.layers import DropPath
from tokenmix.mixers import MIXERS

NAMES = [*goldens.names("ffnet", "classification"), *goldens.names("ffnet", "features")]
FAST = ("ffnet_1", "ffnet_2", "ffnet_1_mmdet_backbone", "ffnet_sys_pretrain")


def every_golden(fast: tuple[str, ...]) -> pytest.MarkDecorator:
    params = [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in NAMES]
    return pytest.mark.parametrize("name", params)


TINY = {"depths": (1, 1, 2, 1), "dims": (8, 16, 32, 64), "stem_dim": 8, "num_classes": 7}
RELEASES = "https://github.com/ysj9909/FFNet/releases/download/v1.0/"
# Where the fused model has the official fused weights that the golden files sample.
FUSED_KEYS = {
    "patch_embed.0.weight": "stem.0.0.weight",
    "patch_embed.2.weight": "stem.1.weight",
    "stages.1.0.proj.0.weight": "stages.1.downsample.depthwise.weight",
    "stages.1.0.proj.1.weight": "stages.1.downsample.pointwise.weight",
    "stages.2.1.token_mixer.0.main.fc.weight": "stages.2.blocks.0.mixer.op.query.weight",
    "stages.2.1.token_mixer.0.main.conv1.weight": "stages.2.blocks.0.mixer.op.key.op.weight",
}
FUSED_KEYS_SEG = {
    "patch_embed.0.weight": "stem.0.0.weight",
    "patch_embed.2.weight": "stem.1.0.weight",
    "patch_embed.4.weight": "stem.2.weight",
    "patch_embed.5.weight": "stem.3.weight",
    "stages.1.0.proj.0.weight": "stages.1.downsample.expand.0.weight",
    "stages.1.0.proj.2.weight": "stages.1.downsample.project.weight",
}


def tiny(build=ffnet, seed: int = 0, **kwargs) -> Backbone:
    return scramble(build(**{**TINY, "dtype": torch.float64, **kwargs}), seed).eval()


def image(height: int = 64, width: int = 64, *, chans: int = 3, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, chans, height, width, dtype=dtype, generator=torch.Generator().manual_seed(1))


def official_shapes(variant: str, **kwargs) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of an official checkpoint, from our model without its weights."""
    return shapes_of(KEYS.to_official(timm.create_model(variant, device="meta", **kwargs).state_dict()))


@every_golden(FAST)
def test_computes_what_the_official_code_computes(name: str) -> None:
    assert_golden(family, name)


@every_golden(FAST)
def test_computes_it_in_float32(name: str) -> None:
    assert_golden_float32(family, name)


@every_golden(("ffnet_1", "ffnet_2"))
def test_fused_model_is_the_official_fused_one(name: str) -> None:
    fused, golden = fused_model(family, name), goldens.load(name)
    assert sum(p.numel() for p in fused.parameters()) == golden["fused"]["params"]
    assert macs(fused, golden) == golden["fused"]["macs"]
    assert batch_norms(fused) == ([] if "mmdet" in name or "sys" in name else ["final"])
    weights, keys = fused.state_dict(), FUSED_KEYS_SEG if "sys" in name else FUSED_KEYS
    for key, expected in golden["fused"]["sampled_fused_weights"].items():
        goldens.assert_matches(weights[keys[key]], expected, torch.float64)
    reference = golden["output"] if "output" in golden else golden["outputs"]["feature_3"]
    scale = max(abs(reference["min"]), abs(reference["max"]))
    limit = 20 * golden["fused"]["float32_max_abs_diff_vs_float64_truth"] / scale
    goldens.assert_matches(run(fused.float(), name, torch.float32)[-1], reference, torch.float32, tolerance=limit)


@pytest.mark.parametrize("variant", ["ffnet_1", "ffnet_2", "ffnet_3", "ffnet_4", "ffnet_seg"])
def test_recognises_what_it_writes(variant: str) -> None:
    found = recognise(official_shapes(variant, num_classes=21, in_chans=4))
    assert found is not None
    assert (found.variant, found.levels, found.level_norm) == (variant, None, None)
    assert found.model_args == {"in_chans": 4, "num_classes": 21}


def test_recognises_layer_scale_kernel_and_norm() -> None:
    found = recognise(official_shapes("ffnet_1", layer_scale=1.0, mlp_kernel=7, norm="layer"))
    assert found is not None
    assert found.model_args == {
        "in_chans": 3, "num_classes": 1000, "layer_scale": 1e-6, "mlp_kernel": 7, "norm": "layer"
    }  # fmt: skip
    found = recognise(official_shapes("ffnet_3", layer_scale=0.0, num_classes=0))
    assert found is not None
    assert found.model_args == {"in_chans": 3, "num_classes": 0, "layer_scale": 0.0}


def test_recognises_the_segmentation_backbone_with_and_without_its_head() -> None:
    shapes = official_shapes("ffnet_seg", num_classes=9)
    found = recognise(shapes)
    assert found is not None
    assert (found.variant, found.model_args, found.levels) == ("ffnet_seg", {"in_chans": 3, "num_classes": 9}, None)
    found = recognise({key: shape for key, shape in shapes.items() if not key.startswith("head")})
    assert found is not None
    assert (found.variant, found.level_norm, found.levels) == ("ffnet_seg", None, (1, 2, 3))


def test_foreign_and_truncated_checkpoints() -> None:
    shapes = official_shapes("ffnet_1")
    assert recognise({}) is None
    assert recognise({"patch_embed.0.weight": (24, 3, 3, 3), "head.weight": (1000, 220)}) is None
    assert recognise(dict(list(shapes.items())[: len(shapes) // 2])) is None
    without_head = {key: shape for key, shape in shapes.items() if not key.startswith(("norm", "head"))}
    found = recognise(without_head)
    assert found is not None
    assert found.levels is None  # a classifier whose missing keys the strict load will name


def test_keys_of_another_mixer_have_no_official_name() -> None:
    with pytest.raises(KeyError, match="no official name"):
        KEYS.to_official(tiny(mixers="attention").state_dict())


def test_loads_a_published_file_through_timm(tmp_path, monkeypatch) -> None:
    """The wrapping of the official releases, with their training arguments and a NumPy metric, EMA weights first."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    weights = goldens.state_dict(goldens.load("ffnet_1"))
    raw = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
    extras = {"epoch": 300, "arch": "ffnet_1", "args": argparse.Namespace(lr=1e-3), "metric": np.float64(81.3)}
    torch.save({**extras, "state_dict": raw, "state_dict_ema": weights}, tmp_path / "ffnet_1.pth.tar")
    overlay = {"url": (tmp_path / "ffnet_1.pth.tar").as_uri()}
    model = timm.create_model("ffnet_1", pretrained=True, pretrained_cfg_overlay=overlay).double().eval()
    ours = official_model(family, "ffnet_1").state_dict()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in model.state_dict().items())
    other = timm.create_model("ffnet_1", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=5, in_chans=1)
    assert torch.allclose(other.stem[0].conv.weight.double(), ours["stem.0.conv.weight"].sum(1, keepdim=True))
    assert other.head.fc.weight.shape == (5, 640)
    features = timm.create_model("ffnet_1", pretrained=True, pretrained_cfg_overlay=overlay, features_only=True)
    assert torch.equal(features.stages_3.blocks[0].mlp.op.fc1.bias.double(), ours["stages.3.blocks.0.mlp.op.fc1.bias"])


def test_filter_passes_our_own_keys_and_takes_off_wrappers() -> None:
    model = tiny()
    own = model.state_dict()
    assert all(torch.equal(tensor, own[key]) for key, tensor in checkpoint_filter_fn(own, model).items())
    official = {f"module.{key}": tensor for key, tensor in KEYS.to_official(own).items()}
    mapped = checkpoint_filter_fn({"state_dict": official}, model)
    assert set(mapped) == set(own)


@pytest.mark.parametrize(
    ("name", "size", "crop_pct", "file"),
    [
        ("ffnet_1", 256, 0.9, "ffnet_1.pth.tar"),
        ("ffnet_1.dist_in1k", 256, 0.9, "ffnet_1_distillation.pth.tar"),
        ("ffnet_2", 256, 0.9, "ffnet_2.pth.tar"),
        ("ffnet_2.dist_in1k", 256, 0.9, "ffnet_2_distillation.pth.tar"),
        ("ffnet_3", 256, 0.95, "ffnet_3.pth.tar"),
        ("ffnet_3.dist_in1k", 256, 0.95, "ffnet_3_distillation.pth.tar"),
        ("ffnet_3.ft_in1k_384", 384, 1.0, "ffnet_3_384.pth.tar"),
        ("ffnet_4", 384, 1.0, "ffnet_4_384.pth.tar"),
        ("ffnet_4.untrained", 256, 0.95, None),
        ("ffnet_seg", 256, 0.9, None),
    ],
)
def test_addresses_and_preprocessing(name: str, size: int, crop_pct: float, file: str | None) -> None:
    cfg = timm.get_pretrained_cfg(name)
    assert cfg.input_size == (3, size, size)
    assert (cfg.crop_pct, cfg.interpolation) == (crop_pct, "bicubic")
    assert (cfg.mean, cfg.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (cfg.url or None) == (RELEASES + file if file else None)


@pytest.mark.parametrize("variant", ["ffnet_1", "ffnet_seg"])
def test_initial_weights_have_the_official_distribution(variant: str) -> None:
    model = timm.create_model(variant)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1 and tensor.numel() > 4000:
            assert abs(float(tensor.std()) / 0.02 - 1) < 0.05, name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        elif name.endswith(".scale"):
            assert torch.equal(tensor, torch.full_like(tensor, 1e-5)), name
    scales = [
        m.scale
        for m in timm.create_model("ffnet_3", device="cpu", dims=(8, 16, 32, 64)).modules()
        if isinstance(m, Residual)
    ]
    assert all(torch.equal(scale, torch.full_like(scale, 1e-6)) and scale.ndim == 1 for scale in scales)


def test_drop_path_rises_linearly_and_is_shared_by_both_branches() -> None:
    model = tiny(depths=(1, 2, 2, 1), drop_path_rate=0.5)
    rates = [
        [getattr(branch.drop_path, "rate", 0.0) for branch in block] for stage in model.stages for block in stage.blocks
    ]
    assert rates == [[pytest.approx(i / 10)] * 2 for i in range(6)]
    assert not any(isinstance(module, DropPath) for module in tiny().modules())


@pytest.mark.parametrize("mixer", [thorough(mixer) for mixer in MIXERS])
def test_any_mixer_fits_also_fused(mixer: str) -> None:
    model = tiny(mixers=mixer, layer_scale=1e-6)
    x = image(64, 96)
    with torch.no_grad():
        y = model(x)
        for fold in (False, True):
            fused = reparameterize(model, fold_layer_scale=fold)
            assert float((fused(x) - y).abs().max() / y.abs().max()) < 1e-10


def test_layer_scale_is_folded_away() -> None:
    for build in (ffnet, strip_ffnet):
        model = tiny(build, layer_scale=1e-6)
        kept, gone = reparameterize(model), reparameterize(model, fold_layer_scale=True)
        assert all(m.scale is not None for m in kept.modules() if isinstance(m, Residual))
        assert all(m.scale is None for m in gone.modules() if isinstance(m, Residual))
        again = reparameterize(gone, fold_layer_scale=True)
        assert all(torch.equal(tensor, gone.state_dict()[key]) for key, tensor in again.state_dict().items())
        with torch.no_grad():
            x = image()
            assert torch.allclose(gone(x), model(x), rtol=1e-10, atol=1e-10)


def test_the_registered_variant_takes_other_mixers() -> None:
    model = scramble(timm.create_model("ffnet_1", mixers="pool,pool,attention,attention", num_classes=3)).eval()
    with torch.no_grad():
        assert model(image(64, 64, dtype=torch.float32)).shape == (2, 3)


@pytest.mark.parametrize("name", ["ffnet_1", "ffnet_1_mmdet_backbone"])
def test_a_training_step_reaches_every_parameter(name: str) -> None:
    golden = goldens.load(name)
    official = goldens.state_dict(golden)
    found = recognise(shapes_of(official))
    assert found is not None
    model: nn.Module = timm.create_model(found.variant, **found.model_args)
    if found.levels:
        model = Levels(model, found.levels, found.level_norm or "none")
    model.load_state_dict(KEYS.from_official(official, list(model.state_dict())))
    y = model.train()(image(96, 96, dtype=torch.float32))
    loss = sum(part.square().mean() for part in y) if isinstance(y, list) else y.square().mean()
    loss.backward()
    assert bool(torch.isfinite(loss))
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool(parameter.grad.any()), key


@pytest.mark.parametrize("build", [ffnet, strip_ffnet])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (70, 64)])
@torch.no_grad()
def test_any_size_and_every_way_through(build, size: tuple[int, int]) -> None:
    model, x = tiny(build), image(*size)
    last, maps = model.forward_intermediates(x)
    assert [m.shape[1] for m in maps] == [8, 16, 32, 64]
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    assert maps[2].shape[2:] == tuple(-(-side // 16) for side in size)
    assert torch.equal(model.forward_head(last), model(x))
    assert last.shape[1] == model.num_features
    assert model.forward_head(last, pre_logits=True).shape == (2, model.head_hidden_size)


def test_segmentation_backbone_gives_three_levels_without_its_head() -> None:
    model = tiny(strip_ffnet)
    official = KEYS.to_official(model.state_dict())
    trunk = {key: tensor for key, tensor in official.items() if not key.startswith("head")}
    levels = Levels(strip_ffnet(**TINY, dtype=torch.float64), (1, 2, 3)).eval()
    levels.load_state_dict(KEYS.from_official(trunk, list(levels.state_dict())), strict=True)
    with torch.no_grad():
        expected = model.forward_intermediates(image(), (1, 2, 3), intermediates_only=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(levels(image()), expected, strict=True))


def test_mistakes_are_named() -> None:
    for kwargs, message in (
        ({"dims": (8, 16, 24, 64)}, "multiple of the one before"),
        ({"depths": (1, 1)}, "same length"),
        ({"mlp_kernel": 5}, "mlp_kernel must be 3 or 7"),
        ({"norm": "bach"}, "did you mean 'batch'"),
    ):
        with pytest.raises(ValueError, match=message):
            ffnet(**{**TINY, **kwargs})
    with pytest.raises(ValueError, match="same length"):
        strip_ffnet((1, 1), (8, 16, 32))
    with pytest.raises(TypeError, match="img_size"):
        timm.create_model("ffnet_1", img_size=256)
