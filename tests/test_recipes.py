"""Recipes: checks, overrides, JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tokenmix.recipes import RECIPES, Recipe, differences, make_recipe, override, with_epochs
from tokenmix.recipes.basic import basic


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    recipe = override(RECIPES[name](), ["model_args.depths=(1, 1)", "model_args.mixers=aff,pool", "betas=0.8,0.9"])
    assert recipe.model_args == RECIPES[name]().model_args | {"depths": [1, 1], "mixers": "aff,pool"}
    assert recipe.betas == (0.8, 0.9)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.to_json() == recipe.to_json()
    assert recipe.source
    assert recipe.expect


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("epochs=3", "epochs", 3.0),
        ("lr=1e-4", "lr", 1e-4),
        ("clip_grad=none", "clip_grad", None),
        ("clip_grad=2", "clip_grad", 2.0),
        ("channels_last=true", "channels_last", True),
        ("image_size=64", "image_size", (64, 64)),
        ("image_size=64,96", "image_size", (64, 96)),
        ("multi_scale=32,64,96", "multi_scale", (32, 64, 96)),
        ("multi_scale=()", "multi_scale", ()),
        ("rand_augment=rand-m9-inc1", "rand_augment", "rand-m9-inc1"),
        ("teacher=none", "teacher", None),
        ("teacher=1", "teacher", "1"),
        ("crop_scale=0.3,1", "crop_scale", (0.3, 1.0)),
        ("grad_checkpointing=true", "grad_checkpointing", True),
        ("data=2024", "data", "2024"),
        ("model=None", "model", "None"),
        ("model_args.mixers=pool", "model_args", {"mixers": "pool"}),
        ("model_args.mixers=ffnified(key_size=3),pool", "model_args", {"mixers": "ffnified(key_size=3),pool"}),
        ("model_args.layer_scale=1e-5", "model_args", {"layer_scale": 1e-5}),
        ("model_args.a.b=1", "model_args", {"a": {"b": 1}}),
        ("model_args={'mixers': 'aff'}", "model_args", {"mixers": "aff"}),
        (" seed = 7", "seed", 7),
    ],
)
def test_overrides(setting: str, key: str, value: object) -> None:
    recipe = override(basic(), [setting])
    assert getattr(recipe, key) == value
    assert type(getattr(recipe, key)) is type(value)
    assert basic() == RECIPES["basic"]()


def test_overrides_add_up_without_touching_the_first() -> None:
    first = override(basic(), ["model_args.mixers=aff"])
    second = override(first, ["model_args.depths=[1,1,1,1]", "model_args.layer_scale=None"])
    assert first.model_args == {"mixers": "aff"}
    assert second.model_args == {"mixers": "aff", "depths": [1, 1, 1, 1], "layer_scale": None}
    assert differences(first, dataclasses.replace(second, expect="other words")) == [
        "model_args ({'mixers': 'aff'} -> {'mixers': 'aff', 'depths': [1, 1, 1, 1], 'layer_scale': None})"
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("model_arg.mixers=aff", "did you mean 'model_args'"),
        ("epochs", "write key=value"),
        ("epochs=many", "'epochs' must be a number, above 0, got 'many'"),
        ("epochs=0", "'epochs' must be above 0, got 0.0"),
        ("epochs=True", "'epochs' must be a number"),
        ("batch_size=2.5", "'batch_size' must be a whole number, above 0, got 2.5"),
        ("lr=1e999", "'lr' must be a number"),
        ("label_smoothing=1.5", "'label_smoothing' must be at least 0 and below 1, got 1.5"),
        ("clip_grad=-1", "'clip_grad' must be above 0 or None, got -1.0"),
        ("betas=0.9", "'betas' must be 2 numbers"),
        ("betas=0.9,1.5", "'betas' must be both at least 0 and below 1"),
        ("image_size=0", "'image_size' must be both 1 or more or None"),
        ("optimizer=adamv", "did you mean 'adamw'"),
        ("optimizer=[1]", "unknown value"),
        ("channels_last=maybe", "'channels_last' must be True or False, got 'maybe'"),
        ("lr.x=3", "'lr' has no parts"),
        ("model_args=3", "'model_args' must be a mapping"),
        ("model_args.num_classes=3", "it comes from the data"),
        ("model_args.drop_path_rate=0.1", "set the recipe key drop_path_rate"),
        ("warmup_epochs=60", "must not be above epochs=50"),
        ("min_lr=1", "'min_lr' must not be above lr"),
        ("warmup_lr=1", "'warmup_lr' must not be above lr"),
        ("cooldown_epochs=60", "'cooldown_epochs' must not be above epochs=50"),
        ("freeze_epochs=60", "'freeze_epochs' must not be above epochs=50"),
        ("freeze_epochs=1.5", "'freeze_epochs' must be a whole number"),
        ("warmup_steps=5", "exclude each other"),
        ("teacher_weights=x.pth", "needs 'teacher'"),
        ("multi_scale=0,3", "'multi_scale' must be all 1 or more"),
        ("multi_scale=3", "'multi_scale' must be whole numbers"),
        ("rand_augment=rnd-m9", "'rand_augment' must be a string of timm's"),
        ("crop_scale=0.9,0.1", "'crop_scale' must be in order"),
        ("precision=fp16", "did you mean 'float16'"),
        ("distill=sotf", "did you mean 'soft'"),
        ("erase_rate=1.2", "'erase_rate' must be at least 0 and at most 1"),
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
    with pytest.raises(ValueError, match="lacks source, expect"):
        Recipe.from_json('{"model": "mixernet_pico"}')


def test_objects_are_refused_in_model_args() -> None:
    with pytest.raises(ValueError, match="mapping of names to JSON values"):
        dataclasses.replace(basic(), model_args={"mixers": dict})


def test_with_epochs_keeps_the_share_of_the_warmup() -> None:
    recipe = with_epochs(basic(), 10)
    assert (recipe.epochs, recipe.warmup_epochs) == (10.0, pytest.approx(basic().warmup_epochs / 5))


def test_fewer_epochs_shorten_the_warmup_unless_it_is_given() -> None:
    assert override(basic(), ["epochs=1"]).warmup_epochs == pytest.approx(basic().warmup_epochs / basic().epochs)
    assert override(basic(), ["epochs=5", "warmup_epochs=2"]).warmup_epochs == 2
    with pytest.raises(ValueError, match="'epochs' must be a number"):
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
