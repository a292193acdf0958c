"""Recipes: checks, overrides, JSON."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest

from tokenmix import tasks
from tokenmix.recipes import (
    RECIPES,
    Model,
    Optimizer,
    Recipe,
    Schedule,
    differences,
    make_recipe,
    override,
    with_epochs,
    with_values,
)
from tokenmix.tasks import find_task, register_task
from tokenmix.tasks.classification.recipes.basic import basic


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    settings = ["model_args.depths=(1, 1)", "model_args.mixers=aff,pool", "optimizer=adamw", "betas=0.8,0.9"]
    recipe = override(RECIPES[name](), settings)
    assert recipe.model.args == RECIPES[name]().model.args | {"depths": [1, 1], "mixers": "aff,pool"}
    assert recipe.optimizer.betas == (0.8, 0.9)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()
    assert recipe.source
    assert recipe.expect


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("epochs=3", "schedule.epochs", 3.0),
        ("lr=1e-4", "optimizer.lr", 1e-4),
        ("clip_grad=none", "optimizer.clip_grad", None),
        ("clip_grad=2", "optimizer.clip_grad", 2.0),
        ("channels_last=true", "run.channels_last", True),
        ("image_size=64", "task.image_size", (64, 64)),
        ("image_size=64,96", "task.image_size", (64, 96)),
        ("multi_scale=32,64,96", "task.multi_scale", (32, 64, 96)),
        ("multi_scale=()", "task.multi_scale", ()),
        ("rand_augment=rand-m9-inc1", "augment.rand_augment", "rand-m9-inc1"),
        ("teacher=none", "task.teacher", None),
        ("teacher=1", "task.teacher", "1"),
        ("crop_scale=0.3,1", "augment.crop_scale", (0.3, 1.0)),
        ("grad_checkpointing=true", "run.grad_checkpointing", True),
        ("data=2024", "run.data", "2024"),
        ("model=None", "model.name", "None"),
        ("model_args.mixers=pool", "model.args", {"mixers": "pool"}),
        ("model_args.mixers=ffnified(key_size=3),pool", "model.args", {"mixers": "ffnified(key_size=3),pool"}),
        ("model_args.layer_scale=1e-5", "model.args", {"layer_scale": 1e-5}),
        ("model_args.a.b=1", "model.args", {"a": {"b": 1}}),
        ("model_args={'mixers': 'aff'}", "model.args", {"mixers": "aff"}),
        ("model.args.mixers=pool", "model.args", {"mixers": "pool"}),
        ("model={'name': 'resnet18'}", "model.name", "resnet18"),
        ("schedule.epochs=3", "schedule.epochs", 3.0),
        ("schedule={'steps': 9, 'warmup_epochs': 0}", "schedule.steps", 9),
        ("optimizer=sgd", "optimizer.name", "sgd"),
        ("task.label_smoothing=0.2", "task.label_smoothing", 0.2),
        ("task_args.label_smoothing=0.2", "task.label_smoothing", 0.2),
        ("augment=light", "augment.name", "light"),
        ("augment.mixup=0.2", "augment.mixup", 0.2),
        (" seed = 7", "run.seed", 7),
    ],
)
def test_overrides(setting: str, path: str, value: object) -> None:
    found = override(basic(), [setting]).flat()[path]
    assert found == value
    assert type(found) is type(value)
    assert basic() == RECIPES["basic"]()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["schedule=constant", "min_lr=1e-3"], "'schedule.min_lr' is for schedule=cosine or .*schedule is 'constant'"),
        (["cooldown_epochs=1", "schedule=constant"], "'schedule.cooldown_epochs' is for schedule=cosine"),
        (["schedule=step", "milestones=2,3", "min_lr=1e-3"], "'schedule.min_lr' is for"),
        (["milestone_factor=0.5"], "'schedule.milestone_factor' is for schedule=step, and the schedule is 'cosine'"),
        (["momentum=0.8"], "'optimizer.momentum' is for optimizer=sgd, and the optimizer is 'adamw'"),
        (["optimizer=sgd", "betas=0.8,0.9"], "'optimizer.betas' is for optimizer=adamw"),
    ],
)
def test_what_nothing_reads_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        override(basic(), settings)


def test_what_a_recipe_has_for_another_schedule_does_no_harm() -> None:
    """A recipe's own floor, and a value that is so anyway."""
    falling = override(basic(), ["min_lr=1e-5"])
    assert override(falling, ["schedule=constant", "momentum=0.9"]).schedule.min_lr == 1e-5


