"""Any mixer in any skeleton, and models that come back from a folder as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch

from tests.backbone_cases import TOYS, distance, images, toy
from tests.mixer_cases import thorough
from tokenmix.mixers import MIXERS

HYBRID = ["ffnified(key_size=3)", "pool", "aff(groups=4, threshold=0.02)", "attention"]


def per_mixing_stage(name: str, mixers: list[str]) -> list[str]:
    """AFFNet mixes in its last three stages only."""
    return mixers[1:] if name.startswith("affnet") else mixers


@pytest.mark.parametrize(
    ("mixer", "name"),
    [thorough(mixer, name) for mixer in sorted(MIXERS) for name in sorted(TOYS)],
)
def test_any_mixer_in_any_skeleton(mixer: str, name: str) -> None:
    model = toy(name, mixers=mixer).train()
    output = model(images(40, 56))
    assert output.shape == (2, 7)
    output.square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", sorted(TOYS))
def test_mixers_of_each_stage(name: str) -> None:
    listed = toy(name, mixers=per_mixing_stage(name, HYBRID))
    text = toy(name, mixers=",".join(per_mixing_stage(name, HYBRID)))
    x = images(40, 56)
    assert torch.equal(listed(x), text(x))


def test_features_of_a_skeleton_with_another_mixer() -> None:
    features = timm.create_model("mixernet_tiny", mixers="aff", features_only=True).eval()
    assert [tuple(level.shape[1:]) for level in features(images(64, 64))] == [
        (48, 16, 16),
        (96, 8, 8),
        (192, 4, 4),
        (320, 2, 2),
    ]


@pytest.mark.parametrize("name", sorted(TOYS))
def test_same_seed_same_weights(name: str) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(timm.create_model(name, **TOYS[name]).state_dict())
    first, same, other = states
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", sorted(TOYS))
def test_round_trip_through_a_folder(name: str, tmp_path: Path) -> None:
    """What ``save_for_hf`` of timm writes: arguments as JSON; a folder loads like a Hugging Face repository."""
    args = {**TOYS[name], "mixers": per_mixing_stage(name, HYBRID)}
    model = toy(name, in_chans=4, mixers=args["mixers"])
    folder = tmp_path / "repository"
    timm.models.save_for_hf(model, folder, model_args=args, safe_serialization=True)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["architecture"] == name
    assert stored["model_args"]["mixers"] == args["mixers"]
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=4).eval()
    x = images(40, 56, chans=4)
    assert loaded.num_classes == 7
    assert torch.equal(loaded(x), model(x))
    fewer = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=4, num_classes=0).eval()
    assert torch.equal(fewer(x), model.forward_head(model.forward_features(x), pre_logits=True))
    features = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=4, features_only=True).eval()
    levels = model.forward_intermediates(x, intermediates_only=True)
    assert max(distance(a, b) for a, b in zip(features(x), levels, strict=True)) < 1e-5


def test_another_number_of_image_channels_or_classes_adapts(tmp_path: Path) -> None:
    """One channel gets the sum of the three first filters, another number of classes a new classifier."""
    model = toy("mixernet_pico")
    timm.models.save_for_hf(model, tmp_path, model_args=TOYS["mixernet_pico"], safe_serialization=True)
    grey = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=1, num_classes=3).eval()
    x = images(32, 32)[:, :1]
    assert distance(grey.forward_features(x), model.forward_features(x.expand(-1, 3, -1, -1))) < 1e-5
    assert grey(x).shape == (2, 3)
