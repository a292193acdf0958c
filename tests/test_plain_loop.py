"""The trainer adds nothing by accident: it computes what a plain PyTorch loop computes."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import tokenmix  # noqa: F401  registers our models with timm
from tests import plain_loop
from tokenmix.data.prepare import normalise
from tokenmix.data.random_numbers import permutation
from tokenmix.ops.dispatch import definitions
from tokenmix.recipes import Recipe, with_values
from tokenmix.tasks.classification.digits import load_digits
from tokenmix.tasks.classification.images import ArrayImages, ClassData
from tokenmix.train import fit, load_run
from tokenmix.train.training_step import TrainingStep

AFFNET_LIKE = {"mixers": "aff", "depths": [1, 1, 2, 1], "dims": [8, 16, 16, 24], "stem_stride": 2}
CASVIT_LIKE = {"mixers": "additive", "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16], "layer_scale": 0.1}
PLAIN = Recipe.from_values(
    {
        "source": "test",
        "expect": "nothing",
        "model": "mixernet_pico",
        "model_args": AFFNET_LIKE,
        "augment": "none",
        "batch_size": 32,
        "epochs": 3,
        "warmup_epochs": 1,
        "lr": 3e-3,
        "min_lr": 3e-5,
    }
)
OPTIONS = {
    "aff": {},
    "additive": {"model_args": CASVIT_LIKE, "lr": 6e-3},
    "smoothing": {"label_smoothing": 0.1},
    "clipping": {"clip_grad": 0.5},
    "average": {"ema_decay": 0.9},
    "accumulation": {"accumulate": 3},
    "layer decay": {"layer_decay": 0.7},
    "sgd": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.8},
    "all": {"label_smoothing": 0.1, "clip_grad": 1.0, "ema_decay": 0.95, "accumulate": 2, "layer_decay": 0.8},
}


def small_digits() -> ClassData:
    """The first 200 training and 100 validation digits: six steps per epoch, eight images left over."""
    digits = load_digits()

    def first(part: ArrayImages, count: int) -> ArrayImages:
        kind = {"flip": part.flip, "glyphs": part.glyphs, "crop_pct": part.crop_pct}
        return ArrayImages(part.pixels[:count], part.labels[:count], part.names[:count], **kind)

    digits.train, digits.val = first(digits.train, 200), first(digits.val, 100)
    return digits


def plain_images(part: ArrayImages, data: ClassData) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 3, H, W) float32 and labels (N,)"""
    return normalise(part.pixels, data.mean, data.std), torch.tensor(part.labels)


def layer_of(name: str) -> int:
    """The layer of a parameter of AFFNET_LIKE: the stem, five blocks, the head; a downsampling leads into its block."""
    if name.startswith("stem"):
        return 0
    if name.startswith("head"):
        return 6
    if name.startswith("final"):
        return 5
    _, stage, kind, block, *_ = name.split(".")
    return 1 + int(stage) + (stage == "3") + (kind == "blocks" and (stage, block) == ("2", "1"))


def make(recipe: Recipe, dtype: torch.dtype) -> nn.Module:
    model = timm.create_model(recipe.model.name, num_classes=10, **recipe.model.args).to(dtype)
    model.register_forward_pre_hook(lambda module, inputs: (inputs[0].to(dtype),))
    return model


def compare(recipe: Recipe, dtype: torch.dtype, out: Path, monkeypatch, tolerance: float, weights_to: float) -> None:
    """Train twice from the same weights, by `fit` and by the plain loop; every number must agree."""
    losses: list[float] = []
    step = TrainingStep.step

    def recorded(self, *inputs):
        outcome = step(self, *inputs)
        losses.append(outcome[0])
        return outcome

    monkeypatch.setattr(TrainingStep, "step", recorded)
    data = small_digits()
    torch.manual_seed(0)
    model = make(recipe, dtype)
    # In float32 rounding would decide images: there both compute with PyTorch's own operations.
    own = definitions() if dtype == torch.float32 else contextlib.nullcontext()
    with own:
        result = fit(recipe, data, out, model=lambda: copy.deepcopy(model), progress=False)
    orders = [torch.from_numpy(permutation(200, recipe.run.seed, epoch)) for epoch in range(3)]
    train, val = (plain_images(part, data) for part in (data.train, data.val))
    with definitions():
        expected, epochs = plain_loop.train(model, recipe, train, val, orders, layer_of)
    assert len(losses) == 18
    assert losses[-1] < losses[0] - 0.3  # it has learnt: the weights are far from where they began
    torch.testing.assert_close(losses, expected, rtol=0, atol=tolerance)
    for row, epoch in zip(result.history, epochs, strict=True):
        one = 1e-9 if dtype == torch.float64 else 100 / len(data.val) + 1e-9  # which some processors' rounding decides
        assert row["val_top1"] == pytest.approx(epoch["val_top1"], abs=one)
        near = 1e-6 if dtype == torch.float64 else 1e-4  # the metric is float32, and so are the weights that differ
        assert row["val_loss"] == pytest.approx(epoch["val_loss"], abs=near)
    kept, _ = load_run(out, model=make(recipe, dtype))
    weights = epochs[result.best["epoch"] - 1]["weights"]
    torch.testing.assert_close(kept.state_dict(), weights, rtol=0, atol=weights_to)


@pytest.mark.parametrize("option", OPTIONS)
def test_loss_curves_coincide_in_float64(tmp_path, monkeypatch, option) -> None:
    recipe = with_values(PLAIN, **OPTIONS[option])
    compare(recipe, torch.float64, tmp_path, monkeypatch, 1e-12, 1e-9)


def test_loss_curves_coincide_in_float32(tmp_path, monkeypatch) -> None:
    compare(PLAIN, torch.float32, tmp_path, monkeypatch, 1e-6, 1e-3)


def test_the_plain_loop_is_plain() -> None:
    """At most 60 lines, and nothing of ours in it."""
    text = Path(plain_loop.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert "tokenmix" not in text