def test_overrides_add_up_without_touching_the_first() -> None:
    first = override(basic(), ["model_args.mixers=aff"])
    second = override(first, ["model_args.depths=[1,1,1,1]", "model_args.layer_scale=None"])
    assert first.model.args == {"mixers": "aff"}
    assert second.model.args == {"mixers": "aff", "depths": [1, 1, 1, 1], "layer_scale": None}
    assert differences(first, dataclasses.replace(second, expect="other words")) == [
        "model.args ({'mixers': 'aff'} -> {'mixers': 'aff', 'depths': [1, 1, 1, 1], 'layer_scale': None})"
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("model_arg.mixers=aff", "did you mean 'model_args'"),
        ("epochs", "write key=value"),
        ("epochs=many", "'schedule.epochs' must be a number, above 0, got 'many'"),
        ("epochs=0", "'schedule.epochs' must be above 0, got 0.0"),
        ("epochs=True", "'schedule.epochs' must be a number"),
        ("batch_size=2.5", "'run.batch_size' must be a whole number, above 0, got 2.5"),
        ("lr=1e999", "'optimizer.lr' must be a number"),
        ("label_smoothing=1.5", "'task.label_smoothing' must be at least 0 and below 1, got 1.5"),
        ("clip_grad=-1", "'optimizer.clip_grad' must be above 0 or None, got -1.0"),
        ("betas=0.9", "'optimizer.betas' must be 2 numbers"),
        ("betas=0.9,1.5", "'optimizer.betas' must be both at least 0 and below 1"),
        ("image_size=0", "'task.image_size' must be both 1 or more or None"),
        ("optimizer=adamv", "did you mean 'adamw'"),
        ("optimizer=[1]", "unknown value"),
        ("channels_last=maybe", "'run.channels_last' must be True or False, got 'maybe'"),
        ("lr.x=3", "'optimizer.lr' has no parts"),
        ("task.label_smothing=0.1", "did you mean 'task.label_smoothing'"),
        ("augment.mixups=0.1", "did you mean 'augment.mixup'"),
        ("scheduler.epochs=1", "did you mean 'schedule'"),
        ("run=3", "'run' must be a mapping of names to values, or set one of them: run.NAME=..."),
        ("task=segmentatoin", "did you mean 'segmentation'"),
        ("window=512", "'task.window' belongs to segmentation, and this recipe is for classification: leave it out"),
        ("task.freeze_norms=true", "'task.freeze_norms' belongs to detection, instance segmentation, segmentation"),
        ("augment.stretch=true", "'augment.stretch' belongs to detection"),
        ("head=upernet", "upernet is for the task 'segmentation', but task is 'classification'"),
        ("head=upernets", "did you mean 'upernet'"),
        ("model_args=3", "'model.args' must be a mapping"),
        ("model_args.num_classes=3", "it comes from the data"),
        ("model_args.drop_path_rate=0.1", "set the recipe key drop_path_rate"),
        ("warmup_epochs=60", "must not be above epochs=50"),
        ("min_lr=1", "'schedule.min_lr' must not be above lr"),
        ("warmup_lr=1", "'schedule.warmup_lr' must not be above lr"),
        ("cooldown_epochs=60", "'schedule.cooldown_epochs' must not be above epochs=50"),
        ("freeze_epochs=60", "'schedule.freeze_epochs' must not be above epochs=50"),
        ("freeze_epochs=1.5", "'schedule.freeze_epochs' must be a whole number"),
        ("warmup_steps=5", "exclude each other"),
        ("teacher_weights=x.pth", "needs 'task.teacher'"),
        ("multi_scale=0,3", "'task.multi_scale' must be all 1 or more"),
        ("multi_scale=3", "'task.multi_scale' must be whole numbers"),
        ("rand_augment=rnd-m9", "'augment.rand_augment' must be a string of timm's"),
        ("crop_scale=0.9,0.1", "'augment.crop_scale' must be in order"),
        ("precision=fp16", "did you mean 'float16'"),
        ("distill=sotf", "did you mean 'soft'"),
        ("erase_rate=1.2", "'augment.erase_rate' must be at least 0 and at most 1"),
    ],
)
def test_wrong_overrides_name_the_key_and_the_remedy(setting: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below, literally
        override(basic(), [setting])
    assert message in str(caught.value)


def test_wrong_json() -> None:
    values = json.loads(basic().to_json())
    with pytest.raises(ValueError, match="not JSON"):
        Recipe.from_json("{")
    with pytest.raises(ValueError, match="JSON object"):
        Recipe.from_json("[]")
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        Recipe.from_json(json.dumps(values | {"epoch": 3}))
    with pytest.raises(ValueError, match=r"tokenmix\.recipe/9"):
        Recipe.from_json(json.dumps(values | {"schema": "tokenmix.recipe/9"}))
    with pytest.raises(ValueError, match=r"lacks source, expect$"):
        Recipe.from_json('{"model": "mixernet_pico"}')
    with pytest.raises(ValueError, match=r"lacks source, expect, model\.name"):
        Recipe.from_json("{}")
    with pytest.raises(ValueError, match=r"did you mean 'schedule\.epochs'"):
        Recipe.from_json(json.dumps(values | {"schedule": {"epoch": 3}}))
    with pytest.raises(ValueError, match=r"'task\.name' must be text, got \['detection'\]"):
        Recipe.from_json(json.dumps(values | {"task": ["detection"]}))


def test_files_may_mix_parts_paths_and_short_names() -> None:
    notes = {"source": "ours", "expect": "nothing"}
    values = {**notes, "model": "mixernet_pico", "schedule": {"epochs": 3}, "optimizer.lr": 0.1, "label_smoothing": 0.2}
    assert Recipe.from_values(values) == Recipe(
        **notes,
        model=Model(name="mixernet_pico"),
        schedule=Schedule(epochs=3),
        optimizer=Optimizer(lr=0.1),
        task=find_task("classification").Options(label_smoothing=0.2),
    )


def test_the_task_is_known_by_its_options() -> None:
    segmentation, detection = find_task("segmentation"), find_task("detection")
    recipe = Recipe(source="", expect="", model=Model(name="mixernet_pico"), task=segmentation.Options(window=64))
    assert (recipe.task.name, recipe.task.window, recipe.augment) == ("segmentation", (64, 64), segmentation.Augment())
    assert json.loads(recipe.to_json())["task"]["name"] == "segmentation"
    with pytest.raises(ValueError, match=r"'augment' for segmentation must be a .*\.LabelAugment, got ObjectAugment"):
        dataclasses.replace(recipe, augment=detection.Augment())
    with pytest.raises(ValueError, match="'task' must be the options of a task"):
        dataclasses.replace(recipe, task="segmentation")
    with pytest.raises(ValueError, match=r"'model' for segmentation must be a .*Model, got 'mixernet_pico'"):
        dataclasses.replace(recipe, model="mixernet_pico")


def test_another_task_keeps_what_both_know() -> None:
    first = override(basic(), ["image_size=64", "mixup=0.2"])
    recipe = override(first, ["task=detection", "model.head=ssdlite", "freeze_norms=true", "label_smoothing=0.0"])
    assert (recipe.task.image_size, recipe.task.freeze_norms, recipe.augment.name) == ((64, 64), True, "standard")
    assert differences(first, recipe)[:2] == [
        "model.head (None -> 'ssdlite')",
        "task.name ('classification' -> 'detection')",
    ]
    assert "task.label_smoothing (0.1 -> nothing)" in differences(first, recipe)
    with pytest.raises(
        ValueError, match=r"'task\.label_smoothing' belongs to classification.*set label_smoothing=0\.0"
    ):
        override(recipe, ["label_smoothing=0.1"])
    with pytest.raises(ValueError, match="did you mean 'detr'"):
        override(recipe, ["augment=dert"])


def test_a_task_of_ones_own_has_options_of_its_own() -> None:
    class Depth(type(find_task("segmentation"))):  # type: ignore[misc]
        name, title = "depth", "depth"

    try:
        register_task(Depth())
        assert Depth.Options.name == "depth"
        assert Depth.Options is not find_task("segmentation").Options
        recipe = override(basic(), ["task=depth", "aux_weight=0.2"])
        assert type(recipe.task) is Depth.Options
        assert Recipe.from_json(recipe.to_json()) == recipe
        assert pickle.loads(pickle.dumps(find_task("instances").Options())) == find_task("instances").Options()
    finally:
        del tasks._OWN["depth"]


def test_objects_are_refused_in_model_args() -> None:
    with pytest.raises(ValueError, match="mapping of names to JSON values"):
        with_values(basic(), model_args={"mixers": dict})


def test_with_epochs_keeps_the_share_of_the_warmup() -> None:
    recipe = with_epochs(basic(), 10)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (
        10.0,
        pytest.approx(basic().schedule.warmup_epochs / 5),
    )


def test_fewer_epochs_shorten_the_warmup_unless_it_is_given() -> None:
    assert override(basic(), ["epochs=1"]).schedule.warmup_epochs == pytest.approx(
        basic().schedule.warmup_epochs / basic().schedule.epochs
    )
    assert override(basic(), ["epochs=5", "warmup_epochs=2"]).schedule.warmup_epochs == 2
    with pytest.raises(ValueError, match=r"'schedule\.epochs' must be a number"):
        override(basic(), ["epochs=True"])


def test_make_recipe(tmp_path) -> None:
    assert make_recipe("digits", ["seed=3"]) == override(RECIPES["digits"](), ["seed=3"])
    assert make_recipe("resnet18") == override(basic(), ["model=resnet18"])
    (tmp_path / "recipe.json").write_text(make_recipe("digits", ["seed=4"]).to_json())
    for path in (tmp_path, tmp_path / "recipe.json"):
        assert make_recipe(str(path), ["epochs=9"]) == make_recipe("digits", ["seed=4", "epochs=9"])
    with pytest.raises(ValueError, match="did you mean 'basic'"):
        make_recipe("basick")
    with pytest.raises(ValueError, match="did you mean 'mixernet_pico'"):
        make_recipe("mixernet_pic")
