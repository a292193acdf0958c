"""Dense models start from classifiers, from their own kind and from others: tensor by tensor."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.backbone_cases import TOYS
from tests.dense_toys import write_plain
from tests.scramble import scramble
from tests.train_toys import toy_recipe
from tokenmix.checkpoints import CheckpointError, convert, load_checkpoint
from tokenmix.heads import HEADS, make_dense
from tokenmix.heads.levels import TimmLevels, levels_of
from tokenmix.recipes import Recipe
from tokenmix.sources import load_data
from tokenmix.tasks.initial_weights import initial_weights
from tokenmix.train import fit
from tokenmix.weight_files import weights_bytes

CLASSES = ["red", "green", "blue"]
# head, and what of it stays small, for each family; the dilated stages of DeepLabv3 among them
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "affnet_et": ("deeplabv3", {"channels": 8, "output_stride": 8, "aux": True}),
    "casvit_xs": ("semantic_fpn", {"channels": 8, "level_norm": "batch"}),
    "dsm_s": ("retinanet", {"level_norm": "layer"}),
    "ffnet_3": ("mask_rcnn", {"level_norm": "layer"}),
    "ffnet_seg": ("ffnet_seg", {"head_dim": 16, "channels": 24}),
    "mixernet_pico": ("ssdlite", {}),
    "resnet18": ("semantic_fpn", {"channels": 8}),
    "convnext_atto": ("upernet", {"channels": 8}),
    "vit_tiny_patch16_224": ("ffnet_seg", {"head_dim": 16, "channels": 24, "img_size": 64, "depth": 3}),
}
SMALL = TOYS | {
    "convnext_atto": {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 3},
}


def recipe(name: str, weights: Any, **changes: Any) -> Recipe:
    head, options = FAMILIES[name]
    head = changes.pop("head", head)
    args = {**SMALL.get(name, {}), **changes.pop("model_args", options)}
    shape = {"head": head, "task": HEADS[head].task, "label_smoothing": 0.0, "model": name, "model_args": args}
    return toy_recipe(**{**shape, "weights": str(weights), **changes})


def start(recipe: Recipe, classes=CLASSES) -> tuple[dict[str, torch.Tensor], list[str]]:
    lines: list[str] = []
    torch.manual_seed(recipe.run.seed)
    return dict(initial_weights(recipe, classes, len(classes), lines.append)), lines


def fresh(recipe: Recipe) -> nn.Module:
    torch.manual_seed(recipe.run.seed)
    return make_dense(recipe.model.head, recipe.model.name, len(CLASSES), **recipe.model.args)


def classifier(name: str, folder) -> tuple[nn.Module, Any]:
    """A small one with weights that matter, and its file."""
    model = scramble(timm.create_model(name, num_classes=7, **SMALL.get(name, {})))
    file = folder / f"{name}.safetensors"
    info = {"model": name, "model_args": SMALL.get(name, {}) | {"num_classes": 7}}
    file.write_bytes(weights_bytes(model.state_dict(), info))
    return model, file


@pytest.mark.parametrize("name", FAMILIES)
def test_every_tensor_of_the_backbone_is_the_classifiers(tmp_path, name) -> None:
    model, file = classifier(name, tmp_path)
    (state, lines), given = start(recipe(name, file)), model.state_dict()
    target = fresh(recipe(name, file))
    prefix, levels = levels_of(target)
    untouched, count = target.state_dict(), 0
    target.load_state_dict(state)
    for key, value in levels.state_dict().items():
        if key.startswith("norms."):
            continue
        count += 1
        # timm joins the first names of nested modules by "_", or wraps the model
        theirs = key.removeprefix("features.").removeprefix("model.") if isinstance(levels, TimmLevels) else key
        theirs = theirs if theirs in given else theirs.replace("_", ".", 1)
        assert torch.equal(value, given[theirs]), key
    assert count > 20
    for key, value in state.items():  # the head is the one that the seed makes
        if not key.startswith(prefix) or ".norms." in key:
            assert torch.equal(value, untouched[key]), key
    (line,) = lines
    assert line.startswith(f"{file}: {count} tensors fill the backbone; its ")
    assert line.endswith(f"are left out; the head {FAMILIES[name][0]} is fresh")


@pytest.mark.parametrize("name", ["affnet_et", "casvit_xs", pytest.param("ffnet_1", marks=pytest.mark.slow)])
def test_official_checkpoints_fill_the_backbone(tmp_path, name) -> None:
    model = scramble(timm.create_model(name, num_classes=11))
    ours, file = tmp_path / "ours.safetensors", tmp_path / "official.pth"
    ours.write_bytes(weights_bytes(model.state_dict(), {"model": name, "model_args": {"num_classes": 11}}))
    convert(ours, file, to="official")
    assert not torch.load(file, weights_only=True)["state_dict"].keys() & model.state_dict().keys()
    shape = {"head": "semantic_fpn", "task": "segmentation", "label_smoothing": 0.0, "model": name}
    state, lines = start(toy_recipe(**shape, model_args={"channels": 8}, weights=str(file)))
    inner = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    for key, value in inner.items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert lines[0].split(": ")[1].startswith(f"{len(inner)} tensors")


def dense_file(folder, name: str, classes, **changes: Any):
    settings = recipe(name, "none", **changes)
    model = scramble(make_dense(settings.model.head, name, len(classes), **settings.model.args))
    info = {"model": name, "model_args": settings.model.args, "head": settings.model.head, "classes": list(classes)}
    file = folder / "dense.safetensors"
    file.write_bytes(weights_bytes(model.state_dict(), info))
    return model, file


@pytest.mark.parametrize("name", ["affnet_et", "ffnet_3"])
def test_the_same_head_gives_everything(tmp_path, name) -> None:
    model, file = dense_file(tmp_path, name, CLASSES)
    state, lines = start(recipe(name, file))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert lines == [f"{file}: {len(state)} tensors of a {FAMILIES[name][0]} are taken, 0 are fresh"]
    for others in (["a", "b", "c"], ["a", "b"]):  # as many, and fewer
        state, _ = start(recipe(name, file), others)
        outputs = {key for key in state if key.rpartition(".")[0] in model.classifiers}
        assert outputs
        for key, value in model.state_dict().items():
            assert (state[key].shape == value.shape and torch.equal(state[key], value)) == (key not in outputs), key


@pytest.mark.parametrize("name", ["casvit_xs", "resnet18"])
def test_another_head_gives_its_backbone(tmp_path, name) -> None:
    """With the norms behind the levels, where both have them."""
    model, file = dense_file(tmp_path, name, CLASSES, model_args={"channels": 8, "level_norm": "batch"})
    wanted = recipe(name, file, head="upernet", model_args={"channels": 8, "level_norm": "batch"})
    state, lines = start(wanted)
    for key, value in model.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(state[key], value), key
    assert "the head upernet is fresh" in lines[0]


def test_another_architecture_is_one_clear_error(tmp_path) -> None:
    _, file = classifier("casvit_xs", tmp_path)
    with pytest.raises(CheckpointError, match=r"holds casvit_xs, which does not fit ffnet_3 .*: \d+ of the backbone"):
        start(recipe("ffnet_3", file))
    with pytest.raises(CheckpointError, match=r"holds casvit_xs, which does not fit casvit_xs with .*'dims': \[16"):
        start(recipe("casvit_xs", file, model_args={"channels": 8, "dims": [16, 24, 32, 48]}))
    _, file = dense_file(tmp_path, "casvit_xs", CLASSES)
    with pytest.raises(CheckpointError, match=r"holds casvit_xs, .* is of another shape"):
        start(recipe("casvit_xs", file, model_args={"channels": 12, "level_norm": "batch"}))
    with pytest.raises(ValueError, match="casvit_xs has no published weights to download"):
        start(recipe("casvit_xs", "pretrained"))


def test_published_weights_fill_the_backbone(monkeypatch) -> None:
    """As timm would download them: what `create_model` returns."""
    small = {"depths": [1, 1, 1, 1], "dims": [8, 16, 32, 64], "stem_dim": 8}
    model, create, asked = scramble(timm.create_model("ffnet_2", **small)), timm.create_model, []

    def published(name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
        asked.append((name, arguments)) if pretrained else None
        return model if pretrained else create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", published)
    shape = {"head": "upernet", "task": "segmentation", "label_smoothing": 0.0, "model": "ffnet_2.dist_in1k"}
    args = {"channels": 8, "level_norm": "layer", **small}
    state, lines = start(toy_recipe(**shape, model_args=args, weights="pretrained"))
    assert asked == [("ffnet_2.dist_in1k", small)]
    given = model.state_dict()
    inner = [key for key in state if key.startswith("backbone.") and ".norms." not in key]
    assert all(torch.equal(state[key], given[key.removeprefix("backbone.")]) for key in inner)
    assert lines[0].startswith(f"pretrained: {len(inner)} tensors fill the backbone; its final, head are left out")


def test_a_run_says_so_and_starts_there(tmp_path) -> None:
    _, file = classifier("mixernet_pico", tmp_path)
    lines: list[str] = []
    data = load_data(write_plain(tmp_path / "set"), task="segmentation", log=lambda line: None)
    changes = {"head": "semantic_fpn", "model_args": {"channels": 8}, "image_size": 64, "batch_size": 3}
    settings = recipe("mixernet_pico", file, **changes, epochs=1, warmup_epochs=0, lr=1e-12, ema_decay=None)
    fit(settings, data, tmp_path / "run", log=lines.append, progress=False)
    assert any("its final, head are left out; the head semantic_fpn is fresh" in x for x in lines)
    model, given = load_checkpoint(tmp_path / "run"), load_checkpoint(file)
    for name, value in levels_of(model)[1].named_parameters():
        torch.testing.assert_close(value, given.get_parameter(name), rtol=0, atol=1e-8)
