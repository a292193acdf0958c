"""Official weights through timm's own doors: addresses, files, folders for the hub; each variant's preprocessing."""

from __future__ import annotations

import argparse
import copy
import importlib
import inspect
import pickle
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch

import tokenmix
from tests.checkpoint_files import AFFNET_ARGS, extras, official, prefixed, shifted
from tests.scramble import scramble
from tokenmix.backbones import affnet, casvit, dsm, ffnet, mixernet
from tokenmix.bench.models import open_models
from tokenmix.checkpoints import CheckpointError, load_checkpoint, open_model, our_models
from tokenmix.weight_files import weights_bytes

RELEASES = "https://github.com/ysj9909/FFNet/releases/download/v1.0/"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
every_family = pytest.mark.parametrize(
    ("name", "args", "keys"),
    [
        ("affnet_et", AFFNET_ARGS, ("ema_state_dict", "model_state_dict")),
        ("casvit_xs", {}, ("model_ema", "model")),
        ("ffnet_1", {}, ("state_dict_ema", "state_dict")),
    ],
)


def expected(name: str, args: dict, **kwargs) -> dict[str, torch.Tensor]:
    return load_checkpoint(official(name), **args, **kwargs).state_dict()


def same(one, other, *, but: tuple[str, ...] = ()) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[key]) for key, tensor in one.items() if not key.startswith(but or ("-",))
    )


def released(name: str, path: Path, averaged: str = "state_dict_ema", raw: str = "state_dict") -> Path:
    """A training checkpoint as the official projects publish it: what counts are the averaged weights."""
    weights = prefixed(official(name), "module.")
    torch.save({**extras(), raw: prefixed(shifted(official(name)), "module."), averaged: weights}, path)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


@every_family
def test_an_address_or_a_file_in_the_configuration(name: str, args: dict, keys: tuple[str, str], tmp_path) -> None:
    path = released(name, tmp_path / "weights.pth.tar", *keys)
    from_url, from_file = (
        {"pretrained": True, "pretrained_cfg_overlay": place} for place in ({"url": path.as_uri()}, {"file": str(path)})
    )
    for model in (timm.create_model(name, **from_url), timm.create_model(name, **from_file)):
        assert same(model.state_dict(), expected(name, args))
    changed = timm.create_model(name, **from_url, num_classes=5, in_chans=1)
    assert same(changed.state_dict(), expected(name, args, num_classes=5, in_chans=1), but=("head.fc",))
    bare = timm.create_model(name, **from_file, num_classes=0, in_chans=4)
    assert same(bare.state_dict(), expected(name, args, num_classes=0, in_chans=4))


@every_family
def test_checkpoint_path(name: str, args: dict, keys: tuple[str, str], tmp_path) -> None:
    """Timm reads it with its own allow-list: `argparse.Namespace`, no NumPy scalars, which `load_checkpoint` takes."""
    averaged, raw = keys
    content = {"args": argparse.Namespace(lr=1e-3), raw: shifted(official(name)), averaged: official(name)}
    torch.save(content, tmp_path / "a.pth")
    model = timm.create_model(name, checkpoint_path=str(tmp_path / "a.pth"))
    assert same(model.state_dict(), expected(name, args))
    torch.save(model.state_dict(), tmp_path / "own.pth")
    assert same(timm.create_model(name, checkpoint_path=str(tmp_path / "own.pth")).state_dict(), model.state_dict())
    other = timm.create_model(name, num_classes=3)
    with pytest.raises(RuntimeError, match=r"size mismatch for head\.fc\.weight"):
        other.load_state_dict(official(name))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"conv1.weight": torch.zeros(1)})
    assert other.load_state_dict({}, strict=False).unexpected_keys == []


def test_features_from_an_official_file(tmp_path) -> None:
    path = released("casvit_xs", tmp_path / "weights.pth")
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}}
    features = timm.create_model("casvit_xs", features_only=True, out_indices=(0, 3), **overlay)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = load_checkpoint(official("casvit_xs")).forward_intermediates(x, (0, 3), intermediates_only=True)
        assert all(torch.equal(one, other) for one, other in zip(features.eval()(x), maps, strict=True))


