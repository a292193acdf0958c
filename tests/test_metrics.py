"""Metrics against hand-counted values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmix.metrics import Answers, Calibration, TopK


def test_topk_counts_and_loss() -> None:
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0))
    label = torch.arange(40) % 7
    metric = TopK()
    for part in range(0, 40, 16):
        metric.update(logits[part : part + 16], {"label": label[part : part + 16]})
    order = logits.argsort(1, descending=True)
    values = metric.compute()
    assert values["top1"] == pytest.approx(100 * (order[:, 0] == label).double().mean().item())
    assert values["top5"] == pytest.approx(100 * (order[:, :5] == label[:, None]).any(1).double().mean().item())
    assert values["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item(), abs=1e-6)


def test_masked_samples_do_not_count() -> None:
    logits, label = torch.eye(4), torch.tensor([0, 1, 0, 0])
    logits[3] = torch.nan  # padding may hold anything
    metric = TopK()
    metric.update(logits, {"label": label, "mask": torch.tensor([True, True, True, False])})
    assert metric.compute()["top1"] == pytest.approx(200 / 3)


def test_soft_labels_count_as_their_most_probable_class() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    soft = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7]])
    metric = TopK()
    metric.update(logits, {"label": soft})
    values = metric.compute()
    assert (values["top1"], values["top5"]) == (50, 100)
    assert values["loss"] == pytest.approx(-(soft * logits.log_softmax(1)).sum(1).mean().item(), abs=1e-6)


def test_logits_that_are_not_finite_are_wrong() -> None:
    metric = TopK()
    metric.update(torch.full((2, 3), torch.nan), {"label": torch.zeros(2, dtype=torch.int64)})
    assert metric.compute()["top1"] == 0
    assert metric.compute()["top5"] == 0


def test_bfloat16_logits_are_counted() -> None:
    metric = TopK()
    metric.update(torch.eye(3, dtype=torch.bfloat16), {"label": torch.arange(3)})
    assert metric.compute()["top1"] == 100


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was evaluated"):
        TopK().compute()


def test_sums_are_reduced_over_processes_without_changing_the_metric(tmp_path) -> None:
    metric = TopK()
    metric.update(torch.eye(3), {"label": torch.tensor([0, 1, 1])})
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        first = metric.compute()
        assert first == metric.compute()
    finally:
        dist.destroy_process_group()
    assert first["top1"] == pytest.approx(200 / 3)


def reference_ece(shares: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Equation 3 of arXiv:1706.04599, bin by bin."""
    confidence, right = shares.max(1), shares.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return 100 * total


@given(count=st.integers(1, 60), classes=st.integers(1, 12), scale=st.floats(0.01, 20), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_calibration_against_its_definition(count, classes, scale, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    label = torch.randint(classes, (count,), generator=generator)
    metric = Calibration()
    for part in range(0, count, 7):
        metric.update(logits[part : part + 7], {"label": label[part : part + 7]})
    shares = logits.softmax(1).numpy()
    found = metric.compute()
    assert found["ece"] == pytest.approx(reference_ece(shares, label.numpy()), abs=1e-9)
    brier = np.square(shares - np.eye(classes)[label.numpy()]).sum(1).mean()
    assert found["brier"] == pytest.approx(brier, abs=1e-12)


def test_calibration_of_the_surest_answers() -> None:
    metric = Calibration()
    metric.update(torch.tensor([[100.0, 0.0], [100.0, 0.0]]), {"label": torch.tensor([0, 1])})
    assert metric.compute() == {"ece": pytest.approx(50.0), "brier": pytest.approx(1.0)}
    masked = {"label": torch.tensor([0, 0]), "mask": torch.tensor([True, False])}
    metric.update(torch.tensor([[torch.nan, 0.0], [torch.nan, 0.0]]), masked)  # sure and wrong, and padding
    assert metric.compute() == {"ece": pytest.approx(200 / 3), "brier": pytest.approx(4 / 3)}
    with pytest.raises(ValueError, match="nothing was evaluated"):
        Calibration().compute()


def test_answers_are_kept_in_order_without_padding() -> None:
    answers = Answers()
    logits = torch.tensor([[3.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 1.0], [torch.nan, 0.0, 0.0], [0.0, 5.0, 0.0]])
    batch = {
        "label": torch.tensor([0, 0, 2, 0, 0]),
        "index": torch.tensor([7, 2, 5, 1, 2**40]),
        "mask": torch.tensor([True, True, True, True, False]),
    }
    answers.update(logits[:2], {key: value[:2] for key, value in batch.items()})
    answers.update(logits[2:], {key: value[2:] for key, value in batch.items()})
    found = answers.gather()
    assert found.index.tolist() == [1, 2, 5, 7]
    assert found.label.tolist() == [0, 0, 2, 0]
    assert found.prediction.tolist() == [-1, 1, 2, 0]
    shares = logits.double().softmax(1)
    assert found.confidence.tolist() == [1.0, *shares[[1, 2, 0]].max(1).values.tolist()]
    assert found.truth.tolist() == [0.0, shares[1, 0].item(), shares[2, 2].item(), shares[0, 0].item()]
    assert found.worst(5) == [0, 1]
    assert found.worst(1) == [0]
    assert found.confusion() == [(0, -1, 1), (0, 0, 1), (0, 1, 1), (2, 2, 1)]
    assert len(answers.gather().index) == 0


@given(count=st.integers(1, 80), classes=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_confusions_are_counted(count, classes, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator)
    batch = {"label": torch.randint(classes, (count,), generator=generator), "index": torch.arange(count)}
    answers = Answers()
    answers.update(logits, batch)
    found = [[0] * classes for _ in range(classes)]
    for label, told, seen in answers.gather().confusion():
        found[label][told] = seen
    counted = np.zeros((classes, classes), int)
    np.add.at(counted, (batch["label"].numpy(), logits.argmax(1).numpy()), 1)
    assert found == counted.tolist()
