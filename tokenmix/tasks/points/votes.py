"""Test-time votes: every point is seen in several fragments and views of its cloud, and their probabilities add up.

Source: Pointcept's testing. A fragment has one point of each voxel; there are as many as the fullest voxel has points,
so that each point is in at least one, and those of emptier voxels are in several. A view is the cloud turned, scaled or
mirrored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokenmix.tasks.points.augment import rotation
from tokenmix.tasks.points.cloud import Cloud, VoxelTable, features_of, floor_centre
from tokenmix.tasks.points.model import PointUNet

MOST_FRAGMENTS = 1_000  # of one view: a cloud that needs more has a voxel with a thousand points


@dataclass(frozen=True)
class View:
    """How a cloud is seen.

    Attributes:
        turn: Degrees about the vertical axis.
        scale: Factor on the coordinates.
        flip: Mirrored along x and y.
    """

    turn: float = 0.0
    scale: float = 1.0
    flip: bool = False

    def of(self, cloud: Cloud) -> Cloud:
        """The cloud seen so, about the middle of its floor."""
        matrix = rotation(2, math.radians(self.turn))
        if self.flip:
            matrix = np.diag([-1.0, -1.0, 1.0]) @ matrix
        coord = ((cloud.coord - floor_centre(cloud.coord)) @ (matrix.T * self.scale)).astype(np.float32)
        normal = None if cloud.normal is None else (cloud.normal @ matrix.T).astype(np.float32)
        return dataclasses.replace(cloud, coord=coord, normal=normal)


# The views of FFNet's published tests, and the cloud as it is.
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "scannet": (*(View(90.0 * turn, scale) for scale in (1.0, 0.95, 1.05) for turn in range(4)), View(flip=True)),
    "s3dis": tuple(View(scale=scale, flip=flip) for flip in (False, True) for scale in (0.9, 0.95, 1.0, 1.05, 1.1)),
}


def look(model: PointUNet, cloud: Cloud, features: Sequence[str], voxel: float, views: str) -> Tensor:
    """(P, K) probabilities of a cloud's points, by one of the names in `tokenmix.tasks.points.options.VIEWS`."""
    if views == "quick":
        return vote(model, cloud, features, voxel, most=1)
    return vote(model, cloud, features, voxel, VIEWS[views])


def fragments(cloud: Cloud, voxel: float, most: int = MOST_FRAGMENTS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The points (V,) of each fragment, and their voxels (V, 3).

    Args:
        cloud: Which.
        voxel: Side of a voxel in metres.
        most: Not more fragments than this; points beyond that number in their voxel are in none.
    """
    table = VoxelTable.of(cloud.coord, voxel)
    for turn in range(min(int(table.counts.max()), most)):
        rows = table.pick(np.full(len(table.counts), turn))
        yield rows, table.grid[rows]


@torch.no_grad()
def vote(
    model: PointUNet,
    cloud: Cloud,
    features: Sequence[str],
    voxel: float,
    views: Sequence[View] = VIEWS["none"],
    *,
    most: int = MOST_FRAGMENTS,
) -> Tensor:
    """(P, K) probabilities of a cloud's points, on the CPU: the mean over all fragments and views that they are in.

    A point that is in no fragment gets its voxel's answer.

    Args:
        model: In evaluation mode.
        cloud: Which.
        features: What the model reads.
        voxel: Side of a voxel in metres.
        views: How the cloud is seen.
        most: Fragments of a view.
    """
    device = next(model.parameters()).device
    total = torch.zeros(len(cloud), model.num_classes)
    for view in views:
        seen = view.of(cloud)
        feat, table = features_of(seen, features), VoxelTable.of(seen.coord, voxel)
        voxel_sum = torch.zeros(len(table.counts), model.num_classes)
        counted = torch.zeros(len(cloud), dtype=torch.bool)
        for rows, grid in fragments(seen, voxel, most):
            inputs = torch.from_numpy(feat[rows]), torch.from_numpy(grid), torch.tensor([len(rows)])
            logits = model(*(part.to(device) for part in inputs))
            probability = logits.float().softmax(1).cpu()
            where = torch.from_numpy(rows)
            total[where] += probability  # a fragment has each point once
            counted[where] = True
            voxel_sum += probability  # fragments have the voxels in one order
        left = ~counted
        total[left] += voxel_sum[torch.from_numpy(table.voxel)][left]
    return total / total.sum(1, keepdim=True)