@pytest.mark.parametrize("variant", ["mixernet_pico", "casvit_xs", "affnet_et"])
@pytest.mark.parametrize("mixers", [None, "pool", ["identity", "ffnified(key_size=3)", "pool"]])
def test_a_folder_for_the_hub_and_back(variant: str, mixers, tmp_path) -> None:
    if isinstance(mixers, list) and variant != "affnet_et":
        mixers = [*mixers, "pool"]
    args = {} if mixers is None else {"mixers": mixers}
    model = timm.create_model(variant, num_classes=3, **args).eval()
    timm.models.save_for_hf(model, str(tmp_path / "hub"), model_args=args or None, safe_serialization="both")
    again = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert same(again.state_dict(), model.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert tuple(again.pretrained_cfg["mean"]) == model.pretrained_cfg["mean"]


class Hub:
    """A stand-in for the hub's client: one folder instead of a repository."""

    folder: Path

    def __init__(self, **_) -> None: ...

    def create_repo(self, repo_id: str, **_) -> argparse.Namespace:
        return argparse.Namespace(repo_id=repo_id)

    def file_exists(self, **_) -> bool:
        return False

    def upload_folder(self, folder_path: str, **_) -> None:
        shutil.copytree(folder_path, self.folder)


def test_pushing_to_a_repository_and_loading_from_it(tmp_path, monkeypatch) -> None:
    hub = importlib.import_module("timm.models._hub")
    if not hasattr(hub, "HfApi"):
        pytest.skip("this version of timm calls the hub in another way")
    Hub.folder = tmp_path / "repository"
    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "hf_hub_download", lambda repo_id, filename, **_: str(Hub.folder / filename))
    model = scramble(timm.create_model("mixernet_pico", mixers="pool", num_classes=3))
    timm.models.push_to_hf_hub(model, "owner/name", model_args={"mixers": "pool"})
    assert (Hub.folder / "README.md").is_file()
    again = timm.create_model("hf-hub:owner/name", pretrained=True)
    assert same(again.state_dict(), model.state_dict())
    assert same(open_model("hf-hub:owner/name").model.state_dict(), model.state_dict())


def configurations() -> dict[str, timm.models.PretrainedCfg]:
    return {f"{arch}.{tag}" if tag else arch: cfg for family in (affnet, casvit, dsm, ffnet, mixernet)
            for arch, default in family.default_cfgs.items() for tag, cfg in default.cfgs.items()}  # fmt: skip


def test_every_variant_prepares_images_as_its_project_does() -> None:
    found = configurations()
    assert {name.split(".")[0] for name in found} == set(our_models())
    for name, cfg in found.items():
        family = name.split("_")[0]
        values = (cfg.input_size, cfg.interpolation, cfg.crop_mode or "center", (cfg.mean, cfg.std))
        size, plain = cfg.input_size[1], (IMAGENET if family != "affnet" else ((0.0,) * 3, (1.0,) * 3))
        interpolation = "bilinear" if family == "affnet" else "bicubic"
        mode = "squash" if family == "casvit" and size == 384 else "center"
        assert values == ((3, size, size), interpolation, mode, plain), name
        crops = {("affnet", 256): {256 / 288}, ("casvit", 224): {0.875}, ("casvit", 384): {1.0}, ("dsm", 224): {0.9},
                 ("ffnet", 256): {0.9, 0.95}, ("ffnet", 384): {1.0}, ("mixernet", 224): {0.9}}  # fmt: skip
        assert cfg.crop_pct in crops[family, size], name
        if family == "ffnet" and size == 256:
            assert cfg.crop_pct == (0.95 if name[:7] in ("ffnet_3", "ffnet_4") else 0.9), name
        assert not cfg.fixed_input_size
    assert int(256 / found["affnet_et.untrained"].crop_pct) == 288
    assert int(224 / found["casvit_s.in1k"].crop_pct) == 256


