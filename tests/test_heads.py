"""Building dense models: sizes as published, any backbone, options, what comes out, and mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.backbone_cases import TOYS, images, toy
from tests.checkpoint_files import same
from tests.dense_cases import DETECTORS, NARROW, SEGMENTERS, SIZES, dense, few_regions, objects, pictures
from tokenmix.checkpoints import CheckpointError, convert, load_checkpoint
from tokenmix.heads import HEADS, make_dense
from tokenmix.layers import LayerNorm2d
from tokenmix.weight_files import weights_bytes


def millions(model: nn.Module, prefix: str = "") -> float:
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith(prefix or "-")) / 1e6


# Published with one or three digits: half a unit of the last one is what rounding can hide. AFFNet's page says 6.9 M
# for the largest, where the official code has 7.01 M with 21 classes and 7.04 M with 150.
@pytest.mark.parametrize(
    ("head", "backbone", "num_classes", "options", "published", "tolerance"),
    [
        ("deeplabv3", "affnet_et", 21, {}, 2.2, 0.05),
        ("deeplabv3", "affnet_t", 21, {}, 3.5, 0.05),
        ("deeplabv3", "affnet_s", 21, {}, 7.01, 0.005),
        ("upernet", "ffnet_2", 150, {"level_norm": "layer"}, 58, 0.5),
        ("upernet", "ffnet_3", 150, {"level_norm": "layer"}, 80, 0.5),
        ("upernet", "ffnet_4", 150, {"level_norm": "layer"}, 113, 0.5),
        ("ffnet_seg", "ffnet_seg", 150, {}, 68, 0.5),
        ("ffnet_seg", "ffnet_seg", 19, {"head_depth": 5, "head_ratio": 1}, 68, 0.5),
    ],
)
def test_sizes_of_the_papers(head, backbone, num_classes, options, published, tolerance) -> None:
    model = make_dense(head, backbone, num_classes, device="meta", **options)
    assert millions(model) == pytest.approx(published, abs=tolerance)


# The same heads on backbones for which the literature has sizes: PVT (arXiv:2102.12122, tables 3 to 5) for ResNets,
# Swin (arXiv:2103.14030, tables 2 and 3). Detectors on ResNet-50 are counted there without its frozen first stage.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "backbone", "num_classes", "published"),
    [
        ("semantic_fpn", "resnet50", 150, 28.5),
        ("retinanet", "resnet50", 80, 37.7),
        ("mask_rcnn", "resnet50", 80, 44.2),
        ("cascade_mask_rcnn", "resnet50", 80, 82),
        ("cascade_mask_rcnn", "swin_tiny_patch4_window7_224", 80, 86),
        ("upernet", "swin_tiny_patch4_window7_224", 150, 60),
    ],
)
def test_sizes_of_the_literature(head: str, backbone: str, num_classes: int, published: float) -> None:
    model = make_dense(head, backbone, num_classes)
    if head != "semantic_fpn" and backbone == "resnet50":
        for name in ("conv1", "bn1", "layer1"):
            model.get_submodule(f"backbone.levels.features.{name}").requires_grad_(False)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    assert count == pytest.approx(published, abs=0.5 if isinstance(published, int) else 0.06)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", ["resnet10t", "swin_tiny"])
def test_timms_backbones(head: str, backbone: str) -> None:
    """One with five levels, one whose maps have their channels last."""
    name, options = ("resnet10t", {"output_stride": 16} if head == "deeplabv3" else {})
    if backbone == "swin_tiny":
        name = "swin_tiny_patch4_window7_224"
        options = {"img_size": None, "strict_img_size": False, "embed_dim": 12, "num_heads": (1, 1, 2, 2)}
        options |= {"depths": (1, 1, 1, 1)}
    model = few_regions(make_dense(head, name, 3, **{**NARROW.get(head, {}), **options})).eval()
    x = images(64, 96)
    with torch.no_grad():
        if head in SEGMENTERS:
            assert model(x).shape == (2, 3, 64, 96)
        else:
            assert [len(one["boxes"]) == len(one["scores"]) for one in model(list(x))] == [True, True]


@pytest.mark.parametrize("head", SEGMENTERS)
def test_what_a_segmenter_returns(head: str) -> None:
    model = dense(head, "mixernet_pico", num_classes=5)
    x = torch.stack([pictures()[0]] * 2) + images(*SIZES[0], dtype=torch.float64)
    with torch.no_grad():
        logits = model(x)
        assert logits.shape == (2, 5, *SIZES[0])
        assert torch.allclose(logits[:1], model(x[:1]), rtol=0, atol=1e-9)
    outputs = model.train()(x)
    assert set(outputs) == ({"out", "aux"} if head in ("deeplabv3", "upernet") else {"out"})
    assert all(y.shape == (2, 5, *SIZES[0]) for y in outputs.values())
    assert model.num_classes == 5


@pytest.mark.parametrize("head", DETECTORS)
def test_what_a_detector_returns(head: str) -> None:
    model = dense(head, "mixernet_pico")
    with torch.no_grad():
        for one, size in zip(model(pictures()), SIZES, strict=True):
            count = len(one["boxes"])
            assert count > 0
            assert one["boxes"].shape == (count, 4)
            assert bool((one["scores"].diff() <= 0).all())
            assert set(one["labels"].tolist()) <= {1, 2, 3}
            assert float(one["boxes"][:, 2].max()) <= size[1]
            if HEADS[head].task == "instances":
                assert one["masks"].shape == (count, 1, *size)
                assert 0 <= float(one["masks"].min()) <= float(one["masks"].max()) <= 1
            else:
                assert "masks" not in one
    losses = model.train()(pictures(), objects())
    assert all(loss.ndim == 0 and bool(torch.isfinite(loss)) for loss in losses.values())


def test_retinanets_labels_begin_with_one() -> None:
    """A head that is sure of the last class everywhere finds it; the loss then wants that class."""
    model = dense("retinanet", "mixernet_pico")
    layer = model.head.classification_head.cls_logits
    nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor([-9.0, -9.0, 9.0], dtype=torch.float64).repeat(9)
    with torch.no_grad():
        assert set(model(pictures())[0]["labels"].tolist()) == {3}
        targets = objects()[:1]
        loss = [
            float(model.train()(pictures()[:1], [{**targets[0], "labels": torch.tensor([k, k])}])["classification"])
            for k in (1, 2, 3)
        ]
        assert loss[2] < loss[0] == pytest.approx(loss[1])


def test_options_reach_head_and_backbone() -> None:
    model: Any = make_dense("upernet", "casvit_xs", 4, level_norm="layer", drop_path_rate=0.3, aux=False, in_chans=1)
    assert isinstance(model.backbone.norms[0], LayerNorm2d)
    assert model.backbone.stages[3].blocks[1].mixer.drop_path.rate == pytest.approx(0.3)
    assert model.backbone.stem[0].conv.in_channels == 1
    assert model.aux is None
    built = toy("mixernet_pico")
    assert make_dense("semantic_fpn", built, 4).backbone.stem is built.stem
    model = make_dense("semantic_fpn", "mixernet_pico", 4, head_dim=24, channels=16, device="meta")
    assert {block[0].out_channels for block in model.decoder.neck.layer_blocks} == {24}
    assert model.decoder.classifier.in_channels == 16
    features = timm.create_model("resnet10t", features_only=True, out_indices=(-2, -1))
    assert make_dense("ssdlite", features, 4).backbone.features is features
    model = make_dense("mask_rcnn", "mixernet_pico", 4, device="meta", dtype=torch.bfloat16)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("head", ["upernet", "mask_rcnn"])
def test_our_own_files_rebuild_any_head(head: str, tmp_path) -> None:
    args = {"num_classes": 3, "level_norm": "batch", **TOYS["mixernet_pico"], **NARROW.get(head, {})}
    model = make_dense(head, "mixernet_pico", **args)
    info = {"model": "mixernet_pico", "model_args": args, "head": head, "mean": [0.5, 0.5, 0.5]}
    (tmp_path / "a.safetensors").write_bytes(weights_bytes(model.state_dict(), info))
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert type(again) is type(model)
    assert same(again.state_dict(), model.state_dict())
    fewer = load_checkpoint(tmp_path / "a.safetensors", num_classes=2)
    new = {
        key.rpartition(".")[0]
        for key, value in fewer.state_dict().items()
        if value.shape != model.state_dict()[key].shape
    }
    assert new == set(model.classifiers)
    with pytest.raises(CheckpointError, match=f"{head} with mixernet_pico has no official names; only deeplabv3"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.pth", to="official")
    (tmp_path / "a.safetensors").write_bytes(weights_bytes(model.state_dict(), {**info, "head": head[:-1]}))
    with pytest.raises(CheckpointError, match=f"unknown head '{head[:-1]}'; did you mean '{head}'"):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("head", SEGMENTERS)
def test_a_segmenter_says_how_many_images_a_step_needs(head: str) -> None:
    model = dense(head, "casvit_xs").train()
    if model.least_batch > 1:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            model(images(64, 64, batch=model.least_batch - 1, dtype=torch.float64))
    model(images(64, 64, batch=model.least_batch, dtype=torch.float64))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="unknown head 'deeplab'; did you mean 'deeplabv3'"):
        make_dense("deeplab", "affnet_et", 21)
    with pytest.raises(ValueError, match="unknown model 'afnet_et'; did you mean 'affnet_et'"):
        make_dense("deeplabv3", "afnet_et", 21)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        make_dense("ssdlite", "affnet_et", 0)
    with pytest.raises(ValueError, match="casvit_xs takes no output_stride=16: pass output_stride=32, which"):
        make_dense("deeplabv3", "casvit_xs", 21)
    with pytest.raises(ValueError, match="Backbone takes no output_stride=16: pass output_stride=32, which"):
        make_dense("deeplabv3", toy("mixernet_pico"), 21)
    with pytest.raises(TypeError, match="ratess"):
        make_dense("deeplabv3", "affnet_et", 21, ratess=(1, 2, 3))
    with pytest.raises(TypeError, match="drop_path_rate: arguments of a backbone go with its name"):
        make_dense("ssdlite", toy("mixernet_pico"), 3, drop_path_rate=0.1)
    with pytest.raises(TypeError, match="ResNet returns no feature levels: build it with features_only=True"):
        make_dense("ssdlite", timm.create_model("resnet10t"), 3)
    with pytest.raises(ValueError, match=r"returns 5 levels, and 2 are needed: build it with out_indices=\(-2, -1\)"):
        make_dense("ssdlite", timm.create_model("resnet10t", features_only=True), 3)
    with pytest.raises(ValueError, match="unknown norm 'bach'; did you mean 'batch'"):
        make_dense("upernet", "casvit_xs", 3, level_norm="bach")
