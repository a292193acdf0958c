"""AFFNet: the same function as the official code, under its keys, and its place in timm."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tests import goldens
from tests.counts import count
from tests.official_models import shapes_of
from tokenmix import load_checkpoint
from tokenmix.backbones.affnet import KEYS, VARIANTS, affnet, checkpoint_filter_fn, recognise
from tokenmix.backbones.base import Backbone
from tokenmix.mixers.frequency import FrequencyFilter

NAMES = goldens.names("affnet", "classification")
TINY = {"depths": (1, 2, 1, 2, 1), "dims": (8, 16, 16, 24, 32), "num_classes": 7}
NORM_OF = {"layer_norm_2d": "group", "layer_norm": "layer", "batch_norm": "batch"}
ACT_OF = {"swish": "silu", "hard_swish": "hardswish"}
every_golden = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "affnet_large" else ()) for name in NAMES]
)


def golden_args(name: str) -> dict:
    """The arguments that a golden file's official options stand for."""
    options = goldens.load(name)["options"]
    act = options["model.activation.name"]
    return {
        "norm": NORM_OF[options["model.classification.affnet.attn_norm_layer"]],
        "act": ACT_OF.get(act, act),
        "threshold": options["model.activation.sparsity_threshold"],
    }


def golden_model(name: str) -> Backbone:
    """The model that a golden file belongs to, with its official checkpoint, strictly loaded."""
    model = load_checkpoint(goldens.state_dict(goldens.load(name)), **golden_args(name))
    assert isinstance(model, Backbone)
    return model


@every_golden
@torch.no_grad()
def test_computes_what_the_official_code_computes(name: str) -> None:
    golden = goldens.load(name)
    model, x = golden_model(name), goldens.inputs(golden)
    goldens.assert_matches(model(x), golden["output"], torch.float32)
    last, levels = model.double().forward_intermediates(x.double())
    goldens.assert_matches(model.forward_head(last), golden["output"], torch.float64)
    for i, level in enumerate(levels):
        goldens.assert_matches(level, golden["intermediates"][f"layer_{i + 1}"], torch.float64)
    count("goldens", name)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_the_official_ones(name: str) -> None:
    golden = goldens.load(name)
    variant = recognise(golden["manifest"]).variant
    model = timm.create_model(variant, device="meta", **golden_args(name)).eval()
    assert sum(p.numel() for p in model.parameters()) == golden["params"]
    assert goldens.macs(model, golden["input_shape"]) == golden["macs"]


def test_counts_of_the_variant_without_a_golden() -> None:
    model = timm.create_model("affnet_b", device="meta").eval()
    assert sum(p.numel() for p in model.parameters()) == 17_178_104
    assert goldens.macs(model, (1, 3, 256, 256)) / 1e9 == pytest.approx(5.343, abs=5e-4)


@pytest.mark.parametrize("name", NAMES)
def test_keys_go_there_and_back(name: str) -> None:
    golden = goldens.load(name)
    found = recognise(golden["manifest"])
    model = timm.create_model(found.variant, **found.model_args, **golden_args(name), device="meta")
    assert shapes_of(KEYS.to_official(model.state_dict())) == {k: tuple(s) for k, s in golden["manifest"].items()}
    if name == "affnet_et":
        official = goldens.state_dict(golden)
        back = KEYS.to_official(checkpoint_filter_fn(official, model))
        assert all(torch.equal(back[key], official[key]) for key in official)


def test_recognises_variant_and_options() -> None:
    assert {name: recognise(goldens.load(name)["manifest"]).variant for name in NAMES} == {
        name: "affnet_l" if "large" in name else "_".join(name.split("_")[:2]) for name in NAMES
    }
    for variant in VARIANTS:
        model = timm.create_model(variant, device="meta", num_classes=5, in_chans=4, norm="batch", act="prelu")
        official = shapes_of(KEYS.to_official(model.state_dict()))
        assert official["conv_1.block.act.weight"] == (16,)
        assert official["layer_3.1.global_rep.0.filter.act2.weight"] == (1,)
        found = recognise(official)
        assert found.variant == variant
        assert found.model_args == {"num_classes": 5, "in_chans": 4, "norm": "batch", "act": "prelu"}
        assert found.open_args == ("threshold",)
        assert found.levels is None
    plain = recognise(goldens.load("affnet_et")["manifest"])
    assert plain.model_args == {"num_classes": 1000, "in_chans": 3}
    assert plain.open_args == ("norm", "act", "threshold")


def test_recognises_the_encoder_of_a_dense_task() -> None:
    manifest = goldens.load("affnet_t")["manifest"]
    encoder = {k: s for k, s in manifest.items() if not k.startswith(("conv_1x1_exp", "classifier"))}
    found = recognise(encoder)
    assert (found.variant, found.levels, found.model_args["num_classes"]) == ("affnet_t", (0, 1, 2, 3, 4), 0)


def test_recognises_nothing_else() -> None:
    for name in set(goldens.names()) - set(NAMES):
        assert recognise(goldens.load(name)["manifest"]) is None
    assert recognise({}) is None
    assert recognise(shapes_of(KEYS.to_official(affnet(**TINY, device="meta").state_dict()))) is None
    mobilevit = {k: s for k, s in goldens.load("affnet_et")["manifest"].items() if ".filter." not in k}
    assert recognise(mobilevit) is None


def test_own_state_dict_passes_the_filter() -> None:
    model = affnet(**TINY)
    state_dict = model.state_dict()
    assert checkpoint_filter_fn(state_dict, model).keys() == state_dict.keys()


def test_other_mixers_have_no_official_keys() -> None:
    with pytest.raises(KeyError, match="mixer"):
        KEYS.to_official(affnet(**TINY, mixers="attention").state_dict())


def test_initial_weights_are_distributed_as_the_official_ones() -> None:
    torch.manual_seed(0)
    model = timm.create_model("affnet_t")
    checked = 0
    for name, module in model.named_modules():
        expected = {}
        if isinstance(module, nn.Conv2d):
            expected["weight"] = (3 * module.weight[0].numel()) ** -0.5
        elif isinstance(module, nn.Linear):
            expected["weight"] = (2 / (module.in_features + module.out_features)) ** 0.5
            assert not module.bias.any()
        elif isinstance(module, FrequencyFilter):
            expected = dict.fromkeys(("w1", "w2", "b1", "b2"), 0.02)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
        for leaf, std in expected.items():
            tensor = getattr(module, leaf).detach()
            if tensor.numel() >= 4000:
                assert tensor.std().item() == pytest.approx(std, rel=0.05), f"{name}.{leaf}"
                checked += 1
    assert checked > 50


def test_a_training_step_reaches_every_parameter() -> None:
    golden = goldens.load("affnet_et")
    assert golden["checks"]["sensitivity"]["parameters_without_effect"] == []
    model = golden_model("affnet_et").train()
    loss = nn.functional.cross_entropy(model(goldens.inputs(golden)[:, :, :128, :128]), torch.tensor([3, 700]))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_preprocessing_and_levels(variant: str) -> None:
    cfg = timm.models.get_pretrained_cfg(variant)
    assert (cfg.input_size, cfg.interpolation) == ((3, 256, 256), "bilinear")
    assert (cfg.mean, cfg.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert int(256 / cfg.crop_pct) == 288
    assert not cfg.has_weights
    features = timm.create_model(variant, features_only=True, device="meta")
    assert features.feature_info.channels() == list(VARIANTS[variant]["dims"])
    assert features.feature_info.reduction() == [2, 4, 8, 16, 32]
