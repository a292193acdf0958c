"""Recognising family, variant and options of a state dict from its keys and shapes alone."""

from __future__ import annotations

import warnings

import pytest
import timm
import torch

from tests import goldens
from tests.checkpoint_files import AFFNET_ARGS, official, same
from tests.official_models import shapes_of
from tokenmix.backbones import affnet, casvit, ffnet
from tokenmix.checkpoints import load_checkpoint
from tokenmix.heads.levels import Levels

XS = "casvit_xs"


@pytest.mark.parametrize("name", [n for n in goldens.names() if not n.startswith("affnet")])
def test_every_golden_manifest_is_recognised_without_a_question(name: str) -> None:
    golden = goldens.load(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_checkpoint(
            {key: torch.empty(shape, device="meta") for key, shape in golden["manifest"].items()}, device="meta"
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
    assert isinstance(model, Levels) == (golden["task"] == "features")


def test_the_options_that_affnets_keys_do_not_tell() -> None:
    weights = official("affnet_et")
    for given, asked in (
        ({}, "norm, act, threshold; the defaults are used. Pass them"),
        ({"norm": "group"}, "act, threshold; the defaults"),
        ({"norm": "layer", "threshold": 0.1}, "tell act; the defaults are used. Pass it"),
    ):
        with pytest.warns(UserWarning, match=asked) as told:
            load_checkpoint(weights, **given)
        assert len(told) == 1
        assert told[0].filename == __file__
    load_checkpoint(weights, **AFFNET_ARGS)  # a warning would be an error
    batch = affnet.KEYS.to_official(timm.create_model("affnet_et", norm="batch", act="prelu").state_dict())
    with pytest.warns(UserWarning, match="cannot tell threshold;"):
        load_checkpoint(batch)
    load_checkpoint(batch, threshold=0.1)


def test_our_own_keys_are_recognised_too(tmp_path) -> None:
    for name in (XS, "casvit_xs_fork", "ffnet_1_mmdet_backbone"):
        model = load_checkpoint(official(name))
        torch.save({"state_dict": model.state_dict()}, tmp_path / "own.pth")
        again = load_checkpoint(tmp_path / "own.pth")
        assert type(again) is type(model)
        assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("variant", ["affnet_b", "ffnet_3", "ffnet_seg", "casvit_m"])
def test_variants_without_a_golden_file(variant: str) -> None:
    family = {"affnet": affnet, "ffnet": ffnet, "casvit": casvit}[variant.split("_")[0]]
    shapes = shapes_of(family.KEYS.to_official(timm.create_model(variant, device="meta", num_classes=9).state_dict()))
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    model = load_checkpoint(weights, device="meta", **(AFFNET_ARGS if variant == "affnet_b" else {}))
    assert model.pretrained_cfg["architecture"] == variant
    assert model.num_classes == 9
