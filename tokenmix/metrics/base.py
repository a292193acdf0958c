"""What every metric is: sums that are added up on the device and read once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Metric(ABC):
    """A running sum over batches.

    The sum is one tensor, so that several processes need one all-reduce; it follows the predictions to their device,
    so that no batch waits for a number to come back.

    Args:
        size: Shape of the tensor of sums.
        dtype: Its type; counts of samples stay exact in float64 up to 2**53.

    Examples:
        >>> class Seen(Metric):
        ...     def update(self, prediction, batch):
        ...         self.add(batch["mask"].sum().double())
        ...     def compute(self):
        ...         return {"seen": self.total().item()}
        >>> seen = Seen(())
        >>> seen.update(None, {"mask": torch.tensor([True, True, False])})
        >>> seen.compute()
        {'seen': 2.0}
    """

    def __init__(self, size: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        self.sums = torch.zeros(size, dtype=dtype)

    @abstractmethod
    def update(self, prediction: Any, batch: dict[str, Any]) -> None:
        """Add one batch; entries whose ``batch["mask"]`` is False are left out."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The numbers over everything seen so far, by all processes together.

        Raises:
            ValueError: Nothing was seen.
        """

    def add(self, value: Tensor) -> None:
        """Add ``value``, of the sums' shape, to the sums."""
        if self.sums.device != value.device:
            self.sums = self.sums.to(value.device)
        self.sums += value

    def total(self) -> Tensor:
        """The sums of all processes, on the CPU; the metric's own sums stay as they are."""
        sums = self.sums.clone()
        if dist.is_available() and dist.is_initialized():
            if dist.get_backend() == "nccl":
                sums = sums.cuda()  # a process that saw no batch still has its zeros on the CPU
            dist.all_reduce(sums)
        return sums.cpu()