@pytest.mark.parametrize("name", ["affnet_et", "ffnet_1", "ffnet_3", "casvit_xs", "casvit_xs.ft_in1k_384", "dsm_ti"])
def test_timms_transform_does_that(name: str) -> None:
    """On an image of 400 x 300: what is resized to what, and which part remains."""
    cfg = timm.get_pretrained_cfg(name)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict()))
    text = str(transform)
    size = cfg.input_size[1]
    resized = {"affnet_et": 288, "ffnet_1": 284, "ffnet_3": 269, "casvit_xs": 256, "dsm_ti": 248}.get(name)
    if resized is None:
        assert re.search(r"Resize\(size=\(384, 384\)", text)
    else:
        assert re.search(rf"Resize\(size={resized},", text)
        assert f"CenterCrop(size=({size}, {size}))" in text
    assert ("bilinear" if name == "affnet_et" else "bicubic") in text


def test_the_only_addresses_are_the_releases_of_ffnet() -> None:
    found = {name: cfg.url for name, cfg in configurations().items() if cfg.url}
    files = {
        "ffnet_1.in1k": "ffnet_1", "ffnet_2.in1k": "ffnet_2", "ffnet_3.in1k": "ffnet_3",
        "ffnet_1.dist_in1k": "ffnet_1_distillation", "ffnet_2.dist_in1k": "ffnet_2_distillation",
        "ffnet_3.dist_in1k": "ffnet_3_distillation",
        "ffnet_3.ft_in1k_384": "ffnet_3_384", "ffnet_4.ft_in1k_384": "ffnet_4_384",
    }  # fmt: skip
    assert found == {name: f"{RELEASES}{file}.pth.tar" for name, file in files.items()}
    assert not any(cfg.hf_hub_id or cfg.file for cfg in configurations().values())
    for path in Path(inspect.getfile(tokenmix)).parent.glob("backbones/*.py"):
        addresses = re.findall(r"https?://[^\s\"'`)]+", path.read_text(encoding="utf-8"))
        allowed = (
            "https://github.com/ysj9909/FFNet",
            "https://github.com/Tianfang-Zhang/CAS-ViT",
            "https://github.com/microsoft/TokenMixers",
        )
        assert all(address.startswith(allowed) for address in addresses), path


def test_a_model_with_its_loading_hook_can_be_copied_and_scripted() -> None:
    model = scramble(timm.create_model("affnet_et")).eval()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.load_state_dict(official("affnet_et"))
        assert same(other.state_dict(), expected("affnet_et", AFFNET_ARGS))
    torch.jit.script(model)
    assert not same(model.state_dict(), expected("affnet_et", AFFNET_ARGS))


@timm.models.register_model
def plain_toy(pretrained: bool = False, num_classes: int = 10, **_) -> torch.nn.Module:
    """A model that somebody registered with timm, without a configuration."""
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, num_classes))


def test_a_model_registered_without_a_configuration_is_opened_by_what_its_file_says(tmp_path) -> None:
    model = timm.create_model("plain_toy", num_classes=3).eval()
    info = {
        "model": "plain_toy",
        "model_args": {"num_classes": 3},
        "task": "classification",
        "classes": ["a", "b", "c"],
    }
    info |= {"image_size": [16, 24], "mean": [0.1] * 3, "std": [0.2] * 3, "crop_pct": 1.0}
    file = tmp_path / "best.safetensors"
    file.write_bytes(weights_bytes(model.state_dict(), info))
    loaded = open_model(file)
    x = torch.rand(2, 3, 16, 24)
    assert torch.equal(loaded.model(x), model(x))
    assert (loaded.image_size, loaded.mean, loaded.facts["classes"]) == ((16, 24), (0.1,) * 3, ["a", "b", "c"])
    with pytest.raises(CheckpointError, match="of another shape"):
        load_checkpoint(file, num_classes=4)
    with pytest.raises(ValueError, match="registered without timm's configuration"):
        open_models(["plain_toy"])
