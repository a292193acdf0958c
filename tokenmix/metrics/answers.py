"""What a classifier answered to each image, of all processes together, each image once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tokenmix.metrics.classification import classes_of, counted


@dataclass(frozen=True)
class GatheredAnswers:
    """One entry per image, in the order of the data set, on the CPU.

    Attributes:
        index: (N,) int64, the place in the set.
        label: (N,) int64.
        prediction: (N,) int64; -1, with the confidence 1, where the logits are not finite.
        confidence: (N,) float64, the prediction's softmax probability.
        truth: (N,) float64, the label's softmax probability.

    Examples:
        >>> label, told, sure = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), torch.tensor([0.9, 0.8, 0.7]).double()
        >>> answers = GatheredAnswers(torch.arange(3), label, told, sure, sure)
        >>> answers.worst(1), answers.confusion()
        ([1], [(0, 0, 1), (1, 0, 1), (1, 1, 1)])
    """

    index: Tensor
    label: Tensor
    prediction: Tensor
    confidence: Tensor
    truth: Tensor

    def worst(self, count: int) -> list[int]:
        """The rows of the most confident wrong answers; at a tie the first ones."""
        wrong = (self.prediction != self.label).nonzero()[:, 0]
        order = self.confidence[wrong].argsort(descending=True, stable=True)
        return wrong[order[:count]].tolist()

    def confusion(self) -> list[tuple[int, int, int]]:
        """(label, prediction, images) of the pairs that occur, sorted: the confusion matrix without its zeros."""
        pairs, counts = torch.stack((self.label, self.prediction), dim=1).unique(dim=0, return_counts=True)
        return [(label, told, count) for (label, told), count in zip(pairs.tolist(), counts.tolist(), strict=True)]


class Answers:
    """Keeps the answers of a pass over a data set: 48 bytes an image, on the device until all are gathered.

    Examples:
        >>> answers = Answers()
        >>> batch = {"label": torch.tensor([1, 0]), "index": torch.tensor([1, 0])}
        >>> answers.update(torch.tensor([[0.0, 9.0], [0.0, 9.0]]), batch)
        >>> gathered = answers.gather()
        >>> gathered.prediction == gathered.label
        tensor([False,  True])
    """

    def __init__(self) -> None:
        self.parts: list[Tensor] = []

    def update(self, prediction: Tensor, batch: dict[str, Any]) -> None:
        """Note a batch of logits (B, K), its ``label`` (B,) or (B, K), ``index`` (B,) and ``mask`` (B,)."""
        label = classes_of(batch["label"])
        logits = prediction.detach().double()
        lost = ~logits.isfinite().all(1)
        shares = logits.softmax(1)
        confidence, answer = shares.max(1)
        confidence, answer = confidence.masked_fill(lost, 1.0), answer.masked_fill(lost, -1)
        truth = shares.gather(1, label[:, None])[:, 0].masked_fill(lost, 0.0)
        columns = (batch["index"], label, answer, confidence, truth, counted(prediction, batch))
        self.parts.append(torch.stack([column.double() for column in columns], dim=1))  # whole numbers stay exact

    def gather(self) -> GatheredAnswers:
        """All answers of all processes, without the padding; every process must call this, and the list is emptied."""
        rows = torch.cat(self.parts) if self.parts else torch.zeros(0, 6, dtype=torch.float64)
        self.parts = []
        if dist.is_available() and dist.is_initialized():
            rows = _of_all(rows)
        rows = rows.cpu()
        rows = rows[rows[:, 5] > 0]
        rows = rows[rows[:, 0].argsort(stable=True)]
        index, label, prediction = rows[:, :3].long().unbind(1)
        return GatheredAnswers(index, label, prediction, rows[:, 3], rows[:, 4])


def _of_all(rows: Tensor) -> Tensor:
    """The rows (N, 6) of every process, one after the other."""
    if dist.get_backend() == "nccl":
        rows = rows.cuda()  # a process that saw no batch has made its rows on the CPU
    longest = torch.tensor(len(rows), device=rows.device)
    dist.all_reduce(longest, dist.ReduceOp.MAX)
    padded = torch.cat((rows, rows.new_zeros(int(longest) - len(rows), 6)))
    parts = [torch.empty_like(padded) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, padded)
    return torch.cat(parts)
