"""Every recipe is built and takes a step, with small images and few of them."""

from __future__ import annotations

import math

import pytest
import timm
import torch

from tests.train_toys import toy_data
from tokenmix.bench.cost import training_macs
from tokenmix.data.dataset import DataSet
from tokenmix.recipes import RECIPES, make_recipe, override, with_epochs, with_values
from tokenmix.tasks.classification.recipes.basic import basic
from tokenmix.tasks.picture_task import build_model
from tokenmix.train.checkpoint import Checkpoints
from tokenmix.train.distributed import Group
from tokenmix.train.loop import _Run
from tokenmix.train.signals import Signals

QUICK = ("ffnet_1", "affnet_et", "casvit_xs", "casvit_xs_384", "dsm_ti", "finetune", "digits")  # one of each kind
CLASSIFIERS = [name for name, make in RECIPES.items() if make().task.name == "classification"]
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CLASSIFIERS]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    torch.save(timm.create_model("mixernet_pico", num_classes=3).state_dict(), file)
    return str(file)


def photos(train: int) -> DataSet:
    data = toy_data(train, 1)
    for part in (data.train, data.val):
        part.glyphs = False
    return data


@pytest.mark.parametrize("name", NAMES)
def test_a_step(name, tmp_path, teacher) -> None:
    recipe = RECIPES[name]()
    changes = ["batch_size=4", "image_size=64", "weights=None", "channels_last=False"]
    if recipe.task.multi_scale:
        changes.append("multi_scale=32,64")
    if recipe.task.teacher:
        changes += ["teacher=mixernet_pico", f"teacher_weights={teacher}"]
    recipe = override(with_epochs(recipe, 1), changes)
    group = Group(0, 1, torch.device("cpu"))
    run = _Run(recipe, photos(16), tmp_path, None, group, 0, print, 60.0, Checkpoints(tmp_path), Signals())
    run.trained.freeze_backbone(False)
    batch = next(run.train_loader.batches(0))
    loss, bad, _ = run.trained.step(batch, len(batch["label"]), 0, recipe.optimizer.lr, ())
    assert math.isfinite(loss)
    assert not bad or (bad == "gradient" and run.trained.searching)


def test_every_published_model_has_its_recipe() -> None:
    for name in ("affnet_et", "affnet_t", "affnet_s", "casvit_xs", "casvit_m", "ffnet_1", "ffnet_4", "dsm_b"):
        assert make_recipe(name) == RECIPES[name]()
        assert RECIPES[name]().model.name == name
    assert make_recipe("ffnet_3.in1k") == with_values(RECIPES["ffnet_3"](), model="ffnet_3.in1k")
    assert make_recipe("ffnet_seg") == override(basic(), ["model=ffnet_seg"])


OURS = ("basic", "digits", "matching_digits", "finetune", "scenes_detect", "scenes_segment")


def test_every_model_exists_and_takes_its_arguments() -> None:
    for make in (RECIPES[name] for name in CLASSIFIERS):
        recipe = make()
        model, teacher = recipe.model, recipe.task.teacher
        assert make.__name__.startswith(model.name.split(".")[0]) or make.__name__ in OURS
        build_model(model.name, 5, head=model.head, device="meta", drop_path_rate=model.drop_path_rate, **model.args)
        if model.weights == "pretrained":
            assert timm.models.is_model_pretrained(model.name)
        if teacher:
            assert timm.models.is_model_pretrained(teacher)
        if model.weights and model.weights.startswith("runs/"):
            assert RECIPES[model.weights.removeprefix("runs/")]().model.name == model.name.split(".")[0]


COSTED = [name for name in CLASSIFIERS if "EMACs" in RECIPES[name]().cost and name != "finetune"]
SMALL = ("affnet_et", "casvit_xs", "casvit_xs_384")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in COSTED])
def test_stated_costs(name) -> None:
    recipe = RECIPES[name]()
    assert float(recipe.cost.split()[0]) * 1e18 == pytest.approx(
        training_macs(recipe, 1_281_167, {"classes": range(1000)}), rel=0.01
    )


def test_every_published_recipe_states_source_result_and_cost() -> None:
    for name in CLASSIFIERS:
        recipe = RECIPES[name]()
        assert recipe.source
        assert recipe.expect
        assert name in OURS or name in COSTED


def test_values_of_the_papers() -> None:
    """A few that are easily mistaken."""
    assert RECIPES["ffnet_1"]().augment.mixup == 0.2
    assert RECIPES["ffnet_3"]().augment.mixup == RECIPES["ffnet_1_distilled"]().augment.mixup == 0.8
    rates = [RECIPES[f"ffnet_{size}{kind}"]().model.drop_path_rate for kind in ("", "_distilled") for size in (1, 2, 3)]
    assert rates == [0.1, 0.15, 0.35, 0.02, 0.08, 0.2]
    assert (RECIPES["ffnet_3_384"]().schedule.name, RECIPES["ffnet_3_384"]().optimizer.weight_decay) == (
        "constant",
        1e-8,
    )
    for name in ("casvit_t", "casvit_t_384"):
        recipe = RECIPES[name]()
        assert recipe.task.image_size is not None
        assert recipe.task.image_size[0] in recipe.task.multi_scale
        assert all(side % 32 == 0 for side in recipe.task.multi_scale)
        assert recipe.augment.mixup == recipe.augment.cutmix == recipe.augment.erase_rate == 0
    assert RECIPES["affnet_s"]().model.drop_rate == 0.1


def test_finetune_depends_on_the_number_of_images() -> None:
    few, some, many = (make_recipe("finetune", images=images) for images in (100, 5_000, 50_000))
    assert few.schedule.epochs > some.schedule.epochs > many.schedule.epochs
    assert few.run.batch_size < some.run.batch_size < many.run.batch_size
    assert make_recipe("finetune", ["epochs=50"], images=100).schedule.epochs == 50
    assert make_recipe("finetune") == RECIPES["finetune"]()
