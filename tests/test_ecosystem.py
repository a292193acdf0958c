"""Our models in libraries that build on timm: segmentation decoders, transformers' wrappers, torchvision detectors."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tests.backbone_cases import TOYS, distance, images, toy

each_architecture = pytest.mark.parametrize(
    "name", ["affnet_et", "casvit_xs", "dsm_s", "ffnet_1", "ffnet_seg", "mixernet_pico"]
)


def without_gradient(model: nn.Module) -> list[str]:
    return [key for key, p in model.named_parameters() if p.requires_grad and p.grad is None]


@each_architecture
@pytest.mark.parametrize("decoder", ["Unet", "FPN"])
def test_segmentation_models_pytorch(name: str, decoder: str) -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    build = getattr(smp, decoder)
    model = build(f"tu-{name}", encoder_weights=None, in_channels=4, classes=5, **TOYS[name])
    x = images(64, 96, chans=4)
    output = model(x)
    assert output.shape == (2, 5, 64, 96)
    output.square().mean().backward()
    assert without_gradient(model.encoder) == []
    assert model.eval()(x).isfinite().all()


def test_segmentation_models_pytorch_with_a_smaller_stride() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch", reason="segmentation_models_pytorch is not installed")
    model = smp.DeepLabV3Plus("tu-affnet_et", encoder_weights=None, classes=2, encoder_output_stride=16).eval()
    assert model.encoder(images(64, 64))[-1].shape[-1] == 4
    assert model(images(64, 64)).shape == (2, 2, 64, 64)


@each_architecture
def test_transformers_backbone(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmBackboneConfig(backbone=name, out_indices=(1, 2, 3))
    model = transformers.TimmBackbone(config, **TOYS[name]).eval()
    model._backbone.load_state_dict(toy(name, features_only=True, out_indices=(1, 2, 3)).state_dict())
    levels = toy(name).forward_intermediates(images(64, 64), intermediates_only=True)
    maps = model(images(64, 64)).feature_maps
    assert model.channels == [level.shape[1] for level in levels[1:4]]
    assert max(distance(a, b) for a, b in zip(maps, levels[1:4], strict=True)) < 1e-5


@each_architecture
def test_transformers_classifier(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmWrapperConfig(architecture=name, model_args=TOYS[name], num_labels=7)
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.timm_model.load_state_dict(toy(name).state_dict())
    x = images(64, 64)
    assert distance(model(x).logits, toy(name)(x)) < 1e-5
    model(x, labels=torch.tensor([0, 3])).loss.backward()
    model.save_pretrained(tmp_path)
    again = transformers.TimmWrapperForImageClassification.from_pretrained(tmp_path).eval()
    assert distance(again(x).logits, toy(name)(x)) < 1e-5


@each_architecture
def test_transformers_features(name: str) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.TimmWrapperConfig(architecture=name, model_args=TOYS[name], num_labels=0)
    model = transformers.TimmWrapperModel(config).eval()
    output = model(images(64, 64))
    assert output.pooler_output.shape == (2, toy(name).head_hidden_size)
    assert output.last_hidden_state.shape == (2, toy(name).num_features, 2, 2)


class Pyramid(nn.Module):
    """The last four levels of a model and a pooled fifth, all of the same width, as torchvision's detectors want it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.out_channels = 32
        indices = tuple(range(len(TOYS[name]["dims"])))[-4:]
        self.features = timm.create_model(name, features_only=True, out_indices=indices, **TOYS[name])
        self.fpn = FeaturePyramidNetwork(self.features.feature_info.channels(), 32, LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.fpn({str(i): level for i, level in enumerate(self.features(x))})


@each_architecture
@pytest.mark.parametrize("detector", [FasterRCNN, RetinaNet])
def test_torchvision_detectors(name: str, detector: type[nn.Module]) -> None:
    torch.manual_seed(0)
    anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((0.5, 1.0, 2.0),) * 5)
    # The first argument that takes the anchors is called differently.
    key = "rpn_anchor_generator" if detector is FasterRCNN else "anchor_generator"
    model = detector(Pyramid(name), num_classes=3, min_size=96, max_size=128, **{key: anchors}).train()
    pictures = [torch.rand(3, 90, 120), torch.rand(3, 100, 80)]
    target = {"boxes": torch.tensor([[5.0, 5.0, 60.0, 50.0]]), "labels": torch.tensor([1])}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {key: p.detach().clone() for key, p in model.backbone.features.named_parameters()}
    loss = sum(model(pictures, [target, target]).values())
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    assert without_gradient(model.backbone) == []
    same = [key for key, p in model.backbone.features.named_parameters() if torch.equal(p, before[key])]
    assert same == []
    with torch.no_grad():
        for found in model.eval()(pictures):
            assert set(found) == {"boxes", "labels", "scores"}
            assert found["boxes"].shape == (len(found["scores"]), 4)
