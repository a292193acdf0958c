"""Clouds as a network takes them: samples, and batches of flat coordinates with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tokenmix.data.loader import Batch, BatchLoader, Key
from tokenmix.tasks.points.augment import Draws, augmented, voxelised
from tokenmix.tasks.points.cloud import IGNORED, Cloud, VoxelTable, features_of
from tokenmix.tasks.points.options import CloudAugment
from tokenmix.tasks.points.sets import CloudSet


@dataclass(frozen=True)
class Sample:
    """One cloud, ready for a network.

    Attributes:
        feat: (V, F) float32, what the network sees of each voxel.
        grid: (V, 3) int64, the voxels.
        segment: (V,) int64, their classes.
        mix: In training, whether a batch that begins with this cloud is mixed.
        rows: In evaluation (P,) int64, the voxel of each of the cloud's points.
        truth: In evaluation (P,) int64, the class of each point.
    """

    feat: NDArray[np.float32]
    grid: NDArray[np.int64]
    segment: NDArray[np.int64]
    mix: bool = False
    rows: NDArray[np.int64] | None = None
    truth: NDArray[np.int64] | None = None


def training_sample(
    cloud: Cloud, features: Sequence[str], voxel: float, augment: CloudAugment, *, seed: int, epoch: int, index: int
) -> Sample:
    """The cloud changed at random, one point for each voxel.

    Args:
        cloud: With labels or without.
        features: Of `tokenmix.tasks.points.cloud.FEATURES`.
        voxel: Side of a voxel in metres.
        augment: What is changed.
        seed: Of the run.
        epoch: Of the run.
        index: Of the cloud.
    """
    draws = Draws(seed, epoch, index)
    picked, grid = voxelised(augmented(cloud, augment, draws), voxel, augment, draws)
    mix = bool(draws.uniform("mix")[0] < augment.mix)
    return Sample(features_of(picked, features), grid - grid.min(0), _segment(picked), mix)


def whole_sample(cloud: Cloud, features: Sequence[str], voxel: float) -> Sample:
    """The whole cloud for evaluation: the first point stands for each voxel, and its answer counts for all of them."""
    table = VoxelTable.of(cloud.coord, voxel)
    rows = table.pick(np.zeros(len(table.counts), np.int64))
    feat = features_of(cloud, features)[rows]
    truth = _segment(cloud)
    return Sample(feat, table.grid[rows], truth[rows], rows=table.voxel, truth=truth)


def _segment(cloud: Cloud) -> NDArray[np.int64]:
    return np.full(len(cloud), IGNORED) if cloud.segment is None else cloud.segment


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """A batch: ``feat`` (V, F), ``grid_coord`` (V, 3), ``segment`` (V,), ``offset`` (B,), of all clouds one by one.

    In evaluation also ``rows`` and ``label``, lists of the voxel, counted within its cloud, and the class of each
    point. Where the first sample says so, clouds are mixed two by two: they lie in one another as one cloud.
    """
    ends = np.cumsum([len(sample.feat) for sample in samples])
    if samples[0].mix and len(ends) > 1:
        ends = np.unique(np.append(ends[1::2], ends[-1]))
    batch: dict[str, Any] = {
        "feat": _joined([sample.feat for sample in samples]),
        "grid_coord": _joined([sample.grid for sample in samples]),
        "segment": _joined([sample.segment for sample in samples]),
        "offset": torch.from_numpy(ends.astype(np.int64)),
    }
    if all(sample.rows is not None and sample.truth is not None for sample in samples):
        batch["rows"] = [torch.from_numpy(sample.rows) for sample in samples]
        batch["label"] = [torch.from_numpy(sample.truth) for sample in samples]
    return batch


def _joined(parts: Sequence[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts))


class CloudBatches(Dataset):
    """``batches[key]`` is a batch of `collate` with ``index`` and ``mask``; the same in this process and in workers.

    Args:
        clouds: The set.
        features: What the network reads of a point.
        voxel: Side of a voxel in metres.
        augment: What training changes; None for evaluation.
        seed: Of the changes.
        whole: In evaluation, whether batches have the clouds themselves too, as dicts of tensors in ``cloud``.
    """

    def __init__(
        self,
        clouds: CloudSet,
        *,
        features: Sequence[str],
        voxel: float,
        augment: CloudAugment | None = None,
        seed: int = 0,
        whole: bool = False,
    ) -> None:
        self.clouds, self.features, self.voxel = clouds, tuple(features), voxel
        self.augment, self.seed, self.whole = augment, seed, whole

    def __getitem__(self, key: Key) -> Batch:
        clouds = [self.clouds.load(index) for index in key.indices]
        if self.augment is None:
            samples = [whole_sample(cloud, self.features, self.voxel) for cloud in clouds]
        else:
            samples = [
                training_sample(
                    cloud, self.features, self.voxel, self.augment, seed=self.seed, epoch=key.epoch, index=index
                )
                for cloud, index in zip(clouds, key.indices, strict=True)
            ]
        batch = collate(samples)
        if self.whole:
            batch["cloud"] = [_tensors(cloud) for cloud in clouds]
        return batch | {
            "mask": torch.arange(len(clouds)) < key.real,
            "index": torch.tensor(key.indices, dtype=torch.int64),
        }


def _tensors(cloud: Cloud) -> dict[str, Tensor]:
    """A cloud's columns without its labels."""
    parts = {name: getattr(cloud, name) for name in ("coord", "color", "normal", "strength")}
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in parts.items() if value is not None}


def cloud_loader(
    clouds: CloudSet, *, batch_size: int, train: bool, seed: int = 0, share: Any, **kind: Any
) -> BatchLoader:
    """Batches of a set of clouds; ``kind`` are arguments of `CloudBatches`, ``share`` the loader's of processes."""
    maker = CloudBatches(clouds, seed=seed, **kind)
    return BatchLoader(clouds, maker, batch_size=batch_size, train=train, seed=seed, **share)
