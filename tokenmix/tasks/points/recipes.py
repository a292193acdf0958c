"""Recipes of points: FFNet's published ones on ScanNet and S3DIS, and that of the embedded rooms."""

from __future__ import annotations

from tokenmix.recipes.parts import Model, Optimizer, Run, Schedule
from tokenmix.recipes.recipe import Recipe, with_values
from tokenmix.tasks.points.options import Augment, PointsOptions

_SOURCE = "github.com/ysj9909/FFNet, commit f3c3e4c: 3d_sem_segmentation/configs/"
_NOTE = "; ours decays no norms and biases, and draws one crop per cloud and epoch"


def ffnet_points_scannet() -> Recipe:
    """FFNet's 3-D network on ScanNet's 20 classes."""
    return Recipe(
        source=f"{_SOURCE}scannet/scannet-ffnet.py{_NOTE}",
        expect="76.5 % mIoU, as its paper's chart has it (of which split is not said); with task.views=scannet",
        cost="4 GPUs (kind and hours unknown)",
        model=Model(name="ffnet_points", drop_path_rate=0.3),
        optimizer=Optimizer(lr=6e-3, weight_decay=0.05),
        schedule=Schedule(name="onecycle", epochs=800, warmup_epochs=40, warmup_lr=6e-4, min_lr=6e-7),
        run=Run(data="scannet", batch_size=12, precision="float16", sync_batchnorm=True),
        task=PointsOptions(voxel=0.02, features=("color", "normal"), block_lr=0.1),
        augment=Augment(name="elastic", max_voxels=102_400, mix=0.8),
    )


def ffnet_points_scannet200() -> Recipe:
    """The same with ScanNet's 200 classes."""
    return with_values(
        ffnet_points_scannet(),
        source=f"{_SOURCE}scannet200/scannet200-ffnet.py{_NOTE}",
        expect="34.5 % mIoU, as its paper's chart has it (of which split is not said); with task.views=scannet",
        data="scannet200",
    )


def ffnet_points_s3dis() -> Recipe:
    """FFNet's 3-D network on S3DIS, whose fifth area is held out; its mixers have ReLU."""
    return with_values(
        ffnet_points_scannet(),
        source=f"{_SOURCE}s3dis/s3dis-ffnet.py{_NOTE}",
        expect="77.1 % mIoU, as its paper's chart has it (area 5 or all six is not said); with task.views=s3dis",
        data="s3dis",
        epochs=3000,
        warmup_epochs=150,
        augment="standard",
        **{"model.args": {"act": "relu"}, "augment.sample_rate": 0.6, "augment.max_voxels": 204_800},
    )


def rooms() -> Recipe:
    """The embedded rooms, synthetic, in minutes on two cores."""
    return Recipe(
        source="ours: the published recipe's form; network, voxels and epochs by what two cores do in minutes",
        expect="89 % mIoU on the test rooms (one seed)",
        cost="10 minutes on two cores",
        model=Model(name="ffnet_points_small", drop_path_rate=0.1),
        optimizer=Optimizer(lr=4e-3, weight_decay=0.05, clip_grad=5.0),
        schedule=Schedule(name="onecycle", epochs=16, warmup_epochs=1.6, warmup_lr=4e-4, min_lr=4e-6),
        run=Run(data="rooms", batch_size=4),
        task=PointsOptions(),
        augment=Augment(name="standard", turn=1.0, jitter=0.003, max_voxels=6_000),
    )


RECIPES = (ffnet_points_scannet, ffnet_points_scannet200, ffnet_points_s3dis, rooms)
