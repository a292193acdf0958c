"""Normals of a cloud that came without, for models that read them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from tokenmix.ops.sparse import Voxels, convolve, pool
from tokenmix.tasks.points.cloud import Cloud, grid_of


def estimate_normals(cloud: Cloud, voxel: float = 0.05) -> Cloud:
    """The cloud with normals: those of the plane through the points in the 27 voxels around each.

    They point to the middle of the cloud, as those of a scanned room do. A point with too few neighbours for a plane
    has a normal all the same, of no meaning.

    Args:
        cloud: Which; normals that it has are replaced.
        voxel: Side of a voxel in metres: a third of the plane's side.
    """
    grid = torch.from_numpy(grid_of(cloud.coord, voxel))
    voxels, points = Voxels.of(grid, torch.zeros_like(grid[:, 0]), 1)
    coord = torch.from_numpy(cloud.coord).double()
    middle = coord.mean(0)
    x = coord - middle
    moments = torch.cat((torch.ones_like(x[:, :1]), x, (x[:, :, None] * x[:, None, :]).flatten(1)), 1)  # (P, 13)
    ones = torch.ones(13, 3, 3, 3, dtype=torch.float64)
    around = convolve(pool(moments, points, "sum"), ones, None, voxels.neighbours(3))
    mean, square = (part / around[:, :1] for part in (around[:, 1:4], around[:, 4:]))
    spread = square.view(-1, 3, 3) - mean[:, :, None] * mean[:, None, :]
    normal = torch.linalg.eigh(spread).eigenvectors[:, :, 0]  # of the least eigenvalue, (V, 3)
    low, high = coord.amin(0), coord.amax(0)
    inwards = (low + high) / 2 - middle - mean
    normal = torch.where((normal * inwards).sum(1, keepdim=True) < 0, -normal, normal)
    return dataclasses.replace(cloud, normal=normal[points.group].numpy().astype(np.float32))
