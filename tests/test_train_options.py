"""What a recipe can switch on: each option does what it says, and all of them together survive a death."""

from __future__ import annotations

import dataclasses
import functools
import math
from urllib.error import URLError

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from tests.test_train_resume import killed, outcome, same
from tests.test_train_resume import run as run_toy
from tests.train_toys import Exact, checkpoint, toy_data, toy_model, toy_recipe
from tokenmix.checkpoints import open_model
from tokenmix.recipes import Recipe, with_values
from tokenmix.tasks.classification.mixing import Mixing
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.tasks.classification.teacher import Teacher
from tokenmix.train import fit, load_run
from tokenmix.train.loop import _Run
from tokenmix.train.model import synchronise
from tokenmix.train.optimizer import make_optimizer
from tokenmix.train.schedule import Calendar, learning_rate
from tokenmix.train.training_step import _check_parts

TINY = {"model": "mixernet_pico", "model_args": {"mixers": "pool", "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}}
EVERYTHING = {
    "augment": "imagenet", "crop_interpolation": "random", "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.2,
    "erase_rate": 0.3, "mixup": 0.2, "cutmix": 1.0, "accumulate": 3, "precision": "float16", "layer_decay": 0.7,
    "warmup_epochs": 0, "warmup_steps": 4, "warmup_lr": 1e-5, "cooldown_epochs": 0.5, "freeze_epochs": 1,
    "grad_checkpointing": True, "multi_scale": (48, 64), "image_size": 64, "drop_path_rate": 0.1,
    "preprocess": "model", "distill": "soft", "distill_temperature": 2.0,
}  # fmt: skip
run = functools.partial(run_toy, model=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a short run of the tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, toy_recipe(**TINY, epochs=1, image_size=32, preprocess="model"))
    return folder


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("everything")
    run(folder, everything(trained), photos())
    return outcome(folder)


def photos():
    """The toy images, treated as photos."""
    data = toy_data()
    for part in (data.train, data.val):
        part.glyphs = False
    return data


def everything(trained, **changes) -> Recipe:
    weights = {"teacher": str(trained), "weights": str(trained / "best.safetensors")}
    return toy_recipe(**(TINY | EVERYTHING | weights | changes))


@pytest.mark.parametrize("step", [1, 3, 6, 8])
def test_resumed_with_everything_on(tmp_path, monkeypatch, trained, unkilled, step) -> None:
    killed(tmp_path, monkeypatch, "step", step, everything(trained), model=None, data=photos())
    run(tmp_path, everything(trained), photos())
    assert same(outcome(tmp_path), unkilled)


def test_the_workers_change_nothing(tmp_path, trained, unkilled) -> None:
    run(tmp_path, everything(trained), photos(), workers=1)
    assert same(outcome(tmp_path), unkilled)


def test_resumed_within_an_epoch_with_workers(tmp_path, monkeypatch, trained, unkilled) -> None:
    killed(tmp_path, monkeypatch, "step", 8, everything(trained), model=None, data=photos(), workers=2)
    run(tmp_path, everything(trained), photos(), workers=1)
    assert same(outcome(tmp_path), unkilled)


def watched(monkeypatch, out, recipe, data=None, **options) -> list[_Run]:
    """Train; the run itself, to look into."""
    runs: list[_Run] = []
    inner = _Run.resume
    monkeypatch.setattr(_Run, "resume", lambda self, fresh: (runs.append(self), inner(self, fresh))[1])
    run(out, recipe, data, **options)
    return runs


def test_only_the_classifier_learns_at_first(tmp_path, monkeypatch, trained) -> None:
    recipe = toy_recipe(**TINY, epochs=1, freeze_epochs=1, image_size=32, weights=str(trained), ema_decay=None)
    start, _ = load_run(trained)
    (frozen,) = watched(monkeypatch, tmp_path / "frozen", recipe)
    for name, value in frozen.trained.objective.model.state_dict().items():
        assert torch.equal(value, start.state_dict()[name]) != name.startswith("head.fc"), name
    recipe = with_values(recipe, epochs=2)
    (thawed,) = watched(monkeypatch, tmp_path / "thawed", recipe)[-1:]
    assert not torch.equal(thawed.trained.objective.model.stem[0].conv.weight, start.stem[0].conv.weight)
    with pytest.raises(ValueError, match="set freeze_epochs=0"):
        run(tmp_path / "toy", toy_recipe(freeze_epochs=1), model=toy_model)


def test_a_frozen_backbone_of_random_numbers_is_told(tmp_path, trained) -> None:
    told = "freeze_epochs=1: only the classifier learns, and without model.weights the rest is random numbers"
    recipe = toy_recipe(**TINY, epochs=2, freeze_epochs=1, image_size=32)
    assert told in run(tmp_path / "fresh", recipe)[1]
    assert told not in run(tmp_path / "taken", with_values(recipe, weights=str(trained)))[1]


def test_accumulated_parts_equal_the_whole_batch(tmp_path, monkeypatch) -> None:
    recipe = toy_recipe(optimizer="sgd", lr=0.1)
    whole, parts = (
        watched(monkeypatch, tmp_path / str(count), with_values(recipe, accumulate=count), model=Exact)[-1]
        for count in (1, 3)
    )
    for one, other in zip(whole.trained.objective.parameters(), parts.trained.objective.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("samples", "accumulate", "world", "least"),
    [(5, 4, 1, 1), (10, 2, 4, 1), (9, 2, 1, 4), (9, 4, 2, 1), (8, 2, 2, 2)],
)
def test_the_smallest_part_is_known(samples, accumulate, world, least) -> None:
    recipe = toy_recipe(batch_size=128, accumulate=accumulate)
    _check_parts(recipe, samples, least, world)
    with pytest.raises(ValueError, match=f"a batch of {samples} in parts .* leaves a part of {least}"):
        _check_parts(recipe, samples, least + 1, world)


def test_calendar() -> None:
    recipe = toy_recipe(epochs=3.5, warmup_epochs=1.5, cooldown_epochs=1, lr=1.0, min_lr=0.1, warmup_lr=0.2)
    calendar = Calendar(recipe, lambda epoch: [6, 4, 8, 6][epoch])
    assert (calendar.lengths, calendar.total) == ([6, 4, 8, 3], 21)
    rates = [calendar.lr(step) for step in range(21)]
    assert rates[:8] == pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert rates[13] > 0.1
    assert rates[14:] == [0.1] * 7
    steps = Calendar(with_values(recipe, warmup_epochs=0, warmup_steps=2), lambda epoch: 6)
    assert [steps.lr(step) for step in range(3)] == pytest.approx([0.6, 1.0, 1.0])
    assert Calendar(toy_recipe(epochs=0.01, warmup_epochs=0), lambda epoch: 6).lengths == [1]
    assert Calendar(toy_recipe(epochs=3.01, warmup_epochs=0), lambda epoch: 6).lengths == [6, 6, 6]
    assert learning_rate(0, total=5, warmup=0, lr=1.0, schedule="constant") == 1.0


def test_layer_decay() -> None:
    model = timm.create_model("mixernet_pico", num_classes=3, **TINY["model_args"])
    optimizer = make_optimizer(toy_recipe(layer_decay=0.5, weight_decay=0.3), model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    scales = {names[id(p)]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decays = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(scales) == len(names)
    assert scales["head.fc.weight"] == 1.0
    assert all(math.log2(scale).is_integer() for scale in scales.values())
    stages = [
        min(s for name, s in scales.items() if name.startswith(part)) for part in ("stem", "stages.0", "stages.3")
    ]
    assert stages == sorted(set(stages))
    plain = make_optimizer(toy_recipe(weight_decay=0.3), model)
    assert decays == {names[id(p)]: g["weight_decay"] for g in plain.param_groups for p in g["params"]}


def test_mixing_is_a_function_of_the_seed() -> None:
    def mixed(seed: int, count: int = 5, **changes) -> dict:
        batch = {"image": torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
        batch["label"] = torch.arange(count) % 3
        return Mixing(toy_recipe(**({"mixup": 1.0, "cutmix": 1.0} | changes)).augment, 3)(batch, seed)

    torch.manual_seed(4)
    before = torch.get_rng_state()
    one, two, three = mixed(1), mixed(1), mixed(2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["image"], three["image"])
    image, labels = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)), F.one_hot(torch.arange(5) % 3)
    assert torch.equal(one["image"][4], image[4])  # the odd one out
    assert torch.equal(one["label"][4], labels[4].float())
    torch.testing.assert_close(one["label"].sum(1), torch.ones(5))
    for seed in range(4):
        found = mixed(seed, cutmix=0)
        share = found["label"][0, 0]  # images 0 and 3 have the class 0: pair (0, 3) keeps it, pair (1, 2) mixes
        torch.testing.assert_close(
            found["label"][1], torch.stack([share * 0, found["label"][1, 1], 1 - found["label"][1, 1]])
        )
        torch.testing.assert_close(found["image"][1], image[1].lerp(image[2], 1 - found["label"][1, 1]))
    kept = mixed(3, mixup=0)["image"]
    assert (torch.isclose(kept[0], image[0]) | torch.isclose(kept[0], image[3])).all()


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("distill", ["hard", "soft"])
def test_distillation_loss(heads, distill) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(heads)]
    teacher = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    model = nn.Identity()
    model.forward = lambda x: tuple(logits) if heads == 2 else logits[0]  # type: ignore[method-assign]
    task = ClassificationObjective(model, num_classes=3, distill=distill, distill_weight=0.3, distill_temperature=2.0)
    batch = {"image": torch.zeros(4), "label": torch.tensor([0, 2, 1, 1]), "teacher": teacher}
    truth = -logits[0].log_softmax(1)[range(4), batch["label"]].mean()
    if distill == "hard":
        copied = -logits[-1].log_softmax(1)[range(4), teacher.argmax(1)].mean()
    else:
        p, q = (teacher / 2).softmax(1), (logits[-1] / 2).softmax(1)
        copied = 4 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(task(batch)["loss"], 0.7 * truth + 0.3 * copied)
    masked = batch | {"mask": torch.tensor([True, True, False, False])}
    first = {key: value[:2] for key, value in batch.items()}
    whole = task(masked)["loss"]
    logits[:] = [each[:2] for each in logits]
    torch.testing.assert_close(whole, task(first)["loss"])
    with pytest.raises(ValueError, match="did you mean 'soft'"):
        ClassificationObjective(model, num_classes=3, distill="sotf")


def test_teachers(tmp_path, monkeypatch, trained) -> None:
    arguments = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    casvit = toy_recipe(model="casvit_xs", model_args=arguments, image_size=32, epochs=0.2, warmup_epochs=0)
    teachers: list[Teacher] = []
    inner = Teacher.__init__
    monkeypatch.setattr(Teacher, "__init__", lambda self, *told: (teachers.append(self), inner(self, *told))[1])
    (two,) = watched(monkeypatch, tmp_path / "two", with_values(casvit, teacher=str(trained)))
    (teacher,) = teachers
    assert two.trained.objective.model.head.distilled_training
    assert not teacher.model.training
    images = torch.rand(2, 3, 32, 32)
    cfg = timm.get_pretrained_cfg("mixernet_pico")
    pixels = images * column(two.trained.preparation["std"]) + column(two.trained.preparation["mean"])
    expected = teacher.model((pixels - column(cfg.mean)) / column(cfg.std))
    torch.testing.assert_close(teacher(images), expected, atol=1e-5, rtol=1e-4)
    batch = {"image": images, "label": torch.tensor([0, 2])}
    assert torch.equal(two.trained.change(batch, 0)["teacher"], teacher(images))
    torch.save({"state_dict": timm.create_model("mixernet_pico", num_classes=3).state_dict()}, tmp_path / "teacher.pth")
    one = with_values(
        casvit, model_args=arguments | {"distillation": False}, teacher="mixernet_pico",
        teacher_weights=str(tmp_path / "teacher.pth"),
    )  # fmt: skip
    run(tmp_path / "one", one)
    torch.save(timm.create_model("mixernet_pico", num_classes=7).state_dict(), tmp_path / "seven.pth")
    with pytest.raises(ValueError, match="belong to another model"):
        run(tmp_path / "seven", with_values(one, teacher_weights=str(tmp_path / "seven.pth")))
    with pytest.raises(ValueError, match="did you mean 'mixernet_pico'"):
        run(tmp_path / "none", with_values(one, teacher="mixernet_pic"))
    turned = dataclasses.replace(toy_data(), classes=toy_data().classes[::-1])
    with pytest.raises(ValueError, match="other classes, or in another order: 'red' stands where"):
        run(tmp_path / "turned", with_values(casvit, teacher=str(trained)), turned)
    fewer = dataclasses.replace(toy_data(), classes=["red", "green"])
    with pytest.raises(ValueError, match="knows 3 classes, the data has 2"):
        run(tmp_path / "classes", with_values(casvit, teacher=str(trained)), fewer)


def column(values) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def test_the_scale_of_half_precision_falls_without_counting_as_bad(tmp_path, monkeypatch) -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = toy_model()

        def forward(self, x):
            return self.inner(x) * 30

    recipe = toy_recipe(precision="float16", max_bad_steps=1, epochs=4)
    (found,) = watched(monkeypatch, tmp_path, recipe, model=Steep)
    assert found.state.finished
    assert found.trained.scaler.state_dict()["scale"] <= 65536
    content = checkpoint(tmp_path)
    assert content["scaler"] == found.trained.scaler.state_dict()


def test_synchronised_norms() -> None:
    model = timm.create_model("mixernet_pico", **TINY["model_args"])
    names = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    keys = list(model.state_dict())
    synchronise(model, torch.device("meta"))
    assert all(type(model.get_submodule(name)) is nn.SyncBatchNorm for name in names)
    assert (len(names) > 4, list(model.state_dict())) == (True, keys)
    with pytest.raises(ValueError, match="cannot synchronise the model's BatchNormAct2d"):
        synchronise(timm.create_model("efficientnet_b0"), torch.device("meta"))
    with pytest.raises(ValueError, match="on GPUs only; set sync_batchnorm=False"):
        synchronise(model, torch.device("cpu"))


def test_compiled(tmp_path, monkeypatch) -> None:
    compiled = []

    def spy(module, **options):
        compiled.append(module)
        return module

    monkeypatch.setattr(torch, "compile", spy)
    (found,) = watched(monkeypatch, tmp_path / "compiled", toy_recipe(compile=True), model=toy_model)
    assert compiled == [found.trained.objective]


@pytest.mark.slow
def test_compiled_by_dynamo(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    results = []
    for compiled in (False, True):
        recipe = toy_recipe(**TINY, image_size=32, epochs=0.5, warmup_epochs=0, compile=compiled, ema_decay=None)
        results.append(run(tmp_path / str(compiled), recipe)[0].history[0]["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_images_are_prepared_as_the_model_says(tmp_path, trained) -> None:
    _, info = load_run(trained)
    cfg = timm.get_pretrained_cfg("mixernet_pico")
    assert (info["mean"], info["std"], info["crop_pct"], info["interpolation"]) == (
        cfg.mean, cfg.std, cfg.crop_pct, cfg.interpolation,
    )  # fmt: skip
    run(tmp_path / "crop", toy_recipe(**TINY, epochs=0.2, warmup_epochs=0, image_size=32, crop_pct=0.8))
    _, info = load_run(tmp_path / "crop")
    assert (info["mean"], info["crop_pct"]) == (toy_data().mean, 0.8)
    with pytest.raises(ValueError, match="no timm configuration"):
        run(tmp_path / "toy", toy_recipe(preprocess="model"), model=toy_model)


def test_initial_weights(tmp_path, trained) -> None:
    recipe = toy_recipe(**TINY, epochs=0.2, warmup_epochs=0, lr=1e-12, image_size=32, weights=str(trained))
    run(tmp_path / "same", with_values(recipe, ema_decay=0.5))
    (start, _), (end, _) = load_run(trained), load_run(tmp_path / "same")
    for name, value in start.named_parameters():
        torch.testing.assert_close(end.get_parameter(name), value)
    others = toy_data()
    others.classes = ["cyan", "magenta", "yellow"]  # as many classes, but others
    fit(recipe, others, tmp_path / "others", log=print)
    end, _ = load_run(tmp_path / "others")
    fresh = [name for name, value in start.named_parameters() if not torch.allclose(end.get_parameter(name), value)]
    assert fresh == ["head.fc.weight", "head.fc.bias"]
    with pytest.raises(ValueError, match="no published weights"):
        run(tmp_path / "none", with_values(recipe, weights="pretrained"))
    with pytest.raises(ValueError, match="no such file"):
        run(tmp_path / "file", with_values(recipe, weights=str(tmp_path / "nothing.pth")))


def test_weights_that_do_not_come_are_named(tmp_path, monkeypatch) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **arguments: object) -> nn.Module:
        if pretrained:
            raise URLError("no route to host")
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    recipe = toy_recipe(model="ffnet_1.dist_in1k", weights="pretrained", image_size=32)
    with pytest.raises(ValueError, match=r"published weights of ffnet_1.dist_in1k could not be downloaded .*no route"):
        run(tmp_path / "run", recipe)
    with pytest.raises(ValueError, match=r"could not be downloaded .* name it instead"):
        open_model("ffnet_1")
