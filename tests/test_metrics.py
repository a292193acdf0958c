"""Metrics against hand-counted values."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tokenmix.metrics import Confusion, TopK


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
    metric, matrix = TopK(), Confusion(4)
    for one in (metric, matrix):
        one.update(logits, {"label": label, "mask": torch.tensor([True, True, True, False])})
    assert metric.compute()["top1"] == pytest.approx(200 / 3)
    assert matrix.matrix() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert matrix.compute() == {"top1": pytest.approx(200 / 3), "balanced_top1": pytest.approx(75.0)}


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


@pytest.mark.parametrize("metric", [TopK(), Confusion(3)])
def test_nothing_seen_is_an_error(metric: TopK | Confusion) -> None:
    with pytest.raises(ValueError, match="nothing was evaluated"):
        metric.compute()


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
