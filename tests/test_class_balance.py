"""Classes out of balance: what their weights, their order and their scores are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

from tests.train_toys import toy_data, toy_model, toy_recipe
from tokenmix.metrics import ClassScores
from tokenmix.tasks.classification.balance import Weighting, balanced_order
from tokenmix.tasks.classification.objective import ClassificationObjective
from tokenmix.train import fit


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, told = rng.choice(5, 60, p=[0.5, 0.3, 0.1, 0.1, 0.0]), rng.integers(0, 4, 60)
    metric = ClassScores(5)
    for begin in (0, 25):
        rows = slice(begin, begin + 25 if not begin else None)
        logits = torch.nn.functional.one_hot(torch.from_numpy(told[rows]), 5).float()
        mask = torch.ones(len(logits) + 1, dtype=torch.bool)
        mask[-1] = False
        batch = {"label": torch.cat((torch.from_numpy(labels[rows]), torch.zeros(1, dtype=torch.int64))), "mask": mask}
        metric.update(torch.cat((logits, torch.ones(1, 5))), batch)
    found = metric.compute()
    assert found["top1"] == pytest.approx(100 * (labels == told).mean())
    assert found["balanced_top1"] == pytest.approx(100 * balanced_accuracy_score(labels, told))
    named = sorted({*labels.tolist(), *told.tolist()})
    assert found["macro_f1"] == pytest.approx(100 * f1_score(labels, told, average="macro", labels=named))


def test_weights_by_the_root_of_rarity() -> None:
    labels = [0] * 90 + [1] * 10
    weighting = Weighting(labels, 2)
    batch = weighting({"label": torch.tensor([0, 1])})
    common, rare = batch["weight"].tolist()
    assert rare / common == pytest.approx(3.0)
    assert (90 * common + 10 * rare) / 100 == pytest.approx(1.0)
    mixed = weighting({"label": torch.tensor([[0.5, 0.5]])})
    assert mixed["weight"].item() == pytest.approx((common + rare) / 2)


def test_weights_count_in_the_loss() -> None:
    objective = ClassificationObjective(toy_model().eval(), num_classes=3)
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
    single = [
        objective({"image": batch["image"][i : i + 1], "label": batch["label"][i : i + 1]})["loss"] for i in range(4)
    ]
    weight = torch.tensor([1.0, 2.0, 0.5, 0.0])
    found = objective({**batch, "weight": weight})["loss"]
    torch.testing.assert_close(found, (torch.stack(single) * weight).mean())


def test_all_classes_come_equally_often() -> None:
    labels = [0] * 70 + [1] * 20 + [2] * 3
    order = balanced_order(labels, 5, 0)
    assert len(order) == 93
    assert Counter(labels[row] for row in order) == {0: 31, 1: 31, 2: 31}
    assert order.tolist() == balanced_order(labels, 5, 0).tolist()
    assert sorted(order) != sorted(balanced_order(labels, 5, 1))
    assert len({row for row in order.tolist() if labels[row] == 0}) == 31


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_training_with_it(tmp_path, balance: str) -> None:
    data = toy_data()
    data.train.labels[:30] = [0] * 30
    result = fit(toy_recipe(epochs=1, balance=balance), data, tmp_path, model=toy_model, progress=False)
    assert result.history[0]["loss"] > 0


def test_mirrored_predictions_are_the_mean_of_both() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
    image = torch.randn(4, 3, 8, 8)
    wanted = (model(image).softmax(1) + model(image.flip(-1)).softmax(1)) / 2
    found = ClassificationObjective(model, num_classes=3, mirror=True).predict({"image": image})
    torch.testing.assert_close(found.softmax(1), wanted)
