"""Learning rates by layer and frozen norms in dense models, parameter by parameter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.backbone_cases import TOYS
from tests.dense_toys import write_plain
from tests.train_toys import toy_recipe
from tokenmix.heads import make_dense
from tokenmix.heads.levels import levels_of
from tokenmix.sources import load_data
from tokenmix.tasks import find_task
from tokenmix.tasks.dense.learning_rates import learning_rates
from tokenmix.train import fit
from tokenmix.train.loop import _Run
from tokenmix.train.optimizer import make_optimizer

SEGMENTER = {"head": "semantic_fpn", "task": "segmentation", "label_smoothing": 0.0}


def ffnet(head: str = "semantic_fpn", **options) -> nn.Module:
    """Of FFNet-4's depth, whose blocks fill mmdetection's 12 layers exactly."""
    sizes = {"depths": (4, 4, 27, 3), "dims": (8, 16, 32, 64), "stem_dim": 8}
    return make_dense(head, "ffnet_2", 3, level_norm="layer", device="meta", **sizes, **options)


def expected(name: str) -> int:
    """The number of a parameter's layer among 0 to 13, from its name: how FFNet's code counts, but for its stem."""
    parts = name.split(".")
    if not name.startswith(("backbone.stem", "backbone.stages")):
        return 13
    if parts[1] == "stem":
        return 0
    stage = int(parts[2])
    if stage == 2:
        return 3 + (int(parts[4]) + 1 if parts[3] == "blocks" else 0) // 3
    return {0: 1, 1: 2, 3: 12}[stage]


def test_the_layers_are_mmdetections() -> None:
    model = ffnet()
    factors = learning_rates(model, 0.8, 12)
    assert set(factors) == {name for name, _ in model.named_parameters()}
    for name, factor in factors.items():
        assert factor == pytest.approx(0.8 ** (13 - expected(name))), name
    assert {round(factor, 12) for factor in factors.values()} == {round(0.8**power, 12) for power in range(14)}
    # By hand: the first block of the last stage, the downsampling before the third one, its last block, the stem.
    for part, power in {"stages.3.blocks.0": 1, "stages.2.downsample": 10, "stages.2.blocks.26": 1, "stem": 13}.items():
        assert {f for name, f in factors.items() if name.startswith(f"backbone.{part}.")} == {0.8**power}
    with pytest.raises(ValueError, match=r"task\.layer_decay_layers': the backbone has 12 layers below its last"):
        learning_rates(model, 0.8, 9)


def test_every_block_is_a_layer_where_no_number_is_given() -> None:
    model = make_dense("semantic_fpn", "mixernet_pico", 3, device="meta", mixers="pool", depths=(1, 2, 1, 1))
    factors = learning_rates(model, 0.5, head_lr=10.0)
    order = ["stem", "stages.0.blocks.0", "stages.1.downsample", "stages.1.blocks.0", "stages.1.blocks.1"]
    order += ["stages.2.downsample", "stages.2.blocks.0", "stages.3.downsample", "stages.3.blocks.0"]
    for number, part in enumerate(order):
        found = {factor for name, factor in factors.items() if name.startswith(f"backbone.{part}.")}
        assert found == {0.5 ** (len(order) - number)}, part
    assert {factor for name, factor in factors.items() if name.startswith("decoder.")} == {10.0}


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn", "cascade_mask_rcnn", "ssdlite", "deeplabv3", "upernet"])
def test_every_head_learns_at_the_full_rate(head) -> None:
    options = {"output_stride": 32, "aux": True} if head == "deeplabv3" else {}
    model = make_dense(head, "affnet_et", 3, device="meta", level_norm="batch", **options, **TOYS["affnet_et"])
    prefix, _ = levels_of(model)
    factors = learning_rates(model, 0.5)
    inner = tuple(f"{prefix}.{part}" for part in ("stem", "stages"))
    assert {factor for name, factor in factors.items() if not name.startswith(inner)} == {1.0}
    assert max(factor for name, factor in factors.items() if name.startswith(inner)) == 0.5
    assert any(name.startswith(f"{prefix}.norms") for name in factors)


DEPTHS = {  # from the first parts to the last ones
    "resnet18": ("conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer4.1"),
    "convnext_atto": ("stem_0", "stages_0.blocks.0", "stages_1.downsample", "stages_1.blocks.0", "stages_3.blocks.1"),
    "vit_tiny_patch16_224": ("model.cls_token", "model.patch_embed", "model.blocks.0", "model.blocks.11"),
}


@pytest.mark.parametrize("backbone", DEPTHS)
def test_timms_backbones_have_layers_too(backbone) -> None:
    head, options = ("ffnet_seg", {"img_size": 64}) if "vit" in backbone else ("semantic_fpn", {})
    factors = learning_rates(make_dense(head, backbone, 3, device="meta", level_norm="batch", **options), 0.5)
    found = []
    for part in DEPTHS[backbone]:
        inside = {f for name, f in factors.items() if f"{name}.".startswith(f"backbone.features.{part}.")}
        assert len(inside) == 1, part
        found += inside
    assert found == sorted(set(found))
    assert found[-1] in (0.5, 0.25)  # a norm may follow the blocks
    assert {factor for name, factor in factors.items() if "norms" in name or "decoder" in name} == {1.0}


def test_the_optimiser_has_the_factors_and_decays_matrices_only() -> None:
    model = ffnet()
    recipe = toy_recipe(**SEGMENTER, layer_decay=0.8, layer_decay_layers=12, head_lr=2.0, weight_decay=0.3)
    optimizer = make_optimizer(recipe, model, find_task("segmentation").learning_rates(recipe, model))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["lr_scale"]
            assert group["weight_decay"] == (0.0 if parameter.ndim <= 1 else 0.3)
    assert seen == learning_rates(model, 0.8, 12, 2.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(write_plain(tmp_path_factory.mktemp("plain")), task="segmentation", log=lambda line: None)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_norms_keep_their_statistics_and_learn(data, tmp_path, monkeypatch, frozen) -> None:
    runs = []
    inner = _Run.resume
    monkeypatch.setattr(_Run, "resume", lambda self, fresh: (runs.append(self), inner(self, fresh))[1])
    args = {"channels": 8, "level_norm": "batch", "mixers": "pool", "depths": [1] * 4, "dims": [8, 8, 16, 16]}
    recipe = toy_recipe(
        **SEGMENTER, model="mixernet_pico", model_args=args, epochs=2, batch_size=3, image_size=64, ema_decay=None,
        freeze_norms=frozen,
    )  # fmt: skip
    fit(recipe, data, tmp_path, log=lambda line: None, progress=False)
    prefix, levels = levels_of(runs[0].trained.objective.model)
    norms = [module for module in levels.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 4
    for norm in norms:
        assert (bool((norm.running_mean == 0).all()) and bool((norm.running_var == 1).all())) == frozen
        assert not torch.equal(norm.weight, torch.ones_like(norm.weight))
    outer = [
        m
        for n, m in runs[0].trained.objective.model.named_modules()
        if isinstance(m, nn.BatchNorm2d) and prefix not in n
    ]
    assert outer
    assert all(bool((norm.running_mean != 0).any()) for norm in outer)
