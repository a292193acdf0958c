"""What timm demands of a model and its own suite cannot see: state after pruning, every pooling, errors, levels."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import tokenmix
from tests.backbone_cases import MODELS, TOYS, distance, images, toy, toy_features
from tokenmix.backbones.base import POOLINGS, Backbone, Head, Stage, feature_indices
from tokenmix.backbones.official import unwrap
from tokenmix.mixers import make_mixer

each_toy = pytest.mark.parametrize("name", sorted(TOYS))


def classifiers(model: Backbone) -> list[nn.Linear]:
    found = model.get_classifier()
    return list(found) if isinstance(found, tuple) else [found]


@each_toy
def test_forward_is_head_of_features(name: str) -> None:
    model, x = toy(name), images(64, 96)
    features = model.forward_features(x)
    assert features.shape == (2, model.num_features, 2, 3)
    assert torch.equal(model.forward_head(features), model(x))
    assert model(x).shape == (2, 7)
    hidden = model.forward_head(features, pre_logits=True)
    assert hidden.shape == (2, model.head_hidden_size)
    logits = [classifier(hidden) for classifier in classifiers(model)]
    assert distance(sum(logits) / len(logits), model(x)) < 1e-5


@each_toy
@pytest.mark.parametrize("pool", POOLINGS)
def test_reset_classifier_with_every_pooling(name: str, pool: str) -> None:
    model, x = toy(name), images(64, 64)
    kept = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("head.fc")}
    model.reset_classifier(0, pool)
    assert model.num_classes == 0
    assert model(x).shape == ((2, model.head_hidden_size, 2, 2) if pool == "" else (2, model.head_hidden_size))
    model.reset_classifier(5, "avg" if pool == "" else None)
    assert model.head.pool.kind == (pool or "avg")
    assert model(x).shape == (2, 5)
    assert model.num_classes == 5
    assert all(torch.equal(model.state_dict()[key], value) for key, value in kept.items())


def test_poolings_are_what_their_names_say() -> None:
    x = images(5, 7, dtype=torch.float64)
    outputs = {pool: Head(3, 0, pool)(x) for pool in POOLINGS}
    assert torch.equal(outputs[""], x)
    assert distance(outputs["avg"], x.flatten(2).mean(2)) < 1e-12
    assert torch.equal(outputs["max"], x.flatten(2).amax(2))
    assert distance(outputs["avgmax"], (outputs["avg"] + outputs["max"]) / 2) < 1e-12


@each_toy
def test_reset_classifier_keeps_mode_dtype_and_freeze(name: str) -> None:
    model = toy(name).to(torch.float64).requires_grad_(False)
    model.head.norm.train()  # somebody's own choice, which must survive
    model.reset_classifier(3)
    assert not any(p.requires_grad for key, p in model.named_parameters() if not key.startswith("head.fc"))
    assert all(p.dtype == torch.float64 for p in model.parameters())
    assert [module.training for module in (model.head, model.head.norm, *classifiers(model))][:2] == [False, True]
    assert not any(classifier.training for classifier in classifiers(model))
    assert model.train().head.fc.training


@each_toy
def test_state_after_pruning(name: str) -> None:
    model, x = toy(name), images(64, 64)
    levels, last = model.forward_intermediates(x, intermediates_only=True), len(model.stages) - 1
    for index in range(last + 1):
        pruned = copy.deepcopy(model)
        assert pruned.prune_intermediate_layers([index], prune_norm=True) == [index]
        features = pruned.forward_features(x)
        assert pruned.num_features == features.shape[1]
        assert len(pruned.feature_info) == len(pruned.stages) == index + 1
        assert pruned.num_classes == 0
        if index < last:
            assert torch.equal(features, levels[index])
            assert pruned.num_features == pruned.head_hidden_size == levels[index].shape[1]
            assert isinstance(pruned.final, nn.Identity)
        pruned.reset_classifier(4, "avg")
        assert pruned(x).shape == (2, 4)
        pruned.train()(x).sum().backward()
        assert [key for key, p in pruned.named_parameters() if p.grad is None] == []


@each_toy
def test_pruning_can_keep_the_head(name: str) -> None:
    model, x = toy(name), images(64, 64)
    whole = copy.deepcopy(model)
    assert whole.prune_intermediate_layers(len(model.stages), prune_head=False) == list(range(len(model.stages)))
    assert torch.equal(whole(x), model(x))
    cut = copy.deepcopy(model)
    cut.prune_intermediate_layers([1], prune_head=False)
    assert cut(x).shape == (2, 7)
    assert cut.num_classes == 7
    assert len(classifiers(cut)) == len(classifiers(model))
    assert torch.equal(cut(x), cut(x))
    unpooled = copy.deepcopy(model)
    unpooled.prune_intermediate_layers([1])
    assert torch.equal(unpooled(x), unpooled.forward_features(x))


@each_toy
def test_pruning_keeps_frozen_parameters_and_dtype(name: str) -> None:
    model = toy(name).to(torch.float64).requires_grad_(False)
    model.prune_intermediate_layers([0, 1])
    assert not any(p.requires_grad for p in model.parameters())
    model.reset_classifier(3, "avg")
    assert all(p.dtype == torch.float64 for p in model.parameters())


@each_toy
def test_forward_intermediates(name: str) -> None:
    model, x = toy(name), images(64, 96)
    final, levels = model.forward_intermediates(x)
    assert torch.equal(final, model.forward_features(x))
    for level, info in zip(levels, model.feature_info, strict=True):
        assert level.shape == (2, info["num_chs"], 64 // info["reduction"], 96 // info["reduction"])
    only = model.forward_intermediates(x, [0, -1], intermediates_only=True)
    assert [torch.equal(a, b) for a, b in zip(only, (levels[0], levels[-1]), strict=True)] == [True, True]
    stopped, taken = model.forward_intermediates(x, [1], stop_early=True)
    assert torch.equal(stopped, levels[1])
    assert torch.equal(taken[0], levels[1])
    _, normed = model.forward_intermediates(x, norm=True)
    assert all(torch.equal(a, b) for a, b in zip(normed[:-1], levels[:-1], strict=True))
    is_norm = not any(isinstance(module, nn.Conv2d) for module in model.final.modules())
    assert torch.equal(normed[-1], final if is_norm else levels[-1])
    with pytest.raises(ValueError, match="output_fmt must be 'NCHW'"):
        model.forward_intermediates(x, output_fmt="NHWC")


@each_toy
@pytest.mark.parametrize("wrapper", ["list", "getter", "hook"])
def test_feature_wrappers_return_the_levels(name: str, wrapper: str) -> None:
    x = images(33, 50)
    levels = toy(name).forward_intermediates(x, intermediates_only=True)
    features = toy(name, features_only=True, feature_cls=wrapper)
    assert features.feature_info.channels() == [level.shape[1] for level in levels]
    assert features.feature_info.reduction() == ([4, 8, 16, 32] if len(levels) == 4 else [2, 4, 8, 16, 32])
    assert max(distance(a, b) for a, b in zip(features(x), levels, strict=True)) < 1e-5
    some = toy(name, features_only=True, feature_cls=wrapper, out_indices=(1, -1))
    assert max(distance(a, b) for a, b in zip(some(x), (levels[1], levels[-1]), strict=True)) < 1e-5


@each_toy
@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_any_image_size(name: str, height: int, width: int) -> None:
    model, x = toy(name), images(height, width, dtype=torch.float64)
    model = model.to(torch.float64)
    _, levels = model.forward_intermediates(x)
    for level, info in zip(levels, model.feature_info, strict=True):
        assert level.shape[-2:] == (math.ceil(height / info["reduction"]), math.ceil(width / info["reduction"]))
    both = model(x)
    assert both.isfinite().all()
    alone = torch.cat([model(x[:1]), model(x[1:])])
    assert distance(alone, both) < 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_unknown_keyword_and_image_channels(name: str) -> None:
    with pytest.raises(TypeError, match="droprate"):
        timm.create_model(name, droprate=0.1, device="meta")
    model = timm.create_model(name, in_chans=5, num_classes=0, device="meta", dtype=torch.bfloat16).eval()
    assert model.in_chans == 5
    assert model(torch.zeros(1, 5, 32, 32, device="meta", dtype=torch.bfloat16)).shape == (1, model.head_hidden_size)


@each_toy
def test_wrong_arguments_say_what_is_right(name: str) -> None:
    model = toy(name)
    with pytest.raises(ValueError, match="unknown global_pool 'mean'"):
        model.reset_classifier(3, "mean")
    before = model.head.pool.kind
    with pytest.raises(ValueError, match="num_classes=0"):
        model.reset_classifier(3, "")
    with pytest.raises(ValueError, match="num_classes must be 0"):
        model.reset_classifier(-1)
    assert model.head.pool.kind == before
    assert model(images(32, 32)).shape == (2, 7)
    with pytest.raises(ValueError, match="the last 1 to"):
        model.prune_intermediate_layers(9)
    with pytest.raises(ValueError, match="unknown mixer 'afff'; did you mean 'aff'"):
        toy(name, mixers="afff")
    with pytest.raises(ValueError, match="mixers given for"):
        toy(name, mixers="aff,pool")


def test_feature_indices() -> None:
    assert feature_indices(4, None) == [0, 1, 2, 3]
    assert feature_indices(4, 2) == [2, 3]
    assert feature_indices(4, (-1, 0)) == [3, 0]
    for wrong in ((), (4,), (-5,), 0, 5):
        with pytest.raises(ValueError, match="indices="):
            feature_indices(4, wrong)


def test_an_expansion_that_keeps_the_width_is_no_norm() -> None:
    expansion = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU())
    stage = Stage(nn.Conv2d(8, 8, 2, 2), [], 8, 2)
    model = Backbone(nn.Conv2d(3, 8, 4, 4), [stage], expansion, Head(8, 3), num_features=8, stem_stride=4)
    x = images(32, 32)
    final, levels = model.forward_intermediates(x, norm=True)
    assert not torch.equal(final, levels[0])
    model.prune_intermediate_layers([0], prune_norm=True)
    assert model.final is expansion


@pytest.mark.parametrize("stride", [8, 16])
def test_affnet_output_stride(stride: int) -> None:
    features, x = toy_features("affnet_et", output_stride=stride), images(64, 96)
    assert features.feature_info.reduction() == [min(r, stride) for r in (2, 4, 8, 16, 32)]
    assert [tuple(f.shape[-2:]) for f in features(x)] == [(64 // r, 96 // r) for r in features.feature_info.reduction()]
    assert set(toy("affnet_et", output_stride=stride).state_dict()) == set(toy("affnet_et").state_dict())


def test_what_is_pruned_stays_in_its_mode() -> None:
    model = tokenmix.create_model("mixernet_pico", num_classes=3).eval()
    model.prune_intermediate_layers([1])
    assert not any(module.training for module in model.modules())
    tokenmix.reparameterize(model)
    model.reset_classifier(5, "avg")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_path_rate": 1.0}, "drop_path_rate must be from 0 to below 1"),
        ({"drop_path_rate": -0.5}, "drop_path_rate must be from 0 to below 1"),
        ({"depths": (-1, 1, 1, 1)}, "depths must be 0 or more"),
        ({"mlp_ratio": 0.01}, "larger mlp_ratio"),
        ({"mixers": "aff(threshold=-0.1)"}, "threshold of a soft-shrink must be 0 or more"),
        ({"mixers": "afno(threshold=-0.1)"}, "threshold of a soft-shrink must be 0 or more"),
    ],
)
def test_numbers_without_meaning_are_refused(arguments, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tokenmix.create_model("mixernet_pico", **arguments)


def test_a_black_picture_in_float16() -> None:
    mixer = make_mixer("swift", 8).half()
    torch.nn.init.zeros_(mixer.qk.bias)
    assert mixer(torch.zeros(1, 8, 4, 4, dtype=torch.float16)).isfinite().all()


def test_averages_of_torch_load_and_keys_that_are_no_text_do_not_matter() -> None:
    model = tokenmix.create_model("casvit_xs", num_classes=3)
    average = torch.optim.swa_utils.AveragedModel(model)
    tokenmix.create_model("casvit_xs", num_classes=3).load_state_dict(average.state_dict())
    assert list(unwrap({0: torch.zeros(1), "a": torch.ones(1)})) == ["a"]
