"""Images that a model wants squeezed whole into its size: the same wherever it is judged or used."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from tests.export_cases import opened
from tests.train_toys import toy_model, toy_recipe
from tokenmix.checkpoints import open_model
from tokenmix.cli import main
from tokenmix.data.prepare import preprocess
from tokenmix.export import export
from tokenmix.recipes import make_recipe
from tokenmix.tasks import Judged, find_task
from tokenmix.tasks.classification.images import ClassData, FileImages
from tokenmix.tasks.classification.loader import Loader
from tokenmix.tasks.classification.task import ClassificationTask
from tokenmix.train import fit
from tokenmix_runtime.preprocess import resize_and_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    crop_pct=st.sampled_from([1.0, 0.95, 0.875, 0.5]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
@settings(max_examples=60, deadline=None)
def test_squash_is_timms(width, height, size, crop_pct, interpolation) -> None:
    image = noise(width, height)
    theirs = create_transform(
        (3, *size), crop_pct=crop_pct, crop_mode="squash", interpolation=interpolation, mean=MEAN, std=STD
    )(image)
    kind = {"crop_pct": crop_pct, "interpolation": interpolation, "crop_mode": "squash"}
    torch.testing.assert_close(preprocess(image, size, MEAN, STD, **kind), theirs, atol=1e-5, rtol=0)


def test_unknown_modes_get_a_suggestion() -> None:
    with pytest.raises(ValueError, match="unknown crop_mode 'squish'; did you mean 'squash'"):
        resize_and_crop(noise(4, 4), 2, crop_mode="squish")


@pytest.fixture
def photos(tmp_path) -> ClassData:
    """Wide and tall images of two classes."""
    folder = tmp_path / "photos"
    for index in range(8):
        file = folder / ("wide", "tall")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(*((90, 30) if index % 2 == 0 else (30, 90)), seed=index).save(file)
    names = [f"{('wide', 'tall')[index % 2]}/{index}.png" for index in range(8)]
    images = FileImages(folder, [index % 2 for index in range(8)], names)
    return ClassData("photos", images, images, images, 24, ["wide", "tall"])


def test_a_run_keeps_its_models_mode_to_the_end(tmp_path, photos, monkeypatch, capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asked = open_model("casvit_xs.ft_in1k_384")
    assert (asked.crop_mode, asked.crop_pct, asked.image_size) == ("squash", 1.0, (384, 384))

    recipe = toy_recipe(model="casvit_xs.ft_in1k_384", epochs=1, batch_size=4, image_size=32, preprocess="model")
    fit(recipe, photos, tmp_path / "run", log=lambda line: None, progress=False)
    opened = open_model(tmp_path / "run")
    assert opened.preparation == asked.preparation | {"mean": MEAN, "std": STD}
    shape = {"image_size": 32, "train": False}
    (batch,) = Loader(photos.val, batch_size=8, **shape, **opened.preparation).batches()
    whole = preprocess(photos.val.load(0), 32, MEAN, STD, crop_pct=1.0, crop_mode="squash")
    assert torch.equal(batch["image"][0], whole)

    with torch.no_grad():
        wanted = opened.model(whole[None])[0].softmax(0)
    picture = tmp_path / "photos" / photos.val.names[0]
    assert main(["predict", str(picture), "--model", str(tmp_path / "run"), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert dict(answer["top"]) == pytest.approx(dict(zip(photos.classes, wanted.tolist(), strict=True)), abs=1e-5)

    seen: list[torch.Tensor] = []
    import tokenmix.evaluate as room

    judged = Judged("photos", photos.test, photos.facts)
    monkeypatch.setattr(ClassificationTask, "open_judged", lambda *_, **__: judged)
    inner = room.evaluate
    monkeypatch.setattr(
        room, "evaluate", lambda task, loader, *rest: (seen.extend(loader.batches(0)), inner(task, loader, *rest))[1]
    )
    assert main(["eval", str(tmp_path / "run"), "--data", "photos", "--json"]) == 0
    assert torch.equal(seen[0]["image"][0], whole)


def test_older_runs_were_centred(tmp_path) -> None:
    """Their files say how much of an image is kept, and nothing about a mode."""
    from tokenmix.weight_files import weights_bytes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_model("casvit_xs.ft_in1k_384", num_classes=2).model
    info = {"model": "casvit_xs.ft_in1k_384", "model_args": {}, "classes": ["a", "b"], "crop_pct": 0.9}
    (tmp_path / "old.safetensors").write_bytes(weights_bytes(model.state_dict(), info))
    assert open_model(tmp_path / "old.safetensors").crop_mode == "center"
    del info["crop_pct"]
    (tmp_path / "new.safetensors").write_bytes(weights_bytes(model.state_dict(), info))
    assert open_model(tmp_path / "new.safetensors").crop_mode == "squash"


@pytest.mark.parametrize("size", ["xs", "s", "m", "t"])
def test_the_recipes_at_384_squeeze(size, photos) -> None:
    import timm

    recipe = make_recipe(f"casvit_{size}_384")
    model = timm.create_model(recipe.model.name, num_classes=2, device="meta")
    found = find_task("classification").preparation(recipe, photos, model)
    assert (found["crop_mode"], found["crop_pct"]) == ("squash", 1.0)
    assert find_task("classification").preparation(toy_recipe(), photos, toy_model())["crop_mode"] == "center"


def test_an_exported_file_says_it(tmp_path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    manifest = export(opened(model, (2, 2), crop_mode="squash"), out=tmp_path / "model", images=torch.rand(1, 3, 2, 2))
    assert manifest["preprocess"]["crop_mode"] == "squash"
