"""Batches of windows: all that a part of a series has, cut from its rows by look-back and horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tokenmix.data.dataset import Samples
from tokenmix.data.loader import Batch, BatchLoader, Key, Step
from tokenmix.tasks.forecasting.series_data import SeriesRows
from tokenmix.tasks.forecasting.splits import Scaler, Windows

LEAST = 2  # windows of a process in a step: a batch norm needs more than one value


class WindowSamples(Samples):
    """The windows of a part as samples; the name of one is asked of the rows.

    Args:
        windows: They.
    """

    def __init__(self, windows: Windows) -> None:
        super().__init__([])
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)


class WindowBatches(Dataset):
    """``batches[key]``: ``past`` (B, L, M) and ``future`` (B, H, M), normalised, and of how many ``windows`` (B,)."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __getitem__(self, key: Key) -> Batch:
        index = torch.tensor(key.indices)
        past, future = self.windows.batch(index)
        return {
            "past": past,
            "future": future,
            "windows": torch.full_like(index, len(self.windows)),
            "mask": torch.arange(len(index)) < key.real,
            "index": index,
        }


class WindowLoader(BatchLoader):
    """A loader whose epochs have the last, smaller batch in training too, as the official one; see `BatchLoader`."""

    def steps(self, epoch: int) -> list[Step]:
        steps = super().steps(epoch)
        if self.train and len(self.samples) - steps[-1].end >= LEAST * self.world:
            steps.append(Step(self.shape, steps[-1].end, len(self.samples)))
        return steps


def window_loader(
    rows: SeriesRows,
    scaler: Scaler,
    look_back: int,
    horizon: int,
    *,
    batch_size: int,
    train: bool,
    seed: int = 0,
    **share: Any,
) -> WindowLoader:
    """Windows of a part of a series.

    Args:
        rows: The part; the past of its first windows may lie before it.
        scaler: Normalises.
        look_back: Past rows of a window, L.
        horizon: Future rows, H.
        batch_size: Of all processes together.
        train: In an order by seed and epoch, not in time's.
        seed: Of the order.
        **share: ``workers``, ``rank`` and ``world``.

    Raises:
        ValueError: The part is too short for one window.
    """
    values = torch.from_numpy(scaler.normalize(rows.series.values).astype(np.float32))
    try:
        windows = Windows(values, max(rows.first - look_back, 0), rows.end, look_back, horizon)
    except ValueError as error:
        raise ValueError(f"{rows.title}: {error}") from None
    return WindowLoader(
        WindowSamples(windows), WindowBatches(windows), batch_size=batch_size, train=train, seed=seed, **share
    )
