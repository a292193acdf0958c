"""Rewriting checkpoints: official to ours, ours to official, without loss; and what our own files remember."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import timm
import torch

from tests import goldens
from tests.checkpoint_files import extras, official, open_args, prefixed, same, shifted
from tests.scramble import scramble
from tests.train_toys import toy_data, toy_recipe
from tokenmix.checkpoints import CheckpointError, convert, load_checkpoint, open_model
from tokenmix.cli import main
from tokenmix.train import fit, load_run
from tokenmix.weight_files import read_info, weights_bytes

XS = "casvit_xs"
SMALL = ("affnet_et", "casvit_xs", "casvit_xs_fork", "ffnet_1", "ffnet_1_mmdet_backbone")
NAMES = [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in goldens.names()]


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_without_loss(name: str, tmp_path) -> None:
    source, ours, back = tmp_path / "official.pth", tmp_path / "ours.safetensors", tmp_path / "back.pth"
    args = open_args(name)
    torch.save({**extras(), "state_dict": shifted(official(name)), "state_dict_ema": official(name)}, source)
    model = convert(source, ours, **args)
    again = load_checkpoint(ours)  # without a question about what the keys do not tell
    assert type(again) is type(model)
    assert not again.training
    assert same(again.state_dict(), model.state_dict())
    convert(ours, back, to="official")
    assert same(torch.load(back, weights_only=True)["state_dict"], official(name))
    convert(source, tmp_path / "direct.safetensors", to="official", **args)
    assert same(safetensors.torch.load_file(tmp_path / "direct.safetensors"), official(name))


def test_the_official_shape_of_layer_scale_comes_back(tmp_path) -> None:
    args = {"num_classes": 3, "layer_scale": 0.5}
    model = scramble(timm.create_model("ffnet_1", **args))
    path = tmp_path / "own.safetensors"
    path.write_bytes(weights_bytes(model.state_dict(), {"model": "ffnet_1", "model_args": args}))
    convert(path, tmp_path / "official.pth.tar", to="official")
    state = torch.load(tmp_path / "official.pth.tar", weights_only=True)["state_dict"]
    assert state["stages.1.1.token_mixer.0.layer_scale"].shape == (160, 1, 1)
    assert torch.equal(state["stages.1.1.token_mixer.0.layer_scale"][:, 0, 0], model.stages[1].blocks[0].mixer.scale)
    assert same(load_checkpoint(tmp_path / "official.pth.tar").state_dict(), model.state_dict())


def test_options_survive_in_our_file(tmp_path) -> None:
    path, given = tmp_path / "ours.safetensors", {"norm": "layer", "act": "relu", "threshold": 0.1}
    model = convert(official("affnet_et"), path, **given, dtype=torch.float32)
    assert read_info(path)["model_args"] == {**given, "in_chans": 3, "num_classes": 1000}
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_checkpoint(path)(x), model(x))
        assert not torch.equal(load_checkpoint(path, act="silu")(x), model(x))
    convert(path, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_raw_weights_other_classes_and_a_dense_tasks_file(tmp_path) -> None:
    path = tmp_path / "ours.safetensors"
    both = {"model": shifted(official(XS)), "model_ema": official(XS)}
    assert same(convert(both, path, ema=False).state_dict(), load_checkpoint(both["model"]).state_dict())
    convert(official(XS), path, num_classes=5, in_chans=1)
    assert (load_checkpoint(path).num_classes, load_checkpoint(path).in_chans) == (5, 1)
    file = {**prefixed(official("casvit_xs_fork"), "backbone."), "decode_head.weight": torch.zeros(1)}
    with pytest.warns(UserWarning, match="only the backbone"):
        convert({"state_dict": file}, path)
    convert(path, tmp_path / "back.pth", to="official")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"], official("casvit_xs_fork"))


@pytest.mark.parametrize(
    ("variant", "args"),
    [
        (XS, {"mixers": "pool"}),
        (XS, {"mixers": "attention"}),  # whose keys look like the official ones
        (XS, {"mixers": "aff"}),
        ("affnet_et", {"mixers": "additive"}),
        ("ffnet_1", {"mixers": "ffnified(key_size=5, value_size=5)"}),
        (XS, {"depths": [1, 1, 1, 1]}),
        ("mixernet_pico", {}),
        ("dsm_ti", {}),
    ],
)
def test_other_architectures_have_no_official_names(variant: str, args: dict, tmp_path) -> None:
    path = tmp_path / "own.safetensors"
    model = timm.create_model(variant, **args)
    path.write_bytes(weights_bytes(model.state_dict(), {"model": variant, "model_args": args}))
    assert same(load_checkpoint(path).state_dict(), model.state_dict())
    with pytest.raises(CheckpointError, match=r"own\.safetensors: .*official"):
        convert(path, tmp_path / "official.pth", to="official")
    assert os.listdir(tmp_path) == ["own.safetensors"]


def test_nothing_is_left_behind_by_a_failure(tmp_path, monkeypatch) -> None:
    target = tmp_path / "ours.safetensors"
    target.write_bytes(b"as before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        convert(official(XS), target)
    monkeypatch.undo()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        convert(official(XS), tmp_path / "official.pth", to="official")
    assert os.listdir(tmp_path) == ["ours.safetensors"]
    assert target.read_bytes() == b"as before"


def test_mistakes_are_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown format 'offical'; did you mean 'official'"):
        convert(official(XS), tmp_path / "a.pth", to="offical")
    with pytest.raises(CheckpointError, match=r"a\.pth: to='tokenmix' writes a file that ends in \.safetensors"):
        convert(official(XS), tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"a\.onnx: to='official' writes a file that ends in \.safetensors or \.pth"
    ):
        convert(official(XS), tmp_path / "a.onnx", to="official")
    path = tmp_path / "own.safetensors"
    path.write_bytes(weights_bytes({}, {"model": "mixernet_pic", "model_args": {}}))
    with pytest.raises(
        CheckpointError, match=r"own\.safetensors: unknown model 'mixernet_pic'; did you mean 'mixernet_p"
    ):
        load_checkpoint(path)


def test_the_command(tmp_path, capsys) -> None:
    torch.save({"model_ema": official("affnet_et"), **extras()}, tmp_path / "et.pt")
    ours, back = tmp_path / "et.safetensors", tmp_path / "back.pth"
    options = ["--norm", "layer", "--act", "relu", "--threshold", "0.1"]
    assert not main(["convert", str(tmp_path / "et.pt"), str(ours), *options])
    assert "1,436,264 parameters" in capsys.readouterr().out
    assert not main(["convert", str(ours), str(back), "--to", "official"])
    assert same(torch.load(back, weights_only=True)["state_dict"], official("affnet_et"))


def test_safetensors_of_others(tmp_path) -> None:
    """Official keys in a safetensors file, and a file that timm saved for the hub."""
    safetensors.torch.save_file(dict(official(XS)), tmp_path / "official.safetensors")
    model = load_checkpoint(tmp_path / "official.safetensors")
    timm.models.save_for_hf(model, str(tmp_path / "hub"), safe_serialization=True)
    assert same(load_checkpoint(tmp_path / "hub" / "model.safetensors").state_dict(), model.state_dict())


def test_weights_of_a_training_run(tmp_path) -> None:
    args = {"mixers": "pool", "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    recipe = toy_recipe(epochs=0.2, warmup_epochs=0, model="mixernet_pico", model_args=args, image_size=32)
    data = toy_data()
    best = fit(recipe, data, tmp_path / "run", progress=False, log=str).best_weights
    trained, info = load_run(tmp_path / "run")
    for source in (best, tmp_path / "run"):
        assert same(load_checkpoint(source).state_dict(), trained.state_dict())
    opened = open_model(tmp_path / "run")
    assert (opened.name, opened.classes, opened.image_size) == ("mixernet_pico", data.classes, (32, 32))
    assert (opened.mean, opened.std) == (info["mean"], info["std"])
    convert(best, tmp_path / "copy.safetensors")
    copied = load_run(tmp_path / "copy.safetensors")[1]
    assert all(copied[key] == value for key, value in info.items() if key != "model_args")
    assert copied["model_args"] == {**args, "num_classes": 3}
    convert(best, tmp_path / "other.safetensors", num_classes=9)
    assert "classes" not in read_info(tmp_path / "other.safetensors")
    assert load_checkpoint(tmp_path / "other.safetensors").num_classes == 9


def test_one_entry_of_metadata_and_equal_bytes(tmp_path) -> None:
    state, info = {"b": torch.ones(2), "a": torch.zeros(1, 2).T}, {"model": "x", "model_args": {}, "classes": ["ä"]}
    data = weights_bytes(state, info)
    assert data == weights_bytes(state, dict(reversed(info.items())))
    (tmp_path / "a.safetensors").write_bytes(data)
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["tokenmix"]) == info == read_info(tmp_path / "a.safetensors")
        assert len(file.metadata()) == 1
