"""The classification task and the evaluation loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tokenmix.evaluate import evaluate
from tokenmix.tasks import find_task, to_device
from tokenmix.tasks.classification.objective import ClassificationObjective


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(12, 3), nn.Linear(12, 3)

    def forward(self, x):
        x = x.flatten(1)
        if self.training:
            return self.one(x), self.two(x)
        return (self.one(x) + self.two(x)) / 2


def batch(size: int = 6, *, soft: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.arange(size) % 3
    return {
        "image": torch.randn(size, 3, 2, 2, generator=generator),
        "label": torch.rand(size, 3, generator=generator).softmax(1) if soft else label,
        "mask": torch.ones(size, dtype=torch.bool),
        "index": torch.arange(size),
    }


class Batches:
    def __init__(self, *parts) -> None:
        self.parts = parts

    def batches(self, epoch: int, start: int = 0):
        yield from self.parts[start:]


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_torchs(soft: bool, smoothing: float) -> None:
    task, data = ClassificationObjective(linear(), num_classes=3, label_smoothing=smoothing), batch(soft=soft)
    wanted = F.cross_entropy(task.model(data["image"]), data["label"], label_smoothing=smoothing)
    torch.testing.assert_close(task(data)["loss"], wanted)


def test_masked_samples_have_no_part_in_the_loss() -> None:
    task, data = ClassificationObjective(linear(), num_classes=3), batch()
    data["mask"] = torch.tensor([True, True, False, False, False, False])
    part = {key: value[:2] for key, value in data.items()}
    torch.testing.assert_close(task(data)["loss"], task(part)["loss"])


def test_two_heads() -> None:
    torch.manual_seed(0)
    task, data = ClassificationObjective(TwoHeads(), num_classes=3), batch()
    one, two = task.model(data["image"])
    wanted = (F.cross_entropy(one, data["label"]) + F.cross_entropy(two, data["label"])) / 2
    torch.testing.assert_close(task(data)["loss"], wanted)
    torch.testing.assert_close(task.predict(data), (one + two) / 2)
    torch.testing.assert_close(task.eval().predict(data), (one + two) / 2)


def test_wrong_number_of_classes_names_the_remedy() -> None:
    with pytest.raises(ValueError, match="num_classes=4"):
        ClassificationObjective(linear(), num_classes=4)(batch())
    with pytest.raises(ValueError, match="label_smoothing"):
        ClassificationObjective(linear(), num_classes=3, label_smoothing=1.0)


def test_evaluation_restores_every_mode_and_needs_no_gradient() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3))
    model[1].eval()  # frozen statistics stay frozen
    task = ClassificationObjective(model, num_classes=3).train()
    before = [module.training for module in task.modules()]
    first = evaluate(task, Batches(batch(), batch(3)))
    assert first == evaluate(task, Batches(batch(), batch(3)))
    assert [module.training for module in task.modules()] == before
    with pytest.raises(ValueError, match="nothing was evaluated"):
        evaluate(task, Batches())


def test_evaluation_restores_the_mode_after_an_error() -> None:
    task = ClassificationObjective(linear(), num_classes=4).train()
    with pytest.raises(ValueError, match="num_classes=4"):
        evaluate(task, Batches(batch()))
    assert task.training
    assert task.model.training


def test_the_answers_of_an_evaluation() -> None:
    objective, data, more = ClassificationObjective(linear(), num_classes=3), batch(), batch(3)
    data["mask"][-1] = False
    more["index"] += 6
    judging = find_task("classification").judging(objective.metric(), {"classes": ["a", "b", "c"]})
    evaluate(objective, Batches(data, more), witnesses=judging.witnesses, metric=judging.metric)
    judging.finish()
    shares = torch.cat([objective.model(part["image"]) for part in (data, more)]).double().softmax(1)
    kept = [0, 1, 2, 3, 4, 6, 7, 8]
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 1, 2])
    assert judging.answered.index.tolist() == kept
    assert torch.equal(judging.answered.label, labels)
    assert torch.equal(judging.answered.prediction, shares[kept].argmax(1))
    torch.testing.assert_close(judging.answered.confidence, shares[kept].amax(1).detach())
    torch.testing.assert_close(judging.answered.truth, shares[kept].gather(1, labels[:, None])[:, 0].detach())
    assert sum(row["images"] for row in judging.rows()) == len(kept)


def test_to_device_copies_the_dict_and_sets_the_layout() -> None:
    data = batch() | {"name": ["a"]}
    moved = to_device(data, "cpu", channels_last=True)
    assert moved is not data
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert moved["name"] == ["a"]
