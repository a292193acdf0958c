"""Loading what the official projects publish: containers, recognition, options, and other classes or channels."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import timm
import torch

import tokenmix
from tests.checkpoint_files import AFFNET_ARGS, extras, official, prefixed, same, shifted, translated
from tokenmix.backbones import casvit
from tokenmix.backbones.official import ALLOWED
from tokenmix.checkpoints import CheckpointError, convert, load_checkpoint, open_model
from tokenmix.heads.levels import Levels

XS = "casvit_xs"


@pytest.mark.parametrize(
    ("averaged", "raw"),
    [("state_dict_ema", "state_dict"), ("model_ema", "model"), ("ema_state_dict", "model_state_dict")],
)
def test_training_checkpoints_give_their_averaged_weights(averaged: str, raw: str, tmp_path) -> None:
    ema, trained, path = official(XS), shifted(official(XS)), tmp_path / "checkpoint.pth"
    expected = translated(XS)
    torch.save({**extras(), raw: trained, averaged: ema}, path)
    assert same(load_checkpoint(path).state_dict(), expected)
    assert same(load_checkpoint(str(path), ema=False).state_dict(), load_checkpoint(trained).state_dict())
    for nothing in ({averaged: None}, {averaged: {}}, {}):
        torch.save({raw: ema, **nothing, "optimizer": None}, path)
        assert same(load_checkpoint(path).state_dict(), expected)
        assert same(load_checkpoint(path, ema=False).state_dict(), expected)
    torch.save({averaged: ema, "epoch": 1}, path)
    assert same(load_checkpoint(path).state_dict(), expected)
    with pytest.raises(
        CheckpointError, match=r"checkpoint\.pth: it has only averaged \(EMA\) weights; load it without"
    ):
        load_checkpoint(path, ema=False)


@pytest.mark.parametrize("prefix", ["module.", "module.module.", "_orig_mod.module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(prefix: str) -> None:
    expected = translated(XS)
    wrapped = prefixed(official(XS), prefix)
    assert same(load_checkpoint(wrapped).state_dict(), expected)
    assert same(load_checkpoint({"model": {"state_dict": wrapped}}).state_dict(), expected)


def test_files_of_old_and_of_new_torch(tmp_path) -> None:
    for new in (False, True):
        torch.save(official(XS), tmp_path / "bare.pt", _use_new_zipfile_serialization=new)
        assert same(load_checkpoint(tmp_path / "bare.pt").state_dict(), translated(XS))


def test_the_extras_come_back_as_plain_data(tmp_path) -> None:
    torch.save(extras(), tmp_path / "extras.pth")
    with torch.serialization.safe_globals(ALLOWED):
        content = torch.load(tmp_path / "extras.pth", weights_only=True)
    assert content["metric"] == 81.3
    assert content["best_metric"] == pytest.approx(73.02)
    assert content["counts"] == [3, True, 9, "ab"]
    assert content["lr_scheduler"]["history"] == {"loss": [1.0, 0.5]}
    assert content["lr_scheduler"]["window"] == [1.0, 2.0]
    assert content["lr_scheduler"]["milestones"] == {30: 1, 60: 2}
    assert content["args"].nested.on is True
    assert content["args"].sizes == [224, (1, 2)]


def test_numpy_scalars_under_the_name_that_numpy_1_gave_them(tmp_path) -> None:
    torch.save({"model": official(XS), "metric": np.float64(81.3)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for item in new.infolist():
            old.writestr(item, new.read(item).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert b"cnumpy.core.multiarray" in (tmp_path / "old.pth").read_bytes()
    assert same(load_checkpoint(tmp_path / "old.pth").state_dict(), translated(XS))


def test_a_dense_tasks_file_gives_the_levels_and_names_what_it_left(tmp_path) -> None:
    path, weights = tmp_path / "mmseg.pth", official("casvit_xs_fork")
    heads = {"decode_head.conv_seg.weight": torch.zeros(150, 4, 1, 1), "auxiliary_head.conv.weight": torch.zeros(2)}
    for prefix in ("backbone.", "module.backbone.", "backbone.module."):
        rest = prefixed(heads, "module.") if prefix.startswith("module.") else heads
        torch.save({"meta": extras()["meta"], "state_dict": {**prefixed(weights, prefix), **rest}}, path)
        with pytest.warns(
            UserWarning, match=r"only the backbone was loaded; auxiliary_head\.\*, decode_head\.\* were"
        ) as told:
            model = load_checkpoint(path)
        assert len(told) == 1
        assert isinstance(model, Levels)
        assert not model.training
        assert same(casvit.KEYS.to_official(model.state_dict()), dict(weights))


def test_an_encoder_inside_of_a_cvnets_file_gives_five_levels() -> None:
    manifest = official("affnet_et")
    encoder = {key: tensor for key, tensor in manifest.items() if not key.startswith(("conv_1x1_exp", "classifier"))}
    file = {**prefixed(encoder, "encoder."), "seg_head.classifier.block.conv.weight": torch.zeros(21, 256, 1, 1)}
    with pytest.warns(UserWarning, match="only the backbone") as told:
        model = load_checkpoint({"model_state_dict": file, "epoch": 3}, **AFFNET_ARGS, output_stride=16)
    assert [str(one.message) for one in told] == [
        "the given state dict: only the backbone was loaded; seg_head.* were left out"
    ]
    assert isinstance(model, Levels)
    assert model.reductions == [2, 4, 8, 16, 16]
    with torch.no_grad():
        expected = load_checkpoint(manifest, **AFFNET_ARGS, output_stride=16).forward_intermediates(
            x := torch.rand(1, 3, 64, 64)
        )
        assert all(torch.equal(one, other) for one, other in zip(model(x), expected[1], strict=True))


def test_a_feature_checkpoint_without_the_first_norm(tmp_path) -> None:
    weights = {key: tensor for key, tensor in official("casvit_xs_fork").items() if not key.startswith("norm0.")}
    model = convert(weights, tmp_path / "ours.safetensors")
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps, whole = model(x), load_checkpoint(official("casvit_xs_fork"))(x)
        assert [torch.equal(one, other) for one, other in zip(maps, whole, strict=True)] == [False, True, True, True]
        again = load_checkpoint(tmp_path / "ours.safetensors")(x)
        assert all(torch.equal(one, other) for one, other in zip(maps, again, strict=True))
    assert same(casvit.KEYS.to_official(model.state_dict()), weights)


def test_many_left_out_names_are_not_all_shown() -> None:
    rest = {f"ema_backbone_layer{i}": torch.zeros(1) for i in range(99)}
    with pytest.warns(UserWarning, match=r"ema_backbone_layer12\.\*, \.\.\. were left out"):
        load_checkpoint({**prefixed(official("casvit_xs_fork"), "backbone."), **rest})


def test_arguments_reach_the_builder_and_others_are_errors() -> None:
    model = load_checkpoint(official(XS), drop_path_rate=0.3, global_pool="max")
    assert model.stages[3].blocks[1].mlp.drop_path.rate == pytest.approx(0.3)
    assert model.head.pool.kind == "max"
    assert load_checkpoint(official(XS), dtype=torch.float64).head.fc.weight.dtype == torch.float64
    for wrong in ("drop_paths", "output_stride", "features_only", "pretrained"):
        with pytest.raises(TypeError, match=wrong):
            load_checkpoint(official(XS), **{wrong: 1})
    with pytest.raises(ValueError, match="did you mean 'additive'"):
        load_checkpoint(official(XS), mixers="additiv")
    with pytest.raises(CheckpointError, match=r"looks like casvit_xs, but the keys do not fit: \d+ missing"):
        load_checkpoint(official(XS), mixers="pool,aff,aff,pool")


@pytest.mark.parametrize("classes", [1000, 10, 0])
def test_another_number_of_classes(classes: int) -> None:
    weights = translated(XS)
    model = load_checkpoint(official(XS), num_classes=classes)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, classes or 220)
    assert model.num_classes == classes
    state = model.state_dict()
    heads = {key for key in weights if key.startswith(("head.fc.", "head.fc_dist."))}
    assert all(torch.equal(state[key], weights[key]) for key in weights.keys() - heads)
    assert (heads <= state.keys()) == (classes > 0)
    assert all(torch.equal(state[key], weights[key]) for key in heads) if classes == 1000 else True
    kept = load_checkpoint(official(XS), num_classes=classes, distillation=False).state_dict()
    assert "head.fc_dist.weight" not in kept
    if classes == 1000:
        mean = (weights["head.fc.weight"] + weights["head.fc_dist.weight"]) / 2
        assert torch.equal(kept["head.fc.weight"], mean)


def test_a_head_that_the_file_does_not_have() -> None:
    weights = {key: tensor for key, tensor in official(XS).items() if not key.startswith(("head.", "dist_head."))}
    assert load_checkpoint(weights).num_classes == 0
    assert load_checkpoint(weights, num_classes=5).num_classes == 5
    one = {key: tensor for key, tensor in official(XS).items() if not key.startswith("dist_head.")}
    assert load_checkpoint(one).get_classifier().out_features == 1000


@pytest.mark.parametrize("chans", [1, 2, 3, 4, 7])
def test_other_input_channels_as_timm_does_it(chans: int) -> None:
    adapt = timm.models.adapt_input_conv
    for name, args, key in ((XS, {}, "patch_embed.0.weight"), ("affnet_et", AFFNET_ARGS, "conv_1.block.conv.weight")):
        model = load_checkpoint(official(name), in_chans=chans, **args)
        first = model.get_submodule(model.pretrained_cfg["first_conv"])
        assert torch.allclose(first.weight, adapt(chans, official(name)[key]), atol=1e-7)
        assert model.in_chans == chans
    levels = load_checkpoint(official("casvit_xs_fork"), in_chans=chans)
    assert levels(torch.zeros(1, chans, 32, 32))[0].shape == (1, 48, 8, 8)


def test_a_file_with_other_channels_is_recognised_and_adapted_back() -> None:
    weights = {**official(XS), "patch_embed.0.weight": torch.rand(24, 4, 3, 3)}
    assert load_checkpoint(weights).in_chans == 4
    stem = load_checkpoint(weights, in_chans=3).stem[0].conv.weight
    assert torch.allclose(stem, weights["patch_embed.0.weight"][:, :3] * 4 / 3)


def test_open_model_takes_files_folders_and_names(tmp_path) -> None:
    torch.save({"model": official(XS)}, tmp_path / "xs.pth")
    opened = open_model(tmp_path / "xs.pth")
    assert (opened.name, opened.classes, opened.image_size, opened.crop_pct) == (XS, None, (224, 224), 0.875)
    assert same(opened.model.state_dict(), translated(XS))
    with pytest.warns(UserWarning, match="its weights are random"):
        opened = open_model("affnet_et", num_classes=3)
    assert (opened.mean, opened.std, opened.interpolation) == ((0.0,) * 3, (1.0,) * 3, "bilinear")
    model = timm.create_model("mixernet_pico", num_classes=2, mixers="pool")
    config = {"label_names": ["cat", "dog"]}
    timm.models.save_for_hf(model, str(tmp_path / "hub"), model_args={"mixers": "pool"}, model_config=config)
    opened = open_model(f"local-dir:{tmp_path / 'hub'}")
    assert same(opened.model.state_dict(), model.state_dict())
    assert opened.classes == ["cat", "dog"]
    with pytest.raises(
        CheckpointError, match="no such file or folder, and unknown model 'casvit_xss'; did you mean 'casv"
    ):
        open_model("casvit_xss")
    torch.save(official("casvit_xs_fork"), tmp_path / "fork.pth")
    with pytest.raises(CheckpointError, match="a backbone for dense tasks without a head"):
        open_model(tmp_path / "fork.pth")


def test_the_public_name() -> None:
    assert tokenmix.load_checkpoint is load_checkpoint
